//! Who the other nodes are and what they say: identity, gossip, peer channels.

pub mod channel;
pub mod gossip;
pub mod health;
pub mod identity;
pub mod join;
pub mod tls;
pub mod view;

pub use channel::{Lane, PeerChannel, Peers};
pub use gossip::{Gossip, GossipSettings};
pub use identity::{
    ClientCertificate, Identity, inspect_authorities, inspect_certificate, inspect_client_auth,
    inspect_staple,
};
pub use join::Token;
pub use view::{ClusterView, EndpointState, NodeState, NodeView};
