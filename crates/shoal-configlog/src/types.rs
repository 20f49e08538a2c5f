//! The types openraft is parameterised with, under short names.

use openraft::type_config::alias;
use shoal_model::state::{Command, Reply};

/// What openraft takes its tasks, clocks and dice from.
#[cfg(not(test))]
pub type Runtime = openraft::impls::TokioRuntime;
#[cfg(test)]
pub type Runtime = crate::simulation::Seeded;

openraft::declare_raft_types!(
    /// Commands in, replies out, node ids as plain numbers, nodes with the address they were added under.
    pub TypeConfig:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = openraft::BasicNode,
        AsyncRuntime = Runtime,
);

pub type Entry = alias::EntryOf<TypeConfig>;
pub type LogId = alias::LogIdOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub type IoFlushed = openraft::storage::IOFlushed<TypeConfig>;
