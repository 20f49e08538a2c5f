//! How names of endpoints are looked up, compiled.

use std::net::SocketAddr;
use std::time::Duration;

use crate::site::{AddressFamily, Resolver};

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolverView {
    /// Name servers; empty = as the node's system does it.
    pub servers: Vec<SocketAddr>,
    /// For one question to one server.
    pub timeout: Duration,
    /// How often a question is asked.
    pub attempts: u32,
    /// Shortest time until a name is looked up again.
    pub min_ttl: Duration,
    /// Longest time until a name is looked up again.
    pub max_ttl: Duration,
    /// Which addresses are looked up.
    pub family: AddressFamily,
    /// Names other than `localhost` may lead to addresses of the node itself.
    pub allow_loopback: bool,
}

impl ResolverView {
    /// `resolver` with the defaults filled in.
    pub fn compile(resolver: Option<&Resolver>) -> Self {
        let resolver = resolver.cloned().unwrap_or_default();
        let min_ttl = resolver.min_ttl.map(|period| period.0);
        let max_ttl = resolver.max_ttl.map_or(Duration::from_secs(300), |period| period.0);
        Self {
            servers: resolver.servers.iter().filter_map(|server| server.parse().ok()).collect(),
            timeout: resolver.timeout.map_or(Duration::from_secs(2), |period| period.0),
            attempts: resolver.attempts.unwrap_or(2),
            min_ttl: min_ttl.unwrap_or(Duration::from_secs(1).min(max_ttl)),
            max_ttl: max_ttl.max(min_ttl.unwrap_or_default()),
            family: resolver.family.unwrap_or_default(),
            allow_loopback: resolver.allow_loopback,
        }
    }
}
