//! The site compiled for serving: every default filled in, every name resolved, every lookup a probe.

mod cache_key;
mod certificate;
mod client_auth;
mod dns;
mod health;
mod limits;
mod listener;
mod observe;
mod overload;
mod passive;
mod purge_method;
mod resolver;
mod retry;
mod route;
mod routes;
mod sticky;
mod tcp;
mod transport;
mod trusted_proxies;
mod upstream;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use crate::address::{EndpointAddress, ListenAddress, host_of_service};
pub use cache_key::{CacheKeyView, NamePattern, QueryView};
pub use certificate::CertificateView;
pub use client_auth::ClientAuthView;
pub use dns::{DnsView, DnsZoneView, ZoneName};
pub use health::{HealthView, ProbeView};
pub use limits::Limits;
pub use listener::ListenerView;
pub use observe::{AccessLogView, CollectorView, Share, TracingView};
pub use overload::OverloadView;
pub use passive::{PassiveView, SuccessRateView};
pub use purge_method::PurgeMethodView;
pub use resolver::ResolverView;
pub use retry::RetryView;
pub use route::{CacheRuleView, RouteView};
pub use routes::RouteTable;
pub use sticky::StickyView;
pub use tcp::{CarriageView, Liveness, ProxyProtocolView};
pub use transport::{TransportView, UpstreamTlsView};
pub use trusted_proxies::TrustedProxiesView;
pub use upstream::{EndpointView, UpstreamView};

use crate::id::Revision;
use crate::site::{HeaderCase, Problem, Problems, Site, Upstream, validate};

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
    /// The domains that nodes answer for.
    pub dns: DnsView,
}

impl ConfigView {
    /// Compiles `site`, whose private keys are in clear text.
    pub fn compile(revision: Revision, site: &Site) -> Result<Self, Problems> {
        Self::compile_trial(revision, site, &BTreeSet::new())
    }

    /// The same of a revision that other nodes do not serve yet, where it says otherwise how the routes `tried` are answered.
    pub fn compile_trial(
        revision: Revision,
        site: &Site,
        tried: &BTreeSet<String>,
    ) -> Result<Self, Problems> {
        let mut problems = validate(site);
        // What an earlier version took is no reason to serve nothing.
        problems.retain(|problem| !problem.is_served_in_force());
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let certificates = certificate::compile_all(site)?;
        let answers_keep_names =
            site.listeners.values().any(|listener| listener.header_case == Some(HeaderCase::Preserve));
        let compile_upstream = |(name, upstream): (&String, &Upstream)| {
            Arc::new(UpstreamView::compile(name, upstream, &certificates, answers_keep_names))
        };
        let upstreams: Vec<_> = site.upstreams.iter().map(compile_upstream).collect();
        let listener_index = |name: &String| site.listeners.keys().position(|listener| listener == name);
        let upstream_of = |name: &str| {
            let found = upstreams.binary_search_by(|upstream| (*upstream.name).cmp(name));
            found.map(|index| upstreams[index].clone()).expect("validated")
        };
        let listeners = listener::compile_all(site, upstream_of)?;
        let mut routes = RouteTable::default();
        for (index, (name, route)) in site.routes.iter().enumerate() {
            let view = Arc::new(RouteView::compile(
                name,
                index,
                route,
                upstream_of(&route.upstream),
                tried.contains(name).then_some(revision),
            ));
            let on: Vec<usize> = route.listeners.iter().filter_map(listener_index).collect();
            routes
                .insert(route, view, &on)
                .map_err(|message| Problems(vec![Problem::at(format!("routes.{name}"), message)]))?;
        }
        routes.seal();
        let dns = DnsView::compile(site);
        Ok(Self { revision, listeners, routes, upstreams, certificates, dns })
    }

    /// The upstream called `name`.
    pub fn upstream(&self, name: &str) -> Option<&Arc<UpstreamView>> {
        let found = self.upstreams.binary_search_by(|upstream| (*upstream.name).cmp(name));
        found.ok().map(|index| &self.upstreams[index])
    }
}
