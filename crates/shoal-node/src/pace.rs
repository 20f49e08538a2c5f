//! What strangers can make a node do is done so many times a second, and not more often.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Counts what is done in each second.
#[derive(Debug)]
pub struct Pace {
    most: u32,
    second: Mutex<Option<(Instant, u32)>>,
}

impl Pace {
    /// So many times in any second that begins with the first of them.
    pub fn per_second(most: u32) -> Self {
        Self { most, second: Mutex::default() }
    }

    /// One more; `false` = not now.
    pub fn takes(&self, now: Instant) -> bool {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, done) = match *second {
            Some((began, done)) if now.duration_since(began) < SECOND => (began, done),
            _ => (now, 0),
        };
        *second = Some((began, done.saturating_add(1)));
        done < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second() {
        let (start, pace) = (Instant::now(), Pace::per_second(2));
        for (at_ms, expected) in
            [(0, true), (10, true), (20, false), (999, false), (1000, true), (1001, true), (1002, false)]
        {
            assert_eq!(pace.takes(start + Duration::from_millis(at_ms)), expected, "at {at_ms} ms");
        }
    }
}
