//! Consensus traffic: RPCs to other nodes, and the service that answers theirs.

mod believable;
mod client;
mod directory;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod heard;
mod parts;
mod server;
mod wire;

/// The way to other nodes; in the simulation there is no wire.
#[cfg(test)]
pub use crate::simulation::{PeerChannel, Peers};
#[cfg(not(test))]
pub use shoal_cluster::channel::{PeerChannel, Peers};

pub use believable::next_of;
pub use client::Dialer;
pub use directory::Directory;
pub use heard::Heard;
pub use parts::{Part, collect};
pub use server::RaftRpc;
pub use wire::{MAX_ENTRY_BYTES, decode, encode, entry_bytes};
