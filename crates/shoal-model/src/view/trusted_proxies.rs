//! Whom a listener believes about who called them.

use std::net::IpAddr;

use http::HeaderName;
use http::header::FORWARDED;
use ipnet::IpNet;

use crate::site::Listener;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Proxies that are believed, and in what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxiesView {
    /// Where they are; empty = nobody is believed.
    pub networks: Vec<IpNet>,
    /// The field in which they name their caller: `Forwarded` (RFC 7239), or an address or a list of them, the nearest last.
    pub client_ip_header: HeaderName,
    /// The same, if it is none of those that this node writes: whoever is not believed may not send it.
    pub reserved_header: Option<HeaderName>,
}

impl TrustedProxiesView {
    /// Those in `networks`, who write `client_ip_header`.
    pub fn new(networks: Vec<IpNet>, client_ip_header: HeaderName) -> Self {
        let is_written = [FORWARDED, X_FORWARDED_FOR, X_REAL_IP].contains(&client_ip_header);
        let reserved_header = (!is_written).then(|| client_ip_header.clone());
        Self { networks, client_ip_header, reserved_header }
    }

    pub(super) fn compile(listener: &Listener) -> Self {
        let header = listener.client_ip_header.as_deref().and_then(|name| name.parse().ok());
        Self::new(listener.trusted_proxies.clone(), header.unwrap_or(X_FORWARDED_FOR))
    }

    /// Whether what comes from `address` is believed.
    pub fn include(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// Nobody is believed.
impl Default for TrustedProxiesView {
    fn default() -> Self {
        Self::new(Vec::new(), X_FORWARDED_FOR)
    }
}
