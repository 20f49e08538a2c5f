//! What asking the origin took, and what it said before its answer: written by the fetch, read by the request that began
//! the fill.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};

/// A handle that travels with a fill to the fetch. Requests that join a fill do not have one: they asked nobody.
#[derive(Clone, Debug, Default)]
pub struct FetchTrace(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    notes: FetchNotes,
    /// Interim answers that nobody has taken yet.
    interim: Vec<(StatusCode, HeaderMap)>,
    /// Of whoever takes them.
    waker: Option<Waker>,
}

/// What a fetch notes down.
#[derive(Clone, Debug, Default)]
pub struct FetchNotes {
    /// Where the last try went, as written in the site.
    pub endpoint: Option<Box<str>>,
    /// How often the origin was asked; 0 = it was not.
    pub tries: u32,
    /// Why the last connection that was opened did not come about, as the access log has it.
    pub detail: Option<&'static str>,
    /// Time that all tries have spent on connecting.
    pub connect: Duration,
    /// When the response head came.
    pub first_byte: Option<Instant>,
}

impl FetchTrace {
    /// Replaces what was noted: a fill may ask twice, the last one counts.
    pub fn note(&self, notes: FetchNotes) {
        self.lock().notes = notes;
    }

    /// What has been noted so far.
    pub fn notes(&self) -> FetchNotes {
        self.lock().notes.clone()
    }

    /// The origin said this before its answer (1xx, RFC 9110 §15.2); the fetch limits how much that may be.
    pub fn say_before(&self, status: StatusCode, fields: HeaderMap) {
        let mut shared = self.lock();
        shared.interim.push((status, fields));
        let waker = shared.waker.take();
        drop(shared);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Takes out what the origin has said before its answer; whoever polls is woken when there is more.
    pub fn take_said(&self, cx: &Context<'_>) -> Vec<(StatusCode, HeaderMap)> {
        let mut shared = self.lock();
        shared.waker = Some(cx.waker().clone());
        std::mem::take(&mut shared.interim)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
