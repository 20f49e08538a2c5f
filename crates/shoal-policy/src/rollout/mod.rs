//! Revisions that are not in force for good: how long they may wait, who tries them, and whether that goes well.

mod bake;
mod canary;
mod deaths;
mod gate;
mod left_out;
mod trial;
mod waiting;
mod waves;

pub use bake::{Bake, Judgement, bake_length};
pub use canary::{Canary, CanaryError, Candidate, choose};
pub use deaths::{Blame, Fate, blame};
pub use gate::{Counts, How, Side, Tally, Worse};
pub use left_out::refuses_already;
pub use trial::{Evidence, Said, Seen, Sighting, Trial};
pub use waiting::{LastLook, has_lost_touch, is_overdue, left, missed};
pub use waves::{Following, first_wave, next_wave, stand_in};
