//! What an unsafe request makes invalid (RFC 9111 §4.4).

use std::fmt::Write;

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use shoal_model::ConfigView;

use super::key::{KeyParts, key_of_url};
use super::warming::kept_urls;
use crate::failure::Failure;

/// The request changes nothing at the origin (RFC 9110 §9.2.1); an unknown method is taken for one that does.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// The answer `status` says that a request with `method` has changed something: an error changes nothing.
pub fn has_changed(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// The request that failed after `tries` never left this node: it has changed nothing.
pub const fn is_unsent(failure: Failure, tries: u32) -> bool {
    let is_stuck = matches!(
        failure,
        Failure::UpstreamConnectFailed | Failure::UpstreamConnectTimeout | Failure::Overflow
    );
    tries == 0 || (tries == 1 && is_stuck)
}

/// The URLs of the keys to forget after an answer to `method` on `target` (the URL of its key): itself, and what `Location`
/// and `Content-Location` name on the same origin, as routes let its query count.
pub fn invalidated_urls(
    config: &ConfigView,
    method: &Method,
    target: &str,
    status: StatusCode,
    response: &HeaderMap,
) -> Vec<String> {
    if !has_changed(method, status) {
        return Vec::new();
    }
    let mut urls = vec![target.to_owned()];
    for name in [LOCATION, CONTENT_LOCATION] {
        let reference = response.get(&name).and_then(escaped);
        let named = reference.and_then(|reference| resolve(target, &reference));
        for url in named.iter().flat_map(|url| kept_urls(config, url)) {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
    urls
}

/// `Content-Location` says that the content is what a GET of `target` would show (RFC 9110 §8.7).
pub(super) fn shows(target: &str, response: &HeaderMap) -> bool {
    let mut lines = response.get_all(CONTENT_LOCATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let shown = escaped(line).and_then(|reference| resolve(target, &reference));
    shown.is_some_and(|shown| shown == target)
}

/// A reference as it would be requested: what is not ASCII goes out as escapes.
fn escaped(value: &HeaderValue) -> Option<String> {
    let mut text = String::with_capacity(value.len());
    for &byte in value.as_bytes() {
        match byte {
            0x80.. => write!(text, "%{byte:02X}").ok()?,
            _ => text.push(char::from(byte)),
        }
    }
    Some(text)
}

/// The key a reference names, if it is of the same origin as `base` (RFC 3986 §5.2; dot segments fall with the rest that is
/// not canonical).
fn resolve(base: &str, reference: &str) -> Option<String> {
    let reference = reference.trim().split('#').next().unwrap_or_default();
    let origin = KeyParts::origin(base);
    let absolute = if reference.is_empty() {
        return None;
    } else if reference.starts_with("//") {
        let scheme = base.split("//").next()?;
        format!("{scheme}{reference}")
    } else if reference.starts_with('/') {
        format!("{origin}{reference}")
    } else if has_scheme(reference) {
        reference.to_owned()
    } else if reference.starts_with('?') {
        format!("{}{reference}", base.split('?').next().unwrap_or(base))
    } else {
        let path = base.split('?').next().unwrap_or(base);
        let directory = path.rfind('/').map_or(path, |slash| &path[..=slash]);
        format!("{directory}{reference}")
    };
    let key = String::from_utf8(key_of_url(&absolute)?).ok()?;
    (KeyParts::origin(&key) == origin).then_some(key)
}

/// A colon before anything else that could end the first part (RFC 3986 §4.2).
fn has_scheme(reference: &str) -> bool {
    reference.find([':', '/', '?']).is_some_and(|at| reference.as_bytes()[at] == b':')
}

#[cfg(test)]
mod tests {
    use shoal_model::Revision;
    use shoal_model::site::read_site;

    use super::*;

    const SITE: &str = r#"
listeners: { web: { address: ":80", protocol: http } }
routes:
  shop:
    listeners: [web]
    hosts: [a.org]
    path_prefix: /counted
    upstream: u
    cache: { key: { exclude_query: [utm_*] } }
upstreams: { u: { endpoints: ["10.0.0.9:9"] } }
"#;

    fn check(method: Method, status: u16, location: &'static str, expected: &[&str]) {
        let config = ConfigView::compile(Revision(1), &read_site("site.yaml", SITE).unwrap()).unwrap();
        let location = HeaderValue::from_bytes(location.as_bytes()).unwrap();
        let fields = HeaderMap::from_iter([(LOCATION, location.clone())]);
        let status = StatusCode::from_u16(status).unwrap();
        let urls = invalidated_urls(&config, &method, "http://a.org:81/x/y?q", status, &fields);
        assert_eq!(urls, expected, "{method} {status} {location:?}");
    }

    #[test]
    fn only_success_invalidates_and_only_at_home() {
        let target = "http://a.org:81/x/y?q";
        check(Method::GET, 200, "/z", &[]);
        check(Method::POST, 404, "/z", &[]);
        check(Method::POST, 500, "/z", &[]);
        check(Method::POST, 201, "/z", &[target, "http://a.org:81/z"]);
        check(Method::DELETE, 204, "z?a", &[target, "http://a.org:81/x/z?a"]);
        check(Method::PUT, 303, "?new", &[target, "http://a.org:81/x/y?new"]);
        check(Method::from_bytes(b"FROB").unwrap(), 200, "http://A.org:81/Z", &[target, "http://a.org:81/Z"]);
        check(Method::POST, 201, "//a.org:81/z#top", &[target, "http://a.org:81/z"]);
        check(Method::POST, 201, "http://b.org/z", &[target]);
        check(Method::POST, 201, "https://a.org:81/z", &[target]);
        check(Method::POST, 201, "/x/y?q", &[target]);
        check(Method::POST, 201, "/counted?utm_a=1&b", &[target, "http://a.org:81/counted?b"]);
        check(Method::POST, 201, "/?utm_a=1&b", &[target, "http://a.org:81/?utm_a=1&b"]);
    }

    #[test]
    fn only_what_was_never_sent_has_changed_nothing() {
        for (failure, tries, unsent) in [
            (Failure::NoEndpoint, 0, true),
            (Failure::UpstreamConnectFailed, 1, true),
            (Failure::UpstreamConnectTimeout, 1, true),
            (Failure::Overflow, 1, true),
            // The first try may have been more successful.
            (Failure::UpstreamConnectFailed, 2, false),
            (Failure::UpstreamReset, 1, false),
            (Failure::UpstreamResponseTimeout, 1, false),
            (Failure::DownstreamReset, 1, false),
            (Failure::BodyTooLarge, 1, false),
        ] {
            assert_eq!(is_unsent(failure, tries), unsent, "{failure:?} {tries}");
        }
    }

    #[test]
    fn references_mean_the_requests_that_follow_them() {
        let target = "http://a.org:81/x/y?q";
        let names = |reference, key| check(Method::POST, 201, reference, &[target, key]);
        names("/%7Eu?%7e", "http://a.org:81/~u?%7e");
        names("http://A.org.:81/~u", "http://a.org:81/~u");
        names("/x/./y/../%2e%2E/z", "http://a.org:81/z");
        names("../z", "http://a.org:81/z");
        names("z?u=http://b.org/", "http://a.org:81/x/z?u=http://b.org/");
        names("/caf%c3%a9", "http://a.org:81/caf%C3%A9");
        names("/café", "http://a.org:81/caf%C3%A9");
        check(Method::POST, 201, "mailto:a@a.org", &[target]);
        check(Method::POST, 201, "/%zz", &[target]);
    }
}
