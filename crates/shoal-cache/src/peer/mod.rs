//! Objects on their way from node to node: HTTP/1.1 over mutual TLS on the cluster address.

pub(crate) mod client;
mod link;
pub(crate) mod replicas;
pub(crate) mod server;
pub(crate) mod wire;

pub use link::ClusterLink;
