//! Who may purge by the method `PURGE`.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;

use crate::site::{PurgeMethod, read_sha256};

const X_PURGE_TOKEN: HeaderName = HeaderName::from_static("x-purge-token");

/// Who may purge by the method `PURGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeMethodView {
    /// Networks of callers; empty = any.
    pub networks: Vec<IpNet>,
    /// The field with the token, and the SHA-256 of what it has to hold; `None` = no token is asked for.
    pub token: Option<(HeaderName, [u8; 32])>,
}

impl PurgeMethodView {
    /// A hash that cannot be read is one that nobody has the token for: validation refuses it.
    pub(super) fn compile(rule: &PurgeMethod) -> Self {
        let header = rule.token_header.as_deref().and_then(|name| name.parse().ok()).unwrap_or(X_PURGE_TOKEN);
        let sha256 = rule.token_sha256.as_deref().map(|written| read_sha256(written).unwrap_or_default());
        Self { networks: rule.networks.clone(), token: sha256.map(|sha256| (header, sha256)) }
    }

    /// Whether callers at `address` may, as far as that goes.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address))
    }
}
