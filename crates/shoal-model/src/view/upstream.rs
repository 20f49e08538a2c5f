//! A compiled upstream and its endpoints.

use std::sync::Arc;
use std::time::Duration;

use super::{
    CertificateView, EndpointAddress, HealthView, Liveness, PassiveView, ResolverView, StickyView,
    TransportView,
};
use crate::id::EndpointId;
use crate::site::{Balance, Endpoint, Failback, HashKey, ProxyVersion, Upstream};
use crate::units::Period;

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
    /// The region that asks the endpoints on behalf of the caches of all others.
    pub shield: Option<Box<str>>,
    /// Requests of the cache under way at once per node.
    pub max_fills: usize,
    /// How long one waits while that many are.
    pub fill_queue_timeout: Duration,
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
    /// Some listener wants names of fields spelled as they came.
    pub answers_keep_names: bool,
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
    pub(super) fn compile(
        name: &str,
        upstream: &Upstream,
        certificates: &[Arc<CertificateView>],
        answers_keep_names: bool,
    ) -> Self {
        let endpoint = |endpoint: &Endpoint| EndpointView {
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
            shield: upstream.shield.as_deref().map(Into::into),
            max_fills: upstream.max_fills.unwrap_or(1024),
            fill_queue_timeout: upstream.fill_queue_timeout.unwrap_or(Period::seconds(5)).0,
            sticky: upstream.sticky.as_ref().map(StickyView::compile),
            health: upstream.health.as_ref().map(|check| HealthView::compile(check, upstream, certificates)),
            passive: PassiveView::compile(upstream.passive.as_ref()),
            panic_threshold_percent: upstream.panic_threshold_percent.unwrap_or(50),
            transport: TransportView::compile(upstream, certificates),
            answers_keep_names,
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
