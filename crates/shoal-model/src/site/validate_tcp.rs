//! Whether listeners and upstreams below HTTP mean anything.

use std::net::IpAddr;

use super::naming::{check_host, check_reference};
use super::{Listener, Problem, Protocol, Site, Upstream};

/// Checks what a listener says of connections before, or instead of, HTTP.
pub(super) fn validate_listener(path: &str, listener: &Listener, site: &Site, problems: &mut Vec<Problem>) {
    let mut refuse =
        |field: &str, message: &str| problems.push(Problem::at(format!("{path}{field}"), message));
    let is_http = matches!(listener.protocol, Protocol::Http | Protocol::Https);
    if is_http && listener.upstream.is_some() {
        refuse(".upstream", "routes say where requests go; did you mean `protocol: tcp`?");
    }
    if listener.protocol == Protocol::Tcp && listener.upstream.is_none() {
        refuse("", "a tcp listener needs `upstream`");
    }
    if listener.protocol == Protocol::TlsPassthrough && listener.sni.is_empty() {
        refuse("", "a tls_passthrough listener needs `sni`: names of upstreams by server name");
    }
    if listener.protocol != Protocol::TlsPassthrough && !listener.sni.is_empty() {
        refuse(".sni", "only a listener with `protocol: tls_passthrough` reads server names");
    }
    if !is_http {
        if !listener.certificates.is_empty() {
            refuse(".certificates", "TLS is not ended here; did you mean `protocol: https`?");
        }
        if listener.min_tls.is_some() {
            refuse(".min_tls", "TLS is not ended here");
        }
        if !listener.trusted_proxies.is_empty() {
            refuse(".trusted_proxies", "there are no forwarding fields; did you mean `proxy_protocol`?");
        }
    }
    if listener.proxy_protocol.as_ref().is_some_and(|proxy| proxy.trusted.is_empty()) {
        refuse(".proxy_protocol.trusted", "needs at least one network: without any, nobody could connect");
    }
    if let Some(name) = &listener.upstream {
        check_target(format!("{path}.upstream"), name, site, problems);
    }
    for (host, name) in &listener.sni {
        let path = format!("{path}.sni.{}", super::step(host));
        if host.parse::<IpAddr>().is_ok() {
            problems.push(Problem::at(path.clone(), format!("{host:?}: addresses are never sent as names")));
        } else if let Err(message) = check_host(host) {
            problems.push(Problem::at(path.clone(), message));
        }
        check_target(path, name, site, problems);
    }
}

/// An upstream whose endpoints get bytes as they are.
fn check_target(path: String, name: &str, site: &Site, problems: &mut Vec<Problem>) {
    if site.upstreams.get(name).is_some_and(|upstream| upstream.tls.is_some()) {
        let message = format!("upstream {name:?} has `tls`, but bytes are carried as they are");
        problems.push(Problem::at(path.clone(), message));
    }
    check_reference(path, "upstream", name, &site.upstreams, problems);
}

/// Checks what an upstream says of connections.
pub(super) fn validate_upstream(path: &str, upstream: &Upstream, problems: &mut Vec<Problem>) {
    if upstream.tcp_keepalive.is_some_and(|period| period.0.as_secs() == 0) {
        problems.push(Problem::at(format!("{path}.tcp_keepalive"), "must be at least 1s"));
    }
}

#[cfg(test)]
mod tests {
    use crate::site::read_site;

    fn problems_of(text: &str) -> Vec<String> {
        let problems = read_site("site.yaml", text).err();
        problems.iter().flat_map(|problems| &problems.0).map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_listener_needs_and_what_it_cannot_use() {
        let check = |listener: &str, expected: &[&str]| {
            let text = format!(
                "listeners: {{ l: {{ address: \":1\", {listener} }} }}\nupstreams: {{ a: {{ endpoints: [\"h:1\"] }} }}\n"
            );
            let found = problems_of(&text);
            assert_eq!(found.len(), expected.len(), "{listener}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{listener}: {found}");
            }
        };
        check("protocol: tcp, upstream: a", &[]);
        check("protocol: tls_passthrough, sni: { x.example: a, \"*.example\": a }", &[]);
        check("protocol: http, proxy_protocol: { trusted: [10.0.0.0/8], timeout: 1s }", &[]);
        check("protocol: tcp", &["needs `upstream`"]);
        check("protocol: tcp, upstream: b", &["there is no upstream \"b\""]);
        check("protocol: tcp, upstream: a, sni: { x: a }", &["reads server names"]);
        check("protocol: tcp, upstream: a, min_tls: \"1.3\"", &["not ended here"]);
        check("protocol: tcp, upstream: a, trusted_proxies: [10.0.0.0/8]", &["`proxy_protocol`"]);
        check("protocol: tls_passthrough, upstream: a", &["needs `sni`"]);
        check("protocol: tls_passthrough, sni: { x: b }", &["there is no upstream \"b\""]);
        check("protocol: tls_passthrough, sni: { \"x.*\": a }", &["a wildcard stands first"]);
        check("protocol: tls_passthrough, sni: { 10.0.0.1: a }", &["never sent as names"]);
        check("protocol: http, upstream: a", &["`protocol: tcp`"]);
        check("protocol: http, proxy_protocol: { trusted: [] }", &["at least one network"]);
        check("protocol: http, limits: { max_connections_per_address: 0 }", &["at least 1"]);
        check("protocol: http, limits: { max_connection_rate: 0 }", &["at least 1"]);
        check("protocol: http, limits: { max_connection_rate_per_address: 0 }", &["at least 1"]);
        check("protocol: http, limits: { h2_max_resets: 1, h2_max_idle_frames: 16 }", &[]);
        check("protocol: http, limits: { h2_max_resets: 0 }", &["at least 1"]);
        check("protocol: http, limits: { h2_max_idle_frames: 15 }", &["at least 16"]);
        check("protocol: http, limits: { h2_max_idle_frames: -1 }", &["h2_max_idle_frames"]);
        check("protocol: http, limits: { tcp_keepalive: 10ms }", &["at least 1s"]);
    }

    #[test]
    fn what_an_upstream_cannot_have() {
        let check = |upstream: &str, expected: &[&str]| {
            let text = format!("upstreams: {{ a: {{ endpoints: [\"h:1\"], {upstream} }} }}\n");
            let found = problems_of(&text);
            assert_eq!(found.len(), expected.len(), "{upstream}: {found:?}");
            assert!(
                found.iter().zip(expected).all(|(found, expected)| found.contains(expected)),
                "{found:?}"
            );
        };
        check("proxy_protocol: v1, tcp_keepalive: 30s, tcp_user_timeout: 20s", &[]);
        check("proxy_protocol: v3", &["v3"]);
        check("tcp_keepalive: 500ms", &["at least 1s"]);
    }
}
