//! How names of fields are spelled where HTTP/1 is written. They mean the same in any case (RFC 9110 §5.1); some programs
//! have not heard of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Listener, Problem, Protocol, Upstream, UpstreamProtocol};

/// How names of fields are spelled where HTTP/1 is written. HTTP/2 knows small letters only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeaderCase {
    /// `content-type`.
    #[default]
    Lower,
    /// `Content-Type`: a capital at the beginning and behind each hyphen.
    Title,
    /// As whoever wrote the head has spelled it. Where that is not known it is `title`: of fields of this node, of what came
    /// over HTTP/2, and on routes with a cache.
    Preserve,
}

/// Checks that a listener that says how fields are spelled writes any.
pub(super) fn validate_listener(path: &str, listener: &Listener, problems: &mut Vec<Problem>) {
    let is_http = matches!(listener.protocol, Protocol::Http | Protocol::Https);
    if listener.header_case.is_some() && !is_http {
        let message = "only listeners that speak HTTP write fields";
        problems.push(Problem::at(format!("{path}.header_case"), message));
    }
}

/// The same for an upstream.
pub(super) fn validate_upstream(path: &str, upstream: &Upstream, problems: &mut Vec<Problem>) {
    let only_h2 = matches!(upstream.protocol, Some(UpstreamProtocol::H2 | UpstreamProtocol::H2c));
    if upstream.header_case.is_some_and(|case| case != HeaderCase::Lower) && only_h2 {
        let message = "HTTP/2 knows small letters only (RFC 9113 §8.2.1)";
        problems.push(Problem::at(format!("{path}.header_case"), message));
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_site;

    #[test]
    fn who_writes_no_fields_cannot_spell_them() {
        let check = |listener: &str, upstream: &str, expected: Option<&str>| {
            let text = format!(
                "upstreams: {{ a: {{ endpoints: [\"127.0.0.1:1\"]{upstream} }} }}\n\
                 listeners:\n  web: {{ address: \":80\", {listener} }}\n"
            );
            let problem = read_site("site.yaml", &text).err().map(|mut problems| problems.0.swap_remove(0));
            assert!(problem.iter().all(|problem| problem.place.is_some()), "{problem:?}");
            assert_eq!(problem.map(|problem| problem.path).as_deref(), expected, "{listener} {upstream}");
        };
        check("protocol: http, header_case: title", ", header_case: title", None);
        check("protocol: http, header_case: preserve", ", header_case: preserve", None);
        check("protocol: http, header_case: lower", ", header_case: lower, protocol: h2c", None);
        check("protocol: http, header_case: camel", "", Some("listeners.web.header_case"));
        check("protocol: tcp, upstream: a, header_case: title", "", Some("listeners.web.header_case"));
        check("protocol: http", ", header_case: title, protocol: h2c", Some("upstreams.a.header_case"));
    }
}
