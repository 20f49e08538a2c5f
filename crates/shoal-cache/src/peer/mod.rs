//! Objects on their way from node to node: HTTP/1.1 over mutual TLS on the cluster address.

pub(crate) mod client;
mod intake;
pub(crate) mod intake_room;
mod link;
pub(crate) mod replicas;
mod reply;
mod server;
mod under_way;
mod warming;
pub(crate) mod wire;

pub use link::ClusterLink;
