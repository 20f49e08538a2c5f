//! Session persistence: a signed cookie that keeps a downstream at one endpoint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::units::Period;

/// Longest name of a cookie.
const MAX_NAME: usize = 64;
/// What browsers keep a cookie at most.
const MAX_TTL_SECONDS: u64 = 400 * 24 * 3600;

/// A cookie by which every node finds the endpoint of a session again. It names the endpoint in a way that only nodes of
/// the cluster can read, and is signed with a key of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// Name of the cookie. Upstreams that serve the same host and path need different ones.
    pub name: String,
    /// How long a session sticks without a request; half of it over, it is prolonged. Default: until the browser ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Period>,
    /// Below which path the cookie is sent; default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether the cookie goes with requests that other sites cause; default `lax`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
    /// Sent over TLS only; default: if the request came over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// Hidden from scripts; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_only: Option<bool>,
}

/// Whether a cookie goes with requests that other sites cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// When a link is followed.
    #[default]
    Lax,
    /// Never.
    Strict,
    /// Always.
    None,
}

/// What is wrong with the settings at `path`.
pub(super) fn validate_sticky(path: &str, sticky: &Sticky, problems: &mut Vec<Problem>) {
    let mut refuse =
        |field: &str, message: String| problems.push(Problem::at(format!("{path}.{field}"), message));
    let name = &sticky.name;
    // RFC 6265 §4.1.1: a token.
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_token) {
        refuse(
            "name",
            format!("{name:?} is not a name of a cookie: 1 to {MAX_NAME} letters, digits, - or _"),
        );
    }
    if sticky.ttl.is_some_and(|ttl| !(1..=MAX_TTL_SECONDS).contains(&ttl.0.as_secs())) {
        refuse("ttl", "must be 1s to 400d".to_owned());
    }
    let is_path = |path: &str| {
        path.starts_with('/') && path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_graphic() && b != b';')
    };
    if sticky.path.as_deref().is_some_and(|path| !is_path(path)) {
        refuse("path", "must start with '/', without spaces and ';'".to_owned());
    }
    let is_secure = sticky.secure == Some(true);
    if sticky.same_site == Some(SameSite::None) && !is_secure {
        refuse("same_site", "browsers take `none` only with `secure: true`".to_owned());
    }
    if name.starts_with("__Secure-") && !is_secure {
        refuse("name", "browsers take `__Secure-` only with `secure: true`".to_owned());
    }
    let is_whole_host = sticky.path.as_deref().is_none_or(|path| path == "/");
    if name.starts_with("__Host-") && !(is_secure && is_whole_host) {
        refuse("name", "browsers take `__Host-` only with `secure: true` and `path: /`".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_site;

    #[test]
    fn what_no_session_could_stick_by_is_refused_where_it_is_written() {
        let check = |setting: &str, expected: Option<(&str, &str)>| {
            let text = format!("upstreams:\n  app: {{ endpoints: [\"10.0.0.1:80\"], {setting} }}\n");
            let problem = read_site("site.yaml", &text).err().map(|mut problems| problems.0.swap_remove(0));
            assert!(problem.iter().all(|problem| problem.place.is_some()), "{problem:?}");
            let found = problem.map(|problem| (problem.path, problem.message));
            match (found, expected) {
                (None, None) => {}
                (Some((path, message)), Some((field, part))) => {
                    assert_eq!(path, format!("upstreams.app.{field}"), "{setting}");
                    assert!(message.contains(part), "{setting}: {message}");
                }
                (found, expected) => panic!("{setting}: {found:?}, not {expected:?}"),
            }
        };
        check("sticky: { name: node }", None);
        check(
            "sticky: { name: n, ttl: 1h, path: /a, same_site: none, secure: true, http_only: false }",
            None,
        );
        check("sticky: { name: \"a b\" }", Some(("sticky.name", "not a name")));
        check("sticky: { name: a, ttl: 10ms }", Some(("sticky.ttl", "1s to 400d")));
        check("sticky: { name: a, path: a }", Some(("sticky.path", "start with '/'")));
        check("sticky: { name: a, path: \"/;x\" }", Some(("sticky.path", "';'")));
        check("sticky: { name: a, same_site: none }", Some(("sticky.same_site", "secure")));
        check("sticky: { name: __Secure-a }", Some(("sticky.name", "secure")));
        check("sticky: { name: __Host-a, secure: true, path: /a }", Some(("sticky.name", "path")));
        check("sticky: { name: __Host-a, secure: true }", None);
        check("passive: { success_rate: {}, consecutive_local_failures: 3 }", None);
        let rate = |setting: &str| format!("passive: {{ success_rate: {{ {setting} }} }}");
        check(&rate("interval: 10ms"), Some(("passive.success_rate.interval", "100ms")));
        check(&rate("min_hosts: 1"), Some(("passive.success_rate.min_hosts", "at least 2")));
        check(&rate("min_requests: 0"), Some(("passive.success_rate.min_requests", "at least 1")));
        check(&rate("stdev_factor: 0"), Some(("passive.success_rate.stdev_factor", "0.1 to 10")));
        assert!(read_site("site.yaml", "upstreams:\n  app: { endpoints: [\"a:1\"], sticky: {} }\n").is_err());
    }
}
