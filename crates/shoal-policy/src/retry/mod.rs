//! Whether a failed try may be repeated, and where.

mod budget;

use http::Method;

pub use budget::RetryBudget;

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
