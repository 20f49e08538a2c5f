//! Networks as they are written: `10.0.0.0/8`, or an address by itself.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

/// Reads a list of them.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let networks = Vec::<Network>::deserialize(deserializer)?;
    Ok(networks.into_iter().map(|network| network.0).collect())
}

struct Network(IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map(Self).map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?} is no network: write 10.0.0.0/8, 2001:db8::/32 or 10.0.0.1"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_site;

    #[test]
    fn an_address_is_a_network_of_one() {
        let check = |networks: &str, expected: Result<&[&str], &str>| {
            let text = format!(
                "listeners: {{ l: {{ address: \":80\", protocol: http, trusted_proxies: [{networks}] }} }}\n"
            );
            match (read_site("site.yaml", &text), expected) {
                (Ok(site), Ok(expected)) => {
                    let read = site.listeners["l"].trusted_proxies.iter().map(ToString::to_string);
                    assert_eq!(read.collect::<Vec<_>>(), expected, "{networks}");
                }
                (Err(problems), Err(part)) => {
                    let said = problems.0[0].to_string();
                    assert!(said.contains(part) && said.contains("trusted_proxies"), "{networks}: {said}");
                }
                (read, _) => panic!("{networks}: {read:?}"),
            }
        };
        check("10.0.0.0/8, \"2001:db8::/32\"", Ok(&["10.0.0.0/8", "2001:db8::/32"]));
        check("10.0.0.1, \"::1\"", Ok(&["10.0.0.1/32", "::1/128"]));
        for wrong in ["10.0.0.0/33", "lb.internal", "\"*\""] {
            check(wrong, Err("is no network: write 10.0.0.0/8"));
        }
    }
}
