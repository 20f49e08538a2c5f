//! Who is refused is told of in the log, but not more often than that can bear.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of the log about refusals.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps refusals of one kind from filling the log.
#[derive(Debug, Default)]
pub struct Refusals {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    unsaid: u64,
}

impl Refusals {
    /// One more. `Some` = it is to be said, with the number of those before it that were not.
    pub fn note(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.said.is_some_and(|said| now.duration_since(said) < PAUSE) {
            state.unsaid += 1;
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_do_not_fill_the_log() {
        let start = Instant::now();
        let refusals = Refusals::default();
        let check = |at_ms, expected| {
            assert_eq!(refusals.note(start + Duration::from_millis(at_ms)), expected, "at {at_ms} ms");
        };
        check(0, Some(0));
        check(10, None);
        check(999, None);
        check(1000, Some(2));
        check(1001, None);
        check(9000, Some(1));
    }
}
