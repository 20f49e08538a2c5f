//! The agreed configuration: a Raft log (openraft) on disk (redb).
