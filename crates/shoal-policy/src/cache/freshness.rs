//! How long a response stays fresh, and how old it is (RFC 9111 §4.2).

use std::time::Duration;

use http::StatusCode;
use http::header::{AGE, DATE, EXPIRES, HeaderMap, LAST_MODIFIED};

use super::date::read_date;
use super::directives::{Directives, MAX_SECONDS, delta_seconds};

/// A heuristic lifetime is this share of the time since the last change (RFC 9111 §4.2.2).
const HEURISTIC_DIVISOR: u64 = 10;
/// And never longer, seconds.
const MAX_HEURISTIC_SECONDS: u64 = 24 * 3600;

/// A lifetime, seconds, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Written by the origin; 0 = born stale.
    Explicit(u64),
    /// Given by the route to what says nothing itself.
    Configured(u64),
    /// Guessed from the time since the last change.
    Heuristic(u64),
    /// Nothing to go by: usable only after asking.
    Unknown,
}

impl Lifetime {
    /// Seconds.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Explicit(seconds) | Self::Configured(seconds) | Self::Heuristic(seconds) => seconds,
            Self::Unknown => 0,
        }
    }
}

/// The lifetime of a response received at `received` (Unix seconds). `expires_counts` is false when a targeted field
/// decided (RFC 9213 §2.2); `configured` is what the route gives to this status.
pub fn lifetime(
    directives: &Directives,
    status: StatusCode,
    fields: &HeaderMap,
    expires_counts: bool,
    configured: Option<Duration>,
    received: u64,
) -> Lifetime {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return Lifetime::Explicit(u64::from(seconds));
    }
    let date = read_date(fields, &DATE, received).unwrap_or(received);
    if expires_counts && fields.contains_key(EXPIRES) {
        // An invalid date, above all `0`, is in the past.
        let expires = read_date(fields, &EXPIRES, received).unwrap_or(0);
        return Lifetime::Explicit(expires.saturating_sub(date).min(u64::from(MAX_SECONDS)));
    }
    if let Some(configured) = configured {
        return Lifetime::Configured(configured.as_secs());
    }
    if !is_heuristically_cacheable(status) && !directives.public {
        return Lifetime::Unknown;
    }
    match read_date(fields, &LAST_MODIFIED, received) {
        Some(changed) => {
            Lifetime::Heuristic((date.saturating_sub(changed) / HEURISTIC_DIVISOR).min(MAX_HEURISTIC_SECONDS))
        }
        None => Lifetime::Unknown,
    }
}

/// Statuses that may be given a lifetime unasked (RFC 9110 §15.1).
pub const fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// How old a response was when it arrived, milliseconds (RFC 9111 §4.2.3). Both times are Unix milliseconds.
pub fn initial_age_ms(fields: &HeaderMap, request_ms: u64, response_ms: u64) -> u64 {
    let received = response_ms / 1000;
    let apparent = read_date(fields, &DATE, received).map_or(0, |date| received.saturating_sub(date) * 1000);
    let delay = response_ms.saturating_sub(request_ms);
    apparent.max(age_value(fields) * 1000 + delay)
}

/// The `Age` field, seconds: the first member of the first line; anything but a whole number is ignored.
fn age_value(fields: &HeaderMap) -> u64 {
    let first =
        fields.get(AGE).map(|value| value.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default());
    first.and_then(|text| delta_seconds(text.trim_ascii())).map_or(0, u64::from)
}
