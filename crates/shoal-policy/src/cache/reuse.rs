//! May this stored object answer this request, now (RFC 9111 §4)?

use std::time::Duration;

use http::StatusCode;

use super::directives::Wishes;
use super::storage::Terms;
use crate::failure::Failure;

/// What arrived later than now by more than this shows that the clock was set back: nobody knows how old it is.
const CLOCK_TOLERANCE_MS: u64 = 5_000;

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// As it is.
    Fresh,
    /// As it is, while one validation runs in the background (RFC 5861 §3), or because the request allows it stale.
    Stale {
        /// A validation has to be started.
        revalidate: bool,
    },
    /// Only after the origin was asked, because it is stale.
    Validate,
    /// Only after the origin was asked, because the request wants that.
    ValidateOnRequest,
    /// It could answer, but a purge may have been missed: the route says what then. See [`super::trust`].
    Unverified,
}

/// Whether a purge has something to say about an object: the later, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshened {
    /// No purge concerns it.
    Untouched,
    /// A soft purge made it stale before its time.
    SoftPurged,
    /// It cannot be known: it has to be validated once.
    Unknown,
}

/// Judges an object whose method, key and variant fit. A missing permission for `Authorization` is the caller's to see.
pub fn judge_reuse(terms: &Terms, purge: Freshened, wishes: &Wishes, now_ms: u64) -> Reuse {
    let is_ageless = terms.response_ms > now_ms.saturating_add(CLOCK_TOLERANCE_MS);
    if terms.always_validate || purge == Freshened::Unknown || is_ageless {
        return Reuse::Validate;
    }
    let age_ms = terms.age_ms(now_ms);
    let left_ms = terms.time_left_ms(now_ms);
    let too_old = wishes.max_age.is_some_and(|seconds| age_ms / 1000 > u64::from(seconds) || seconds == 0);
    let too_short = wishes.min_fresh.is_some_and(|seconds| left_ms < i64::from(seconds) * 1000);
    if wishes.no_cache || too_old || too_short {
        return Reuse::ValidateOnRequest;
    }
    if left_ms > 0 && purge == Freshened::Untouched {
        return Reuse::Fresh;
    }
    // RFC 9111 §5.2.1.1: whoever limits the age wants nothing stale, unless it says so.
    if terms.forbids_stale || (wishes.max_age.is_some() && wishes.max_stale.is_none()) {
        return Reuse::Validate;
    }
    let stale_ms = stale_for_ms(terms, now_ms);
    if stale_ms < terms.stale_while_revalidate_ms {
        return Reuse::Stale { revalidate: true };
    }
    let tolerated =
        wishes.max_stale.is_some_and(|most| most == u32::MAX || stale_ms <= u64::from(most) * 1000);
    if tolerated && purge == Freshened::Untouched {
        Reuse::Stale { revalidate: false }
    } else {
        Reuse::Validate
    }
}

/// What came of asking the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It answered with this.
    Status(StatusCode),
    /// It did not answer.
    Failure(Failure),
}

/// The object may be served although the origin did not confirm it: within `stale-if-error`, its own or that of the request,
/// or, when the origin cannot be reached, up to `max_stale_on_disconnect` past its expiry. No request extends that.
pub fn may_serve_on_error(
    terms: &Terms,
    purge: Freshened,
    wishes: &Wishes,
    trouble: Trouble,
    max_stale_on_disconnect: Duration,
    now_ms: u64,
) -> bool {
    if terms.forbids_stale || terms.always_validate || purge == Freshened::Unknown {
        return false;
    }
    let stale_ms = stale_for_ms(terms, now_ms);
    let by_error = match trouble {
        Trouble::Status(status) => matches!(status.as_u16(), 500 | 502 | 503 | 504),
        Trouble::Failure(failure) => failure.is_disconnect(),
    };
    let by_disconnect = matches!(trouble, Trouble::Failure(failure) if failure.is_disconnect());
    let is_tolerated = u128::from(stale_ms) < max_stale_on_disconnect.as_millis();
    let is_wanted = wishes.stale_if_error.is_some_and(|most| stale_ms < u64::from(most) * 1000);
    // Inclusive of expiry itself only when a window was given.
    (by_error && (stale_ms < terms.stale_if_error_ms || (is_wanted && is_tolerated)))
        || (by_disconnect && is_tolerated)
}

fn stale_for_ms(terms: &Terms, now_ms: u64) -> u64 {
    u64::try_from(-terms.time_left_ms(now_ms)).unwrap_or(0)
}
