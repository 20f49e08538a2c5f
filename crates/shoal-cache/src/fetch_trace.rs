//! What asking the origin took: written by the fetch, read by the request that began the fill.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A handle that travels with a fill to the fetch. Requests that join a fill do not have one: they asked nobody.
#[derive(Clone, Debug, Default)]
pub struct FetchTrace(Arc<Mutex<FetchNotes>>);

/// What a fetch notes down.
#[derive(Clone, Debug, Default)]
pub struct FetchNotes {
    /// Where the last try went, as written in the site.
    pub endpoint: Option<Box<str>>,
    /// Tries; 0 = the origin was not asked.
    pub tries: u32,
    /// Why the last connection that was opened did not come about.
    pub detail: Option<&'static str>,
    /// Time spent on connecting.
    pub connect: Duration,
    /// When the response head came.
    pub first_byte: Option<Instant>,
}

impl FetchTrace {
    /// Replaces what was noted: a fill may ask twice, the last one counts.
    pub fn note(&self, notes: FetchNotes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = notes;
    }

    /// What has been noted so far.
    pub fn notes(&self) -> FetchNotes {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
