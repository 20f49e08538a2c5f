//! `proxy_pass`, and the `upstream` blocks that it may name.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use shoal_model::site::{
    Balance, Endpoint, HashKey, PassiveHealth, Resolver, Sticky, Upstream, UpstreamProtocol, UpstreamTls,
};
use shoal_model::units::Period;

use super::scope::Scope;
use crate::convert::directive::Directive;
use crate::convert::draft::Draft;
use crate::convert::units::nginx_time;

/// What browsers keep a cookie at most.
const MAX_STICKY: Period = Period::seconds(400 * 24 * 3600);

/// Where a `proxy_pass` or `grpc_pass` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) tls: bool,
    pub(super) grpc: bool,
    /// A name, an address or `unix:/path`.
    pub(super) host: String,
    /// What takes the place of the part of the path that the location has matched.
    pub(super) uri: Option<String>,
}

/// Everything about upstreams that stands outside of locations.
pub(super) struct Upstreams<'a> {
    blocks: HashMap<&'a str, &'a Directive>,
    used: HashSet<String>,
    /// Relative files are looked for here.
    home: PathBuf,
}

impl Pass {
    /// Reads the argument of `directive`, whose variables are known.
    pub(super) fn read(directive: &str, target: &str) -> Result<Self, String> {
        let is_grpc = directive == "grpc_pass";
        let (scheme, rest) = match target.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None if is_grpc => ("grpc", target),
            None => return Err(format!("{target:?} is no URL")),
        };
        let tls = match scheme {
            "http" | "grpc" => false,
            "https" | "grpcs" => true,
            _ => return Err(format!("Shoal speaks no {scheme} to endpoints")),
        };
        let (host, uri) = match rest.strip_prefix("unix:") {
            // The path of the socket ends at a colon.
            Some(socket) => {
                let (path, uri) =
                    socket.split_once(':').map_or((socket, None), |(path, uri)| (path, Some(uri)));
                (format!("unix:{path}"), uri)
            }
            None => {
                let (host, uri) = rest.find('/').map_or((rest, None), |at| (&rest[..at], Some(&rest[at..])));
                (host.to_owned(), uri)
            }
        };
        Ok(Self { tls, grpc: is_grpc, host, uri: uri.filter(|uri| !uri.is_empty()).map(str::to_owned) })
    }

    /// The prefix of the directives about how it is spoken to.
    pub(super) fn module(&self) -> &'static str {
        if self.grpc { "grpc" } else { "proxy" }
    }
}

impl<'a> Upstreams<'a> {
    /// Those of `block`, which is that of `http`.
    pub(super) fn of(block: &'a [Directive], home: &Path) -> Self {
        let blocks = block.iter().filter(|one| one.name == "upstream").map(|one| (one.first(), one));
        Self { blocks: blocks.collect(), used: HashSet::new(), home: home.to_owned() }
    }

    /// Says of those to which nothing leads.
    pub(super) fn report_unused(&self, draft: &mut Draft) {
        for (name, block) in &self.blocks {
            if !self.used.contains(*name) {
                draft.left_out(block, "nothing that was carried over leads to it");
            }
        }
    }

    /// The name of the upstream that a location passes to.
    pub(super) fn name(
        &mut self,
        pass: &Pass,
        scope: &Scope<'_>,
        at: &Directive,
        draft: &mut Draft,
    ) -> String {
        let block = self.blocks.get(pass.host.as_str()).copied();
        let mut upstream = match block {
            Some(block) => of_block(block, draft),
            None => {
                let port = if pass.tls { 443 } else { 80 };
                Upstream { endpoints: vec![Endpoint::at(with_port(&pass.host, port))], ..Upstream::default() }
            }
        };
        if pass.tls {
            upstream.tls = Some(self.tls(pass, block.is_some(), scope, at, draft));
        }
        if pass.grpc {
            let protocol = if pass.tls { UpstreamProtocol::H2 } else { UpstreamProtocol::H2c };
            upstream.protocol = Some(protocol);
        }
        upstream.connect_timeout = time(scope.find(&format!("{}_connect_timeout", pass.module())), draft)
            .filter(|time| *time != Period::seconds(3));
        upstream.resolver = resolver(scope, &upstream.endpoints);
        let wish = match block {
            Some(_) => {
                self.used.insert(pass.host.clone());
                pass.host.clone()
            }
            None => name_of_address(&pass.host),
        };
        draft.upstream(&wish, upstream, block.unwrap_or(at))
    }

    fn tls(
        &self,
        pass: &Pass,
        is_block: bool,
        scope: &Scope<'_>,
        at: &Directive,
        draft: &mut Draft,
    ) -> UpstreamTls {
        let setting = |name: &str| scope.find(&format!("{}_ssl_{name}", pass.module()));
        let file = |name: &str| setting(name).map(|at| self.home.join(at.first()));
        let verifies = setting("verify").is_some_and(|at| at.first() == "on");
        let mut tls = UpstreamTls::default();
        if verifies {
            tls.ca_file = file("trusted_certificate");
        } else {
            tls.verify = Some(false);
            let how = "nginx verifies no endpoint unless `proxy_ssl_verify` is on, and so it stays: without `verify: false` they are verified";
            draft.changed(at, how);
        }
        let name = setting("name").map(|at| at.first().to_owned()).filter(|name| !name.contains('$'));
        tls.server_name = name.or_else(|| (is_block && verifies).then(|| pass.host.clone()));
        if tls.server_name.is_none() && upstream_needs_name(pass) {
            tls.server_name = Some("localhost".to_owned());
        }
        if let (Some(chain), Some(key)) = (file("certificate"), file("certificate_key")) {
            let name = format!("{}-client", name_of_address(&pass.host));
            tls.client_certificate =
                Some(draft.certificate(&name, chain, key, setting("certificate").unwrap_or(at)));
        }
        tls
    }
}

/// A Unix socket has no host to ask for.
fn upstream_needs_name(pass: &Pass) -> bool {
    pass.host.starts_with("unix:")
}

/// What an `upstream` block says by itself.
pub(super) fn of_block(block: &Directive, draft: &mut Draft) -> Upstream {
    let mut upstream = Upstream::default();
    for setting in block.body() {
        match setting.name.as_str() {
            "server" => server(&mut upstream, setting, draft),
            "least_conn" => upstream.balance = Some(Balance::LeastRequests),
            "least_time" => upstream.balance = Some(Balance::P2cEwma),
            "random" => match setting.first() {
                "two" => upstream.balance = Some(Balance::P2cEwma),
                _ => draft.changed(setting, "endpoints take turns here"),
            },
            "ip_hash" => by_hash(&mut upstream, HashKey::Address),
            "hash" => match hash_key(setting.first()) {
                Some(key) => {
                    if setting.first() == "$request_uri" {
                        draft.changed(setting, "the hash is of the path here, without the query");
                    }
                    by_hash(&mut upstream, key);
                }
                None => draft.left_out(
                    setting,
                    "`hash_key` is the path, the client's address, or one field, cookie or parameter",
                ),
            },
            "keepalive" => upstream.max_idle_connections = setting.first().parse().ok(),
            "keepalive_requests" => upstream.max_requests_per_connection = setting.first().parse().ok(),
            "keepalive_timeout" => {
                upstream.idle_timeout =
                    time(Some(setting), draft).filter(|time| *time != Period::seconds(60));
            }
            "keepalive_time" => {
                upstream.max_connection_age =
                    time(Some(setting), draft).filter(|time| *time != Period::seconds(3600));
            }
            "sticky" if setting.first() == "cookie" => upstream.sticky = sticky(setting, draft),
            "zone" | "resolver" | "resolver_timeout" | "state" | "ntlm" => {}
            "queue" => draft.left_out(setting, "`max_requests` with `queue_timeout` lets requests wait"),
            _ => draft.left_out(setting, "an upstream of Shoal has nothing like it"),
        }
    }
    upstream
}

/// nginx lets no endpoint off because it has more than its share.
fn by_hash(upstream: &mut Upstream, key: HashKey) {
    upstream.balance = Some(Balance::ConsistentHash);
    upstream.hash_key = (key != HashKey::Path).then_some(key);
    upstream.hash_balance_factor = Some(0);
}

fn hash_key(text: &str) -> Option<HashKey> {
    let variable = text.strip_prefix('$')?;
    let variable = variable.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(variable);
    match variable {
        "request_uri" | "uri" | "document_uri" => Some(HashKey::Path),
        "remote_addr" | "binary_remote_addr" => Some(HashKey::Address),
        "host" | "http_host" => Some(HashKey::Header("host".to_owned())),
        _ => {
            let after = |prefix: &str| variable.strip_prefix(prefix).filter(|name| !name.is_empty());
            let header = after("http_").map(|name| HashKey::Header(name.replace('_', "-")));
            let cookie = || after("cookie_").map(|name| HashKey::Cookie(name.to_owned()));
            let parameter = || after("arg_").map(|name| HashKey::Query(name.to_owned()));
            header.or_else(cookie).or_else(parameter)
        }
    }
}

fn server(upstream: &mut Upstream, at: &Directive, draft: &mut Draft) {
    let address = at.first();
    let parameter =
        |name: &str| at.args.iter().skip(1).find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
    let mut endpoint = match parameter("service") {
        Some(service) => {
            let service = if service.contains('.') { service.to_owned() } else { format!("_{service}._tcp") };
            Endpoint::at(format!("srv:{service}.{address}"))
        }
        None => Endpoint::at(with_port(address, 80)),
    };
    if upstream.endpoints.iter().any(|other| other.address == endpoint.address) {
        draft.left_out(at, "it is an endpoint already: give that one a `weight`");
        return;
    }
    endpoint.0.weight =
        parameter("weight").and_then(|weight| weight.parse().ok()).filter(|weight| *weight != 1);
    for flag in at.args.iter().skip(1).map(String::as_str) {
        match flag {
            "backup" => endpoint.0.priority = Some(1),
            "down" | "drain" => endpoint.0.drain = true,
            "resolve" => {}
            _ => match flag.split('=').next().unwrap_or(flag) {
                "weight" | "service" => {}
                "max_fails" | "fail_timeout" => {}
                "slow_start" => upstream.slow_start = parameter("slow_start").and_then(nginx_time),
                "max_conns" => {
                    upstream.max_connections =
                        parameter("max_conns").and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                }
                _ => draft.left_out(at, format!("{flag:?} has no counterpart")),
            },
        }
    }
    // It holds for all endpoints here: the first word counts.
    let errors = parameter("max_fails").and_then(|n| n.parse().ok()).filter(|n| *n != 5_u32);
    let ejection = parameter("fail_timeout").and_then(nginx_time).filter(|time| *time != Period::seconds(30));
    let ejection = ejection.filter(|time| !time.0.is_zero());
    let passive =
        PassiveHealth { consecutive_errors: errors, base_ejection: ejection, ..PassiveHealth::default() };
    if passive != PassiveHealth::default() {
        match &upstream.passive {
            None => upstream.passive = Some(passive),
            Some(known) if *known == passive => {}
            Some(_) => {
                draft.changed(at, "`max_fails` and `fail_timeout` of the first server hold for all endpoints")
            }
        }
    }
    upstream.endpoints.push(endpoint);
}

/// nginx plus: `sticky cookie NAME [expires=T] [httponly] [secure] [path=P] [samesite=S]`.
fn sticky(at: &Directive, draft: &mut Draft) -> Option<Sticky> {
    let name = at.args.get(1)?.clone();
    let mut sticky = Sticky { name, ttl: None, path: None, same_site: None, secure: None, http_only: None };
    for arg in &at.args[2..] {
        match arg.split_once('=') {
            Some(("expires", time)) => sticky.ttl = nginx_time(time).map(|time| time.min(MAX_STICKY)),
            Some(("path", path)) if path != "/" => sticky.path = Some(path.to_owned()),
            Some(("path", _)) => {}
            None if arg == "secure" => sticky.secure = Some(true),
            None if arg == "httponly" => {}
            _ => draft.left_out(at, format!("{arg:?} has no counterpart")),
        }
    }
    Some(sticky)
}

/// `resolver`, for endpoints that have to be looked up.
fn resolver(scope: &Scope<'_>, endpoints: &[Endpoint]) -> Option<Resolver> {
    let at = scope.find("resolver")?;
    let is_name = |endpoint: &Endpoint| {
        let address = endpoint.address.as_str();
        !address.starts_with("unix:") && address.parse::<std::net::SocketAddr>().is_err()
    };
    if !endpoints.iter().any(is_name) {
        return None;
    }
    let mut resolver = Resolver::default();
    for arg in &at.args {
        match arg.split_once('=') {
            Some(("valid", time)) => resolver.max_ttl = nginx_time(time),
            Some(_) => {}
            None => resolver.servers.push(with_port(arg, 53)),
        }
    }
    Some(resolver)
}

/// A time that is written; what cannot be read, or would be over at once, is reported.
pub(super) fn time(at: Option<&Directive>, draft: &mut Draft) -> Option<Period> {
    let at = at?;
    match nginx_time(at.first()) {
        Some(time) if !time.0.is_zero() => Some(time),
        Some(_) => {
            draft.left_out(at, "a time of 0 would be over at once here");
            None
        }
        None => {
            draft.left_out(at, "it says no time that is known");
            None
        }
    }
}

/// `host` with `port`, unless it has one.
pub(super) fn with_port(host: &str, port: u16) -> String {
    let has_port = match host.rsplit_once(':') {
        Some((before, number)) => {
            !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit())
                && (before.ends_with(']') || !before.contains(':'))
        }
        None => false,
    };
    if host.starts_with("unix:") || has_port { host.to_owned() } else { format!("{host}:{port}") }
}

/// What to call an upstream of one address.
pub(super) fn name_of_address(host: &str) -> String {
    if let Some(path) = host.strip_prefix("unix:") {
        let name = Path::new(path).file_stem().map(|name| name.to_string_lossy().into_owned());
        return name.unwrap_or_else(|| "socket".to_owned());
    }
    let name = host.strip_suffix(":80").or_else(|| host.strip_suffix(":443")).unwrap_or(host);
    name.replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart() {
        let check = |directive: &str, target: &str, expected: Result<(bool, &str, Option<&str>), &str>| {
            let seen = Pass::read(directive, target);
            let seen = seen.as_ref().map(|pass| (pass.tls, pass.host.as_str(), pass.uri.as_deref()));
            assert_eq!(seen.map_err(String::as_str), expected, "{target}");
        };
        check("proxy_pass", "http://app", Ok((false, "app", None)));
        check("proxy_pass", "https://app:8443/", Ok((true, "app:8443", Some("/"))));
        check("proxy_pass", "http://unix:/run/a.sock:/x", Ok((false, "unix:/run/a.sock", Some("/x"))));
        check("proxy_pass", "http://unix:/run/a.sock", Ok((false, "unix:/run/a.sock", None)));
        check("grpc_pass", "10.0.0.1:50051", Ok((false, "10.0.0.1:50051", None)));
        check("grpc_pass", "grpcs://app", Ok((true, "app", None)));
        check("proxy_pass", "app", Err("\"app\" is no URL"));
        check("proxy_pass", "ftp://app", Err("Shoal speaks no ftp to endpoints"));
    }

    #[test]
    fn ports_and_names_are_made() {
        for (host, address, name) in [
            ("app", "app:80", "app"),
            ("app:80", "app:80", "app"),
            ("127.0.0.1:9000", "127.0.0.1:9000", "127.0.0.1-9000"),
            ("[::1]", "[::1]:80", "[--1]"),
            ("[::1]:9", "[::1]:9", "[--1]-9"),
            ("unix:/run/app.sock", "unix:/run/app.sock", "app"),
        ] {
            assert_eq!((with_port(host, 80), name_of_address(host)), (address.into(), name.into()), "{host}");
        }
    }

    #[test]
    fn hashes_are_of_what_shoal_hashes() {
        for (text, expected) in [
            ("$request_uri", Some(HashKey::Path)),
            ("${remote_addr}", Some(HashKey::Address)),
            ("$http_x_user", Some(HashKey::Header("x-user".into()))),
            ("$cookie_id", Some(HashKey::Cookie("id".into()))),
            ("$arg_id", Some(HashKey::Query("id".into()))),
            ("$arg_", None),
            ("$host$uri", None),
            ("x", None),
        ] {
            assert_eq!(hash_key(text), expected, "{text}");
        }
    }
}
