//! A compiled active check.

use std::sync::Arc;
use std::time::Duration;

use super::{CertificateView, ResolverView, TransportView};
use crate::site::{HealthCheck, ProxyVersion, Upstream};
use crate::units::Period;

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
    pub(super) fn compile(
        check: &HealthCheck,
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
