//! Whether a failed try may be repeated, and where.

mod budget;

use std::time::Duration;

use http::Method;

pub use budget::RetryBudget;

/// Longest pause before the second try, ms.
const FIRST_BACKOFF_MS: u64 = 25;
/// Longest pause before any try, ms.
const MAX_BACKOFF_MS: u64 = 250;
/// Tries of one request, the first included.
pub const MAX_TRIES: u32 = 3;

/// How far a try got before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No connection came about.
    NotConnected,
    /// The connection gave the request back untouched.
    NotStarted,
    /// It was sent at least in part, on a connection that had served others before; no byte of an answer came.
    SentOnReused,
    /// It was sent at least in part, on a fresh connection; no byte of an answer came.
    SentOnFresh,
    /// The endpoint began to answer, or took too long.
    Answered,
}

/// What to do after a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Report the failure.
    GiveUp,
    /// The same endpoint, on a fresh connection: idle connections go stale together.
    FreshConnection,
    /// Another endpoint.
    AnotherEndpoint,
}

/// What to do after try number `tries` got as far as `progress`. `replayable` says that the whole request can be sent
/// again without harm, see [`is_replayable`].
pub const fn after_failure(progress: Progress, replayable: bool, tries: u32) -> Next {
    if tries >= MAX_TRIES {
        return Next::GiveUp;
    }
    match progress {
        Progress::NotConnected => Next::AnotherEndpoint,
        Progress::NotStarted => Next::FreshConnection,
        Progress::SentOnReused if replayable => Next::FreshConnection,
        Progress::SentOnFresh if replayable => Next::AnotherEndpoint,
        Progress::SentOnReused | Progress::SentOnFresh | Progress::Answered => Next::GiveUp,
    }
}

/// How long to wait before the next try, after `tries` of them: anything up to a bound that doubles from try to try, so
/// that those who failed together do not come back together.
pub const fn backoff(tries: u32, entropy: u64) -> Duration {
    let doublings = if tries == 0 { 0 } else { tries - 1 };
    let doubled = if doublings < 8 { FIRST_BACKOFF_MS << doublings } else { MAX_BACKOFF_MS };
    let bound_ms = if doubled < MAX_BACKOFF_MS { doubled } else { MAX_BACKOFF_MS };
    Duration::from_millis(entropy % (bound_ms + 1))
}

/// Sending it twice is the same as sending it once (RFC 9110 §9.2.2), and nothing of it is gone.
pub fn is_replayable(method: &Method, has_body: bool) -> bool {
    let idempotent = matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    idempotent && !has_body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_harm_is_repeated() {
        let check = |progress, replayable, tries, expected| {
            assert_eq!(
                after_failure(progress, replayable, tries),
                expected,
                "{progress:?} {replayable} {tries}"
            );
        };
        check(Progress::NotConnected, false, 1, Next::AnotherEndpoint);
        check(Progress::NotConnected, false, MAX_TRIES, Next::GiveUp);
        check(Progress::NotStarted, false, 1, Next::FreshConnection);
        check(Progress::SentOnReused, true, 1, Next::FreshConnection);
        check(Progress::SentOnReused, false, 1, Next::GiveUp);
        check(Progress::SentOnFresh, true, 2, Next::AnotherEndpoint);
        check(Progress::SentOnFresh, false, 1, Next::GiveUp);
        check(Progress::Answered, true, 1, Next::GiveUp);
    }

    #[test]
    fn pauses_are_random_up_to_a_bound_that_doubles() {
        let check = |tries, bound_ms: u64| {
            assert_eq!(backoff(tries, bound_ms), Duration::from_millis(bound_ms), "{tries}");
            assert_eq!(backoff(tries, bound_ms + 1), Duration::ZERO, "{tries}");
        };
        check(1, 25);
        check(2, 50);
        check(4, 200);
        check(5, 250);
        check(100, 250);
    }

    #[test]
    fn replayable_requests() {
        let check = |method: Method, has_body, expected| {
            assert_eq!(is_replayable(&method, has_body), expected, "{method} {has_body}");
        };
        check(Method::GET, false, true);
        check(Method::DELETE, false, true);
        check(Method::GET, true, false);
        check(Method::POST, false, false);
        check(Method::PATCH, false, false);
    }
}
