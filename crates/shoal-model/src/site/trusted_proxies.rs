//! Whether what a listener says of the proxies that it believes means anything.

use http::HeaderName;

use super::{Listener, Problem};

/// Fields that say something else, and would be taken off whoever is not believed.
const OTHERS: [&str; 31] = [
    "accept",
    "authorization",
    "cdn-loop",
    "connection",
    "cookie",
    "date",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "origin",
    "proxy",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-host",
    "x-original-host",
    "x-original-url",
    "x-request-id",
];
/// Families of such fields.
const OTHER_FAMILIES: [&str; 7] = ["accept-", "cache-", "client-cert", "content-", "if-", "sec-", "shoal-"];

/// Checks the field in which they name their caller.
pub(super) fn validate_listener(path: &str, listener: &Listener, problems: &mut Vec<Problem>) {
    let Some(written) = &listener.client_ip_header else { return };
    let path = format!("{path}.client_ip_header");
    // Names with `_` are refused before anybody reads them.
    let name = HeaderName::from_bytes(written.as_bytes()).ok().filter(|name| !name.as_str().contains('_'));
    let is_other = |name: &HeaderName| {
        let name = name.as_str();
        OTHERS.contains(&name) || OTHER_FAMILIES.iter().any(|family| name.starts_with(family))
    };
    if name.is_none_or(|name| is_other(&name)) {
        let message = format!("{written:?} is not the name of a field that could name a caller");
        problems.push(Problem::at(path, message));
    } else if listener.trusted_proxies.is_empty() {
        problems.push(Problem::no_effect(path, "nobody is believed without `trusted_proxies`"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_site;

    #[test]
    fn callers_are_named_in_fields_for_that() {
        let check = |settings: &str, expected: Option<&str>| {
            let text = format!("listeners:\n  l: {{ address: \":80\", protocol: http, {settings} }}\n");
            let found = read_site("site.yaml", &text).err().map(|problems| problems.0[0].to_string());
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some(part)) => assert!(found.contains(part), "{settings}: {found}"),
                _ => panic!("{settings}: {found:?}"),
            }
        };
        for name in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "true-client-ip"] {
            check(&format!("trusted_proxies: [10.0.0.0/8], client_ip_header: {name}"), None);
            check(&format!("client_ip_header: {name}"), Some("no effect: nobody is believed"));
        }
        for name in
            ["\"a b\"", "client_ip", "Host", "Cookie", "Content-Length", "shoal-hop", "X-Forwarded-Proto"]
        {
            let settings = format!("trusted_proxies: [10.0.0.0/8], client_ip_header: {name}");
            check(&settings, Some("is not the name of a field that could name a caller"));
        }
    }
}
