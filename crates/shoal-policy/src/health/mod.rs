//! Observation → verdict → fact → availability: who checks an endpoint, what one checker says, what all of them mean.

mod assign;
mod ejection;
mod fact;
mod hysteresis;
mod merge;
mod panic;
mod success_rate;

pub use assign::{CHECKERS_PER_ENDPOINT, Candidate, assign};
pub use ejection::{Admittance, Ejection, EjectionChange, Outcome, may_eject};
pub use fact::{
    Fact, FactState, MAX_EJECTED_FACTS, MAX_FACTS_PER_SHARD, Reason, SHARDS, Shard, encode_shards, shard_of,
};
pub use hysteresis::{CHANGING_INTERVAL, Checker, Observation, Verdict};
pub use merge::{EJECTING_PERCENT, Vote, merge};
pub use panic::is_panic;
pub use success_rate::{Tally, outliers};

/// Whether an endpoint may be used, merged from what all its checkers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Availability {
    /// It may.
    #[default]
    Up,
    /// A majority of its checkers say it is down.
    Down,
    /// Nobody who should know says anything: the last word stands, traffic decides.
    Unknown,
}

impl Availability {
    /// Its name in the operator's tools.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}
