//! The site compiled for serving: every default filled in, every name resolved, every lookup a probe.

mod client_auth;
mod limits;
mod observe;
mod overload;
mod passive;
mod resolver;
mod retry;
mod routes;
mod sticky;
mod tcp;
mod transport;

use std::sync::Arc;
use std::time::Duration;

pub use crate::address::{EndpointAddress, ListenAddress, host_of_service};
pub use client_auth::ClientAuthView;
pub use limits::Limits;
pub use observe::{AccessLogView, CollectorView, Share, TracingView};
pub use overload::OverloadView;
pub use passive::{PassiveView, SuccessRateView};
pub use resolver::ResolverView;
pub use retry::RetryView;
pub use routes::RouteTable;
pub use sticky::StickyView;
pub use tcp::{CarriageView, Liveness, ProxyProtocolView};
pub use transport::{TransportView, UpstreamTlsView};

use crate::id::{EndpointId, Revision};
use crate::site::{
    Balance, CacheRule, CipherSuite, Failback, HashKey, HeaderCase, Problem, ProblemKind, Problems, Protocol,
    ProxyVersion, PurgeUnverified, Replicate, RequestDirectives, Route, SetCookie, Site, TlsVersion,
    Upstream, log_subject, validate,
};
use crate::units::{ByteSize, Period};

/// The compiled site. Immutable: a new revision is a new view, and one pointer swap puts it into force.
#[derive(Debug, Default)]
pub struct ConfigView {
    /// Which revision it was compiled from.
    pub revision: Revision,
    /// In the order of their names.
    pub listeners: Vec<Arc<ListenerView>>,
    /// All routes, by host and path.
    pub routes: RouteTable,
    /// In the order of their names.
    pub upstreams: Vec<Arc<UpstreamView>>,
    /// In the order of their names.
    pub certificates: Vec<Arc<CertificateView>>,
}

impl ConfigView {
    /// Compiles `site`, whose private keys are in clear text.
    pub fn compile(revision: Revision, site: &Site) -> Result<Self, Problems> {
        let mut problems = validate(site);
        // What an earlier version took is no reason to serve nothing.
        problems.retain(|problem| problem.kind != ProblemKind::Idle);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let certificates = compile_certificates(site)?;
        let upstreams: Vec<_> = site
            .upstreams
            .iter()
            .map(|(name, upstream)| Arc::new(UpstreamView::compile(name, upstream, &certificates)))
            .collect();
        let listener_index = |name: &String| site.listeners.keys().position(|listener| listener == name);
        let upstream_of = |name: &str| {
            let found = upstreams.binary_search_by(|upstream| (*upstream.name).cmp(name));
            found.map(|index| upstreams[index].clone()).expect("validated")
        };
        let listeners = compile_listeners(site, upstream_of)?;
        let mut routes = RouteTable::default();
        for (index, (name, route)) in site.routes.iter().enumerate() {
            let view = Arc::new(RouteView::compile(name, index, route, upstream_of(&route.upstream)));
            let on: Vec<usize> = route.listeners.iter().filter_map(listener_index).collect();
            routes
                .insert(route, view, &on)
                .map_err(|message| Problems(vec![Problem::at(format!("routes.{name}"), message)]))?;
        }
        routes.seal();
        Ok(Self { revision, listeners, routes, upstreams, certificates })
    }

    /// The upstream called `name`.
    pub fn upstream(&self, name: &str) -> Option<&Arc<UpstreamView>> {
        let found = self.upstreams.binary_search_by(|upstream| (*upstream.name).cmp(name));
        found.ok().map(|index| &self.upstreams[index])
    }
}

fn compile_certificates(site: &Site) -> Result<Vec<Arc<CertificateView>>, Problems> {
    let compile = |(name, certificate): (&String, &crate::site::Certificate)| {
        let (Some(chain_pem), Some(key_pem)) = (&certificate.chain_pem, &certificate.key_pem) else {
            let message = "its chain and key were not read in before it was compiled";
            return Err(Problems(vec![Problem::at(format!("certificates.{name}"), message)]));
        };
        Ok(Arc::new(CertificateView {
            name: name.as_str().into(),
            chain_pem: chain_pem.as_str().into(),
            key_pem: key_pem.as_str().into(),
            staple: certificate.staple().map(Into::into),
        }))
    };
    site.certificates.iter().map(compile).collect()
}

fn compile_listeners(
    site: &Site,
    upstream_of: impl Fn(&str) -> Arc<UpstreamView>,
) -> Result<Vec<Arc<ListenerView>>, Problems> {
    let compile = |(index, (name, listener)): (usize, (&String, &crate::site::Listener))| {
        let address = ListenAddress::parse(&listener.address)
            .map_err(|message| Problems(vec![Problem::at(format!("listeners.{name}.address"), message)]))?;
        let client_auth =
            listener.client_auth.as_ref().map(ClientAuthView::compile).transpose().map_err(|message| {
                Problems(vec![Problem::at(format!("listeners.{name}.client_auth"), message)])
            })?;
        let position = |wanted: &String| site.certificates.keys().position(|name| name == wanted);
        Ok(Arc::new(ListenerView {
            name: name.as_str().into(),
            index,
            address,
            protocol: listener.protocol,
            certificates: listener.certificates.iter().filter_map(position).collect(),
            min_tls: listener.min_tls.unwrap_or(TlsVersion::V1_2),
            ciphers: listener.ciphers.clone(),
            client_auth,
            trusted_proxies: listener.trusted_proxies.clone(),
            access_log: listener
                .access_log
                .as_ref()
                .map(|log| AccessLogView::compile(log, log_subject(listener.protocol))),
            tracing: listener.tracing.as_ref().map(TracingView::compile),
            overload: OverloadView::compile(listener.overload.as_ref()),
            balance_connections: listener.balance_connections.unwrap_or(true),
            header_case: listener.header_case.unwrap_or_default(),
            names_callers: site.upstreams.values().any(|upstream| upstream.proxy_protocol.is_some()),
            proxy_protocol: listener.proxy_protocol.as_ref().map(ProxyProtocolView::compile),
            carriage: match listener.protocol {
                Protocol::Http | Protocol::Https => None,
                Protocol::Tcp | Protocol::TlsPassthrough => {
                    Some(CarriageView::compile(listener.upstream.as_ref(), &listener.sni, &upstream_of))
                }
            },
            limits: Limits::of(listener.limits.as_ref()),
        }))
    };
    site.listeners.iter().enumerate().map(compile).collect()
}

/// A compiled listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerView {
    /// Its name in the site.
    pub name: Arc<str>,
    /// Its place in [`ConfigView::listeners`].
    pub index: usize,
    /// Where it binds.
    pub address: ListenAddress,
    /// What it speaks.
    pub protocol: Protocol,
    /// Places in [`ConfigView::certificates`]; the first is the default.
    pub certificates: Vec<usize>,
    /// Oldest TLS version.
    pub min_tls: TlsVersion,
    /// Cipher suites that are accepted; empty = all.
    pub ciphers: Vec<CipherSuite>,
    /// Downstreams show certificates; `None` = they are not asked.
    pub client_auth: Option<ClientAuthView>,
    /// Callers whose forwarding fields are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// How its requests are logged; `None` = as the node was told.
    pub access_log: Option<AccessLogView>,
    /// Whether requests take part in traces; `None` = what they say of them is left alone.
    pub tracing: Option<TracingView>,
    /// When its requests are refused.
    pub overload: OverloadView,
    /// Connections are spread evenly over the workers.
    pub balance_connections: bool,
    /// How names of fields are spelled over HTTP/1.
    pub header_case: HeaderCase,
    /// Who may speak for others; `None` = callers are who they seem to be.
    pub proxy_protocol: Option<ProxyProtocolView>,
    /// Some upstream wants to be told who called.
    pub names_callers: bool,
    /// Where connections go that are carried as they are; `None` = they speak HTTP.
    pub carriage: Option<CarriageView>,
    /// What one downstream may cost.
    pub limits: Limits,
}

/// A certificate with its key, as PEM text.
#[derive(PartialEq, Eq)]
pub struct CertificateView {
    /// Its name in the site.
    pub name: Arc<str>,
    /// The leaf first.
    pub chain_pem: Arc<str>,
    /// The private key: never printed.
    pub key_pem: Arc<str>,
    /// An OCSP response about the leaf, DER.
    pub staple: Option<Arc<[u8]>>,
}

/// Never prints the key.
impl std::fmt::Debug for CertificateView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateView").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A compiled route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteView {
    /// Its name in the site.
    pub name: Arc<str>,
    /// Its place among the routes, in the order of their names.
    pub index: usize,
    /// Where its requests go.
    pub upstream: Arc<UpstreamView>,
    /// How its responses are cached; `None` = not at all.
    pub cache: Option<CacheRuleView>,
    /// Protocols a connection may be upgraded to, lower case.
    pub upgrades: Vec<Box<str>>,
    /// Trailers are passed on.
    pub trailers: bool,
    /// From the request sent to the response head.
    pub first_byte_timeout: Duration,
    /// How long a body waits for the endpoint to say 100 (Continue); zero = the endpoint is not asked.
    pub expect_timeout: Duration,
    /// Between two parts of the response body.
    pub idle_timeout: Duration,
    /// For the whole exchange.
    pub total_timeout: Option<Duration>,
    /// When a request is sent again.
    pub retry: RetryView,
}

impl RouteView {
    fn compile(name: &str, index: usize, route: &Route, upstream: Arc<UpstreamView>) -> Self {
        let timeouts = route.timeouts.clone().unwrap_or_default();
        let upgrades = match &route.upgrades {
            None => vec!["websocket".into()],
            Some(protocols) => {
                protocols.iter().map(|protocol| protocol.to_ascii_lowercase().into()).collect()
            }
        };
        Self {
            name: name.into(),
            index,
            upstream,
            cache: route.cache.as_ref().map(CacheRuleView::compile),
            upgrades,
            trailers: route.trailers,
            first_byte_timeout: timeouts.first_byte.unwrap_or(Period::seconds(30)).0,
            expect_timeout: timeouts.expect_continue.unwrap_or(Period::seconds(1)).0,
            idle_timeout: timeouts.idle.unwrap_or(Period::seconds(60)).0,
            total_timeout: timeouts.total.map(|period| period.0),
            retry: RetryView::compile(route.retry.as_ref()),
        }
    }
}

/// A compiled cache rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRuleView {
    /// Largest body that is stored, bytes.
    pub max_object_bytes: u64,
    /// When the second copy is made.
    pub replicate: Replicate,
    /// Whether responses with `Set-Cookie` may be stored.
    pub set_cookie: SetCookie,
    /// Whether `Cache-Control` of requests is obeyed.
    pub request_directives: RequestDirectives,
    /// How long past its expiry an object may be served while the origin cannot be reached.
    pub max_stale_on_disconnect: Duration,
    /// What happens to hits while this node cannot know of purges.
    pub purge_unverified: PurgeUnverified,
}

impl CacheRuleView {
    /// `rule` with the defaults filled in.
    pub fn compile(rule: &CacheRule) -> Self {
        Self {
            max_object_bytes: rule.max_object_size.unwrap_or(ByteSize::mib(64)).0,
            replicate: rule.replicate.unwrap_or_default(),
            set_cookie: rule.set_cookie.unwrap_or_default(),
            request_directives: rule.request_directives.unwrap_or_default(),
            max_stale_on_disconnect: rule.max_stale_on_disconnect.unwrap_or(Period::seconds(60)).0,
            purge_unverified: rule.purge_unverified.unwrap_or_default(),
        }
    }
}

/// A compiled upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamView {
    /// Its name in the site.
    pub name: Arc<str>,
    /// In the order of the site file.
    pub endpoints: Vec<EndpointView>,
    /// How names among them are looked up.
    pub resolver: Arc<ResolverView>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// What `consistent_hash` hashes.
    pub hash_key: HashKey,
    /// Percent of its even share of requests that an endpoint may have under way; 0 = unbounded.
    pub hash_bound_percent: u32,
    /// Regions that stand in for the own one, in order; `*` = all further ones.
    pub failover: Vec<Box<str>>,
    /// When what went to them comes back.
    pub failback: Failback,
    /// Endpoints of the node's own zone go first.
    pub prefer_own_zone: bool,
    /// How long an endpoint that came up takes to get its whole share.
    pub slow_start: Option<Duration>,
    /// Requests under way at once per endpoint and node; `None` = unlimited.
    pub max_requests: Option<usize>,
    /// How long a request waits while all endpoints have that many.
    pub queue_timeout: Duration,
    /// How sessions stick to endpoints; `None` = they do not.
    pub sticky: Option<StickyView>,
    /// Active checks; `None` = none.
    pub health: Option<HealthView>,
    /// Ejection by what traffic shows.
    pub passive: PassiveView,
    /// Percent of available endpoints below which health is ignored.
    pub panic_threshold_percent: u8,
    /// How endpoints are spoken to.
    pub transport: TransportView,
    /// For TCP connect and the TLS handshake.
    pub connect_timeout: Duration,
    /// For unused pooled connections.
    pub idle_timeout: Duration,
    /// Unused connections kept per endpoint and node.
    pub max_idle_connections: usize,
    /// Connections open at once per endpoint and node; `usize::MAX` = unlimited.
    pub max_connections: usize,
    /// Endpoints are told who called.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How the kernel finds out that endpoints are gone.
    pub liveness: Liveness,
    /// Requests of one node that wait for a connection at once.
    pub max_pending_requests: usize,
    /// Requests after which a connection is not used again.
    pub max_requests_per_connection: u64,
    /// Age after which a connection is not used again.
    pub max_connection_age: Duration,
}

impl UpstreamView {
    fn compile(name: &str, upstream: &Upstream, certificates: &[Arc<CertificateView>]) -> Self {
        let endpoint = |endpoint: &crate::site::Endpoint| EndpointView {
            id: EndpointId::of(name, &endpoint.address),
            text: endpoint.address.as_str().into(),
            address: EndpointAddress::parse(&endpoint.address).expect("validated"),
            weight: if endpoint.drain { 0 } else { endpoint.weight.or(endpoint.capacity).unwrap_or(1) },
            region: endpoint.region.as_deref().map(Into::into),
            capacity: endpoint.capacity,
            zone: endpoint.zone.as_deref().map(Into::into),
            priority: endpoint.priority.unwrap_or(0),
        };
        Self {
            name: name.into(),
            endpoints: upstream.endpoints.iter().map(endpoint).collect(),
            resolver: Arc::new(ResolverView::compile(upstream.resolver.as_ref())),
            balance: upstream.balance.unwrap_or_default(),
            hash_key: upstream.hash_key.clone().unwrap_or_default(),
            hash_bound_percent: upstream.hash_balance_factor.unwrap_or(125),
            failover: upstream.failover.iter().map(|region| region.as_str().into()).collect(),
            failback: upstream.failback.unwrap_or_default(),
            prefer_own_zone: upstream.prefer_own_zone,
            slow_start: upstream.slow_start.map(|period| period.0).filter(|window| !window.is_zero()),
            max_requests: upstream.max_requests,
            queue_timeout: upstream.queue_timeout.unwrap_or(Period::seconds(1)).0,
            sticky: upstream.sticky.as_ref().map(StickyView::compile),
            health: upstream.health.as_ref().map(|check| HealthView::compile(check, upstream, certificates)),
            passive: PassiveView::compile(upstream.passive.as_ref()),
            panic_threshold_percent: upstream.panic_threshold_percent.unwrap_or(50),
            transport: TransportView::compile(upstream, certificates),
            connect_timeout: upstream.connect_timeout.unwrap_or(Period::seconds(3)).0,
            idle_timeout: upstream.idle_timeout.unwrap_or(Period::seconds(60)).0,
            max_idle_connections: upstream.max_idle_connections.unwrap_or(256),
            max_connections: upstream.max_connections.unwrap_or(usize::MAX),
            proxy_protocol: upstream.proxy_protocol,
            liveness: Liveness::of(upstream.tcp_keepalive, upstream.tcp_user_timeout),
            max_pending_requests: upstream.max_pending_requests.unwrap_or(1024),
            max_requests_per_connection: upstream.max_requests_per_connection.unwrap_or(u64::MAX),
            max_connection_age: upstream.max_connection_age.unwrap_or(Period::seconds(3600)).0,
        }
    }
}

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// Equal on every node.
    pub id: EndpointId,
    /// As written.
    pub text: Arc<str>,
    /// Where to connect.
    pub address: EndpointAddress,
    /// Share of requests; 0 = none but those of sessions that stick to it.
    pub weight: u32,
    /// The region it stands in; `None` = that of every node.
    pub region: Option<Box<str>>,
    /// Requests a second that it can carry.
    pub capacity: Option<u32>,
    /// Where it stands.
    pub zone: Option<Box<str>>,
    /// Lower is used first.
    pub priority: u32,
}

/// A compiled active check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthView {
    /// What is asked.
    pub probe: ProbeView,
    /// How the endpoint is spoken to.
    pub transport: TransportView,
    /// How its name is looked up.
    pub resolver: Arc<ResolverView>,
    /// The endpoint wants to be told who calls: we ourselves.
    pub proxy_protocol: Option<ProxyVersion>,
    /// From one check to the next.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Failures in a row before down.
    pub fall: u32,
    /// Successes in a row before up.
    pub rise: u32,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeView {
    /// HTTP/1.1 GET.
    Http {
        /// Path and query.
        path: Box<str>,
        /// `Host` field; `None` = the endpoint's address.
        host: Option<Box<str>>,
        /// Statuses that count as success; empty = 200 to 399.
        status: Vec<u16>,
    },
    /// Connect only.
    Tcp,
    /// The gRPC health checking protocol.
    Grpc {
        /// Service that is asked for; empty = the server as a whole.
        service: Box<str>,
        /// `:authority`; `None` = the endpoint's address.
        host: Option<Box<str>>,
    },
}

impl HealthView {
    fn compile(
        check: &crate::site::HealthCheck,
        upstream: &Upstream,
        certificates: &[Arc<CertificateView>],
    ) -> Self {
        let probe = match (&check.http, &check.grpc) {
            (Some(http), _) => ProbeView::Http {
                path: http.path.as_str().into(),
                host: http.host.as_deref().map(Into::into),
                status: http.status.clone(),
            },
            (None, Some(grpc)) => ProbeView::Grpc {
                service: grpc.service.as_deref().unwrap_or_default().into(),
                host: grpc.host.as_deref().map(Into::into),
            },
            (None, None) => ProbeView::Tcp,
        };
        Self {
            probe,
            resolver: Arc::new(ResolverView::compile(upstream.resolver.as_ref())),
            proxy_protocol: upstream.proxy_protocol,
            transport: TransportView::compile(upstream, certificates),
            interval: check.interval.unwrap_or(Period::seconds(5)).0,
            timeout: check.timeout.unwrap_or(Period::seconds(2)).0,
            fall: check.fall.unwrap_or(3),
            rise: check.rise.unwrap_or(2),
        }
    }
}
