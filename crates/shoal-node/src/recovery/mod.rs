//! A majority of the voters is lost for good: one node that is left goes on alone, and whatever the others still have is kept
//! out from then on.
//!
//! It is planned with the nodes that run, and carried out on one that does not: nobody else writes its log then, and nothing of
//! it has been promised to anybody since the plan was made.

mod apply;
mod plan;
mod site;

pub use apply::{Prepared, Recovered, prepare};
pub use plan::plan;
pub use shoal_configlog::LeftOut;
pub use shoal_policy::recovery::LogPlace;
pub use site::{Rebuilt, write_site};
