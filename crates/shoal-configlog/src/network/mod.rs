//! Consensus traffic: RPCs to other nodes, and the service that answers theirs.

mod client;
mod directory;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod heard;
mod server;
mod wire;

pub use client::Dialer;
pub use directory::Directory;
pub use heard::Heard;
pub use server::RaftRpc;
pub use wire::{MAX_ENTRY_BYTES, decode, encode, entry_bytes};
