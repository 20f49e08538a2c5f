//! Whether a failed try may be repeated, and where.

mod budget;

use std::time::Duration;

use http::{Method, StatusCode};
use shoal_model::view::RetryView;

pub use budget::RetryBudget;

/// Longest pause before the second try, ms.
const FIRST_BACKOFF_MS: u64 = 25;
/// Longest pause before any try, ms.
const MAX_BACKOFF_MS: u64 = 250;
/// Tries of one request to switch protocols, the first included.
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
    /// The same, but the endpoint has taken the whole of it: it did not close because nobody had asked for long.
    TakenOnReused,
    /// It was sent at least in part, on a fresh connection; no byte of an answer came.
    SentOnFresh,
    /// It took longer than one try may.
    TimedOut,
    /// The endpoint began to answer, or took too long.
    Answered,
}

impl Progress {
    /// As it is for what the cache asks: it has an answer, or an error, of its own for an endpoint that closes once it has
    /// seen the request. So that counts as it would on a fresh connection.
    #[must_use]
    pub const fn for_fill(self) -> Self {
        match self {
            Self::TakenOnReused => Self::SentOnFresh,
            Self::NotConnected
            | Self::NotStarted
            | Self::SentOnReused
            | Self::SentOnFresh
            | Self::TimedOut
            | Self::Answered => self,
        }
    }
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
/// again without harm, see [`may_repeat`].
pub const fn after_failure(progress: Progress, replayable: bool, tries: u32, rule: &RetryView) -> Next {
    if tries >= rule.attempts {
        return Next::GiveUp;
    }
    match progress {
        Progress::NotConnected if rule.on_connect_failure => Next::AnotherEndpoint,
        Progress::NotStarted => Next::FreshConnection,
        // Whatever the rule says: it is our pool that failed there, and not the endpoint.
        Progress::SentOnReused | Progress::TakenOnReused if replayable => Next::FreshConnection,
        Progress::SentOnFresh if replayable && rule.on_reset => Next::AnotherEndpoint,
        Progress::TimedOut if replayable => Next::AnotherEndpoint,
        Progress::NotConnected
        | Progress::SentOnReused
        | Progress::TakenOnReused
        | Progress::SentOnFresh
        | Progress::TimedOut
        | Progress::Answered => Next::GiveUp,
    }
}

/// What to do after try number `tries` was answered with `status`; [`Next::GiveUp`] passes the answer on.
pub fn after_answer(status: StatusCode, replayable: bool, tries: u32, rule: &RetryView) -> Next {
    let worth_it = replayable && tries < rule.attempts;
    match worth_it && rule.on_status.binary_search(&status.as_u16()).is_ok() {
        true => Next::AnotherEndpoint,
        false => Next::GiveUp,
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

/// Sending it twice is the same as sending it once (RFC 9110 §9.2.2), or the rule says that it may be sent twice.
pub fn may_repeat(method: &Method, rule: &RetryView) -> bool {
    match &rule.methods {
        Some(methods) => methods.iter().any(|known| **known == *method.as_str()),
        None => matches!(
            *method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
        ),
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::site::{RetryOn, RetryRule};

    use super::*;

    fn rule(on: &[RetryOn], attempts: u32) -> RetryView {
        let rule = RetryRule { on: Some(on.to_vec()), attempts: Some(attempts), ..RetryRule::default() };
        RetryView::compile(Some(&rule))
    }

    #[test]
    fn only_what_cannot_harm_is_repeated() {
        let check = |progress, replayable, tries, expected| {
            let rule = RetryView::compile(None);
            assert_eq!(
                after_failure(progress, replayable, tries, &rule),
                expected,
                "{progress:?} {replayable} {tries}"
            );
        };
        check(Progress::NotConnected, false, 1, Next::AnotherEndpoint);
        check(Progress::NotConnected, false, 3, Next::GiveUp);
        check(Progress::NotStarted, false, 1, Next::FreshConnection);
        check(Progress::SentOnReused, true, 1, Next::FreshConnection);
        check(Progress::SentOnReused, false, 1, Next::GiveUp);
        check(Progress::TakenOnReused, true, 1, Next::FreshConnection);
        check(Progress::TakenOnReused, false, 1, Next::GiveUp);
        check(Progress::SentOnFresh, true, 2, Next::AnotherEndpoint);
        check(Progress::SentOnFresh, false, 1, Next::GiveUp);
        check(Progress::TimedOut, true, 1, Next::AnotherEndpoint);
        check(Progress::TimedOut, false, 1, Next::GiveUp);
        check(Progress::Answered, true, 1, Next::GiveUp);
    }

    #[test]
    fn the_rule_says_what_is_worth_another_try() {
        let check = |on: &[RetryOn], progress, tries, expected| {
            assert_eq!(after_failure(progress, true, tries, &rule(on, 4)), expected, "{on:?} {progress:?}");
        };
        check(&[RetryOn::Reset], Progress::NotConnected, 1, Next::GiveUp);
        check(&[RetryOn::ConnectFailure], Progress::SentOnFresh, 1, Next::GiveUp);
        check(&[RetryOn::Reset], Progress::SentOnFresh, 3, Next::AnotherEndpoint);
        check(&[RetryOn::Reset], Progress::SentOnFresh, 4, Next::GiveUp);
        check(&[], Progress::SentOnReused, 1, Next::FreshConnection);
    }

    #[test]
    fn answers_are_repeated_by_their_status() {
        let check = |on: &[RetryOn], status, replayable, tries, expected| {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(after_answer(status, replayable, tries, &rule(on, 3)), expected, "{on:?} {status}");
        };
        let gateway = [RetryOn::GatewayError, RetryOn::Status(429)];
        check(&gateway, 502, true, 1, Next::AnotherEndpoint);
        check(&gateway, 504, true, 2, Next::AnotherEndpoint);
        check(&gateway, 429, true, 1, Next::AnotherEndpoint);
        check(&gateway, 500, true, 1, Next::GiveUp);
        check(&gateway, 200, true, 1, Next::GiveUp);
        check(&gateway, 503, false, 1, Next::GiveUp);
        check(&gateway, 503, true, 3, Next::GiveUp);
        check(&[RetryOn::Reset], 503, true, 1, Next::GiveUp);
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
    fn methods_that_may_be_repeated() {
        let check = |method: Method, methods: Option<&[&str]>, expected| {
            let methods = methods.map(|methods| methods.iter().map(|&method| method.into()).collect());
            let rule = RetryView { methods, ..RetryView::compile(None) };
            assert_eq!(may_repeat(&method, &rule), expected, "{method}");
        };
        check(Method::GET, None, true);
        check(Method::DELETE, None, true);
        check(Method::POST, None, false);
        check(Method::PATCH, None, false);
        check(Method::POST, Some(&["POST"]), true);
        check(Method::GET, Some(&["POST"]), false);
    }
}
