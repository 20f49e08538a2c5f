//! The head of a request as the endpoint shall see it.

use std::rc::Rc;

use http::header::{COOKIE, EXPECT, FORWARDED, HeaderName, TRANSFER_ENCODING, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};
use shoal_model::view::TrustedProxiesView;

use super::caller::text_of;
use super::forwarded::value_of;
use super::{Caller, Client, OWN_PREFIX, OwnFields, X_REQUEST_ID, hops};
use crate::failure::Failure;
use crate::gate::{Admitted, Field};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(super) const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// Fields that some endpoints let override what was routed and cached. Programs that are run as CGI find `Proxy` where they
/// look for the proxy of what they ask for themselves (CVE-2016-5385).
const FORBIDDEN: [HeaderName; 15] = [
    HeaderName::from_static("proxy"),
    HeaderName::from_static("x-accel-mapping"),
    HeaderName::from_static("x-http-destinationurl"),
    HeaderName::from_static("x-http-path-override"),
    HeaderName::from_static("x-invoke-path"),
    HeaderName::from_static("x-matched-path"),
    HeaderName::from_static("x-middleware-subrequest"),
    HeaderName::from_static("x-original-uri"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-override-url"),
    HeaderName::from_static("x-sendfile-type"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];
/// Fields that some endpoints believe as they believe `X-Forwarded-Host`: a trusted caller may send them.
const OTHER_FORWARDED: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-original-host"),
    HeaderName::from_static("x-http-host-override"),
];
/// Fields that say what this node says in others, and that proxies may have passed as a stranger wrote them.
const OVERRULED: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-forwarded-scheme"),
];
/// `X-Forwarded-Port` and the like: not ours to vouch for.
const FORWARDED_PREFIX: &str = "x-forwarded-";
/// Fields that [`prepare_request`] may write.
const WRITTEN_FIELDS: usize = 9;
/// A request that names this node so often went in a circle.
const MAX_PASSES: usize = 1;
/// Longest `x-request-id` taken over from a trusted caller.
const MAX_REQUEST_ID: usize = 128;

/// How this node calls itself in `Via` and `CDN-Loop`.
#[derive(Clone, Debug)]
pub struct OwnName {
    name: Box<str>,
    via: [HeaderValue; 3],
    cdn_loop: HeaderValue,
}

impl OwnName {
    /// The node called `node`; what may not stand in a token is left out.
    pub fn new(node: &str) -> Self {
        let plain: String =
            node.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
        let name = format!("shoal-{plain}");
        let value = |text: &str| HeaderValue::from_str(text).expect("a token is a field value");
        let via = ["1.0", "1.1", "2.0"].map(|version| value(&format!("{version} {name}")));
        Self { cdn_loop: value(&name), name: name.into(), via }
    }

    pub(super) fn cdn_loop(&self) -> &HeaderValue {
        &self.cdn_loop
    }

    /// What this node calls itself in `Via` and `Proxy-Status`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `Via` element for a message received in `version`.
    pub fn via(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_10 => &self.via[0],
            Version::HTTP_2 => &self.via[2],
            _ => &self.via[1],
        }
    }
}

/// What [`prepare_request`] writes into a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFields<'a> {
    /// Who called.
    pub caller: &'a Caller,
    /// In whose name.
    pub client: Client,
    /// Whose word for that is taken.
    pub proxies: &'a TrustedProxiesView,
    /// Who we are.
    pub own: &'a OwnName,
    /// The id of the request: [`believed_request_id`], or one of ours.
    pub request_id: &'a HeaderValue,
    /// Trailers are passed on.
    pub keep_trailers: bool,
    /// The endpoint is asked whether it wants the body.
    pub keep_expect: bool,
}

/// The id that a trusted caller gave to the request.
pub fn believed_request_id<'a>(
    headers: &'a HeaderMap,
    admitted: &Admitted,
    caller: &Caller,
) -> Option<&'a HeaderValue> {
    let believed = admitted.present.has(Field::RequestId) && caller.trusted;
    if believed { headers.get(X_REQUEST_ID).filter(|id| is_request_id(id)) } else { None }
}

/// Makes `head` what the endpoint shall see: hop-by-hop fields off, forwarding fields of ours on, HTTP/1.1. Where it had
/// none of those, they are handed back instead, to be added or written behind it. Errs if the request has been here before.
pub fn prepare_request(
    head: &mut Parts,
    admitted: &Admitted,
    fields: RequestFields<'_>,
) -> Result<Option<Rc<OwnFields>>, Failure> {
    let present = admitted.present;
    let headers = &mut head.headers;
    if present.has_any(&[Field::Via, Field::CdnLoop]) && count_passes(headers, &fields.own.name) >= MAX_PASSES
    {
        return Err(Failure::Loop);
    }
    hops::strip(headers, present, fields.keep_trailers);
    if present.has(Field::Expect) && !fields.keep_expect {
        headers.remove(EXPECT);
    }
    if present.has(Field::TransferEncoding) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if present.has(Field::Forbidden) {
        drop_forbidden(headers);
    }
    if present.has(Field::CookieCrumbs) {
        join_cookies(headers);
    }
    let speaks_for_itself = fields.client.address == fields.caller.address;
    if let Some(name) = &fields.proxies.reserved_header {
        // It says what the others do.
        match speaks_for_itself {
            true => _ = headers.remove(name),
            false => _ = headers.insert(name, text_of(fields.client.address)),
        }
    }
    let via = fields.own.via(head.version);
    head.version = Version::HTTP_11;
    if speaks_for_itself && !present.has_any(&[Field::Forwarded, Field::Via, Field::CdnLoop]) {
        headers.insert(X_REQUEST_ID, fields.request_id.clone());
        return Ok(Some(fields.caller.own_fields(&admitted.authority, via, fields.own)));
    }
    headers.reserve(WRITTEN_FIELDS);
    write_forwarding(headers, admitted, fields);
    append(headers, VIA, via, present.has(Field::Via));
    append(headers, CDN_LOOP, &fields.own.cdn_loop, present.has(Field::CdnLoop));
    headers.insert(X_REQUEST_ID, fields.request_id.clone());
    Ok(None)
}

fn write_forwarding(headers: &mut HeaderMap, admitted: &Admitted, fields: RequestFields<'_>) {
    let (caller, host) = (fields.caller, &admitted.authority);
    if caller.trusted {
        OVERRULED.iter().for_each(|name| _ = headers.remove(name));
        return fields.client.introduce(headers, caller, host, &fields.proxies.client_ip_header);
    }
    if admitted.present.has(Field::Forwarded) {
        drop_prefixed(headers, FORWARDED_PREFIX);
        for name in &OTHER_FORWARDED {
            headers.remove(name);
        }
    }
    headers.insert(X_FORWARDED_FOR, caller.text().clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(caller.scheme()));
    headers.insert(X_FORWARDED_HOST, host.clone());
    headers.insert(X_REAL_IP, caller.text().clone());
    headers.insert(FORWARDED, value_of(&[caller.element(host)]));
}

/// Adds `value` to the end of a list, in one line.
pub(super) fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue, present: bool) {
    let joined = if present { join(headers, &name, Some(value), b", ") } else { None };
    headers.insert(name, joined.unwrap_or_else(|| value.clone()));
}

/// All values of a field, and one more, in one.
fn join(
    headers: &HeaderMap,
    name: &HeaderName,
    last: Option<&HeaderValue>,
    with: &[u8],
) -> Option<HeaderValue> {
    let mut joined: Vec<u8> = Vec::new();
    for value in headers.get_all(name).iter().chain(last) {
        if !joined.is_empty() {
            joined.extend_from_slice(with);
        }
        joined.extend_from_slice(value.as_bytes());
    }
    HeaderValue::try_from(joined).ok()
}

/// RFC 9113 §8.2.3: crumbs become one field again.
fn join_cookies(headers: &mut HeaderMap) {
    if let Some(joined) = join(headers, &COOKIE, None, b"; ") {
        headers.insert(COOKIE, joined);
    }
}

fn drop_forbidden(headers: &mut HeaderMap) {
    for name in &FORBIDDEN {
        headers.remove(name);
    }
    drop_prefixed(headers, OWN_PREFIX);
}

/// Takes off every field whose name begins with `prefix`.
pub(super) fn drop_prefixed(headers: &mut HeaderMap, prefix: &str) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// How often this node stands in `Via` (its second word) or `CDN-Loop` (its first), whichever says more.
fn count_passes(headers: &HeaderMap, own: &str) -> usize {
    let count = |name: HeaderName, word: usize| {
        // As bytes: what a stranger has written into the line must not hide what we have.
        let elements =
            headers.get_all(name).into_iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
        let words = |element: &'_ [u8]| {
            let mut words =
                element.split(|b| matches!(b, b' ' | b';' | b'\t')).filter(|word| !word.is_empty());
            words.nth(word).is_some_and(|name| name.eq_ignore_ascii_case(own.as_bytes()))
        };
        elements.filter(|element| words(element)).count()
    };
    count(VIA, 1).max(count(CDN_LOOP, 0))
}

fn is_request_id(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=MAX_REQUEST_ID).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b'+' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Gate;
    use crate::http1::Wire;
    use shoal_model::site::HeaderCase;

    /// The fields of the request after all that happens to it, sorted, one a line. `keeps`: trailers and expectations pass.
    fn prepared(fields: &str, caller: &str, keeps: bool) -> Result<String, Failure> {
        prepared_by("x-forwarded-for", fields, caller, keeps)
    }

    fn prepared_by(header: &str, fields: &str, caller: &str, keeps: bool) -> Result<String, Failure> {
        let mut request = http::Request::builder().method("POST").uri("/x").header("host", "a.example");
        for field in fields.lines() {
            let (name, value) = field.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let gate = Gate {
            https: false,
            max_uri_bytes: 64,
            max_field_count: 32,
            default_authority: HeaderValue::from_static("x"),
        };
        let admitted = gate.admit(&mut head, Wire::default(), false).unwrap();
        let networks = vec!["10.0.0.0/8".parse().unwrap()];
        let proxies = TrustedProxiesView::new(networks, header.parse().unwrap());
        let caller = Caller::new(caller.parse().unwrap(), false, &proxies);
        let own = OwnName::new("n 1");
        let believed = believed_request_id(&head.headers, &admitted, &caller).cloned();
        let request_id = believed.unwrap_or(HeaderValue::from_static("id7"));
        let fields = RequestFields {
            caller: &caller,
            client: Client::of(&head.headers, &caller, &proxies),
            proxies: &proxies,
            own: &own,
            request_id: &request_id,
            keep_trailers: keeps,
            keep_expect: keeps,
        };
        if let Some(own) = prepare_request(&mut head, &admitted, fields)? {
            let before = head.headers.len();
            own.add_to(&mut head.headers);
            let added = head.headers.iter().skip(before);
            let lines = added.map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
            assert_eq!(
                std::str::from_utf8(own.text(HeaderCase::Lower)),
                Ok(lines.collect::<String>().as_str())
            );
        }
        let mut lines: Vec<_> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_unstable();
        Ok(lines.join("\n"))
    }

    const OURS: &str = "cdn-loop: shoal-n1\nforwarded: for=1.2.3.4;host=a.example;proto=http\nhost: a.example\n\
        via: 1.1 shoal-n1\nx-forwarded-for: 1.2.3.4\nx-forwarded-host: a.example\nx-forwarded-proto: http\n\
        x-real-ip: 1.2.3.4\nx-request-id: id7";

    #[test]
    fn strangers_are_not_believed() {
        let check = |fields: &str| {
            assert_eq!(prepared(fields, "1.2.3.4", false).unwrap(), OURS, "{fields}");
        };
        check("");
        check("x-forwarded-for: 6.6.6.6\nforwarded: for=6.6.6.6\nx-real-ip: 6.6.6.6\nx-request-id: mine");
        check(
            "x-forwarded-host: evil\nx-forwarded-proto: https\nx-forwarded-port: 1\nx-forwarded-prefix: /p",
        );
        check(
            "x-original-url: /admin\nx-rewrite-url: /admin\nx-http-method-override: DELETE\nshoal-peer: n1",
        );
        check("x-http-method: DELETE\nx-method-override: DELETE\nx-forwarded: for=6.6.6.6");
        check("x-host: evil\nx-original-host: evil\nx-http-host-override: evil\nx-forwarded-server: evil");
        check(
            "connection: close, X-Mine\nx-mine: 1\nkeep-alive: 1\nproxy-authorization: x\nproxy-connection: x",
        );
        check("http2-settings: AAMAAABkAAQAoAAAAAIAAAAA\nproxy: http://evil:8080");
        check("te: trailers\ntrailer: x\nupgrade: h2c\nconnection: upgrade, te\nexpect: 100-continue");
    }

    #[test]
    fn trusted_callers_are() {
        let seen = prepared(
            "x-forwarded-for: 6.6.6.6\nx-forwarded-proto: https\nforwarded: for=6.6.6.6\nx-request-id: theirs-1",
            "10.1.1.1",
            false,
        );
        let expected = "cdn-loop: shoal-n1\nforwarded: for=6.6.6.6;host=a.example;proto=https, for=10.1.1.1\n\
            host: a.example\nvia: 1.1 shoal-n1\nx-forwarded-for: 6.6.6.6, 10.1.1.1\nx-forwarded-host: a.example\n\
            x-forwarded-proto: https\nx-real-ip: 6.6.6.6\nx-request-id: theirs-1";
        assert_eq!(seen.unwrap(), expected);
    }

    #[test]
    fn a_field_of_their_own_is_theirs_alone() {
        let header = "true-client-ip";
        let seen = prepared_by(header, "true-client-ip: 6.6.6.6", "10.1.1.1", false).unwrap();
        for said in ["x-real-ip: 6.6.6.6", "x-forwarded-for: 6.6.6.6, 10.1.1.1", "true-client-ip: 6.6.6.6"] {
            assert!(seen.contains(said), "{said} in {seen}");
        }
        let named = "true-client-ip: 6.6.6.6\ntrue-client-ip: 1.1.1.1\nconnection: true-client-ip";
        let seen = prepared_by(header, named, "10.1.1.1", false).unwrap();
        assert!(seen.contains("true-client-ip: 1.1.1.1") && !seen.contains("6.6.6.6"), "{seen}");
        let nobody = prepared_by(header, "true-client-ip: nonsense", "10.1.1.1", false).unwrap();
        assert!(!nobody.contains("true-client-ip"), "{nobody}");
        assert_eq!(prepared_by(header, "true-client-ip: 6.6.6.6", "1.2.3.4", false).unwrap(), OURS);
    }

    #[test]
    fn trusted_callers_may_name_hosts_but_override_nothing() {
        let seen = prepared(
            "x-host: b\nx-original-host: b\nx-forwarded-port: 1\nx-http-method: DELETE\nx-original-url: /admin\n\
             x-forwarded: for=6.6.6.6\nx-forwarded-ssl: on\nx-forwarded-scheme: https",
            "10.1.1.1",
            false,
        );
        let seen = seen.unwrap();
        for passed in ["x-host: b", "x-original-host: b", "x-forwarded-port: 1"] {
            assert!(seen.contains(passed), "{passed} in {seen}");
        }
        for dropped in ["x-http-method", "x-original-url", "x-forwarded:", "x-forwarded-ssl", "-scheme"] {
            assert!(!seen.contains(dropped), "{dropped} in {seen}");
        }
    }

    #[test]
    fn trailers_pass_where_the_route_says_so() {
        let seen = prepared("te: trailers\ntrailer: x-sum", "1.2.3.4", true).unwrap();
        assert!(seen.contains("te: trailers\ntrailer: x-sum"), "{seen}");
        assert!(!prepared("te: gzip", "1.2.3.4", true).unwrap().contains("te: gzip"));
    }

    #[test]
    fn expectations_pass_where_the_endpoint_is_asked() {
        for (keeps, expected) in [(true, true), (false, false)] {
            let seen = prepared("expect: 100-continue", "1.2.3.4", keeps).unwrap();
            assert_eq!(seen.contains("expect: 100-continue"), expected, "{seen}");
        }
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let seen = prepared("cookie: a=1\ncookie: b=2", "1.2.3.4", false).unwrap();
        assert!(seen.contains("cookie: a=1; b=2\n"), "{seen}");
    }

    #[test]
    fn circles_are_seen() {
        let check = |fields: &str, circle: bool| {
            let seen = prepared(fields, "1.2.3.4", false);
            assert_eq!(seen == Err(Failure::Loop), circle, "{fields}");
        };
        check("via: 1.1 shoal-n2, 2.0 edge", false);
        check("via: 1.1 edge, 1.1 shoal-n1 (comment)", true);
        check("cdn-loop: other; v=1, shoal-n1", true);
        check("via: \u{e9}, 1.1 shoal-n1\ncdn-loop: \u{e9}", true);
        check("cdn-loop: shoal-n12", false);
    }
}
