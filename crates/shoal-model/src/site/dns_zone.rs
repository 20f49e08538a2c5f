//! A domain whose names nodes answer for over DNS.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::naming::check_host;
use super::{Problem, Site, step};
use crate::units::Period;

/// Most addresses of one family in an answer: with more it would be no better, and no longer short.
const MAX_ADDRESSES: u8 = 8;
/// Most servers of a domain.
const MAX_NAMESERVERS: usize = 8;
/// Longest time that an answer may be kept.
const MAX_TTL: Period = Period::seconds(86_400);

/// A domain, keyed by its name, that every node with `--dns-listen` answers for: the hosts of routes in it lead to the
/// `--public-address`es of nodes that are ready, those of the region of the node that answers before others. When no node
/// is ready, all of them are answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsZone {
    /// The servers that the parent domain names for this one, with their addresses as far as they are themselves in it:
    /// `{ ns1.example.com: [192.0.2.1], ns.example.net: [] }`. The first is called the primary.
    pub nameservers: BTreeMap<String, Vec<IpAddr>>,
    /// The hosts that are answered; default all hosts of routes that are in the domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// How long an answer may be kept, and so for how long downstreams may still go to a node that is gone; default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Period>,
    /// How long it may be kept that there is no such name; default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_ttl: Option<Period>,
    /// Most addresses of each family in an answer, of distinct zones as far as there are; default 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_addresses: Option<u8>,
    /// An answer with fewer addresses of one region is filled up to so many from the next; default 2. With 1, other regions
    /// are only answered when nothing is ready in the own one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_addresses: Option<u8>,
    /// In which order the other regions come; default, and for those that are not named, by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Whom to write to about the domain; default `hostmaster@` the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostmaster: Option<String>,
}

impl DnsZone {
    pub(crate) const TTL: Period = Period::seconds(30);
    pub(crate) const ADDRESSES: u8 = 4;
    pub(crate) const LEAST_ADDRESSES: u8 = 2;
}

/// Whether `host` (a wildcard perhaps) is the domain or below it.
pub(crate) fn is_within(host: &str, domain: &str) -> bool {
    let host = host.strip_prefix("*.").unwrap_or(host);
    let (Some(at), true) = (host.len().checked_sub(domain.len()), host.is_ascii()) else { return false };
    host[at..].eq_ignore_ascii_case(domain) && (at == 0 || host.as_bytes()[at - 1] == b'.')
}

/// `hostmaster@example.com` as DNS has it: `hostmaster.example.com`.
pub(crate) fn mailbox(address: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "{address:?} is no address for a domain: write hostmaster@example.com, without a dot before the @"
        )
    };
    let (local, domain) = address.split_once('@').ok_or_else(wrong)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+');
    if local.is_empty() || local.len() > 63 || !local.bytes().all(fits) || domain.contains('*') {
        return Err(wrong());
    }
    check_name(domain).map_err(|_| wrong())?;
    Ok(format!("{local}.{domain}").to_ascii_lowercase())
}

/// A name as DNS has it, which an address is not.
fn check_name(name: &str) -> Result<(), String> {
    if name.contains('*') || name.parse::<IpAddr>().is_ok() {
        return Err(format!("{name:?} is not a name in the DNS"));
    }
    check_host(name)
}

/// Everything that is wrong with the domains of `site`.
pub(super) fn validate_dns_zones(site: &Site, problems: &mut Vec<Problem>) {
    for (domain, zone) in &site.dns_zones {
        let path = format!("dns_zones.{}", step(domain));
        let mut wrong = |field: &str, message: String| {
            problems.push(Problem::at(format!("{path}{field}"), message));
        };
        if let Err(message) = check_name(domain) {
            wrong("", message);
        }
        let twice = site.dns_zones.keys().any(|other| other != domain && other.eq_ignore_ascii_case(domain));
        if twice {
            wrong("", "is written twice, with other capitals".to_owned());
        }
        check_servers(domain, zone, &mut wrong);
        for (n, host) in zone.hosts.iter().enumerate() {
            let checked = check_host(host);
            let checked = checked.and_then(|()| match is_within(host, domain) {
                true => Ok(()),
                false => Err(format!("{host:?} is not in {domain}")),
            });
            if let Err(message) = checked {
                wrong(&format!(".hosts[{n}]"), message);
            }
        }
        for (field, ttl) in [(".ttl", zone.ttl), (".negative_ttl", zone.negative_ttl)] {
            if ttl.is_some_and(|ttl| ttl > MAX_TTL || ttl.0.subsec_nanos() > 0) {
                wrong(field, format!("has whole seconds, at most {MAX_TTL}"));
            }
        }
        for (field, count) in [(".max_addresses", zone.max_addresses), (".min_addresses", zone.min_addresses)]
        {
            if count.is_some_and(|count| !(1..=MAX_ADDRESSES).contains(&count)) {
                wrong(field, format!("must be 1 to {MAX_ADDRESSES}"));
            }
        }
        let most = zone.max_addresses.unwrap_or(DnsZone::ADDRESSES);
        if zone.min_addresses.is_some_and(|least| least > most) {
            wrong(".min_addresses", format!("is more than `max_addresses`, {most}"));
        }
        if let Some(Err(message)) = zone.hostmaster.as_deref().map(mailbox) {
            wrong(".hostmaster", message);
        }
    }
}

fn check_servers(domain: &str, zone: &DnsZone, wrong: &mut impl FnMut(&str, String)) {
    if zone.nameservers.is_empty() || zone.nameservers.len() > MAX_NAMESERVERS {
        wrong(".nameservers", format!("a domain has 1 to {MAX_NAMESERVERS} of them"));
    }
    for (name, addresses) in &zone.nameservers {
        let field = format!(".nameservers.{}", step(name));
        if let Err(message) = check_name(name) {
            wrong(&field, message);
            continue;
        }
        let within = is_within(name, domain);
        if within && addresses.is_empty() {
            wrong(&field, format!("is in {domain}: who looks for it asks here, so it needs its addresses"));
        } else if !within && !addresses.is_empty() {
            wrong(&field, format!("is not in {domain}: its addresses are answered elsewhere; write []"));
        }
        if addresses.len() > usize::from(MAX_ADDRESSES) {
            wrong(&field, format!("has at most {MAX_ADDRESSES} addresses"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_site;
    use super::*;

    #[test]
    fn domains_are_checked() {
        let check = |domain: &str, zone: &str, expected: Option<(&str, &str)>| {
            let text = format!("dns_zones: {{ {domain}: {{ {zone} }} }}\n");
            let found = read_site("site.yaml", &text).err().map(|problems| problems.0[0].to_string());
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some((path, part))) => {
                    assert!(found.contains(path) && found.contains(part), "{text}: {found}");
                }
                _ => panic!("{text}: {found:?}"),
            }
        };
        let within = |more: &str| format!("nameservers: {{ ns1.example.com: [192.0.2.1] }}{more}");
        check("example.com", &within(""), None);
        check("example.com", &within(", hosts: [example.com, \"*.shop.Example.com\"]"), None);
        check("example.com", "nameservers: { ns.example.net: [] }, hostmaster: dns@example.net", None);
        check("example.com", &within(", ttl: 0s, max_addresses: 1, min_addresses: 1"), None);
        check("'*.example.com'", &within(""), Some(("dns_zones", "not a name")));
        check("192.0.2.1", &within(""), Some(("dns_zones", "not a name")));
        check("example.com", "nameservers: {}", Some(("nameservers", "1 to 8")));
        check("example.com", "ttl: 30s", Some(("example.com", "nameservers")));
        check("example.com", "nameservers: { ns1.example.com: [] }", Some(("ns1", "needs its addresses")));
        check(
            "example.com",
            "nameservers: { ns.example.net: [192.0.2.1] }",
            Some(("ns.example", "answered elsewhere")),
        );
        check("example.com", &within(", hosts: [badexample.com]"), Some(("hosts[0]", "not in example.com")));
        check("example.com", &within(", ttl: 2d"), Some(("ttl", "at most 1d")));
        check("example.com", &within(", ttl: 1500ms"), Some(("ttl", "whole seconds")));
        check("example.com", &within(", max_addresses: 9"), Some(("max_addresses", "1 to 8")));
        check("example.com", &within(", max_addresses: 1, min_addresses: 2"), Some(("min_", "more than")));
        check("example.com", &within(", hostmaster: a.b@example.com"), Some(("hostmaster", "without a dot")));
        check("example.com", &within(", tll: 30s"), Some(("tll", "unknown field")));
    }

    #[test]
    fn a_host_is_within_by_whole_labels() {
        let check =
            |host: &str, expected: bool| assert_eq!(is_within(host, "example.com"), expected, "{host}");
        check("example.com", true);
        check("a.EXAMPLE.com", true);
        check("*.example.com", true);
        check("badexample.com", false);
        check("com", false);
        check("example.com.au", false);
    }
}
