//! How names of endpoints are looked up.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::units::Period;

/// Most name servers of an upstream.
const MAX_SERVERS: usize = 8;
/// Most times a question is asked.
const MAX_ATTEMPTS: u32 = 10;

/// How names of endpoints are looked up. An answer is used for as long as its records allow (TTL); when the next one cannot
/// be had, or is empty, the last good addresses stay, however long that takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resolver {
    /// Name servers, each `"ip:port"`; names are taken as they are written then, and `/etc/hosts` is not looked at. Default
    /// those of the node's `/etc/resolv.conf`, after its `/etc/hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// For one question to one server; default 2s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// How often a question is asked before the look-up has failed; default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Shortest time until a name is looked up again, whatever its records say; default 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_ttl: Option<Period>,
    /// Longest time until a name is looked up again, whatever its records say; default 5m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<Period>,
    /// Which addresses are looked up; default `any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<AddressFamily>,
    /// Names other than `localhost` may lead to addresses of the node itself; default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_loopback: bool,
}

/// Kinds of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    /// A and AAAA records.
    #[default]
    Any,
    /// A records.
    Ipv4,
    /// AAAA records.
    Ipv6,
}

/// What is wrong with the settings at `path`.
pub(super) fn validate_resolver(path: &str, resolver: &Resolver, problems: &mut Vec<Problem>) {
    let mut refuse = |field: String, message: &str| {
        problems.push(Problem::at(format!("{path}.{field}"), message.to_owned()));
    };
    for (n, server) in resolver.servers.iter().enumerate() {
        let known = server.parse::<SocketAddr>();
        if known.is_err() || known.is_ok_and(|address| address.port() == 0) {
            refuse(
                format!("servers[{n}]"),
                "not the address of a name server; write \"10.0.0.53:53\" or \"[fd00::53]:53\"",
            );
        }
    }
    if resolver.servers.len() > MAX_SERVERS {
        refuse("servers".into(), &format!("at most {MAX_SERVERS} name servers"));
    }
    if resolver.timeout.is_some_and(|period| period.0.as_millis() < 50) {
        refuse("timeout".into(), "must be at least 50ms");
    }
    if resolver.attempts.is_some_and(|attempts| !(1..=MAX_ATTEMPTS).contains(&attempts)) {
        refuse("attempts".into(), &format!("must be 1 to {MAX_ATTEMPTS}"));
    }
    for (field, period) in [("min_ttl", resolver.min_ttl), ("max_ttl", resolver.max_ttl)] {
        if period.is_some_and(|period| period.0.as_millis() < 100) {
            refuse(field.into(), "must be at least 100ms: name servers have other work too");
        }
    }
    if let (Some(least), Some(most)) = (resolver.min_ttl, resolver.max_ttl)
        && least.0 > most.0
    {
        refuse("min_ttl".into(), "is longer than `max_ttl`");
    }
}

#[cfg(test)]
mod tests {
    use crate::site::read_site;

    #[test]
    fn settings_that_cannot_be_used_are_refused() {
        let check = |settings: &str, expected: Option<(&str, &str)>| {
            let text = format!(
                "upstreams:\n  app: {{ endpoints: [\"app.internal:80\"], resolver: {{ {settings} }} }}\n"
            );
            let problem = read_site("site.yaml", &text).err().map(|problems| problems.0[0].clone());
            let seen = problem.as_ref().map(|problem| (problem.path.as_str(), problem.message.as_str()));
            match (seen, expected) {
                (None, None) => {}
                (Some((path, message)), Some((at, part))) => {
                    assert_eq!(path, format!("upstreams.app.resolver.{at}"), "{settings}: {message}");
                    assert!(message.contains(part), "{settings}: {message}");
                }
                (seen, _) => panic!("{settings}: {seen:?}"),
            }
        };
        check("", None);
        check("servers: [\"10.0.0.53:53\", \"[fd00::53]:53\"], timeout: 1s, attempts: 3, family: ipv4", None);
        check("min_ttl: 5s, max_ttl: 5s, allow_loopback: true", None);
        check("servers: [\"10.0.0.53\"]", Some(("servers[0]", "10.0.0.53:53")));
        check("servers: [\"ns.internal:53\"]", Some(("servers[0]", "not the address")));
        check("servers: [\"10.0.0.53:0\"]", Some(("servers[0]", "not the address")));
        check("timeout: 1ms", Some(("timeout", "50ms")));
        check("attempts: 0", Some(("attempts", "1 to 10")));
        check("max_ttl: 0s", Some(("max_ttl", "100ms")));
        check("min_ttl: 10s, max_ttl: 5s", Some(("min_ttl", "longer than")));
    }

    #[test]
    fn one_may_be_written_once_for_several() {
        let text = "upstreams:\n\
            \x20 a: { endpoints: [\"a.internal:80\"], resolver: &dns { servers: [\"10.0.0.53:53\"], max_ttl: 1m } }\n\
            \x20 b: { endpoints: [\"b.internal:80\"], resolver: *dns }\n";
        let site = read_site("site.yaml", text).unwrap();
        assert!(site.upstreams["a"].resolver.is_some());
        assert_eq!(site.upstreams["a"].resolver, site.upstreams["b"].resolver);
    }
}
