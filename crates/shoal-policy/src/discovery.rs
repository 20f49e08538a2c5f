//! What the answers of name servers become: addresses that are good, endpoints, and the time of the next question.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shoal_model::EndpointId;
use shoal_model::view::{EndpointAddress, EndpointView, ResolverView, UpstreamView, host_of_service};

/// Most addresses of one name; of more the lowest are used, so that all nodes use the same.
pub const MAX_ADDRESSES: usize = 256;
/// Until a look-up that has failed is tried again: at first, and at last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// What weights are multiplied by beside records of weight 0, which shall be chosen hardly ever (RFC 2782).
const BESIDE_ZERO: u32 = 100;

/// One address that a name leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Lower is used first.
    pub priority: u16,
    /// Where.
    pub ip: IpAddr,
    /// Of an SRV record.
    pub port: Option<u16>,
    /// Share of requests within its priority.
    pub weight: u16,
    /// Host that an SRV record names; empty for addresses of the name itself.
    pub target: Box<str>,
}

/// What one question led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Addresses, and how long they may be used.
    Found(Vec<Record>, Duration),
    /// There are none, by the word of the name server: NXDOMAIN, or no records of that type.
    Nothing,
    /// No answer that could be used.
    Failed(String),
}

/// One of the questions that a look-up consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Host that was asked for, as in [`Record::target`].
    pub target: Box<str>,
    /// Asked for AAAA, not A.
    pub is_ipv6: bool,
    /// What came of it.
    pub outcome: Outcome,
}

/// What is known after a look-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Addresses to be used, in order.
    pub records: Vec<Record>,
    /// For how long; `None` = it is not known.
    pub ttl: Option<Duration>,
    /// What went wrong, if anything.
    pub trouble: Option<String>,
}

/// Takes in all answers of a look-up. What could not be asked keeps its addresses from `before`; and a name that has no
/// address any more, whether by NXDOMAIN or by an empty answer, keeps all it had: an empty zone is a mistake more often
/// than a wish, and who wants an upstream to be empty can say so in the site.
pub fn settle(before: &[Record], parts: Vec<Part>) -> Settled {
    let mut settled = Settled::default();
    for part in parts {
        match part.outcome {
            Outcome::Found(records, ttl) => {
                settled.records.extend(records);
                settled.ttl = Some(settled.ttl.map_or(ttl, |known| known.min(ttl)));
            }
            Outcome::Nothing => {}
            Outcome::Failed(why) => {
                let same =
                    |known: &&Record| *known.target == *part.target && known.ip.is_ipv6() == part.is_ipv6;
                settled.records.extend(before.iter().filter(same).cloned());
                settled.trouble.get_or_insert(why);
            }
        }
    }
    if settled.records.is_empty() {
        settled.trouble.get_or_insert_with(|| "the name has no address".to_owned());
        settled.records = before.to_vec();
    }
    settled.records.sort();
    settled.records.dedup();
    settled.records.truncate(MAX_ADDRESSES);
    settled
}

/// How long until the name is looked up again: what its records allow, within the limits of `resolver`, or after the
/// `failures` in a row, one at least, soon and then more rarely. Up to a tenth is added, so that nodes do not ask together.
pub fn next_look_up(settled: &Settled, failures: u32, resolver: &ResolverView, entropy: u64) -> Duration {
    let pause = match (&settled.trouble, settled.ttl) {
        (None, Some(ttl)) => ttl.clamp(resolver.min_ttl, resolver.max_ttl),
        _ => {
            let (first, last) = RETRY;
            let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(last);
            doubled.clamp(resolver.min_ttl.min(last), resolver.max_ttl.max(resolver.min_ttl))
        }
    };
    pause + pause / 10 * (entropy % 1000) as u32 / 1000
}

/// The endpoints of `upstream` with every name that has an answer replaced by what it leads to. A name without one stays as
/// it is. An address that is there twice is one endpoint: the first.
pub fn expand(
    upstream: &UpstreamView,
    mut answer: impl FnMut(&EndpointAddress) -> Vec<Record>,
) -> Vec<EndpointView> {
    let mut endpoints = Vec::with_capacity(upstream.endpoints.len());
    let mut seen = HashSet::new();
    for written in &upstream.endpoints {
        let (host, port) = match &written.address {
            EndpointAddress::Name { host, port } => (&**host, *port),
            EndpointAddress::Service(name) => (host_of_service(name), 0),
            _ => {
                endpoints.extend(seen.insert(written.id).then(|| written.clone()));
                continue;
            }
        };
        let records = answer(&written.address);
        if records.is_empty() {
            endpoints.push(written.clone());
        }
        for record in &records {
            let address = SocketAddr::new(record.ip, record.port.unwrap_or(port));
            let text = address.to_string();
            let id = EndpointId::of(&upstream.name, &text);
            if seen.insert(id) {
                endpoints.push(EndpointView {
                    id,
                    text: text.into(),
                    address: EndpointAddress::Found { host: host.into(), address },
                    weight: written.weight.saturating_mul(weight_of(record, &records)),
                    priority: written.priority.saturating_add(record.priority.into()),
                    ..written.clone()
                });
            }
        }
    }
    endpoints
}

/// The share of `record` among those of its priority.
fn weight_of(record: &Record, all: &[Record]) -> u32 {
    let peers = || all.iter().filter(|peer| peer.priority == record.priority);
    let (some, none) = (peers().any(|peer| peer.weight > 0), peers().any(|peer| peer.weight == 0));
    match (some, none) {
        (false, _) => 1,
        (true, false) => record.weight.into(),
        (true, true) if record.weight == 0 => 1,
        (true, true) => u32::from(record.weight) * BESIDE_ZERO,
    }
}

/// An address written by the operator is the operator's word. A name is somebody else's: it may not lead to this
/// machine (but for `localhost`, or where the operator allows it), nor to link-local addresses, where metadata services
/// live.
pub fn may_lead_to(host: &str, address: IpAddr, allow_loopback: bool) -> bool {
    let address = address.to_canonical();
    if address.is_loopback() {
        return allow_loopback || host == "localhost" || host.ends_with(".localhost");
    }
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(link_local || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use shoal_model::site::read_site;
    use shoal_model::{ConfigView, Revision};

    use super::*;

    fn record(ip: &str) -> Record {
        Record { priority: 0, ip: ip.parse().unwrap(), port: None, weight: 0, target: "".into() }
    }

    fn service(target: &str, ip: &str, port: u16, priority: u16, weight: u16) -> Record {
        Record { priority, ip: ip.parse().unwrap(), port: Some(port), weight, target: target.into() }
    }

    fn part(is_ipv6: bool, outcome: Outcome) -> Part {
        Part { target: "".into(), is_ipv6, outcome }
    }

    fn found(ips: &[&str], ttl_s: u64) -> Outcome {
        Outcome::Found(ips.iter().map(|ip| record(ip)).collect(), Duration::from_secs(ttl_s))
    }

    #[test]
    fn answers_replace_and_failures_keep() {
        let before = [record("10.0.0.1"), record("10.0.0.2"), record("fd00::1")];
        let failed = || Outcome::Failed("SERVFAIL".into());
        let check =
            |v4: Outcome, v6: Outcome, expected: &[&str], ttl_s: Option<u64>, trouble: Option<&str>| {
                let settled = settle(&before, vec![part(false, v4), part(true, v6)]);
                let ips: Vec<String> = settled.records.iter().map(|record| record.ip.to_string()).collect();
                assert_eq!(ips, expected);
                assert_eq!(settled.ttl, ttl_s.map(Duration::from_secs), "{expected:?}");
                assert_eq!(settled.trouble.as_deref(), trouble, "{expected:?}");
            };
        check(found(&["10.0.0.3"], 30), Outcome::Nothing, &["10.0.0.3"], Some(30), None);
        check(found(&["10.0.0.3"], 30), found(&["fd00::2"], 7), &["10.0.0.3", "fd00::2"], Some(7), None);
        // Only what could not be asked is kept.
        check(found(&["10.0.0.3"], 30), failed(), &["10.0.0.3", "fd00::1"], Some(30), Some("SERVFAIL"));
        check(failed(), failed(), &["10.0.0.1", "10.0.0.2", "fd00::1"], None, Some("SERVFAIL"));
        let none = Some("the name has no address");
        check(Outcome::Nothing, Outcome::Nothing, &["10.0.0.1", "10.0.0.2", "fd00::1"], None, none);
        // Twice the same is once.
        check(found(&["10.0.0.3", "10.0.0.3"], 1), Outcome::Nothing, &["10.0.0.3"], Some(1), None);
    }

    #[test]
    fn a_target_that_cannot_be_asked_keeps_its_own_addresses() {
        let before = [service("a", "10.0.0.1", 80, 0, 0), service("b", "10.0.0.2", 80, 0, 0)];
        let target = |target: &str, outcome| Part { target: target.into(), is_ipv6: false, outcome };
        let new = vec![service("a", "10.0.0.9", 80, 0, 0)];
        let settled = settle(
            &before,
            vec![
                target("a", Outcome::Found(new, Duration::from_secs(5))),
                target("b", Outcome::Failed("timeout".into())),
            ],
        );
        let ips: Vec<String> = settled.records.iter().map(|record| record.ip.to_string()).collect();
        assert_eq!(ips, ["10.0.0.2", "10.0.0.9"]);
    }

    #[test]
    fn addresses_are_bounded() {
        let many: Vec<Record> =
            (0..=255_u8).flat_map(|a| [0, 1].map(|b| record(&format!("10.0.{b}.{a}")))).collect();
        let settled = settle(&[], vec![part(false, Outcome::Found(many, Duration::from_secs(1)))]);
        assert_eq!(settled.records.len(), MAX_ADDRESSES);
        assert_eq!(settled.records.last().unwrap().ip.to_string(), "10.0.0.255");
    }

    #[test]
    fn names_are_looked_up_when_their_answer_is_old() {
        let resolver = |min_s, max_s| ResolverView {
            min_ttl: Duration::from_secs(min_s),
            max_ttl: Duration::from_secs(max_s),
            ..ResolverView::compile(None)
        };
        let check = |ttl_s: Option<u64>, failures, (min_s, max_s), entropy, expected_ms: u128| {
            let settled = Settled {
                records: Vec::new(),
                ttl: ttl_s.map(Duration::from_secs),
                trouble: (failures > 0).then(|| "x".to_owned()),
            };
            let pause = next_look_up(&settled, failures, &resolver(min_s, max_s), entropy);
            assert_eq!(pause.as_millis(), expected_ms, "{ttl_s:?} {failures}");
        };
        check(Some(20), 0, (1, 300), 0, 20_000);
        check(Some(20), 0, (1, 300), 500, 21_000);
        check(Some(20), 0, (1, 300), 1999, 21_998);
        check(Some(0), 0, (1, 300), 0, 1_000);
        check(Some(86_400), 0, (1, 300), 0, 300_000);
        // After failures: 1 s, 2 s, 4 s, … 30 s, and never more often than allowed.
        check(None, 1, (1, 300), 0, 1_000);
        check(None, 3, (1, 300), 0, 4_000);
        check(Some(5), 60, (1, 300), 0, 30_000);
        check(None, 1, (10, 300), 0, 10_000);
        check(None, 9, (1, 2), 0, 2_000);
    }

    #[test]
    fn names_become_endpoints() {
        let check = |endpoints: &str, records: &[Record], expected: &[&str]| {
            let text = format!("upstreams: {{ app: {{ endpoints: [{endpoints}] }} }}\n");
            let view = ConfigView::compile(Revision(1), &read_site("site.yaml", &text).unwrap()).unwrap();
            let upstream = view.upstream("app").unwrap();
            let seen: Vec<String> = expand(upstream, |_| records.to_vec())
                .iter()
                .map(|endpoint| {
                    assert_eq!(endpoint.id, EndpointId::of("app", &endpoint.text));
                    let host = match &endpoint.address {
                        EndpointAddress::Found { host, .. } => host,
                        _ => "-",
                    };
                    format!("{} {host} w{} p{}", endpoint.text, endpoint.weight, endpoint.priority)
                })
                .collect();
            assert_eq!(seen, expected, "{endpoints}");
        };
        let two = [record("10.0.0.1"), record("fd00::1")];
        check("\"a:80\"", &two, &["10.0.0.1:80 a w1 p0", "[fd00::1]:80 a w1 p0"]);
        check("{ address: \"a:80\", weight: 3, priority: 2 }", &two[..1], &["10.0.0.1:80 a w3 p2"]);
        check(
            "{ address: \"a:80\", drain: true }, \"10.0.0.9:1\"",
            &two[..1],
            &["10.0.0.1:80 a w0 p0", "10.0.0.9:1 - w1 p0"],
        );
        check("\"a:80\", \"10.0.0.1:80\"", &two[..1], &["10.0.0.1:80 a w1 p0"]);
        check("\"a:80\"", &[], &["a:80 - w1 p0"]);
        check(
            "{ address: \"srv:_x._tcp.shop.test\", priority: 1 }",
            &[
                service("a", "10.0.0.1", 81, 0, 10),
                service("b", "10.0.0.2", 82, 0, 30),
                service("c", "10.0.0.3", 83, 5, 0),
            ],
            &["10.0.0.1:81 shop.test w10 p1", "10.0.0.2:82 shop.test w30 p1", "10.0.0.3:83 shop.test w1 p6"],
        );
        check(
            "\"srv:x.test\"",
            &[service("a", "10.0.0.1", 81, 0, 10), service("b", "10.0.0.2", 82, 0, 0)],
            &["10.0.0.1:81 x.test w1000 p0", "10.0.0.2:82 x.test w1 p0"],
        );
    }

    #[test]
    fn names_do_not_lead_home() {
        let check = |host: &str, address: &str, allow_loopback, expected| {
            let may = may_lead_to(host, address.parse().unwrap(), allow_loopback);
            assert_eq!(may, expected, "{host} {address}");
        };
        check("app.internal", "10.0.0.1", false, true);
        check("app.internal", "127.0.0.1", false, false);
        check("app.internal", "127.0.0.1", true, true);
        check("localhost", "127.0.0.1", false, true);
        check("localhost", "::1", false, true);
        check("app.internal", "169.254.169.254", true, false);
        check("app.internal", "::ffff:169.254.169.254", false, false);
        check("app.internal", "fe80::1", false, false);
        check("app.internal", "0.0.0.0", true, false);
        check("app.internal", "2001:db8::1", false, true);
    }
}
