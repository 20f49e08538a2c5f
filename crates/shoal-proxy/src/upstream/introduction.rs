//! The PROXY header that endpoints are sent first, where they want to know who called.

use http::Extensions;
use shoal_model::site::ProxyVersion;
use shoal_model::view::UpstreamView;
use shoal_policy::tcp::proxy_header::{Ends, write_v1, write_v2};

/// What a connection to an endpoint begins with.
pub(crate) struct Introduction(Vec<u8>);

impl Introduction {
    /// For a connection whose ends are `ends`; without them this node speaks for itself. `None` = nothing is to be said.
    pub(crate) fn of(version: Option<ProxyVersion>, ends: Option<&Ends>) -> Option<Self> {
        version.map(|version| match version {
            ProxyVersion::V1 => Self(write_v1(ends)),
            ProxyVersion::V2 => Self(write_v2(ends)),
        })
    }

    /// For a request that was asked on the connection that its extensions name.
    pub(super) fn of_request(upstream: &UpstreamView, extensions: &Extensions) -> Option<Self> {
        if upstream.proxy_protocol.is_some() {
            Self::of(upstream.proxy_protocol, extensions.get())
        } else {
            None
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
