//! Who the other nodes are and what they say: identity, gossip, peer channels.

pub mod view;

pub use view::{ClusterView, EndpointState, NodeState, NodeView};
