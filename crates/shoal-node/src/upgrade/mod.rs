//! One process takes the place of another on the same data directory, and nobody outside notices.
//!
//! The running process starts the new one and stays in charge until that one has shown that it could serve what is served
//! now ([`Message::Prepared`]). Only one process may have the log open, so then, and not before, the running one hands
//! leadership on, ends its gossip and its servers, closes the log and gives up the directory; its workers serve on all the
//! while. It passes every listening socket ([`Message::Socket`]): connections that come in meanwhile wait in the queues of
//! sockets that never close. The new process opens the log, accepts, and says so ([`Message::Serving`]); the old one
//! drains. What its last requests change it tells the new process as it tells other nodes, and what they want purged it
//! proposes there; of what it had stored it serves nothing any more. A new process that fails before it is given anything
//! changes nothing; one that fails later is replaced by a fresh process of the old binary, in the same way.

mod door;
mod predecessor;
mod sockets;
mod successor;
mod wire;

use serde::{Deserialize, Serialize};

pub use door::{AskError, Asked, Door, ask};
pub use predecessor::{Handed, hand_over};
pub use sockets::{Inherited, NodeSockets};
pub use successor::Successor;

/// What the two processes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    /// From the new one: the arguments, the identity and the last known site are understood.
    Prepared,
    /// From the old one, with a descriptor.
    Socket(Role),
    /// From the old one: that was all, log and directory are free.
    TakeOver,
    /// From the new one: it accepts.
    Serving,
    /// From the new one: it gives up.
    Failed(String),
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Role {
    Site,
    Cluster,
    Gossip,
    Admin,
    Ops,
    LocalAdmin,
    Door,
    /// Only passed where both have been told of the address.
    DnsUdp,
    DnsTcp,
}

/// How an upgrade ended, for whoever asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The process with this id serves, the one that was asked drains.
    Upgraded(u32),
    /// Nothing has changed.
    Refused(String),
    /// The new process failed late: a fresh process of the old binary, with this id, serves.
    RolledBack(u32, String),
    /// The node is on its way out, and its supervisor starts it again.
    Lost(String),
}
