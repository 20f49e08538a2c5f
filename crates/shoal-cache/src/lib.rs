//! Objects here and elsewhere: store, fills, peers, purges.

mod body;
mod lookup;
mod node;
mod seam;
mod worker;

pub use body::CacheBody;
pub use lookup::Probe;
pub use node::{Cache, Counters};
pub use seam::{
    Answer, Bypass, CacheRequest, CacheSettings, Fetch, FetchFuture, Lookup, OriginBody, PeerIo, PeerLink,
};
pub use worker::{FillJob, WorkerCache};
