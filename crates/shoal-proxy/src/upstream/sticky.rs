//! Session persistence: a cookie that leads a downstream back to the endpoint it came from, on every node of the cluster.

#[cfg(feature = "fuzzing")]
pub mod fuzzing;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::request::Parts;
use http::response::Parts as ResponseHead;
use shoal_model::EndpointId;
use shoal_model::view::{StickyView, UpstreamView};
use shoal_policy::balance::Pick;
use shoal_policy::forwarding::OwnFields;

use super::{Readiness, Upstream, cookie};
use crate::worker::Worker;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What the value of a cookie begins with.
const VERSION: &str = "v1.";
const ALIAS_BYTES: usize = 8;
const EXPIRY_BYTES: usize = 8;
const MAC_BYTES: usize = 16;
const COOKIE_BYTES: usize = ALIAS_BYTES + EXPIRY_BYTES + MAC_BYTES;
/// [`COOKIE_BYTES`] in base64.
const TEXT_BYTES: usize = 43;
/// Expiry of a cookie that is good for as long as it comes, Unix seconds.
const NEVER: u64 = u64::MAX;

/// What the keys of session cookies follow from: the same on every node, and known to nobody else.
#[derive(Clone, Copy)]
pub struct StickySeed(pub [u8; 32]);

/// Never prints the seed.
impl fmt::Debug for StickySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickySeed")
    }
}

/// The keys of all session cookies.
pub(super) struct StickyKeys {
    /// For what endpoints are called in cookies.
    alias: hmac::Key,
    /// For their signatures.
    mac: hmac::Key,
}

impl StickyKeys {
    pub(super) fn of(seed: &StickySeed) -> Self {
        let root = Salt::new(HKDF_SHA256, b"shoal session cookies").extract(&seed.0);
        let key = |label: &[u8]| {
            let info = [label];
            let key = root.expand(&info, hmac::HMAC_SHA256).expect("32 bytes are one block of SHA-256");
            hmac::Key::from(key)
        };
        Self { alias: key(b"alias"), mac: key(b"mac") }
    }
}

/// What an endpoint is called in cookies.
type Alias = [u8; ALIAS_BYTES];

/// The cookies of one upstream: alias of the endpoint, expiry, signature.
pub(super) struct Sticky {
    view: StickyView,
    upstream: Arc<str>,
    keys: Rc<StickyKeys>,
    /// In the order of the endpoints.
    aliases: Vec<Alias>,
}

/// What a good cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    place: usize,
    expiry: u64,
}

impl Sticky {
    pub(super) fn of(view: &UpstreamView, keys: &Rc<StickyKeys>) -> Option<Self> {
        let sticky = view.sticky.clone()?;
        let aliases = view.endpoints.iter().map(|endpoint| alias_of(keys, endpoint.id)).collect();
        Some(Self { view: sticky, upstream: view.name.clone(), keys: keys.clone(), aliases })
    }

    /// The session that `headers` belong to, if their cookie is good.
    fn read(&self, headers: &HeaderMap, now: u64) -> Option<Session> {
        let text = cookie(headers, &self.view.name)?.strip_prefix(VERSION)?;
        let mut bytes = [0; TEXT_BYTES];
        if text.len() != TEXT_BYTES || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? != COOKIE_BYTES {
            return None;
        }
        let (alias, rest) = bytes.split_first_chunk::<ALIAS_BYTES>()?;
        let (expiry, rest) = rest.split_first_chunk::<EXPIRY_BYTES>()?;
        let mac = rest.first_chunk::<MAC_BYTES>()?;
        verify_slices_are_equal(&self.sign(alias, expiry), mac).ok()?;
        let expiry = u64::from_be_bytes(*expiry);
        let place = self.aliases.iter().position(|known| known == alias)?;
        (now < expiry).then_some(Session { place, expiry })
    }

    /// `Set-Cookie` for a session at the endpoint at `place`.
    fn write(&self, place: usize, https: bool, now: u64) -> Option<HeaderValue> {
        let alias = self.aliases.get(place)?;
        let expiry = self.view.ttl.map_or(NEVER, |ttl| now.saturating_add(ttl.as_secs())).to_be_bytes();
        let mut bytes = Vec::with_capacity(COOKIE_BYTES);
        bytes.extend_from_slice(alias);
        bytes.extend_from_slice(&expiry);
        bytes.extend_from_slice(&self.sign(alias, &expiry));
        let (name, attributes) = (&self.view.name, &self.view.attributes);
        let secure = if self.view.secure.unwrap_or(https) { "; Secure" } else { "" };
        let value = URL_SAFE_NO_PAD.encode(bytes);
        HeaderValue::try_from(format!("{name}={VERSION}{value}{attributes}{secure}")).ok()
    }

    fn sign(&self, alias: &Alias, expiry: &[u8; EXPIRY_BYTES]) -> [u8; MAC_BYTES] {
        let mut signed = hmac::Context::with_key(&self.keys.mac);
        signed.update(self.upstream.as_bytes());
        // Of fixed length: names cannot run into what follows.
        signed.update(alias);
        signed.update(expiry);
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&signed.sign().as_ref()[..MAC_BYTES]);
        mac
    }

    /// A cookie with this expiry is replaced though it is good.
    fn is_due(&self, expiry: u64, now: u64) -> bool {
        let Some(ttl) = self.view.ttl.map(|ttl| ttl.as_secs()) else { return expiry != NEVER };
        // It may have run out since it was read.
        expiry.checked_sub(now).is_none_or(|left| !(ttl / 2..=ttl).contains(&left))
    }
}

fn alias_of(keys: &StickyKeys, endpoint: EndpointId) -> Alias {
    let mut alias = [0; ALIAS_BYTES];
    let mac = hmac::sign(&keys.alias, &endpoint.0.to_be_bytes());
    alias.copy_from_slice(&mac.as_ref()[..ALIAS_BYTES]);
    alias
}

/// One request to an upstream with sessions.
pub(super) struct Visit {
    session: Option<Session>,
    /// Its endpoint is only busy: the session stays there.
    away: bool,
    https: bool,
}

impl Visit {
    /// Of a request with fields of this node behind its head; `None` = the upstream has no sessions.
    pub(super) fn begin(upstream: &Upstream, head: &Parts, own: Option<&OwnFields>) -> Option<Self> {
        let sticky = upstream.sticky.as_ref()?;
        let scheme = head.headers.get(X_FORWARDED_PROTO).or_else(|| own?.get(X_FORWARDED_PROTO.as_str()));
        let https = scheme.is_some_and(|scheme| scheme == "https");
        Some(Self { session: sticky.read(&head.headers, unix_now()), away: false, https })
    }

    /// The endpoint of the session, if it can be used now.
    pub(super) fn pick(&mut self, upstream: &Upstream, worker: &Worker) -> Option<Pick> {
        let place = self.session?.place;
        match upstream.readiness(worker, place) {
            Readiness::Ready => Some(Pick { place, panic: false }),
            Readiness::Full => {
                self.away = true;
                None
            }
            Readiness::Down => None,
        }
    }

    /// What an answer of the endpoint at `place` sets; `None` = the cookie there is is right. Nobody is tied to an endpoint
    /// by its errors.
    pub(super) fn cookie(
        &self,
        upstream: &Upstream,
        place: usize,
        status: StatusCode,
    ) -> Option<HeaderValue> {
        let sticky = upstream.sticky.as_ref()?;
        let now = unix_now();
        let stays = |session: Session| session.place == place && !sticky.is_due(session.expiry, now);
        if self.away || self.session.is_some_and(stays) || status.is_server_error() {
            return None;
        }
        sticky.write(place, self.https, now)
    }
}

/// Marks a response, as one of its extensions, that may set the cookie of a session: not as one of its fields, because
/// those are stored and shared.
#[derive(Clone)]
pub(super) struct SessionCookie(pub(super) HeaderValue);

/// Sets the cookie of a session in a response that goes to one downstream and nobody else. Caches that come after us are
/// told not to keep it.
pub(crate) fn set_session_cookie(head: &mut ResponseHead) {
    if let Some(SessionCookie(cookie)) = head.extensions.remove::<SessionCookie>() {
        add_session_cookie(&mut head.headers, cookie);
    }
}

/// The same for a response that never meets a cache.
pub(super) fn add_session_cookie(headers: &mut HeaderMap, cookie: HeaderValue) {
    headers.append(SET_COOKIE, cookie);
    headers.append(CACHE_CONTROL, HeaderValue::from_static("private=\"set-cookie\""));
}

/// A clock that is off moves sessions, and nothing else.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs)
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;
    use shoal_model::site::read_site;
    use shoal_model::{ConfigView, Revision};

    use super::*;

    const ABC: &str = r#""10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80""#;

    fn sticky(seed: u8, upstream: &str, endpoints: &str, settings: &str) -> Sticky {
        let text = format!(
            "upstreams:\n  {upstream}: {{ endpoints: [{endpoints}], sticky: {{ name: s{settings} }} }}\n"
        );
        let view = ConfigView::compile(Revision(1), &read_site("site.yaml", &text).unwrap()).unwrap();
        Sticky::of(&view.upstreams[0], &Rc::new(StickyKeys::of(&StickySeed([seed; 32])))).unwrap()
    }

    fn headers(cookies: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(cookies).unwrap())])
    }

    fn pair(set_cookie: &HeaderValue) -> String {
        set_cookie.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    #[test]
    fn cookies_lead_every_node_to_the_same_endpoint_for_as_long_as_they_are_good() {
        let there = sticky(1, "app", ABC, ", ttl: 100s");
        let pair = pair(&there.write(1, false, 1000).unwrap());
        let check = |here: Sticky, now, expected: Option<usize>| {
            for cookies in [pair.clone(), format!("a=1; {pair}; b=2")] {
                let session = here.read(&headers(&cookies), now);
                assert_eq!(session.map(|session| session.place), expected, "{cookies} at {now}");
            }
        };
        check(sticky(1, "app", ABC, ", ttl: 100s"), 1000, Some(1));
        check(sticky(1, "app", ABC, ", ttl: 100s"), 1099, Some(1));
        check(sticky(1, "app", ABC, ", ttl: 100s"), 1100, None);
        // Another order, and others beside it.
        check(sticky(1, "app", r#""10.0.0.9:80", "10.0.0.3:80", "10.0.0.2:80""#, ""), 1000, Some(2));
        check(sticky(1, "app", r#""10.0.0.1:80", "10.0.0.3:80""#, ""), 1000, None);
        check(sticky(1, "other", ABC, ""), 1000, None);
        check(sticky(2, "app", ABC, ""), 1000, None);
    }

    #[test]
    fn what_was_not_signed_is_no_session() {
        let here = sticky(1, "app", ABC, ", ttl: 100s");
        let good = pair(&here.write(0, false, 1000).unwrap());
        let check = |cookies: &str| {
            assert_eq!(here.read(&headers(cookies), 1000), None, "{cookies}");
        };
        for place in 2..good.len() {
            let mut altered = good.clone().into_bytes();
            altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
            check(std::str::from_utf8(&altered).unwrap());
            check(&good[..place]);
        }
        check(&format!("{good}A"));
        check(&good.replace("s=", "t="));
        check("s=");
        check("s");
        assert!(here.read(&headers(&good), 1000).is_some());
    }

    #[test]
    fn cookies_have_the_attributes_of_the_site() {
        let check = |settings: &str, https: bool, expected: &str| {
            let cookie = sticky(1, "app", ABC, settings).write(0, https, 1000).unwrap();
            let attributes = cookie.to_str().unwrap().split_once("; ").unwrap().1.to_owned();
            assert_eq!(attributes, expected, "{settings}");
        };
        check("", false, "Path=/; HttpOnly; SameSite=Lax");
        check("", true, "Path=/; HttpOnly; SameSite=Lax; Secure");
        check(", secure: false", true, "Path=/; HttpOnly; SameSite=Lax");
        check(", ttl: 1h, path: /a, http_only: false", false, "Path=/a; Max-Age=3600; SameSite=Lax");
        check(", same_site: none, secure: true", false, "Path=/; HttpOnly; SameSite=None; Secure");
        let cookie = sticky(1, "app", r#""10.0.0.1:80""#, "").write(0, false, 1000).unwrap();
        assert!(!cookie.to_str().unwrap().contains("10.0.0.1"));
    }

    #[test]
    fn cookies_are_prolonged_in_time() {
        let check = |settings: &str, left: u64, expected| {
            let here = sticky(1, "app", ABC, settings);
            assert_eq!(here.is_due(left.saturating_add(1000), 1000), expected, "{settings}: {left}");
        };
        check(", ttl: 100s", 100, false);
        check(", ttl: 100s", 50, false);
        check(", ttl: 100s", 49, true);
        // Written under other settings.
        check(", ttl: 100s", 101, true);
        check(", ttl: 100s", NEVER, true);
        check("", NEVER, false);
        check("", 100, true);
    }

    #[test]
    fn cookies_that_run_out_while_the_endpoint_answers_are_replaced() {
        for ttl in ["1s", "2s", "100s"] {
            let here = sticky(1, "app", ABC, &format!(", ttl: {ttl}"));
            assert!(here.is_due(1000, 1001), "{ttl}");
        }
    }
}
