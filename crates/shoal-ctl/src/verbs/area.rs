//! All nodes that stand together, one after the other: what `shoal region` and `shoal zone` have in common.

use std::collections::BTreeSet;
use std::fmt;

use shoal_model::units::Period;
use shoal_proto::admin::{NodeStatus, SetStandingRequest, StandingVerb};

use super::Session;
use super::author::author;
use super::standing::{carry_out, within_ms};
use crate::failure::{Exit, Failure};

/// Where nodes stand together.
#[derive(Clone, Debug)]
pub(super) enum Area {
    Region(String),
    Zone { region: String, zone: String },
}

impl Area {
    /// A zone, written `REGION/ZONE`: others may have one of that name, too.
    pub(super) fn parse_zone(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((region, zone)) => Ok(Self::Zone { region: region.to_owned(), zone: zone.to_owned() }),
            None => Err("a zone is written with its region, as \"us/a\"".to_owned()),
        }
    }

    fn has(&self, node: &NodeStatus) -> bool {
        match self {
            Self::Region(region) => node.region == *region,
            Self::Zone { region, zone } => node.region == *region && node.zone == *zone,
        }
    }

    /// Whether `node` is one of those that take over: a region needs another region, a zone another zone of its region.
    fn leans_on(&self, node: &NodeStatus) -> bool {
        match self {
            Self::Region(_) => !self.has(node),
            Self::Zone { region, .. } => node.region == *region && !self.has(node),
        }
    }

    /// Those that it leans on, in words.
    fn others(&self) -> String {
        match self {
            Self::Region(region) => format!("another region than {region:?}"),
            Self::Zone { region, .. } => format!("another zone of the region {region:?}"),
        }
    }

    /// No node is there; which of its kind have some.
    fn why_unknown_among(&self, nodes: &[NodeStatus]) -> String {
        let names: BTreeSet<String> = match self {
            Self::Region(_) => nodes.iter().map(|node| node.region.clone()).collect(),
            Self::Zone { .. } => nodes.iter().map(|node| format!("{}/{}", node.region, node.zone)).collect(),
        };
        let (kind, names) = (self.kind(), names.into_iter().collect::<Vec<_>>().join(", "));
        format!("no node is in the {self}; {kind}s are: {names}")
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Region(_) => "region",
            Self::Zone { .. } => "zone",
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(region) => write!(f, "{} {region:?}", self.kind()),
            Self::Zone { region, zone } => {
                let name = format!("{region}/{zone}");
                write!(f, "{} {name:?}", self.kind())
            }
        }
    }
}

/// What all nodes of an area are told, and by which verb.
pub(super) struct Order {
    verb: &'static str,
    area: Area,
    request: SetStandingRequest,
    spares: Spares,
}

/// What has to be so while it is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spares {
    /// Nothing.
    Nobody,
    /// A node that the area leans on serves.
    OthersServe,
}

impl Order {
    /// To leave service; `force`: also when nobody takes over.
    pub(super) fn drain(verb: &'static str, area: Area, deadline: Option<Period>, force: bool) -> Self {
        // Nodes are looked after here, all at once: each of them by itself would be refused as the last one.
        let request = SetStandingRequest {
            within_ms: within_ms(deadline),
            force: true,
            ..request(StandingVerb::Drain)
        };
        let spares = if force { Spares::Nobody } else { Spares::OthersServe };
        Self { verb, area, request, spares }
    }

    /// To come back into service.
    pub(super) fn undrain(verb: &'static str, area: Area) -> Self {
        Self { verb, area, request: request(StandingVerb::Undrain), spares: Spares::Nobody }
    }

    /// Tells each node when the one before is done.
    pub(super) async fn carry_out(self, session: &Session) -> Result<Exit, Failure> {
        let Self { verb, area, request, spares } = self;
        let mut done = BTreeSet::new();
        loop {
            // Who leads, and who serves elsewhere, may have changed.
            let nodes = session.client.status_for(verb).await?.nodes;
            // Who is cordoned serves, and stays cordoned.
            if request.verb() == StandingVerb::Undrain {
                done.extend(nodes.iter().filter(|node| is_cordoned(node, &area)).map(|node| node.node_id));
            }
            let Some(next) = next_of(&nodes, &area, &done) else {
                return match done.is_empty() {
                    true => Err(Failure::local(verb, area.why_unknown_among(&nodes))),
                    false => Ok(Exit::Done),
                };
            };
            if spares == Spares::OthersServe && !others_serve(&nodes, &area) {
                let (name, others) = (&next.node, area.others());
                let why = format!("{name}: no node of {others} serves; --force does it all the same");
                return Err(Failure::local(verb, why));
            }
            let request =
                SetStandingRequest { node: String::new(), node_id: next.node_id, ..request.clone() };
            match carry_out(session, verb, request).await? {
                Exit::Done => done.insert(next.node_id),
                exit => return Ok(exit),
            };
        }
    }
}

fn request(verb: StandingVerb) -> SetStandingRequest {
    SetStandingRequest { verb: verb.into(), author: author(), ..SetStandingRequest::default() }
}

/// Whose turn it is. Leading and voting is handed on as seldom as can be, and nobody waits for who is not heard.
fn next_of<'a>(nodes: &'a [NodeStatus], area: &Area, done: &BTreeSet<u64>) -> Option<&'a NodeStatus> {
    let rank = |node: &NodeStatus| match (node.state.as_str(), node.role.as_str()) {
        ("dead" | "left", _) => 3,
        (_, "leader") => 2,
        (_, "voter") => 1,
        _ => 0,
    };
    let own = nodes.iter().filter(|node| area.has(node) && !done.contains(&node.node_id));
    own.min_by_key(|node| (rank(node), node.node_id))
}

fn is_cordoned(node: &NodeStatus, area: &Area) -> bool {
    area.has(node) && node.standing == "cordoned"
}

fn others_serve(nodes: &[NodeStatus], area: &Area) -> bool {
    nodes.iter().any(|node| area.leans_on(node) && ["alive", "cordoned"].contains(&node.state.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node_id: u64, role: &str, (region, zone): (&str, &str), state: &str) -> NodeStatus {
        NodeStatus {
            node_id,
            node: format!("n{node_id}"),
            role: role.to_owned(),
            region: region.to_owned(),
            zone: zone.to_owned(),
            state: state.to_owned(),
            ..NodeStatus::default()
        }
    }

    fn us() -> Area {
        Area::Region("us".to_owned())
    }

    fn zone(text: &str) -> Area {
        Area::parse_zone(text).unwrap()
    }

    #[test]
    fn who_leads_goes_last_of_those_that_are_heard() {
        let nodes = [
            node(1, "leader", ("us", "a"), "alive"),
            node(2, "voter", ("us", "b"), "alive"),
            node(3, "learner", ("us", "a"), "dead"),
            node(4, "voter", ("eu", "a"), "alive"),
            node(5, "learner", ("us", "a"), "drained"),
        ];
        let check = |area: &Area, expected: &[&str]| {
            let mut done = BTreeSet::new();
            let mut order = Vec::new();
            while let Some(next) = next_of(&nodes, area, &done) {
                order.push(next.node.as_str());
                done.insert(next.node_id);
            }
            assert_eq!(order, expected, "{area}");
        };
        check(&us(), &["n5", "n2", "n1", "n3"]);
        check(&zone("us/a"), &["n5", "n1", "n3"]);
        check(&zone("eu/a"), &["n4"]);
        check(&Area::Region("ap".to_owned()), &[]);
        check(&zone("eu/b"), &[]);
    }

    #[test]
    fn who_is_cordoned_is_not_drained() {
        let check = |standing: &str, expected: bool| {
            let node = NodeStatus { standing: standing.to_owned(), ..node(1, "voter", ("us", "a"), "alive") };
            assert_eq!(is_cordoned(&node, &us()), expected, "{standing:?}");
            assert!(!is_cordoned(&node, &zone("us/b")), "{standing:?}");
        };
        check("cordoned", true);
        check("drained", false);
        check("", false);
    }

    #[test]
    fn somebody_takes_over() {
        let check = |area: &Area, place: (&str, &str), state: &str, expected: bool| {
            let nodes = [node(1, "leader", ("us", "a"), "alive"), node(2, "voter", place, state)];
            assert_eq!(others_serve(&nodes, area), expected, "{area}: {state} in {place:?}");
        };
        check(&us(), ("us", "b"), "alive", false);
        check(&us(), ("eu", "a"), "alive", true);
        check(&us(), ("eu", "a"), "cordoned", true);
        check(&us(), ("eu", "a"), "drained", false);
        check(&us(), ("eu", "a"), "draining", false);
        check(&us(), ("eu", "a"), "dead", false);
        check(&zone("us/a"), ("us", "b"), "alive", true);
        check(&zone("us/a"), ("us", "b"), "drained", false);
        check(&zone("us/a"), ("us", "a"), "alive", false);
        check(&zone("us/a"), ("eu", "b"), "alive", false); // as the last node of a region
    }

    #[test]
    fn an_area_without_nodes_is_told_from_those_that_have_some() {
        let nodes =
            [("us", "b"), ("eu", "a"), ("us", "a"), ("us", "b")].map(|at| node(1, "voter", at, "alive"));
        let check = |area: Area, expected: &str| assert_eq!(area.why_unknown_among(&nodes), expected);
        check(Area::Region("ap".to_owned()), "no node is in the region \"ap\"; regions are: eu, us");
        check(zone("eu/b"), "no node is in the zone \"eu/b\"; zones are: eu/a, us/a, us/b");
        assert!(Area::parse_zone("a").is_err());
    }
}
