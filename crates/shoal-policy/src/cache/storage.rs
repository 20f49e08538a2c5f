//! May this response be stored, and on what terms may it be used again (RFC 9111 §3)?

use http::header::{
    AUTHORIZATION, COOKIE, DATE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED, RANGE, SET_COOKIE,
};
use http::{Method, StatusCode};
use shoal_model::site::{RequestErrors, SetCookie};
use shoal_model::view::CacheRuleView;

use super::content::content_agrees;
use super::content_range::ContentRange;
use super::date::read_date;
use super::directives::{Directives, Extent, Wishes};
use super::freshness::{Lifetime, initial_age_ms, is_heuristically_cacheable, lifetime};
use super::invalidation::shows;
use super::key::KeyParts;
use super::refusal::Refusal;
use super::selecting::Selector;
use super::tags::{MAX_TAGS, are_too_many};
use super::targeted::read_targeted;
use super::vary::{Vary, is_hopeless};

/// One exchange with the origin.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Of the request.
    pub method: &'a Method,
    /// Of the request, as it was sent.
    pub request: &'a HeaderMap,
    /// What was asked for, as in the text of its key.
    pub url: &'a str,
    /// The request's `Cache-Control`, if the route heeds it.
    pub wishes: Wishes,
    /// Of the response.
    pub status: StatusCode,
    /// Of the response.
    pub response: &'a HeaderMap,
    /// When the request was sent, Unix milliseconds.
    pub request_ms: u64,
    /// When the response head arrived, Unix milliseconds.
    pub response_ms: u64,
    /// What the route says.
    pub rule: &'a CacheRuleView,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Store it.
    Store(Stored),
    /// Do not, and this is why.
    Refuse(Refusal),
}

impl Storage {
    /// The same, unless what is stored would have these `tags` and they are too many.
    #[must_use]
    pub fn with_tags(self, tags: &[u64]) -> Self {
        match self {
            Self::Store(_) if tags.len() > MAX_TAGS => Self::Refuse(Refusal::TooManyTags),
            Self::Store(_) | Self::Refuse(_) => self,
        }
    }
}

/// What to store, and on what terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// When it may be used again.
    pub terms: Terms,
    /// What of a request chooses it.
    pub selectors: Vec<Selector>,
    /// Response fields that stay out of the store: those a qualified `private` or `no-cache` names.
    pub without: Vec<HeaderName>,
}

/// When an object may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Fresh for this long, milliseconds.
    pub lifetime_ms: u64,
    /// How old it was at `response_ms`, milliseconds.
    pub initial_age_ms: u64,
    /// When its head arrived, Unix milliseconds.
    pub response_ms: u64,
    /// How long the origin took to answer, milliseconds; 0 = this node did not ask it.
    pub fetch_ms: u64,
    /// Its `Date`, else the time of receipt, Unix seconds.
    pub date: u64,
    /// Every use asks the origin first.
    pub always_validate: bool,
    /// Never used stale, connected or not.
    pub forbids_stale: bool,
    /// Past expiry, while it is being validated, milliseconds.
    pub stale_while_revalidate_ms: u64,
    /// Past expiry, when the origin fails, milliseconds.
    pub stale_if_error_ms: u64,
    /// May answer requests that carry `Authorization` (RFC 9111 §3.5).
    pub answers_authorized: bool,
}

impl Terms {
    /// Milliseconds since the origin made it.
    pub const fn age_ms(&self, now_ms: u64) -> u64 {
        self.initial_age_ms.saturating_add(now_ms.saturating_sub(self.response_ms))
    }

    /// Milliseconds until it is stale; negative = stale for that long.
    pub const fn time_left_ms(&self, now_ms: u64) -> i64 {
        signed(self.lifetime_ms) - signed(self.age_ms(now_ms))
    }

    /// It may be used for another request without asking.
    pub const fn is_fresh(&self, now_ms: u64) -> bool {
        !self.always_validate && self.time_left_ms(now_ms) > 0
    }
}

/// The number, or the largest there is: a peer may say anything.
const fn signed(ms: u64) -> i64 {
    if ms > i64::MAX as u64 { i64::MAX } else { ms as i64 }
}

/// Judges a response to a request that the cache forwarded.
pub fn judge_storage(exchange: &Exchange<'_>) -> Storage {
    match terms_of(exchange) {
        Ok(stored) => Storage::Store(stored),
        Err(refusal) => Storage::Refuse(refusal),
    }
}

fn terms_of(exchange: &Exchange<'_>) -> Result<Stored, Refusal> {
    check_method(exchange)?;
    let status = exchange.status;
    if status.is_informational() || status == StatusCode::NOT_MODIFIED {
        return Err(Refusal::Status);
    }
    check_range(exchange)?;
    if exchange.wishes.no_store {
        return Err(Refusal::RequestNoStore);
    }
    let targeted = read_targeted(exchange.response);
    let expires_counts = targeted.is_none();
    let directives = targeted.unwrap_or_else(|| Directives::read(exchange.response));
    check_permission(exchange, &directives)?;
    if !content_agrees(exchange.rule, KeyParts::of(exchange.url).path, exchange.response) {
        return Err(Refusal::ContentType);
    }
    let selectors = selectors_of(exchange)?;
    let without = [directives.private.fields(), directives.no_cache.fields()].concat();
    let received = exchange.response_ms / 1000;
    let kept = exchange.rule.kept_statuses.iter().find(|(kept, _)| *kept == status);
    let configured = kept.map(|(_, ttl)| *ttl);
    let lifetime = lifetime(&directives, status, exchange.response, expires_counts, configured, received);
    // RFC 9110 §9.3.3: nothing is guessed of what answered a POST.
    if exchange.method == Method::POST && !matches!(lifetime, Lifetime::Explicit(_)) {
        return Err(Refusal::Method);
    }
    check_error(exchange, lifetime)?;
    check_cookie(exchange, lifetime, &without)?;
    let terms = Terms {
        lifetime_ms: lifetime.seconds() * 1000,
        initial_age_ms: initial_age_ms(exchange.response, exchange.request_ms, exchange.response_ms),
        response_ms: exchange.response_ms,
        fetch_ms: exchange.response_ms.saturating_sub(exchange.request_ms),
        date: read_date(exchange.response, &DATE, received).unwrap_or(received),
        always_validate: directives.no_cache == Extent::Everything,
        // What the route keeps on its own account it gives to nobody for longer.
        forbids_stale: directives.forbids_stale() || matches!(lifetime, Lifetime::Configured(_)),
        stale_while_revalidate_ms: u64::from(directives.stale_while_revalidate.unwrap_or(0)) * 1000,
        stale_if_error_ms: u64::from(directives.stale_if_error.unwrap_or(0)) * 1000,
        answers_authorized: answers_authorized(&directives),
    };
    check_use(exchange, &directives, lifetime, &terms)?;
    if are_too_many(exchange.url, exchange.response) {
        return Err(Refusal::TooManyTags);
    }
    Ok(Stored { terms, selectors, without })
}

/// Answers to GET, and those to POST that show what a GET would (RFC 9110 §9.3.3).
fn check_method(exchange: &Exchange<'_>) -> Result<(), Refusal> {
    match *exchange.method {
        Method::GET => Ok(()),
        Method::POST if exchange.status == StatusCode::OK && shows(exchange.url, exchange.response) => Ok(()),
        _ => Err(Refusal::Method),
    }
}

/// What chooses the response, as far as that is of use: what the route keys on, and what `Vary` names beside it.
fn selectors_of(exchange: &Exchange<'_>) -> Result<Vec<Selector>, Refusal> {
    let Vary::Fields(mut names) = Vary::read(exchange.response) else { return Err(Refusal::Vary) };
    let key = &exchange.rule.key;
    names.retain(|name| !key.headers.contains(name) && (name != COOKIE || key.cookies.is_empty()));
    if names.iter().any(is_hopeless) {
        return Err(Refusal::Vary);
    }
    let mut selectors = Selector::of_key(key);
    selectors.extend(names.into_iter().map(Selector::from));
    Ok(selectors)
}

/// A 206 is an incomplete 200 (RFC 9111 §3.3), as long as it is clear what is missing. A 416 speaks of the range only.
fn check_range(exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let asks_for_range = exchange.request.contains_key(RANGE);
    match exchange.status {
        StatusCode::PARTIAL_CONTENT if !asks_for_range || ContentRange::read(exchange.response).is_none() => {
            Err(Refusal::Part)
        }
        StatusCode::RANGE_NOT_SATISFIABLE if asks_for_range => Err(Refusal::Status),
        _ => Ok(()),
    }
}

/// `no-store`, `private`, `must-understand`, `Authorization`.
fn check_permission(exchange: &Exchange<'_>, directives: &Directives) -> Result<(), Refusal> {
    if directives.must_understand {
        if !is_understood(exchange.status) {
            return Err(Refusal::Status);
        }
    } else if directives.no_store {
        return Err(Refusal::NoStore);
    }
    if directives.private == Extent::Everything {
        return Err(Refusal::Private);
    }
    if exchange.request.contains_key(AUTHORIZATION) && !answers_authorized(directives) {
        return Err(Refusal::Authorization);
    }
    Ok(())
}

/// Errors that anybody can cause are kept only where the origin says for how long, or lists when they changed.
fn check_error(exchange: &Exchange<'_>, lifetime: Lifetime) -> Result<(), Refusal> {
    let status = exchange.status.as_u16();
    if !matches!(status, 400 | 405 | 413 | 414 | 431) {
        return Ok(());
    }
    if exchange.rule.request_errors == RequestErrors::Pass {
        return Err(Refusal::RequestError);
    }
    match lifetime {
        Lifetime::Explicit(_) => Ok(()),
        Lifetime::Heuristic(_) if matches!(status, 405 | 414) => Ok(()),
        Lifetime::Heuristic(_) | Lifetime::Configured(_) | Lifetime::Unknown => Err(Refusal::NoLifetime),
    }
}

fn check_cookie(exchange: &Exchange<'_>, lifetime: Lifetime, without: &[HeaderName]) -> Result<(), Refusal> {
    if !exchange.response.contains_key(SET_COOKIE) || without.contains(&SET_COOKIE) {
        return Ok(());
    }
    match (exchange.rule.set_cookie, lifetime) {
        (SetCookie::Allow, Lifetime::Explicit(_)) => Ok(()),
        (SetCookie::Allow | SetCookie::Deny, _) => Err(Refusal::SetCookie),
    }
}

/// Something has to allow storing, and there has to be a use for it: a lifetime, or a validator to ask with, or a time for
/// which it bridges a failure of the origin.
fn check_use(
    exchange: &Exchange<'_>,
    directives: &Directives,
    lifetime: Lifetime,
    terms: &Terms,
) -> Result<(), Refusal> {
    let allowed =
        lifetime != Lifetime::Unknown || directives.public || is_heuristically_cacheable(exchange.status);
    let has_validator = exchange.response.contains_key(ETAG) || exchange.response.contains_key(LAST_MODIFIED);
    let is_ever_used = terms.is_fresh(exchange.response_ms)
        || terms.stale_while_revalidate_ms > 0
        || terms.stale_if_error_ms > 0
        || has_validator
        || bridges_disconnect(exchange, terms);
    if allowed && is_ever_used { Ok(()) } else { Err(Refusal::NoLifetime) }
}

/// It was fresh once, and is not stale for too long yet. What was never fresh is not meant to be used again.
fn bridges_disconnect(exchange: &Exchange<'_>, terms: &Terms) -> bool {
    let most = i128::try_from(exchange.rule.max_stale_on_disconnect.as_millis()).unwrap_or(i128::MAX);
    let stale_ms = -i128::from(terms.time_left_ms(exchange.response_ms));
    terms.lifetime_ms > 0 && !terms.forbids_stale && !terms.always_validate && stale_ms < most
}

fn answers_authorized(directives: &Directives) -> bool {
    directives.public || directives.must_revalidate || directives.s_maxage.is_some()
}

/// Statuses whose caching we know: those of RFC 9110 §15 without the conditional ones.
const fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=206 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 428 | 429 | 431 | 451 | 500..=505 | 511
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_too_large_for_the_clock() {
        let check = |lifetime_ms: u64, initial_age_ms: u64, expected: i64| {
            let terms = Terms { lifetime_ms, initial_age_ms, ..Terms::default() };
            assert_eq!(terms.time_left_ms(0), expected, "{lifetime_ms} {initial_age_ms}");
            assert_eq!(terms.is_fresh(0), expected > 0);
        };
        check(5, 3, 2);
        check(3, 5, -2);
        check(u64::MAX, 0, i64::MAX);
        check(0, u64::MAX, -i64::MAX);
        check(1 << 63, 1, i64::MAX - 1);
    }
}
