//! What is compiled for connections below HTTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::UpstreamView;
use crate::site::ProxyProtocol;
use crate::units::Period;

/// How the kernel finds out that the other side of a connection is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Silence after which it is asked; `None` = never.
    pub keepalive: Option<Duration>,
    /// Time that sent bytes may stay unacknowledged; `None` = the kernel's own.
    pub user_timeout: Option<Duration>,
}

impl Liveness {
    pub(super) fn of(keepalive: Option<Period>, user_timeout: Option<Period>) -> Self {
        Self {
            keepalive: keepalive.map(|period| period.0),
            user_timeout: user_timeout.map(|period| period.0),
        }
    }

    /// Everything is left as the kernel has it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Who may speak for others on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocolView {
    /// Networks of the balancers in front.
    pub trusted: Vec<IpNet>,
    /// Time for the header to arrive.
    pub timeout: Duration,
}

impl ProxyProtocolView {
    pub(super) fn compile(written: &ProxyProtocol) -> Self {
        Self { trusted: written.trusted.clone(), timeout: written.timeout.unwrap_or(Period::seconds(3)).0 }
    }
}

/// Where the connections of a listener go that are carried as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CarriageView {
    any: Option<Arc<UpstreamView>>,
    exact: HashMap<Box<str>, Arc<UpstreamView>>,
    /// `example.com` for `*.example.com`.
    below: HashMap<Box<str>, Arc<UpstreamView>>,
}

impl CarriageView {
    pub(super) fn compile(
        any: Option<&String>,
        sni: &BTreeMap<String, String>,
        upstream_of: impl Fn(&str) -> Arc<UpstreamView>,
    ) -> Self {
        let mut view = Self { any: any.map(|name| upstream_of(name)), ..Self::default() };
        for (name, upstream) in sni {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(parent) => view.below.insert(parent.into(), upstream_of(upstream)),
                None => view.exact.insert(name.into(), upstream_of(upstream)),
            };
        }
        view
    }

    /// The upstream for connections that ask for `server_name`, in lower case.
    pub fn find(&self, server_name: Option<&str>) -> Option<&Arc<UpstreamView>> {
        let by_name = server_name.and_then(|name| {
            let parents = std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.'));
            let mut below = parents.filter_map(|(_, parent)| self.below.get(parent));
            self.exact.get(name).or_else(|| below.next())
        });
        by_name.or(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use crate::id::Revision;
    use crate::site::read_site;
    use crate::view::ConfigView;

    #[test]
    fn names_lead_to_upstreams() {
        let check = |fallback: &str, name: Option<&str>, expected: Option<&str>| {
            let text = format!(
                "listeners:\n  l: {{ address: \":1\", protocol: tls_passthrough{fallback}, sni: {{ X.example: x, \
                 \"*.example\": wide, \"*.deep.example\": deep }} }}\nupstreams: {{ x: {{ endpoints: [\"h:1\"] }}, \
                 wide: {{ endpoints: [\"h:2\"] }}, deep: {{ endpoints: [\"h:3\"] }}, any: {{ endpoints: [\"h:4\"] }} }}\n"
            );
            let view = ConfigView::compile(Revision(1), &read_site("site.yaml", &text).unwrap()).unwrap();
            let found = view.listeners[0].carriage.as_ref().unwrap().find(name);
            assert_eq!(found.map(|upstream| &*upstream.name), expected, "{name:?}");
        };
        check("", Some("x.example"), Some("x"));
        check("", Some("y.example"), Some("wide"));
        check("", Some("a.y.example"), Some("wide"));
        check("", Some("a.deep.example"), Some("deep"));
        check("", Some("deep.example"), Some("wide"));
        check("", Some("example"), None);
        check("", Some("x.example.org"), None);
        check("", None, None);
        check(", upstream: any", None, Some("any"));
        check(", upstream: any", Some("other.test"), Some("any"));
        check(", upstream: any", Some("x.example"), Some("x"));
    }
}
