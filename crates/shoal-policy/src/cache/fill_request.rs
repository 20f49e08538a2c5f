//! What of a request reaches the origin when the response is for others, too: nothing that does not choose it, where the
//! route says so.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, COOKIE, HOST, HeaderMap, HeaderName,
    HeaderValue, IF_RANGE, PRAGMA, RANGE, USER_AGENT, VIA,
};
use shoal_model::view::CacheRuleView;

use super::selecting::{Selector, cookie};

/// Fields that pass on every route: negotiation, and what this node writes itself.
static ALWAYS: [HeaderName; 19] = [
    HOST,
    ACCEPT,
    ACCEPT_ENCODING,
    ACCEPT_LANGUAGE,
    CACHE_CONTROL,
    IF_RANGE,
    PRAGMA,
    RANGE,
    USER_AGENT,
    VIA,
    HeaderName::from_static("cdn-loop"),
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-request-id"),
];

/// Takes off what must not have an influence on a shared response: on a route that keys on cookies, all others; with
/// `strict_fill`, all fields that neither it nor `selectors` name.
pub fn limit_to_shared(request: &mut HeaderMap, rule: &CacheRuleView, selectors: &[Selector]) {
    if !rule.key.cookies.is_empty() {
        keep_cookies(request, &rule.key.cookies);
    }
    let Some(allowed) = &rule.fill_fields else { return };
    let names_cookies = !rule.key.cookies.is_empty();
    let passes = |name: &HeaderName| {
        ALWAYS.contains(name)
            || allowed.contains(name)
            || rule.key.headers.contains(name)
            || (name == COOKIE && names_cookies)
            || selectors.iter().any(|selector| matches!(selector, Selector::Field(field) if field == name))
    };
    let others: Vec<HeaderName> = request.keys().filter(|name| !passes(name)).cloned().collect();
    for name in others {
        request.remove(name);
    }
}

fn keep_cookies(request: &mut HeaderMap, names: &[Box<str>]) {
    let pairs = names.iter().filter_map(|name| Some([name.as_bytes(), &cookie(name, request)?].join(&b'=')));
    let text = pairs.collect::<Vec<_>>().join(&b"; "[..]);
    match HeaderValue::from_bytes(&text) {
        Ok(value) if !text.is_empty() => _ = request.insert(COOKIE, value),
        Ok(_) | Err(_) => _ = request.remove(COOKIE),
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::site::{CacheKeyRule, CacheRule};

    use super::*;

    fn check(rule: &CacheRule, selectors: &[Selector], expected: &[&str]) {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("host", "a.org"),
            ("accept", "*/*"),
            ("cookie", "sid=1; kind=a"),
            ("cookie", "x=y"),
            ("authorization", "Basic Zm9v"),
            ("x-tenant", "7"),
            ("x-evil", "1"),
        ] {
            fields.append(name, HeaderValue::from_static(value));
        }
        limit_to_shared(&mut fields, &CacheRuleView::compile(rule), selectors);
        // Removing moves fields of the map.
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let mut left: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, expected, "{rule:?}");
    }

    #[test]
    fn only_what_chooses_a_shared_response_is_sent() {
        let all = ["host: a.org", "accept: */*", "cookie: sid=1; kind=a", "cookie: x=y"];
        let rest = ["authorization: Basic Zm9v", "x-tenant: 7", "x-evil: 1"];
        check(&CacheRule::default(), &[], &[&all[..], &rest[..]].concat());

        let strict = |names: &[&str]| CacheRule {
            strict_fill: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..CacheRule::default()
        };
        check(&strict(&[]), &[], &all[..2]);
        check(&strict(&["X-Tenant"]), &[], &["host: a.org", "accept: */*", "x-tenant: 7"]);
        let tenant = Selector::parse("x-tenant").unwrap();
        check(&strict(&[]), &[tenant], &["host: a.org", "accept: */*", "x-tenant: 7"]);

        let key = |cookies: &[&str]| {
            let cookies = cookies.iter().map(|name| (*name).to_owned()).collect();
            Some(CacheKeyRule { cookies, ..CacheKeyRule::default() })
        };
        let keyed = CacheRule { key: key(&["kind", "none"]), ..CacheRule::default() };
        check(&keyed, &[], &[&all[..2], &["cookie: kind=a"], &rest[..]].concat());
        let nothing = CacheRule { key: key(&["none"]), ..CacheRule::default() };
        check(&nothing, &[], &[&all[..2], &rest[..]].concat());
        let both = CacheRule { key: key(&["kind"]), ..strict(&[]) };
        check(&both, &[], &["host: a.org", "accept: */*", "cookie: kind=a"]);
    }
}
