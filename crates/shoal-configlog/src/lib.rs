//! The agreed configuration: a Raft log (openraft) on disk (redb).
//!
//! This room stores commands and calls [`ConfigState::apply`](shoal_model::state::ConfigState::apply); it does not know
//! what a configuration means. Nothing of openraft is visible outside.

mod autopilot;
mod levels;
mod log;
mod machine;
mod mutex;
mod network;
mod offline;
mod planted;
mod room;
#[cfg(test)]
mod simulation;
mod store;
mod timings;
mod trouble;
mod types;
mod unknown;

pub use autopilot::Liveness;
pub use levels::{known_level, oldest_level};
pub use log::{
    Compaction, ConfigLog, Divergence, Hashed, Led, LogSettings, LogStatus, MembershipError, OpenError,
    ProposeError, Proposed, SiteChange, TransferError, Unfit, described_as, on_behalf_of,
};
pub use machine::{Applied, OnApplied, Unreadable, read_state};
pub use network::RaftRpc;
#[cfg(feature = "fuzzing")]
pub use network::fuzzing;
pub use offline::{LeftOut, StoppedLog, Whose, found_with};
pub use store::Past;
pub use timings::{Timings, suited_timing};
