//! Answers to questions over DNS: whose addresses a name leads to, what is said where there is none, and to whom nothing is
//! said any more. The wire is hickory's; sockets are somebody else's.

mod choose;
mod rate;
mod reply;

pub use choose::{Candidate, Family, Wanted, choose};
pub use rate::{ResponseRate, Verdict};
pub use reply::{Carrier, MAX_UDP_BYTES, Outcome, Reply, Scene, reply, truncated};
