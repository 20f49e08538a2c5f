//! `reverse_proxy`: an upstream, and how a route uses it.

use shoal_model::site::{
    Balance, Endpoint, HashKey, HealthCheck, HttpCheck, PassiveHealth, ProxyVersion, Resolver, RetryRule,
    RouteTimeouts, Sticky, Upstream, UpstreamProtocol, UpstreamTls,
};
use shoal_model::units::Period;

use super::matcher::matcher_of;
use super::values::{period, trusted};
use crate::convert::directive::Directive;
use crate::convert::draft::Draft;

/// Most ports of a range.
const MAX_PORTS: u16 = 64;
/// About how Caddy works inside.
const HARMLESS: [&str; 8] = [
    "flush_interval",
    "buffer_requests",
    "buffer_responses",
    "request_buffers",
    "response_buffers",
    "stream_buffer_size",
    "lb_try_interval",
    "verbose_logs",
];

/// What a `reverse_proxy` says.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    pub(super) upstream: Upstream,
    timeouts: RouteTimeouts,
    retry: RetryRule,
    has_tls: bool,
    has_h2c: bool,
    has_h2: bool,
    /// Who is believed, if it says so.
    pub(super) trusted: Vec<String>,
}

impl Proxy {
    /// Reads `at`; None where no endpoint is left.
    pub(super) fn read(at: &Directive, draft: &mut Draft) -> Option<Self> {
        let mut proxy = Self::default();
        let skipped = usize::from(matcher_of(at).is_some());
        for target in at.args.iter().skip(skipped) {
            proxy.endpoint(target, at, draft);
        }
        for setting in at.body() {
            proxy.set(setting, draft);
        }
        for (number, endpoint) in proxy.upstream.endpoints.iter_mut().enumerate() {
            // `lb_policy first` was kept as this mark.
            if endpoint.0.priority.is_some() {
                endpoint.0.priority = u32::try_from(number).ok().filter(|number| *number > 0);
            }
        }
        if proxy.upstream.endpoints.is_empty() {
            draft.left_out(at, "it leads to no endpoint that is known beforehand");
            return None;
        }
        if proxy.has_tls {
            proxy.upstream.tls.get_or_insert_default();
        }
        proxy.upstream.protocol = match (&proxy.upstream.tls, proxy.has_h2c, proxy.has_h2) {
            (None, true, _) => Some(UpstreamProtocol::H2c),
            (Some(_), _, true) => Some(UpstreamProtocol::Auto),
            _ => None,
        };
        if let Some(tls) = &mut proxy.upstream.tls
            && tls.verify == Some(false)
        {
            tls.ca_file = None;
        }
        let is_socket = |endpoint: &Endpoint| endpoint.address.starts_with("unix:");
        if let Some(tls) = &mut proxy.upstream.tls
            && tls.server_name.is_none()
            && proxy.upstream.endpoints.iter().any(is_socket)
        {
            tls.server_name = Some("localhost".to_owned());
        }
        Some(proxy)
    }

    pub(super) fn timeouts(&self) -> Option<RouteTimeouts> {
        (self.timeouts != RouteTimeouts::default()).then(|| self.timeouts.clone())
    }

    pub(super) fn retry(&self) -> Option<RetryRule> {
        (self.retry != RetryRule::default()).then(|| self.retry.clone())
    }

    /// `host:port`, with a scheme, a range of ports or none.
    fn endpoint(&mut self, target: &str, at: &Directive, draft: &mut Draft) {
        if target.contains('{') {
            return draft.left_out(at, format!("an endpoint is known before the request: {target} is not"));
        }
        let (scheme, rest) = target.split_once("://").unwrap_or(("http", target));
        let default_port = match scheme {
            "http" => 80,
            "h2c" => {
                self.has_h2c = true;
                80
            }
            "https" => {
                self.has_tls = true;
                443
            }
            "srv+http" | "srv+https" => {
                self.has_tls |= scheme.ends_with('s');
                return self.add(format!("srv:{rest}"));
            }
            "unix" | "unix+h2c" => {
                self.has_h2c |= scheme.ends_with("h2c");
                return self.add(format!("unix:{rest}"));
            }
            _ => return draft.left_out(at, format!("Shoal speaks no {scheme} to endpoints")),
        };
        if let Some(path) = rest.strip_prefix("unix/").or_else(|| target.strip_prefix("unix/")) {
            return self.add(format!("unix:{path}"));
        }
        if let Some((_, path)) = rest.split_once('/')
            && !path.is_empty()
        {
            return draft.left_out(at, "endpoints have no paths: those of requests go on as they came");
        }
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (rest, ""),
        };
        let host = if host.is_empty() { "localhost" } else { host };
        let (first, last) = port.split_once('-').unwrap_or((port, port));
        let number = |text: &str| if text.is_empty() { Some(default_port) } else { text.parse::<u16>().ok() };
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last && last - first < MAX_PORTS => {
                (first..=last).for_each(|port| self.add(format!("{host}:{port}")));
            }
            _ => draft.left_out(at, format!("{port:?} is no port, nor a range of at most {MAX_PORTS}")),
        }
    }

    fn add(&mut self, address: String) {
        if !self.upstream.endpoints.iter().any(|endpoint| endpoint.address == address) {
            self.upstream.endpoints.push(Endpoint::at(address));
        }
    }

    fn set(&mut self, at: &Directive, draft: &mut Draft) {
        let name = at.name.as_str();
        if HARMLESS.contains(&name) {
            return;
        }
        match name {
            "to" => at.args.iter().for_each(|target| self.endpoint(target, at, draft)),
            "dynamic" => self.dynamic(at, draft),
            "lb_policy" => self.balance(at, draft),
            "lb_retries" => {
                self.retry.attempts =
                    at.first().parse::<u32>().ok().map(|n| n.saturating_add(1).min(10)).filter(|n| *n != 3);
            }
            "lb_try_duration" => draft.left_out(at, "tries are counted: `retry.attempts` of the route"),
            "fail_duration" => {
                self.passive().base_ejection = period(at, draft).filter(|time| *time != Period::seconds(30))
            }
            "max_fails" => self.passive().consecutive_errors = at.first().parse().ok().filter(|n| *n != 5),
            "unhealthy_status" if at.args.iter().all(|status| status == "5xx") => {
                self.passive().consecutive_5xx = Some(5);
            }
            "unhealthy_request_count" => {
                self.upstream.max_requests = at.first().parse().ok().filter(|n| *n > 0)
            }
            "header_up" => header_up(at, draft),
            "header_down" => {
                draft.left_out(at, "Shoal changes no fields of answers: let the endpoints do so")
            }
            "trusted_proxies" => self.trusted.extend(trusted(&at.args)),
            "transport" if at.first() == "http" => {
                at.body().iter().for_each(|one| self.transport(one, draft))
            }
            "transport" => {
                self.upstream.endpoints.clear();
                draft.left_out(at, format!("Shoal speaks HTTP to endpoints, not {}", at.first()));
            }
            _ if name.starts_with("health_") => self.health(at, draft),
            _ => draft.left_out(at, "a route of Shoal has nothing like it"),
        }
    }

    fn dynamic(&mut self, at: &Directive, draft: &mut Draft) {
        match (at.first(), &at.args[1.min(at.args.len())..]) {
            ("srv", [name]) => self.add(format!("srv:{name}")),
            ("a", [host, port]) => self.add(format!("{host}:{port}")),
            _ => draft.left_out(at, "endpoints are addresses, names, or `srv:` and the name of a service"),
        }
    }

    fn balance(&mut self, at: &Directive, draft: &mut Draft) {
        let argument = at.args.get(1).map_or("", String::as_str);
        let mut by = |key: HashKey| {
            self.upstream.balance = Some(Balance::ConsistentHash);
            self.upstream.hash_key = (key != HashKey::Path).then_some(key);
            self.upstream.hash_balance_factor = Some(0);
        };
        match at.first() {
            "round_robin" => {}
            "random" => draft.changed(at, "endpoints take turns here"),
            "least_conn" => self.upstream.balance = Some(Balance::LeastRequests),
            "random_choose" => self.upstream.balance = Some(Balance::P2cEwma),
            "ip_hash" | "client_ip_hash" => by(HashKey::Address),
            "uri_hash" => by(HashKey::Path),
            "header" => by(HashKey::Header(argument.to_owned())),
            "query" => by(HashKey::Query(argument.to_owned())),
            "cookie" => {
                let name = if argument.is_empty() { "lb" } else { argument }.to_owned();
                self.upstream.sticky = Some(Sticky {
                    name,
                    ttl: None,
                    path: None,
                    same_site: None,
                    secure: None,
                    http_only: None,
                });
            }
            "first" => self.upstream.endpoints.iter_mut().for_each(|endpoint| endpoint.0.priority = Some(0)),
            "weighted_round_robin" => {
                for (endpoint, weight) in self.upstream.endpoints.iter_mut().zip(&at.args[1..]) {
                    endpoint.0.weight = weight.parse().ok().filter(|weight| *weight != 1);
                }
            }
            _ => draft.left_out(at, "`balance` has nothing like it"),
        }
    }

    fn passive(&mut self) -> &mut PassiveHealth {
        self.upstream.passive.get_or_insert_default()
    }

    fn health(&mut self, at: &Directive, draft: &mut Draft) {
        let health = self.upstream.health.get_or_insert_with(|| HealthCheck {
            http: Some(HttpCheck { path: "/".to_owned(), ..HttpCheck::default() }),
            ..HealthCheck::default()
        });
        let Some(http) = &mut health.http else { return };
        let number = || at.first().parse::<u32>().ok();
        match at.name.as_str() {
            "health_uri" | "health_path" => http.path = at.first().to_owned(),
            "health_interval" => {
                health.interval = period(at, draft).filter(|time| *time != Period::seconds(5))
            }
            "health_timeout" => health.timeout = period(at, draft).filter(|time| *time != Period::seconds(2)),
            "health_passes" => health.rise = number().filter(|n| *n != 2),
            "health_fails" => health.fall = number().filter(|n| *n != 3),
            "health_status" => match at.first().parse() {
                Ok(status) => http.status = vec![status],
                Err(_) => draft.changed(at, "any 2xx or 3xx counts, or the statuses that are named"),
            },
            _ => draft.left_out(at, "a check has `path`, `host` and `status`"),
        }
    }

    fn transport(&mut self, at: &Directive, draft: &mut Draft) {
        let tls = |proxy: &mut Self, set: &dyn Fn(&mut UpstreamTls)| {
            proxy.has_tls = true;
            set(proxy.upstream.tls.get_or_insert_default());
        };
        match at.name.as_str() {
            "tls" => self.has_tls = true,
            "tls_insecure_skip_verify" => {
                draft.changed(at, "anybody in between can read and change everything, as before");
                tls(self, &|tls| tls.verify = Some(false));
            }
            "tls_server_name" => tls(self, &|tls| tls.server_name = Some(at.first().to_owned())),
            "tls_trusted_ca_certs" | "tls_trust_pool" => match (at.name.as_str(), &at.args[..]) {
                ("tls_trust_pool", [kind, file]) if kind == "file" => {
                    tls(self, &|tls| tls.ca_file = Some(file.into()))
                }
                ("tls_trusted_ca_certs", [file]) => tls(self, &|tls| tls.ca_file = Some(file.into())),
                _ => draft.left_out(at, "`tls.ca_file` is one PEM file with all authorities"),
            },
            "tls_client_auth" => match &at.args[..] {
                [chain, key] => {
                    let certificate = draft.certificate("client", chain.into(), key.into(), at);
                    tls(self, &|tls| tls.client_certificate = Some(certificate.clone()));
                }
                _ => draft.left_out(at, "Shoal makes no certificates: name a chain and its key"),
            },
            "dial_timeout" => {
                self.upstream.connect_timeout = period(at, draft).filter(|time| *time != Period::seconds(3))
            }
            "response_header_timeout" => {
                self.timeouts.first_byte = period(at, draft).filter(|time| *time != Period::seconds(30));
            }
            "read_timeout" => {
                self.timeouts.idle = period(at, draft).filter(|time| *time != Period::seconds(60))
            }
            "keepalive" if at.first() == "off" => self.upstream.max_requests_per_connection = Some(1),
            "keepalive" => {
                self.upstream.idle_timeout = period(at, draft).filter(|time| *time != Period::seconds(60))
            }
            "keepalive_idle_conns" | "keepalive_idle_conns_per_host" => {
                self.upstream.max_idle_connections = at.first().parse().ok().filter(|n| *n != 256);
            }
            "max_conns_per_host" => {
                self.upstream.max_connections = at.first().parse().ok().filter(|n| *n > 0)
            }
            "versions" if at.args.iter().any(|version| version == "h2c") => self.has_h2c = true,
            "versions" if at.args.iter().any(|version| version == "2") => self.has_h2 = true,
            "proxy_protocol" => {
                self.upstream.proxy_protocol =
                    Some(if at.first() == "v1" { ProxyVersion::V1 } else { ProxyVersion::V2 });
            }
            "resolvers" => {
                let servers = at
                    .args
                    .iter()
                    .map(|server| if server.contains(':') { server.clone() } else { format!("{server}:53") });
                self.upstream.resolver = Some(Resolver { servers: servers.collect(), ..Resolver::default() });
            }
            "versions"
            | "compression"
            | "read_buffer"
            | "write_buffer"
            | "max_response_header"
            | "tls_timeout"
            | "dial_fallback_delay"
            | "expect_continue_timeout"
            | "keepalive_interval"
            | "tls_renegotiation" => {}
            _ => draft.left_out(at, "an upstream of Shoal has nothing like it"),
        }
    }
}

/// Fields that Shoal writes by itself need not be written.
fn header_up(at: &Directive, draft: &mut Draft) {
    const OWN: [&str; 6] = [
        "x-real-ip",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-request-id",
        "forwarded",
    ];
    let name = at.first().trim_start_matches('+').to_ascii_lowercase();
    let value = at.args.get(1).map_or("", String::as_str);
    let is_kept_host = name == "host" && matches!(value, "{host}" | "{http.request.host}" | "{hostport}");
    let is_own = OWN.contains(&name.as_str()) && value.starts_with('{');
    if !is_kept_host && !is_own && name != "connection" && name != "upgrade" {
        draft.left_out(at, "Shoal sets no fields of requests beside those that say who called");
    }
}
