//! Objects here and elsewhere: store, fills, peers, purges.
//!
//! A request meets [`WorkerCache::hit`] first: the store of this node, without waiting. What that leaves open goes to
//! [`WorkerCache::answer`]: one fill per object and node, fed by the owner of the object or, on the owner, by the origin.

mod answer;
mod boarding;
mod body;
mod cell;
mod change;
mod chunks;
mod clock;
mod conditions;
mod counters;
mod disk;
mod disk_reader;
mod dispatch;
mod entropy;
mod fetch_times;
mod fetch_trace;
mod fill;
mod filling;
mod freshen;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handover;
mod holdings;
mod hot;
mod hottest;
mod index;
mod keeping;
mod lookup;
mod node;
mod object;
mod orphans;
mod peer;
mod placement;
mod portion;
mod promotion;
mod purges;
mod recent;
mod relay;
mod reminders;
mod residents;
mod respond;
mod rest;
mod seam;
mod search;
mod store;
mod stored_body;
mod sweep;
mod task;
mod telling;
mod variants;
mod worker;

pub use body::{CacheBody, OriginBody};
pub use change::{PendingChange, Sent};
pub use counters::Counters;
pub use disk::{DiskSettings, LEAST_DISK_BYTES, distrust_disk};
pub use dispatch::FillJob;
pub use fetch_times::{BOUNDS_US, FetchTimes};
pub use fetch_trace::{FetchNotes, FetchTrace};
pub use filling::Shown;
pub use hot::Ready;
pub use lookup::Probe;
pub use node::Cache;
pub use peer::ClusterLink;
pub use relay::{RelaySender, relay};
pub use seam::{
    Answer, Bypass, CacheRequest, CacheSettings, Change, Changed, Fetch, FetchFuture, LinkFuture, Lookup,
    PeerIo, PeerLink, UnconfirmedChange, UntilClose,
};
pub use worker::WorkerCache;
