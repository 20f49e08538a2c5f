//! A compiled listener.

use std::sync::Arc;

use super::{
    AccessLogView, CarriageView, ClientAuthView, Limits, ListenAddress, OverloadView, ProxyProtocolView,
    TracingView, TrustedProxiesView, UpstreamView,
};
use crate::site::{
    CipherSuite, HeaderCase, Listener, Problem, Problems, Protocol, Site, TlsVersion, log_subject,
};

/// A compiled listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerView {
    /// Its name in the site.
    pub name: Arc<str>,
    /// Its place in [`super::ConfigView::listeners`].
    pub index: usize,
    /// Where it binds.
    pub address: ListenAddress,
    /// What it speaks.
    pub protocol: Protocol,
    /// Places in [`super::ConfigView::certificates`]; the first is the default.
    pub certificates: Vec<usize>,
    /// Oldest TLS version.
    pub min_tls: TlsVersion,
    /// Cipher suites that are accepted; empty = all.
    pub ciphers: Vec<CipherSuite>,
    /// Downstreams show certificates; `None` = they are not asked.
    pub client_auth: Option<ClientAuthView>,
    /// Callers whose forwarding fields are believed.
    pub trusted_proxies: TrustedProxiesView,
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
    /// Some upstream wants names of fields spelled as they came.
    pub requests_keep_names: bool,
    /// Some upstream wants to be told who called.
    pub names_callers: bool,
    /// Where connections go that are carried as they are; `None` = they speak HTTP.
    pub carriage: Option<CarriageView>,
    /// What one downstream may cost.
    pub limits: Limits,
}

pub(super) fn compile_all(
    site: &Site,
    upstream_of: impl Fn(&str) -> Arc<UpstreamView>,
) -> Result<Vec<Arc<ListenerView>>, Problems> {
    let compile = |(index, (name, listener)): (usize, (&String, &Listener))| {
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
            trusted_proxies: TrustedProxiesView::compile(listener),
            access_log: listener
                .access_log
                .as_ref()
                .map(|log| AccessLogView::compile(log, log_subject(listener.protocol))),
            tracing: listener.tracing.as_ref().map(TracingView::compile),
            overload: OverloadView::compile(listener.overload.as_ref()),
            balance_connections: listener.balance_connections.unwrap_or(true),
            header_case: listener.header_case.unwrap_or_default(),
            requests_keep_names: site
                .upstreams
                .values()
                .any(|upstream| upstream.header_case == Some(HeaderCase::Preserve)),
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
