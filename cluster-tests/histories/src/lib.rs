//! Recorded histories of a register whose every change has a revision (the site of a cluster is one), and whether they are
//! linearizable: as if each operation had happened in one moment between its call and its answer.
//!
//! Who asks keeps a [`History`]; [`Operations::verify`] judges it twice:
//!
//! * by revisions ([`mod@revisions`]), which is complete and O(n log n): every answer carries its place in the order of all
//!   changes, so that there is nothing to search for;
//! * by the search of a library ([`mod@search`]), window by window, which knows nothing of the first.
//!
//! An operation that never was answered may have been done, be done later, or never: it fills gaps, and proves nothing.

mod history;
pub mod revisions;
pub mod search;

pub use history::{Answer, Asked, History, Operation, Operations, Ticket};
pub use revisions::{Picture, Violation};

/// Revisions of one window of the search.
const WINDOW: usize = 60;

impl Operations {
    /// Whether they are linearizable; if not, why.
    pub fn verify(&self) -> Result<Picture, Violation> {
        let picture = revisions::check(self)?;
        search::check(self, &picture, WINDOW)?;
        Ok(picture)
    }
}
