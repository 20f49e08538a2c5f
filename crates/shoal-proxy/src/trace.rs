//! What forwarding did on behalf of a request: where it went, how often it was tried, how long that took.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cache::FetchNotes;

use crate::metrics::Traffic;
use crate::spans::Tries;

/// What forwarding did.
#[derive(Default)]
pub(crate) struct Trace {
    /// Where the last try went.
    pub(crate) endpoint: Option<Rc<str>>,
    /// The cells of the upstream.
    pub(crate) upstream: Option<Arc<Traffic>>,
    pub(crate) tries: u32,
    /// Why the last connection that was opened did not come about, or which time has run out.
    pub(crate) detail: Option<&'static str>,
    /// Time spent on connecting.
    pub(crate) connect: Duration,
    /// From the start of the exchange to the response head.
    pub(crate) first_byte: Option<Duration>,
    /// The downstream waits for a shorter time than its route would.
    pub(crate) is_hurried: bool,
    /// Every try, if the span of the request is sent.
    pub(crate) spans: Option<Box<Tries>>,
}

impl Trace {
    /// Takes over what a fill of the cache noted on behalf of this exchange. Its traffic is counted by the fetch.
    pub(crate) fn adopt(&mut self, notes: FetchNotes, started: Instant) {
        if notes.tries > 0 {
            self.endpoint = notes.endpoint.map(Rc::from);
            self.tries = notes.tries;
            self.detail = notes.detail;
            self.connect = notes.connect;
            self.first_byte = notes.first_byte.map(|at| at.saturating_duration_since(started));
        }
    }
}
