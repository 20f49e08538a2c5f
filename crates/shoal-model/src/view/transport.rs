//! How endpoints are spoken to, compiled.

use std::sync::Arc;
use std::time::Duration;

use super::CertificateView;
use crate::site::{HeaderCase, Pin, Upstream, UpstreamProtocol, UpstreamTls};
use crate::units::Period;

/// How the endpoints of an upstream are spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportView {
    /// The version of HTTP.
    pub protocol: UpstreamProtocol,
    /// `None` = clear text.
    pub tls: Option<UpstreamTlsView>,
    /// How names of fields are spelled over HTTP/1.
    pub header_case: HeaderCase,
    /// Requests under way at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// From one HTTP/2 ping to the next while requests are under way; `None` = no pings.
    pub ping_interval: Option<Duration>,
    /// How long a ping may go unanswered.
    pub ping_timeout: Duration,
}

impl TransportView {
    pub(super) fn compile(upstream: &Upstream, certificates: &[Arc<CertificateView>]) -> Self {
        Self {
            protocol: upstream.protocol.unwrap_or_default(),
            tls: upstream.tls.as_ref().map(|tls| UpstreamTlsView::compile(tls, certificates)),
            header_case: upstream.header_case.unwrap_or_default(),
            max_streams: upstream.max_streams_per_connection.unwrap_or(100),
            ping_interval: upstream.ping_interval.map(|period| period.0),
            ping_timeout: upstream.ping_timeout.unwrap_or(Period::seconds(20)).0,
        }
    }

    /// Endpoints may speak HTTP/2: many requests can share a connection.
    pub fn may_share(&self) -> bool {
        self.protocol != UpstreamProtocol::Http1
    }

    /// Endpoints are verified by the authorities of the system.
    pub fn wants_system_roots(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.verify && tls.ca_pem.is_none())
    }

    /// Endpoints may speak HTTP/1.1: a connection can become a tunnel.
    pub fn may_switch(&self) -> bool {
        matches!(self.protocol, UpstreamProtocol::Http1 | UpstreamProtocol::Auto)
    }
}

/// TLS towards endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTlsView {
    /// Authorities that are believed, PEM; `None` = those of the system.
    pub ca_pem: Option<Arc<str>>,
    /// Name that is asked for and verified; `None` = the host of the endpoint.
    pub server_name: Option<Box<str>>,
    /// The endpoint's certificate is verified.
    pub verify: bool,
    /// Shown to endpoints that ask.
    pub client_certificate: Option<Arc<CertificateView>>,
    /// Keys one of which an endpoint must have; empty = any.
    pub pins: Vec<Pin>,
}

impl UpstreamTlsView {
    fn compile(tls: &UpstreamTls, certificates: &[Arc<CertificateView>]) -> Self {
        let named = |name: &String| certificates.iter().find(|known| *known.name == **name).cloned();
        Self {
            ca_pem: tls.ca_pem.as_deref().map(Into::into),
            server_name: tls.server_name.as_deref().map(Into::into),
            verify: tls.verify.unwrap_or(true),
            client_certificate: tls.client_certificate.as_ref().and_then(named),
            pins: tls.pins.clone(),
        }
    }
}
