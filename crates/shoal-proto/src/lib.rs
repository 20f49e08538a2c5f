//! Generated gRPC messages and their conversions. The operator's messages also serialize under their proto names,
//! which is what `-o json` prints.

mod exit;
mod names;

pub use exit::{EXIT_METADATA, Exit, NODE_METADATA, REVISION_METADATA};

/// Bytes of a message of the operator's API, both ways: the largest site as JSON, with room to spare.
pub const MAX_ADMIN_MESSAGE: usize = 128 << 20;

/// The operator's API.
#[allow(missing_docs, clippy::large_futures, unused_qualifications)]
pub mod admin {
    tonic::include_proto!("shoal.admin.v1");
}

/// The calls of the operator's API as an enum: whoever decides about each of them has to decide about a new one, too.
pub mod calls {
    include!(concat!(env!("OUT_DIR"), "/admin_calls.rs"));
}

/// The sharded cache index.
#[allow(missing_docs, clippy::large_futures, unused_qualifications)]
pub mod cache {
    tonic::include_proto!("shoal.cache.v1");
}

/// Consensus and node-to-node traffic.
#[allow(missing_docs, clippy::large_futures, unused_qualifications)]
pub mod raft {
    tonic::include_proto!("shoal.raft.v1");
}
