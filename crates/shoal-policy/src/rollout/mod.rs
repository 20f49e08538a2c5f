//! Revisions that are not in force for good: how long they may wait, who tries them, and whether that goes well.

mod canary;
mod gate;
mod trial;
mod waiting;

pub use canary::{Canary, CanaryError, Candidate, choose};
pub use gate::{Counts, Worse};
pub use trial::{Evidence, Said, Sighting, Trial};
pub use waiting::{LastLook, is_overdue, left, missed};
