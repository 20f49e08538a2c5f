//! The domains of a site, compiled for answers.

use std::net::IpAddr;

use rustc_hash::FxHashSet;

use crate::site::{DnsZone, Site, is_within, mailbox};

/// All domains that nodes answer for.
#[derive(Debug, Default, PartialEq)]
pub struct DnsView {
    /// The longest name first: what is in two of them belongs to the inner one.
    zones: Vec<DnsZoneView>,
}

/// One domain. All names are in lower case, without a final dot.
#[derive(Debug, PartialEq)]
pub struct DnsZoneView {
    /// Its name.
    pub name: Box<str>,
    /// Its servers, and their addresses as far as they are in it.
    pub nameservers: Vec<(Box<str>, Vec<IpAddr>)>,
    /// Whom to write to, as a name.
    pub hostmaster: Box<str>,
    /// Seconds that an answer may be kept.
    pub ttl: u32,
    /// Seconds that the lack of one may be kept.
    pub negative_ttl: u32,
    /// Most addresses of a family in an answer.
    pub max_addresses: usize,
    /// So many are wanted, from other regions if need be.
    pub min_addresses: usize,
    /// Other regions, the preferred one first.
    pub regions: Vec<Box<str>>,
    exact: FxHashSet<Box<str>>,
    /// What follows the `*.`.
    wildcards: FxHashSet<Box<str>>,
    /// Names that lead to others below them.
    branches: FxHashSet<Box<str>>,
}

/// What a name in a domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneName {
    /// A host of the site.
    Host,
    /// The server at this place of [`DnsZoneView::nameservers`].
    Nameserver(usize),
    /// There is something below it, or it is the domain itself.
    Branch,
    /// Nothing.
    Unknown,
}

impl DnsView {
    /// The domains of `site`, which is valid.
    pub fn compile(site: &Site) -> Self {
        let mut zones: Vec<_> =
            site.dns_zones.iter().map(|(name, zone)| DnsZoneView::compile(name, zone, site)).collect();
        zones.sort_by(|a, b| b.name.len().cmp(&a.name.len()).then_with(|| a.name.cmp(&b.name)));
        Self { zones }
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// The domain that answers for `name`.
    pub fn zone_of(&self, name: &str) -> Option<&DnsZoneView> {
        self.zones.iter().find(|zone| is_within(name, &zone.name))
    }
}

impl DnsZoneView {
    fn compile(name: &str, zone: &DnsZone, site: &Site) -> Self {
        let name = name.to_ascii_lowercase();
        let seconds = |ttl: Option<crate::units::Period>| {
            u32::try_from(ttl.unwrap_or(DnsZone::TTL).0.as_secs()).unwrap_or(u32::MAX)
        };
        let hostmaster = zone.hostmaster.as_deref().and_then(|address| mailbox(address).ok());
        let nameservers = zone.nameservers.iter();
        let mut view = Self {
            nameservers: nameservers
                .map(|(name, addresses)| (name.to_ascii_lowercase().into(), addresses.clone()))
                .collect(),
            hostmaster: hostmaster.unwrap_or_else(|| format!("hostmaster.{name}")).into(),
            ttl: seconds(zone.ttl),
            negative_ttl: seconds(zone.negative_ttl),
            max_addresses: usize::from(zone.max_addresses.unwrap_or(DnsZone::ADDRESSES)),
            min_addresses: usize::from(zone.min_addresses.unwrap_or(DnsZone::LEAST_ADDRESSES)),
            regions: zone.regions.iter().map(|region| region.as_str().into()).collect(),
            exact: FxHashSet::default(),
            wildcards: FxHashSet::default(),
            branches: FxHashSet::default(),
            name: name.into(),
        };
        let of_routes = || site.routes.values().flat_map(|route| &route.hosts).collect();
        let hosts: Vec<&String> =
            if zone.hosts.is_empty() { of_routes() } else { zone.hosts.iter().collect() };
        for host in hosts {
            view.insert(&host.to_ascii_lowercase());
        }
        for at in 0..view.nameservers.len() {
            let name = view.nameservers[at].0.clone();
            view.grow(&name);
        }
        view
    }

    fn insert(&mut self, host: &str) {
        if !is_within(host, &self.name) {
            return;
        }
        match host.strip_prefix("*.") {
            Some(parent) => {
                self.wildcards.insert(parent.into());
                self.branches.insert(parent.into());
                self.grow(parent);
            }
            None => {
                self.exact.insert(host.into());
                self.grow(host);
            }
        }
    }

    /// Every name between `name` and the domain is there, though nothing is at it (RFC 8020).
    fn grow(&mut self, name: &str) {
        let mut rest = name;
        while rest.len() > self.name.len()
            && is_within(rest, &self.name)
            && let Some((_, parent)) = rest.split_once('.')
        {
            self.branches.insert(parent.into());
            rest = parent;
        }
    }

    /// What `name`, which is in this domain and in lower case, is. As for routes, a wildcard stands for any number of
    /// labels.
    pub fn find(&self, name: &str) -> ZoneName {
        let server = self
            .nameservers
            .iter()
            .position(|(server, addresses)| **server == *name && !addresses.is_empty());
        if let Some(at) = server {
            return ZoneName::Nameserver(at);
        }
        if self.exact.contains(name) {
            return ZoneName::Host;
        }
        let mut rest = name;
        while rest.len() > self.name.len()
            && let Some((_, parent)) = rest.split_once('.')
        {
            if self.wildcards.contains(parent) {
                return ZoneName::Host;
            }
            rest = parent;
        }
        match *name == *self.name || self.branches.contains(name) {
            true => ZoneName::Branch,
            false => ZoneName::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::parse_site;

    #[test]
    fn names_are_found_in_the_innermost_domain() {
        let site = parse_site(
            "site.yaml",
            "routes:\n  a: { upstream: u, hosts: [Shop.example.com, \"*.shop.example.com\", other.net] }\n  \
             b: { upstream: u, hosts: [deep.down.example.com, example.com, eu.inner.example.com] }\n\
             dns_zones:\n  Example.com: { nameservers: { ns1.example.com: [192.0.2.1], ns.other.net: [] } }\n  \
             inner.example.com: { nameservers: { ns.other.net: [] }, hosts: [eu.inner.example.com] }\n",
        );
        let view = DnsView::compile(&site.unwrap());
        let check = |name: &str, expected: Option<(&str, ZoneName)>| {
            let zone = view.zone_of(name);
            assert_eq!(zone.map(|zone| (&*zone.name, zone.find(name))), expected, "{name}");
        };
        use ZoneName::{Branch, Host, Nameserver, Unknown};
        check("shop.example.com", Some(("example.com", Host)));
        check("a.shop.example.com", Some(("example.com", Host)));
        check("a.b.shop.example.com", Some(("example.com", Host)));
        check("example.com", Some(("example.com", Host)));
        check("deep.down.example.com", Some(("example.com", Host)));
        check("down.example.com", Some(("example.com", Branch)));
        check("up.example.com", Some(("example.com", Unknown)));
        check("ns1.example.com", Some(("example.com", Nameserver(1))));
        check("inner.example.com", Some(("inner.example.com", Branch)));
        check("eu.inner.example.com", Some(("inner.example.com", Host)));
        check("us.inner.example.com", Some(("inner.example.com", Unknown)));
        check("other.net", None);
        check("com", None);
        check("", None);
        let zone = view.zone_of("example.com").unwrap();
        assert_eq!((zone.ttl, zone.max_addresses, zone.min_addresses), (30, 4, 2));
        assert_eq!(&*zone.hostmaster, "hostmaster.example.com");
    }
}
