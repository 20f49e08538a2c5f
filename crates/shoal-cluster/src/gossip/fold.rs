//! From what every node gossips of itself to one view of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use shoal_model::NodeId;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::guard::Guard;
use super::keys::{self, HealthView};
use super::witness::{self, Missed, RollCall, Sight, Witness};
use crate::health::{Author, FACT_REFRESH, Placements, RegionFacts};
use crate::view::{ClusterView, NodeState, NodeView};

/// One generation of one node, as the gossip has it.
pub(super) struct Row<'a> {
    pub(super) id: NodeId,
    pub(super) generation: u64,
    pub(super) address: SocketAddr,
    pub(super) heard: bool,
    pub(super) heartbeat: u64,
    pub(super) value: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// A row that was read: everything of it that outlives the lock of the gossip.
pub(super) struct Report {
    generation: u64,
    heartbeat: u64,
    misses: Option<Vec<Missed>>,
    view: NodeView,
    author: Author,
    health_view: Option<HealthView>,
}

impl Report {
    pub(super) fn read(row: &Row<'_>) -> Self {
        let value = row.value;
        let text = |key| -> Arc<str> { keys::text(value(key)).into() };
        let view = NodeView {
            id: row.id,
            name: text(keys::NAME),
            cluster_addr: row.address,
            admin_addr: keys::text(value(keys::ADMIN)).to_owned(),
            region: text(keys::REGION),
            zone: text(keys::ZONE),
            state: keys::state(value(keys::STATE)),
            alive: row.heard,
            load: keys::number(value(keys::LOAD)),
            offered: keys::offers(value(keys::OFFERED)),
            active_revision: keys::number(value(keys::REVISION)),
            applied_index: keys::number(value(keys::APPLIED)),
            checked_seq: keys::number(value(keys::CHECKED)),
            commands: keys::number(value(keys::COMMANDS)),
            state_hash: value(keys::STATE_HASH).and_then(|text| text.parse().ok()),
            version: text(keys::VERSION),
            ready: keys::ready(value(keys::READY)),
            public: keys::addresses(value(keys::PUBLIC)),
        };
        let author = Author {
            id: row.id,
            zone: view.zone.clone(),
            serving: false,
            alive: false,
            shards: keys::shards(value),
            checked_through: None,
            age: None,
        };
        let health_view = value(keys::HEALTH_VIEW).and_then(HealthView::decode);
        let misses = value(keys::MISSED).map(witness::decode);
        let Row { generation, heartbeat, .. } = *row;
        Self { generation, heartbeat, misses, view, author, health_view }
    }
}

/// One round's result.
pub(super) struct Folded {
    pub(super) view: ClusterView,
    /// What was heard in this node's region: the view follows from it.
    pub(super) here: RegionFacts,
    /// And in the others, for people.
    pub(super) elsewhere: BTreeMap<Arc<str>, RegionFacts>,
    /// More than half of the peers died at once; the view does not show it yet.
    pub(super) mass_death: bool,
    /// What is to be said of those that this node misses.
    pub(super) missed: String,
    /// The others should hear soon of somebody that is missed or dead.
    pub(super) is_news: bool,
    /// How long ago that one of the living was heard of that was heard of longest ago.
    pub(super) silence: Duration,
}

/// Folds reports into views, round after round.
pub(super) struct Folder {
    local: NodeId,
    interval: Duration,
    witness: Witness,
    guard: Guard,
    /// Of each region.
    placements: BTreeMap<Arc<str>, Placements>,
    placement_since: Option<(u64, Instant)>,
    beats: FxHashMap<NodeId, (HealthView, Instant)>,
    endpoints: FxHashMap<shoal_model::EndpointId, crate::view::EndpointState>,
}

impl Folder {
    pub(super) fn new(local: NodeId, interval: Duration) -> Self {
        Self {
            local,
            interval,
            witness: Witness::new(interval),
            guard: Guard::default(),
            placements: BTreeMap::default(),
            placement_since: None,
            beats: FxHashMap::default(),
            endpoints: FxHashMap::default(),
        }
    }

    /// Facts of an author that has been quiet for longer do not count.
    pub(super) fn fresh_for(&self) -> Duration {
        3 * FACT_REFRESH + 3 * self.interval
    }

    /// This process was late itself.
    pub(super) fn stalled(&mut self, now: Instant) {
        self.witness.stalled(now);
        self.guard.stalled(now + 8 * self.interval);
    }

    /// `members`: the ids of the log's node table; others are ignored. `None` = not known yet, everybody counts.
    pub(super) fn fold(
        &mut self,
        reports: Vec<Report>,
        members: Option<&BTreeSet<NodeId>>,
        now: Instant,
        now_unix: u64,
    ) -> Folded {
        let mut reports = self.newest(reports, members);
        let RollCall { missed, is_news, silence, .. } = self.hear_witnesses(&mut reports, now);
        let mass_death = self.judge(&mut reports, now);
        let nodes: Vec<_> = reports.values().map(|report| report.view.clone()).collect();
        let (placement_id, holders_id) = (placement_id(&nodes), holders_id(&reports));
        let own = reports.get(&self.local).map(|report| report.view.region.clone()).unwrap_or_default();
        let authors = self.authors(reports, &own, now);
        let settled = self.settle(placement_id, &authors, now);
        let facts = |(region, authors): (Arc<str>, Vec<Author>)| {
            let placements = self.placements.get(&region).cloned().unwrap_or_default();
            (region, RegionFacts { authors, placements })
        };
        let mut elsewhere: BTreeMap<_, _> = authors.into_iter().map(facts).collect();
        // Whether an endpoint can be reached depends on the way to it: what others say of theirs decides nothing here.
        let here = elsewhere.remove(&own).unwrap_or_default();
        self.endpoints = here.round(self.fresh_for(), settled, now_unix).merge(&self.endpoints);
        let view = ClusterView {
            local: self.local,
            nodes,
            placement_id,
            holders_id,
            endpoints: self.endpoints.clone(),
        };
        Folded { view, here, elsewhere, mass_death, missed: witness::encode(&missed), is_news, silence }
    }

    /// One report per node: a generation that is heard before one that is not, then the latest. A node that restarted is
    /// there twice until its earlier self is forgotten.
    fn newest(&self, reports: Vec<Report>, members: Option<&BTreeSet<NodeId>>) -> BTreeMap<NodeId, Report> {
        let mut newest: BTreeMap<NodeId, Report> = BTreeMap::new();
        for report in reports {
            let id = report.view.id;
            if id != self.local && members.is_some_and(|members| !members.contains(&id)) {
                continue;
            }
            let rank = |report: &Report| (report.view.alive, report.generation);
            if newest.get(&id).is_none_or(|other| rank(other) < rank(&report)) {
                newest.insert(id, report);
            }
        }
        newest
    }

    /// A peer is alive if neither this node's failure detector nor what several others say is against it.
    fn hear_witnesses(&mut self, reports: &mut BTreeMap<NodeId, Report>, now: Instant) -> RollCall {
        let peers = reports.values().filter(|report| report.view.id != self.local);
        let sight = |report: &Report| Sight {
            id: report.view.id,
            generation: report.generation,
            heartbeat: report.heartbeat,
            heard: report.view.alive,
            left: report.view.state == NodeState::Left,
            misses: report.misses.clone(),
        };
        let peers: Vec<_> = peers.map(sight).collect();
        let call = self.witness.judge(&peers, now);
        for report in reports.values_mut().filter(|report| report.view.id != self.local) {
            report.view.alive = call.alive.contains(&report.view.id);
        }
        call
    }

    fn judge(&mut self, reports: &mut BTreeMap<NodeId, Report>, now: Instant) -> bool {
        let stayed = reports.values().map(|report| &report.view);
        let stayed = stayed.filter(|view| view.id != self.local && view.state != NodeState::Left);
        let peers: Vec<_> = stayed.map(|view| (view.id, view.alive)).collect();
        let judged = self.guard.judge(&peers, now);
        for report in reports.values_mut() {
            report.view.alive |= judged.alive.contains(&report.view.id);
        }
        judged.mass_death
    }

    /// Those of each region, in the order of their ids. Who has not said yet where it stands is only heard where that means
    /// the region of this node, `own`.
    fn authors(
        &mut self,
        reports: BTreeMap<NodeId, Report>,
        own: &Arc<str>,
        now: Instant,
    ) -> BTreeMap<Arc<str>, Vec<Author>> {
        self.beats.retain(|id, _| reports.contains_key(id));
        let mut regions: BTreeMap<Arc<str>, Vec<Author>> = BTreeMap::new();
        let is_placed = |report: &Report| report.view.region == *own || !report.view.region.is_empty();
        for report in reports.into_values().filter(is_placed) {
            let Report { view, mut author, health_view, .. } = report;
            if let Some(health_view) = health_view {
                let beat = self.beats.entry(view.id).or_insert((health_view, now));
                if beat.0 != health_view {
                    *beat = (health_view, now);
                }
                author.age = Some(now.duration_since(beat.1));
                author.checked_through = health_view.checked_through;
            }
            author.serving = view.is_serving();
            author.alive = view.alive;
            regions.entry(view.region).or_default().push(author);
        }
        regions
    }

    /// Whether the placement has held long enough for every checker to have taken over.
    fn settle(&mut self, placement_id: u64, authors: &BTreeMap<Arc<str>, Vec<Author>>, now: Instant) -> bool {
        match self.placement_since {
            Some((id, since)) if id == placement_id => now.duration_since(since) >= 3 * self.interval,
            Some(_) | None => {
                self.placement_since = Some((placement_id, now));
                self.placements.retain(|region, _| authors.contains_key(region));
                for (region, authors) in authors {
                    self.placements.entry(region.clone()).or_default().remember(placement_id, authors);
                }
                false
            }
        }
    }
}

/// Equal on nodes that see the same nodes serving; changes whenever that set does.
fn placement_id(nodes: &[NodeView]) -> u64 {
    let mut hash = Xxh3::new();
    for node in nodes.iter().filter(|node| node.is_serving()) {
        hash.update(&node.id.0.to_be_bytes());
    }
    hash.digest()
}

/// Changes as well when one of them is another process than before.
fn holders_id(reports: &BTreeMap<NodeId, Report>) -> u64 {
    let mut hash = Xxh3::new();
    for report in reports.values().filter(|report| report.view.is_serving()) {
        hash.update(&report.view.id.0.to_be_bytes());
        hash.update(&report.generation.to_be_bytes());
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use shoal_model::EndpointId;
    use shoal_policy::health::{Availability, Fact, FactState, Reason, encode_shards, shard_of};

    use super::*;

    const LOCAL: NodeId = NodeId(1);
    const INTERVAL: Duration = Duration::from_millis(500);

    struct Said<'a> {
        id: u64,
        generation: u64,
        heard: bool,
        keys: &'a [(&'a str, &'a str)],
    }

    fn reports(said: &[Said<'_>]) -> Vec<Report> {
        let read = |said: &Said<'_>| {
            let find = |key: &str| said.keys.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
            let address = SocketAddr::from(([127, 0, 0, 1], said.id as u16));
            Report::read(&Row {
                id: NodeId(said.id),
                generation: said.generation,
                address,
                heard: said.heard,
                heartbeat: 1,
                value: &find,
            })
        };
        said.iter().map(read).collect()
    }

    const READY: &[(&str, &str)] = &[("state", "ready")];

    fn alive(view: &ClusterView) -> Vec<u64> {
        view.nodes.iter().filter(|node| node.alive).map(|node| node.id.0).collect()
    }

    #[test]
    fn reads_what_a_node_says_of_itself() {
        let keys = [
            ("name", "one"),
            ("admin", "10.0.0.1:7401"),
            ("region", "eu"),
            ("zone", "a"),
            ("state", "draining"),
            ("load", "48"),
            ("offered", "000000000000002a=1792"),
            ("revision", "7"),
            ("applied", "12"),
            ("version", "0.1.0"),
            ("ready", "bgp+ dns="),
            ("public", "192.0.2.1"),
        ];
        let said = [Said { id: 1, generation: 1, heard: true, keys: &keys }];
        let folded = Folder::new(LOCAL, INTERVAL).fold(reports(&said), None, Instant::now(), 0);
        let node = folded.view.node(LOCAL).unwrap();
        assert_eq!(
            format!("{node:?}"),
            "NodeView { id: NodeId(1), name: \"one\", cluster_addr: 127.0.0.1:1, admin_addr: \"10.0.0.1:7401\", region: \"eu\", zone: \"a\", state: Draining, alive: true, load: 48, offered: [(UpstreamId(42), 1792)], active_revision: 7, applied_index: 12, checked_seq: 0, commands: 0, state_hash: None, ready: ReadyIn([Yes, Held, No]), public: [192.0.2.1], version: \"0.1.0\" }"
        );
        let garbage = [("load", "many"), ("revision", "-1"), ("h/view", "?"), ("h/3", "?")];
        let said = [Said { id: 1, generation: 1, heard: true, keys: &garbage }];
        let folded = Folder::new(LOCAL, INTERVAL).fold(reports(&said), None, Instant::now(), 0);
        assert_eq!(folded.view.node(LOCAL).map(|node| (node.load, node.active_revision)), Some((0, 0)));
    }

    #[test]
    fn strangers_are_ignored_and_restarted_nodes_counted_once() {
        let said = [
            Said { id: 1, generation: 1, heard: true, keys: READY },
            Said { id: 2, generation: 5, heard: false, keys: &[("name", "old")] },
            Said { id: 2, generation: 6, heard: true, keys: &[("name", "new")] },
            Said { id: 3, generation: 9, heard: false, keys: &[] },
            Said { id: 3, generation: 8, heard: true, keys: &[] },
            Said { id: 9, generation: 1, heard: true, keys: READY },
        ];
        let members = BTreeSet::from([NodeId(2), NodeId(3)]);
        let mut folder = Folder::new(LOCAL, INTERVAL);
        let everybody = folder.fold(reports(&said), None, Instant::now(), 0).view;
        assert_eq!(alive(&everybody), [1, 2, 3, 9]);
        let view = folder.fold(reports(&said), Some(&members), Instant::now(), 0).view;
        assert_eq!(alive(&view), [1, 2, 3]);
        assert_eq!(view.node(NodeId(2)).map(|node| &*node.name), Some("new"));
        assert_ne!(view.placement_id, everybody.placement_id);
    }

    #[test]
    fn placement_follows_those_who_serve() {
        let place = |said: &[Said<'_>]| {
            let mut folder = Folder::new(LOCAL, INTERVAL);
            folder.fold(reports(said), None, Instant::now(), 0).view.placement_id
        };
        let one = Said { id: 1, generation: 1, heard: true, keys: READY };
        let two = |heard, keys| Said { id: 2, generation: 1, heard, keys };
        let alone = place(&[Said { ..one }]);
        let both = place(&[Said { ..one }, two(true, READY)]);
        assert_ne!(alone, both);
        assert_eq!(alone, place(&[Said { ..one }, two(false, READY)]));
        assert_eq!(alone, place(&[Said { ..one }, two(true, &[("state", "draining")])]));
        assert_eq!(alone, place(&[Said { ..one }, two(true, &[])]));
        assert_eq!(both, place(&[two(true, READY), Said { ..one }]));
    }

    #[test]
    fn who_began_anew_is_another_holder_of_objects() {
        let holders = |generation| {
            let said = [1, 2].map(|id| Said {
                id,
                generation: if id == 2 { generation } else { 1 },
                heard: true,
                keys: READY,
            });
            let view = Folder::new(LOCAL, INTERVAL).fold(reports(&said), None, Instant::now(), 0).view;
            (view.placement_id, view.holders_id)
        };
        assert_eq!(holders(5), holders(5));
        assert_eq!(holders(5).0, holders(6).0, "it owns and checks the same");
        assert_ne!(holders(5).1, holders(6).1);
    }

    /// An endpoint, and what is said where it is found down.
    fn a_down_fact() -> (EndpointId, &'static str, String) {
        let endpoint = EndpointId::of("shop", "10.0.0.1:80");
        let fact = Fact { endpoint, state: FactState::Down, since: 1, reason: Reason::Reset };
        let shard = encode_shards([fact])[shard_of(endpoint)].clone();
        (endpoint, keys::HEALTH_SHARDS[shard_of(endpoint)], shard)
    }

    #[test]
    fn facts_become_availability_once_the_placement_has_held() {
        let (endpoint, key, shard) = a_down_fact();
        let start = Instant::now();
        let mut folder = Folder::new(LOCAL, INTERVAL);
        // Node 3 is of another region: its facts are its own affair.
        let mut round = |at_ms: u64, two_is_down: bool, beat: &str| {
            let down = [("state", "ready"), ("h/view", beat), (key, shard.as_str())];
            let up = [("state", "ready"), ("h/view", beat)];
            let elsewhere = [("state", "ready"), ("h/view", beat), (key, shard.as_str()), ("region", "us")];
            let said = [
                Said { id: 1, generation: 1, heard: true, keys: &down },
                Said { id: 2, generation: 1, heard: true, keys: if two_is_down { &down } else { &up } },
                Said { id: 3, generation: 1, heard: true, keys: &elsewhere },
            ];
            let folded = folder.fold(reports(&said), None, start + Duration::from_millis(at_ms), at_ms);
            let beat = format!("{:016x}.1", folded.view.placement_id);
            (folded.view.availability(endpoint), beat)
        };
        let (first, beat) = round(0, false, ".0");
        assert_eq!(first, Availability::Up);
        // Not settled, and node 2 has not come round.
        assert_eq!(round(100, false, ".0").0, Availability::Up);
        // Both have come round.
        assert_eq!(round(200, true, &beat).0, Availability::Down);
        assert_eq!(round(300, false, &beat).0, Availability::Up);
        assert_eq!(round(2000, true, &beat).0, Availability::Down);
        // Their beats have stopped: nobody is heard any more, and the last word stands.
        assert_eq!(round(200_000, false, &beat).0, Availability::Down);
        let again = beat.replace(".1", ".2");
        assert_eq!(round(200_100, false, &again).0, Availability::Up);
    }

    #[test]
    fn other_regions_are_heard_and_decide_nothing() {
        let (endpoint, key, shard) = a_down_fact();
        let start = Instant::now();
        let mut folder = Folder::new(LOCAL, INTERVAL);
        let mut round = |at_ms: u64, beat: &str| {
            let up = [("state", "ready"), ("h/view", beat), ("region", "eu")];
            let down = [("state", "ready"), ("h/view", beat), (key, shard.as_str()), ("region", "us")];
            let nowhere_yet = [("state", "ready"), ("h/view", beat), (key, shard.as_str())];
            let said = [
                Said { id: 1, generation: 1, heard: true, keys: &up },
                Said { id: 2, generation: 1, heard: true, keys: &down },
                Said { id: 3, generation: 1, heard: true, keys: &nowhere_yet },
            ];
            folder.fold(reports(&said), None, start + Duration::from_millis(at_ms), at_ms)
        };
        let beat = format!("{:016x}.1", round(0, ".0").view.placement_id);
        let folded = round(2000, &beat);
        assert_eq!(folded.view.availability(endpoint), Availability::Up);
        let told = |region: &Arc<str>, facts: &RegionFacts| {
            let verdict = facts.round(FACT_REFRESH, true, 0).verdict(region, endpoint, None);
            let (is, agreeing, of) = (verdict.availability.name(), verdict.agreeing, verdict.checkers);
            format!("{} {is} {agreeing}/{of}", verdict.region)
        };
        assert_eq!(told(&"eu".into(), &folded.here), "eu up 1/1");
        let elsewhere: Vec<_> = folded.elsewhere.iter().map(|(region, facts)| told(region, facts)).collect();
        assert_eq!(elsewhere, ["us down 1/1"]);
    }
}
