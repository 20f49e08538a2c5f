//! Whether a site means anything: one function per noun, every problem reported.

use std::collections::{BTreeMap, HashMap};

use super::cache_key::validate_cache;
use super::dns_zone::validate_dns_zones;
use super::listener_tls::validate_listener_tls;
use super::naming::{check_host, check_reference};
use super::object_count::check_count;
use super::observe::validate_observation;
use super::overload::validate_overload;
use super::passive::validate_passive;
use super::path_rule::PatternBudget;
use super::period::validate_periods;
use super::regions::{validate_regions, validate_shields};
use super::resolver::validate_resolver;
use super::retry::validate_retry;
use super::sticky::validate_sticky;
use super::transport::validate_transport;
use super::{
    Certificate, CertificateFacts, HashKey, HealthCheck, KeyForm, Listener, PathRule, Problem, Protocol,
    Route, Site, Upstream, UpstreamProtocol, header_case, no_effect, pem, purge_method, step,
    trusted_proxies, validate_tcp,
};
use crate::address::{EndpointAddress, ListenAddress};
use crate::path::canonical_path;

/// Longest name of an object.
const MAX_NAME: usize = 63;
/// Longest name of a gRPC service.
const MAX_GRPC_SERVICE: usize = 512;

/// Everything that is wrong with the meaning of `site`; empty = it can be served. Certificates are looked into by
/// [`check_certificates`] once their files are read.
pub fn validate(site: &Site) -> Vec<Problem> {
    let mut problems: Vec<Problem> = check_count(site.object_count()).into_iter().collect();
    let kinds = [
        ("listeners", site.listeners.keys().collect::<Vec<_>>()),
        ("certificates", site.certificates.keys().collect()),
        ("routes", site.routes.keys().collect()),
        ("upstreams", site.upstreams.keys().collect()),
    ];
    for (kind, names) in kinds {
        for name in names {
            if let Err(message) = check_name(name) {
                problems.push(Problem::at(format!("{kind}.{}", step(name)), message));
            }
        }
    }
    for (name, listener) in &site.listeners {
        validate_listener(&format!("listeners.{}", step(name)), listener, site, &mut problems);
    }
    validate_addresses(&site.listeners, &mut problems);
    for (name, certificate) in &site.certificates {
        validate_certificate(&format!("certificates.{}", step(name)), certificate, &mut problems);
    }
    let mut patterns = PatternBudget::new();
    for (name, route) in &site.routes {
        let path = format!("routes.{}", step(name));
        validate_route(&path, route, site, &mut problems);
        if let (Some(pattern), Ok(_)) = (&route.path_regex, PathRule::of(route)) {
            patterns.validate(&format!("{path}.path_regex"), pattern, &mut problems);
        }
    }
    validate_matches(site, &mut problems);
    validate_periods(site, &mut problems);
    validate_shields(site, &mut problems);
    validate_dns_zones(site, &mut problems);
    for (name, upstream) in &site.upstreams {
        let path = format!("upstreams.{}", step(name));
        validate_upstream(&path, upstream, &mut problems);
        validate_transport(&path, upstream, &site.certificates, &mut problems);
    }
    problems
}

/// Everything that is wrong with `next`, but for what has no effect and is like that in `active` already: nobody has to mend
/// what others have written, or what an earlier version took.
pub fn validate_next(next: &Site, active: &Site) -> Vec<Problem> {
    let mut problems = validate(next);
    if problems.iter().any(Problem::is_served_in_force) {
        let known = validate(active);
        problems.retain(|problem| !problem.is_served_in_force() || !known.contains(problem));
    }
    problems
}

/// Looks into every certificate whose key is in clear text. `inspect` reads chain and key (PEM) and says whether they
/// belong together.
pub fn check_certificates(
    site: &Site,
    inspect: impl Fn(&str, &str) -> Result<CertificateFacts, String>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, certificate) in &site.certificates {
        let (Some(chain), Some(key)) = (&certificate.chain_pem, &certificate.key_pem) else { continue };
        if let Err(message) = inspect(chain, key) {
            problems.push(Problem::at(format!("certificates.{}", step(name)), message));
        }
    }
    problems
}

/// Looks into the authorities of every upstream whose text is there. `inspect` reads them (PEM).
pub fn check_authorities(site: &Site, inspect: impl Fn(&str) -> Result<(), String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, upstream) in &site.upstreams {
        let Some(tls) = &upstream.tls else { continue };
        let looked = tls.ca_pem.as_deref().map(&inspect);
        if let Some(Err(message)) = looked {
            problems.push(Problem::at(format!("upstreams.{}.tls", step(name)), message));
        }
    }
    problems
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        return Err(format!(
            "names have 1 to {MAX_NAME} letters, digits, '-', '_' or '.', not {:?}",
            name.chars().take(80).collect::<String>()
        ));
    }
    Ok(())
}

fn validate_listener(path: &str, listener: &Listener, site: &Site, problems: &mut Vec<Problem>) {
    if let Err(message) = ListenAddress::parse(&listener.address) {
        problems.push(Problem::at(format!("{path}.address"), message));
    }
    for (n, name) in listener.certificates.iter().enumerate() {
        check_reference(
            format!("{path}.certificates[{n}]"),
            "certificate",
            name,
            &site.certificates,
            problems,
        );
    }
    match listener.protocol {
        Protocol::Https if listener.certificates.is_empty() => {
            problems.push(Problem::at(path, "an https listener needs at least one of `certificates`"));
        }
        Protocol::Http if !listener.certificates.is_empty() => {
            let message = "an http listener has no use for certificates; did you mean `protocol: https`?";
            problems.push(Problem::at(format!("{path}.certificates"), message));
        }
        Protocol::Http | Protocol::Https | Protocol::Tcp | Protocol::TlsPassthrough => {}
    }
    validate_tcp::validate_listener(path, listener, site, problems);
    trusted_proxies::validate_listener(path, listener, problems);
    header_case::validate_listener(path, listener, problems);
    validate_listener_tls(path, listener, problems);
    validate_observation(path, listener, problems);
    validate_overload(path, listener, problems);
    let Some(limits) = &listener.limits else { return };
    let mut at_least = |field: &str, value: Option<u64>, least: u64| {
        if value.is_some_and(|value| value < least) {
            problems.push(Problem::at(format!("{path}.limits.{field}"), format!("must be at least {least}")));
        }
    };
    at_least("max_header_bytes", limits.max_header_bytes.map(|size| size.0), 8192);
    at_least("max_uri_bytes", limits.max_uri_bytes.map(|size| size.0), 64);
    at_least("max_header_count", limits.max_header_count.map(|n| n as u64), 8);
    at_least("max_requests_per_connection", limits.max_requests_per_connection, 1);
    at_least("max_connections", limits.max_connections.map(|n| n as u64), 1);
    at_least("max_connections_per_address", limits.max_connections_per_address.map(|n| n as u64), 1);
    at_least("max_connection_rate", limits.max_connection_rate.map(u64::from), 1);
    let rate_per_address = limits.max_connection_rate_per_address.map(u64::from);
    at_least("max_connection_rate_per_address", rate_per_address, 1);
    at_least("h2_max_streams", limits.h2_max_streams.map(u64::from), 1);
    at_least("h2_max_resets", limits.h2_max_resets.map(u64::from), 1);
    // A polite downstream sends some: its settings, and a PING now and then.
    at_least("h2_max_idle_frames", limits.h2_max_idle_frames.map(u64::from), 16);
    if limits.tcp_keepalive.is_some_and(|period| period.0.as_secs() == 0) {
        let message = "must be at least 1s; leave it out for none";
        problems.push(Problem::at(format!("{path}.limits.tcp_keepalive"), message));
    }
}

/// Two listeners may not share an address; the same port on all addresses and on one overlap too.
fn validate_addresses(listeners: &BTreeMap<String, Listener>, problems: &mut Vec<Problem>) {
    let mut seen: Vec<(&String, ListenAddress)> = Vec::new();
    for (name, listener) in listeners {
        let Ok(address) = ListenAddress::parse(&listener.address) else { continue };
        if let Some((other, _)) = seen.iter().find(|(_, earlier)| earlier.overlaps(&address)) {
            let message = format!("{:?} is already taken by listener {other:?}", listener.address);
            problems.push(Problem::at(format!("listeners.{}.address", step(name)), message));
        }
        seen.push((name, address));
    }
}

fn validate_certificate(path: &str, certificate: &Certificate, problems: &mut Vec<Problem>) {
    match (&certificate.chain_file, &certificate.chain_pem) {
        (None, None) => problems.push(Problem::at(path, "needs `chain_file`")),
        (Some(_), Some(_)) => {
            problems.push(Problem::at(path, "has both `chain_file` and `chain_pem`; keep one"));
        }
        _ => {}
    }
    pem::validate_text(|| format!("{path}.chain_pem"), certificate.chain_pem.as_ref(), problems);
    if certificate.key_form() == KeyForm::Missing {
        problems.push(Problem::at(path, "needs `key_file`"));
    }
    if certificate.key_file.is_some() && certificate.key_pem.is_some() {
        problems.push(Problem::at(path, "has both `key_file` and `key_pem`; keep one"));
    }
    if certificate.ocsp_file.is_some() && certificate.ocsp_base64.is_some() {
        problems.push(Problem::at(path, "has both `ocsp_file` and `ocsp_base64`; keep one"));
    }
}

fn validate_route(path: &str, route: &Route, site: &Site, problems: &mut Vec<Problem>) {
    check_reference(format!("{path}.upstream"), "upstream", &route.upstream, &site.upstreams, problems);
    for (n, name) in route.listeners.iter().enumerate() {
        check_reference(format!("{path}.listeners[{n}]"), "listener", name, &site.listeners, problems);
        let protocol = site.listeners.get(name).map(|listener| listener.protocol);
        if matches!(protocol, Some(Protocol::Tcp | Protocol::TlsPassthrough)) {
            let message = format!("listener {name:?} speaks no HTTP: its own settings say where it leads");
            problems.push(Problem::at(format!("{path}.listeners[{n}]"), message));
        }
    }
    for (n, host) in route.hosts.iter().enumerate() {
        if let Err(message) = check_host(host) {
            problems.push(Problem::at(format!("{path}.hosts[{n}]"), message));
        }
    }
    if let Err((field, message)) = PathRule::of(route) {
        problems.push(Problem::at(format!("{path}{field}"), message));
    }
    for (field, written) in [("path", &route.path), ("path_prefix", &route.path_prefix)] {
        if let Some(message) = written.as_deref().and_then(why_never_asked) {
            problems.push(Problem::at(format!("{path}.{field}"), message));
        }
    }
    no_effect::validate_route(path, route, problems);
    if let Some(rule) = route.cache.as_ref().and_then(|cache| cache.purge_method.as_ref()) {
        purge_method::validate(&format!("{path}.cache.purge_method"), rule, problems);
    }
    if let Some(rule) = &route.cache {
        validate_cache(&format!("{path}.cache"), rule, problems);
    }
    if let Some(retry) = &route.retry {
        validate_retry(&format!("{path}.retry"), retry, problems);
    }
    for (n, protocol) in route.upgrades.iter().flatten().enumerate() {
        if protocol.is_empty() || !protocol.bytes().all(|b| b.is_ascii_graphic() && b != b',') {
            let message = format!("{protocol:?} is not a protocol name");
            problems.push(Problem::at(format!("{path}.upgrades[{n}]"), message));
        }
    }
}

/// Why no request ever has this path, whatever its spelling: requests are routed by their canonical path. What is no
/// path at all is the business of [`PathRule::of`].
fn why_never_asked(written: &str) -> Option<String> {
    if !written.starts_with('/') {
        return None;
    }
    match canonical_path(written) {
        Ok(canonical) if canonical == written => None,
        Ok(canonical) => Some(format!(
            "no request has the path {written:?}: they are routed by their canonical path; did you mean {canonical:?}?"
        )),
        Err(_) => Some(format!("no request has the path {written:?}: it holds a broken escape")),
    }
}

/// Two routes that match exactly the same requests on a shared listener would leave the choice to chance.
fn validate_matches(site: &Site, problems: &mut Vec<Problem>) {
    let mut seen: HashMap<(String, PathRule), Vec<(&String, &Route)>> = HashMap::new();
    for (name, route) in &site.routes {
        let Ok(rule) = PathRule::of(route) else { continue };
        let any = [String::new()];
        let hosts: &[String] = if route.hosts.is_empty() { &any } else { &route.hosts };
        for (n, host) in hosts.iter().enumerate() {
            let same = seen.entry((host.to_ascii_lowercase(), rule.clone())).or_default();
            let twin = same.iter().find(|(_, other)| share_listener(route, other));
            if let Some((other, _)) = twin {
                let (path, host) = match route.hosts.is_empty() {
                    true => (format!("routes.{}", step(name)), "any host".to_owned()),
                    false => (format!("routes.{}.hosts[{n}]", step(name)), format!("host {host:?}")),
                };
                let message = format!("{host} with {rule} is already matched by route {other:?}");
                problems.push(Problem::at(path, message));
            }
            same.push((name, route));
        }
    }
}

fn share_listener(a: &Route, b: &Route) -> bool {
    a.listeners.is_empty()
        || b.listeners.is_empty()
        || a.listeners.iter().any(|name| b.listeners.contains(name))
}

fn validate_upstream(path: &str, upstream: &Upstream, problems: &mut Vec<Problem>) {
    if upstream.endpoints.is_empty() {
        problems.push(Problem::at(format!("{path}.endpoints"), "needs at least one endpoint"));
    }
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (n, endpoint) in upstream.endpoints.iter().enumerate() {
        if let Err(message) = EndpointAddress::parse(&endpoint.address) {
            problems.push(Problem::at(format!("{path}.endpoints[{n}]"), message));
        }
        if let Some(first) = seen.insert(&endpoint.address, n) {
            let message =
                format!("{:?} is already endpoint {first}; give that one a weight instead", endpoint.address);
            problems.push(Problem::at(format!("{path}.endpoints[{n}]"), message));
        }
    }
    let weighs = |endpoint: &super::Endpoint| endpoint.weight != Some(0) && !endpoint.drain;
    if !upstream.endpoints.is_empty() && !upstream.endpoints.iter().any(weighs) {
        problems.push(Problem::at(
            format!("{path}.endpoints"),
            "all weights are 0, or drained: nothing could be chosen",
        ));
    }
    let percents = [
        ("panic_threshold_percent", upstream.panic_threshold_percent),
        ("passive.max_ejected_percent", upstream.passive.as_ref().and_then(|p| p.max_ejected_percent)),
    ];
    for (field, percent) in percents {
        if percent.is_some_and(|percent| percent > 100) {
            problems.push(Problem::at(format!("{path}.{field}"), "must be 0 to 100"));
        }
    }
    validate_tcp::validate_upstream(path, upstream, problems);
    no_effect::validate_upstream(path, upstream, problems);
    header_case::validate_upstream(path, upstream, problems);
    validate_regions(path, upstream, problems);
    if upstream.hash_balance_factor.is_some_and(|percent| (1..=100).contains(&percent)) {
        let message = "must be more than 100 (percent of an even share), or 0 for no bound";
        problems.push(Problem::at(format!("{path}.hash_balance_factor"), message));
    }
    if upstream.max_requests == Some(0) {
        problems.push(Problem::at(format!("{path}.max_requests"), "must be at least 1"));
    }
    if upstream.max_fills == Some(0) {
        problems.push(Problem::at(format!("{path}.max_fills"), "must be at least 1"));
    }
    if let Some(HashKey::Header(name) | HashKey::Cookie(name) | HashKey::Query(name)) = &upstream.hash_key
        && (name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && !b"=;,&:".contains(&b)))
    {
        problems.push(Problem::at(format!("{path}.hash_key"), format!("{name:?} is not a name")));
    }
    if let Some(passive) = &upstream.passive {
        validate_passive(&format!("{path}.passive"), passive, problems);
    }
    if let Some(sticky) = &upstream.sticky {
        validate_sticky(&format!("{path}.sticky"), sticky, problems);
    }
    if let Some(resolver) = &upstream.resolver {
        validate_resolver(&format!("{path}.resolver"), resolver, problems);
    }
    if let Some(health) = &upstream.health {
        validate_health(&format!("{path}.health"), health, problems);
        validate_grpc_check(&format!("{path}.health.grpc"), health, upstream, problems);
    }
}

fn validate_health(path: &str, health: &HealthCheck, problems: &mut Vec<Problem>) {
    let kinds =
        [("http", health.http.is_some()), ("tcp", health.tcp.is_some()), ("grpc", health.grpc.is_some())];
    let written: Vec<&str> = kinds.iter().filter(|(_, is_there)| *is_there).map(|(kind, _)| *kind).collect();
    match written[..] {
        [] => problems.push(Problem::at(path, "needs `http`, `tcp` or `grpc`")),
        [_] => {}
        [first, second, ..] => {
            problems.push(Problem::at(path, format!("has both `{first}` and `{second}`; keep one")));
        }
    }
    if let Some(http) = &health.http
        && (!http.path.starts_with('/') || !http.path.bytes().all(|b| b.is_ascii_graphic()))
    {
        problems.push(Problem::at(
            format!("{path}.http.path"),
            format!("{:?} is not a path: it starts with '/'", http.path),
        ));
    }
    for (field, value) in [("fall", health.fall), ("rise", health.rise)] {
        if value == Some(0) {
            problems.push(Problem::at(format!("{path}.{field}"), "must be at least 1"));
        }
    }
    for (field, value) in [("interval", health.interval), ("timeout", health.timeout)] {
        if value.is_some_and(|period| period.0.as_millis() < 50) {
            problems.push(Problem::at(format!("{path}.{field}"), "must be at least 50ms"));
        }
    }
}

/// gRPC is spoken over HTTP/2 alone.
fn validate_grpc_check(path: &str, health: &HealthCheck, upstream: &Upstream, problems: &mut Vec<Problem>) {
    let Some(grpc) = &health.grpc else { return };
    if upstream.protocol.unwrap_or_default() == UpstreamProtocol::Http1 {
        let message = "needs HTTP/2: `protocol: h2c` in clear text, `protocol: h2` over `tls`";
        problems.push(Problem::at(path, message));
    }
    if grpc.service.as_ref().is_some_and(|service| service.len() > MAX_GRPC_SERVICE) {
        problems.push(Problem::at(format!("{path}.service"), format!("at most {MAX_GRPC_SERVICE} bytes")));
    }
    if grpc.host.as_ref().is_some_and(|host| host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic())) {
        problems
            .push(Problem::at(format!("{path}.host"), "not an authority; write \"name\" or \"name:port\""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::parse_site;

    #[test]
    fn an_endpoint_is_checked_in_one_way() {
        let check = |upstream: &str, expected: Option<(&str, &str)>| {
            let text = format!("upstreams: {{ u: {{ endpoints: [\"h:1\"], {upstream} }} }}\n");
            let problems = validate(&parse_site("site.yaml", &text).unwrap());
            let seen = problems.first().map(|problem| (problem.path.as_str(), problem.message.as_str()));
            match (seen, expected) {
                (None, None) => {}
                (Some((path, message)), Some((at, part))) => {
                    assert_eq!(path, at, "{upstream}: {message}");
                    assert!(message.contains(part), "{upstream}: {message}");
                }
                (seen, _) => panic!("{upstream}: {seen:?}"),
            }
        };
        check("health: { tcp: {} }", None);
        check("protocol: h2c, health: { grpc: {} }", None);
        check("protocol: h2, tls: {}, health: { grpc: { service: shop.Cart, host: shop } }", None);
        check("health: {}", Some(("upstreams.u.health", "needs `http`, `tcp` or `grpc`")));
        check(
            "protocol: h2c, health: { tcp: {}, grpc: {} }",
            Some(("upstreams.u.health", "both `tcp` and `grpc`")),
        );
        check("health: { grpc: {} }", Some(("upstreams.u.health.grpc", "`protocol: h2c`")));
        check(
            "protocol: h2c, health: { grpc: { host: \"a b\" } }",
            Some(("upstreams.u.health.grpc.host", "authority")),
        );
    }

    #[test]
    fn what_no_request_could_match_is_refused() {
        let check = |setting: &str, expected: Option<&str>| {
            let text = format!(
                "upstreams: {{ u: {{ endpoints: [\"h:1\"] }} }}\nroutes: {{ r: {{ upstream: u, {setting} }} }}\n"
            );
            let problems = validate(&parse_site("site.yaml", &text).unwrap());
            assert_eq!(problems.len(), usize::from(expected.is_some()), "{setting}: {problems:?}");
            for (problem, expected) in problems.iter().zip(expected) {
                assert!(problem.message.contains(expected), "{setting}: {problem}");
            }
        };
        check("path: /norm2", None);
        check("path: \"/norm/../n%6frm2\"", Some("did you mean \"/norm2\"?"));
        check("path_prefix: \"/adm%69n\"", Some("did you mean \"/admin\"?"));
        check("path_prefix: /a/./", Some("did you mean \"/a/\"?"));
        check("path: \"/%c3%a9\"", Some("did you mean \"/%C3%A9\"?"));
        check("path: \"/a%2Fb\"", None);
        // An empty segment is one of its own, in requests too.
        check("path: //x", None);
        check("path: \"/a%zz\"", Some("a broken escape"));
        check("path: norm", Some("does not start with '/'"));
        check("path_regex: \"/n%6frm|/a/../b\"", None);
        check("hosts: [SHOP.example.com, \"*.Example.com\", \"::1\"]", None);
        check("hosts: [shop.example.com.]", Some("did you mean \"shop.example.com\"?"));
        check("hosts: [\"*.example.com.\"]", Some("did you mean \"*.example.com\"?"));
        check("hosts: [\"shop.example.com:80\"]", Some("did you mean \"shop.example.com\"?"));
        check("hosts: [\"a:b:c\"]", Some("is not a host name"));
    }
}
