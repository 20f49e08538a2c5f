//! The cluster address: gRPC and cache bodies from other nodes, over mutual TLS on one TCP port.

mod listener;
mod rpc;

pub use listener::{PeerListener, serve};
pub use rpc::PeerRpc;
