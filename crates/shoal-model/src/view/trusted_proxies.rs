//! Whom a listener believes about who called them.

use std::net::IpAddr;

use http::HeaderName;
use http::header::FORWARDED;
use ipnet::IpNet;

use crate::site::Listener;

/// Proxies whose forwarding fields are believed, and which of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxiesView {
    /// Where they are; empty = nobody is believed.
    pub networks: Vec<IpNet>,
    /// The field in which they name their caller.
    pub client_ip_header: ClientIpHeader,
}

/// A field that names callers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientIpHeader {
    /// `X-Forwarded-For`: a list, whoever is nearest stands last.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), the same with names and schemes.
    Forwarded,
    /// `X-Real-IP`: one address.
    XRealIp,
    /// Another one, an address or a list of them.
    Other(HeaderName),
}

impl TrustedProxiesView {
    pub(super) fn compile(listener: &Listener) -> Self {
        let header = listener.client_ip_header.as_deref().and_then(|name| name.parse().ok());
        Self {
            networks: listener.trusted_proxies.clone(),
            client_ip_header: header.map_or_else(ClientIpHeader::default, ClientIpHeader::of),
        }
    }

    /// Whether what comes from `address` is believed.
    pub fn include(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

impl ClientIpHeader {
    fn of(name: HeaderName) -> Self {
        match name.as_str() {
            "x-forwarded-for" => Self::XForwardedFor,
            "x-real-ip" => Self::XRealIp,
            _ if name == FORWARDED => Self::Forwarded,
            _ => Self::Other(name),
        }
    }
}
