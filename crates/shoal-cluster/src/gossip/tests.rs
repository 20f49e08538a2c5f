//! Three nodes gossip over loopback, and those who should not be heard are not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use shoal_policy::health::{Availability, FactState, Reason};

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "in vain waited until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A cluster of its own for each test: ports are used again, and a late datagram of another test must not be heard.
#[derive(Clone, Copy)]
struct Cluster(ClusterId);

impl Cluster {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(ClusterId(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn keys(byte: u8) -> KeyRing {
        KeyRing::of_keys([[byte; 32].as_slice()]).unwrap()
    }

    fn settings(self, id: u64, seeds: &[SocketAddr]) -> GossipSettings {
        GossipSettings {
            cluster_id: self.0,
            cluster_epoch: 0,
            keys: Self::keys(1),
            node_id: NodeId(id),
            name: format!("node-{id}"),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            admin_addr: String::new(),
            region: String::new(),
            zone: String::new(),
            version: String::new(),
            public: Vec::new(),
            seeds: seeds.to_vec(),
            timing: GossipTiming {
                interval: Duration::from_millis(50),
                initial_interval: Duration::from_millis(200),
                phi_threshold: 8.0,
            },
        }
    }

    async fn start(self, id: u64, seeds: &[SocketAddr]) -> Gossip {
        let gossip = Gossip::start(self.settings(id, seeds)).await.unwrap();
        gossip.set_state(NodeState::Ready);
        gossip
    }

    async fn three(self) -> [Gossip; 3] {
        let one = self.start(1, &[]).await;
        let two = self.start(2, &[one.local_addr()]).await;
        let three = self.start(3, &[one.local_addr()]).await;
        let nodes = [one, two, three];
        for node in &nodes {
            wait_until("all serve", || serving(node) == [1, 2, 3]).await;
        }
        nodes
    }
}

fn serving(gossip: &Gossip) -> Vec<u64> {
    let view = gossip.view().load();
    view.nodes.iter().filter(|node| node.is_serving()).map(|node| node.id.0).collect()
}

#[tokio::test]
async fn a_node_knows_itself_from_the_start() {
    let one = Gossip::start(Cluster::new().settings(1, &[])).await.unwrap();
    let view = one.view().load_full();
    let node = view.node(NodeId(1)).unwrap();
    assert_eq!((&*node.name, node.state, node.alive), ("node-1", NodeState::Joining, true));
    assert_eq!(node.cluster_addr, one.local_addr());
}

#[tokio::test]
async fn an_address_nobody_can_reach_is_refused() {
    let check = async |listen: &str, advertise: Option<&str>, expected: bool| {
        let settings = GossipSettings {
            listen: listen.parse().unwrap(),
            advertise: advertise.map(|address| address.parse().unwrap()),
            ..Cluster::new().settings(1, &[])
        };
        assert_eq!(Gossip::start(settings).await.is_ok(), expected, "{listen} as {advertise:?}");
    };
    check("127.0.0.1:0", None, true).await;
    check("0.0.0.0:0", None, false).await;
    check("0.0.0.0:0", Some("10.0.0.1:7400"), true).await;
    check("0.0.0.0:0", Some("0.0.0.0:7400"), false).await;
}

#[tokio::test]
async fn new_members_are_called_at_once() {
    let cluster = Cluster::new();
    // Silent members are called again only after the deadline of this test.
    let interval = DEADLINE / 8;
    let timing = GossipTiming { interval, initial_interval: interval, phi_threshold: 8.0 };
    let one = Gossip::start(GossipSettings { timing, ..cluster.settings(1, &[]) }).await.unwrap();
    let two = Gossip::start(GossipSettings { timing, ..cluster.settings(2, &[]) }).await.unwrap();
    for revision in 1..4 {
        two.set_active_revision(revision);
        let told = || two.view().load().node(NodeId(2)).is_some_and(|node| node.active_revision == revision);
        wait_until("it has run for some rounds", told).await;
    }
    two.set_members([(NodeId(1), one.local_addr()), (NodeId(2), two.local_addr())], 9);
    wait_until("the member is known", || two.view().load().node(NodeId(1)).is_some()).await;
}

#[tokio::test]
async fn what_a_node_says_reaches_all() {
    let nodes = Cluster::new().three().await;
    let mut changes = nodes[2].subscribe();
    changes.mark_unchanged();
    nodes[0].set_active_revision(7);
    nodes[0].set_applied_index(12);
    nodes[0].set_load(100);
    for node in &nodes {
        wait_until("node 1 is known", || {
            let view = node.view().load();
            view.node(NodeId(1))
                .is_some_and(|node| (node.active_revision, node.applied_index, node.load) == (7, 12, 96))
        })
        .await;
    }
    wait_until("changes are told", || changes.has_changed().unwrap()).await;
    let placement = |node: &Gossip| node.view().load().placement_id;
    wait_until("all place alike", || nodes.iter().all(|node| placement(node) == placement(&nodes[0]))).await;
}

#[tokio::test]
async fn facts_of_a_majority_reach_all() {
    let nodes = Cluster::new().three().await;
    let endpoint = EndpointId::of("shop", "10.0.0.1:80");
    let down = Fact { endpoint, state: FactState::Down, since: 5, reason: Reason::ConnectRefused };
    let publish = |down_on: usize| {
        for (place, node) in nodes.iter().enumerate() {
            let facts = (place < down_on).then_some(down);
            node.publish_facts(facts, Some(node.view().load().placement_id));
        }
    };
    let all_hold = |expected| nodes.iter().all(|node| node.view().load().availability(endpoint) == expected);
    wait_until("two of three decide", || {
        publish(2);
        all_hold(Availability::Down)
    })
    .await;
    let says = |node: &Gossip| {
        let opinions = node.opinions(endpoint);
        opinions.iter().map(|opinion| format!("{} {}", opinion.node, opinion.says)).collect::<Vec<_>>()
    };
    wait_until("node 3 can tell who says so", || says(&nodes[2]) == ["n1 down", "n2 down", "n3 up"]).await;
    wait_until("one of three does not", || {
        publish(1);
        all_hold(Availability::Up)
    })
    .await;
}

#[tokio::test]
async fn what_each_region_finds_is_told_in_all_of_them() {
    let cluster = Cluster::new();
    let mut nodes: Vec<Gossip> = Vec::new();
    for (id, region) in [(1, "us"), (2, "eu"), (3, "ap")] {
        let seeds: Vec<_> = nodes.iter().map(Gossip::local_addr).collect();
        let settings = GossipSettings { region: region.to_owned(), ..cluster.settings(id, &seeds) };
        let node = Gossip::start(settings).await.unwrap();
        node.set_state(NodeState::Ready);
        nodes.push(node);
    }
    let endpoint = EndpointId::of("shop", "10.0.0.1:80");
    let down = Fact { endpoint, state: FactState::Down, since: 5, reason: Reason::ConnectRefused };
    let told = |place: usize| {
        let verdicts = nodes[place].verdicts(endpoint);
        let told = verdicts.iter().map(|verdict| {
            let (is, agreeing, of) = (verdict.availability.name(), verdict.agreeing, verdict.checkers);
            format!("{} {is} {agreeing}/{of}", verdict.region)
        });
        told.collect::<Vec<_>>()
    };
    wait_until("each begins with its own", || {
        for (place, node) in nodes.iter().enumerate() {
            node.publish_facts((place == 1).then_some(down), Some(node.view().load().placement_id));
        }
        told(0) == ["us up 1/1", "ap up 1/1", "eu down 1/1"]
            && told(1) == ["eu down 1/1", "ap up 1/1", "us up 1/1"]
    })
    .await;
    assert_eq!(nodes[0].view().load().availability(endpoint), Availability::Up);
}

#[tokio::test]
async fn a_killed_node_is_noticed_and_comes_back_as_the_same() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    let members =
        [(NodeId(1), one.local_addr()), (NodeId(2), two.local_addr()), (NodeId(3), three.local_addr())];
    one.set_members(members, 9);
    two.set_members(members, 9);
    let before = one.view().load().placement_id;
    drop(three);
    for node in [&one, &two] {
        wait_until("its death is noticed", || {
            let view = node.view().load();
            let dead = view.node(NodeId(3)).is_some_and(|node| !node.alive);
            dead && serving(node) == [1, 2] && view.placement_id != before
        })
        .await;
    }
    let again = cluster.start(3, &[one.local_addr()]).await;
    for node in [&one, &two, &again] {
        wait_until("it is back", || serving(node) == [1, 2, 3]).await;
        assert_eq!(
            node.view().load().node(NodeId(3)).map(|node| node.cluster_addr),
            Some(again.local_addr())
        );
    }
    wait_until("owners are as before", || one.view().load().placement_id == before).await;
}

#[tokio::test]
async fn leaving_is_told() {
    let [one, two, three] = Cluster::new().three().await;
    three.leave().await;
    for node in [&one, &two] {
        wait_until("it has left", || {
            let left = node.view().load().node(NodeId(3)).is_some_and(|node| node.state == NodeState::Left);
            left && serving(node) == [1, 2]
        })
        .await;
    }
}

#[tokio::test]
async fn those_without_the_secret_or_a_place_in_the_log_are_not_heard() {
    let cluster = Cluster::new();
    let one = cluster.start(1, &[]).await;
    let without = GossipSettings { keys: Cluster::keys(9), ..cluster.settings(2, &[one.local_addr()]) };
    let stranger = Gossip::start(without).await.unwrap();
    let removed = cluster.start(3, &[one.local_addr()]).await;
    let member = cluster.start(4, &[one.local_addr()]).await;
    let members = [(NodeId(1), one.local_addr()), (NodeId(4), member.local_addr())];
    one.set_members(members, 9);
    member.set_members(members, 9);
    wait_until("the member is heard", || serving(&one) == [1, 4]).await;
    wait_until("the stranger tried often", || one.counters().unauthentic.load(Ordering::Relaxed) >= 5).await;
    let ids: Vec<_> = one.view().load().nodes.iter().map(|node| node.id.0).collect();
    assert_eq!(ids, [1, 4]);
    assert_eq!(stranger.counters().received.load(Ordering::Relaxed), 0, "a stranger was answered");
    assert_eq!(stranger.counters().unauthentic.load(Ordering::Relaxed), 0, "a stranger was answered");
    let dropped = |node: &Gossip| node.counters().removed.load(Ordering::Relaxed);
    let heard = || removed.counters().received.load(Ordering::Relaxed);
    wait_until("the removed node tried often", || dropped(&one) >= 5).await;
    let before = heard();
    wait_until("and goes on", || dropped(&one) >= 10).await;
    assert_eq!(heard(), before, "a removed node was told something");
}

/// A datagram of a node with id 9 that is reached at `from`, sealed for the node at `to`.
fn rogue(cluster: Cluster, message: &[u8], from: &UdpSocket, to: SocketAddr) -> Vec<Vec<u8>> {
    let party = seal::Party { id: 9, address: from.local_addr().unwrap() };
    let mut sealer = seal::Sealer::new(&Cluster::keys(1), &format!("{}/0", cluster.0), party, 1);
    sealer.seal(message, to, transport::unix_ms()).unwrap()
}

/// A SYN of a node that knows nobody.
fn greeting(cluster: Cluster) -> Vec<u8> {
    syn(&format!("{}/0", cluster.0), 0)
}

#[tokio::test]
async fn replays_and_garbage_earn_no_answer() {
    let spy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let cluster = Cluster::new();
    let victim = cluster.start(2, &[]).await;
    let captured = rogue(cluster, &greeting(cluster), &spy, victim.local_addr()).remove(0);
    for garbage in [&b""[..], b"x", &[0xff; 1400], &captured[..captured.len() - 1]] {
        elsewhere.send_to(garbage, victim.local_addr()).await.unwrap();
    }
    for _ in 0..3 {
        elsewhere.send_to(&captured, victim.local_addr()).await.unwrap();
    }
    wait_until("all was received", || {
        victim.counters().unauthentic.load(Ordering::Relaxed) == 4
            && victim.counters().replayed.load(Ordering::Relaxed) == 2
    })
    .await;
    // The first is answered, to where its author is reached and not to where it came from.
    let (mut answers, mut buffer) = (0, vec![0; 65_536]);
    wait_until("the first is answered", || {
        while let Ok((_, from)) = spy.try_recv_from(&mut buffer) {
            answers += usize::from(from == victim.local_addr());
        }
        answers > 0
    })
    .await;
    assert_eq!((answers, victim.counters().received.load(Ordering::Relaxed)), (1, 1));
    assert!(elsewhere.try_recv_from(&mut buffer).is_err(), "the source of a datagram was believed");
}

#[tokio::test]
async fn what_was_said_to_one_node_is_not_heard_by_another() {
    let spy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let cluster = Cluster::new();
    let (meant, other) = (cluster.start(2, &[]).await, cluster.start(3, &[]).await);
    let captured = rogue(cluster, &greeting(cluster), &spy, meant.local_addr()).remove(0);
    for address in [other.local_addr(), meant.local_addr()] {
        spy.send_to(&captured, address).await.unwrap();
    }
    wait_until("the other one dropped it", || other.counters().unauthentic.load(Ordering::Relaxed) == 1)
        .await;
    wait_until("the one it was meant for heard it", || {
        meant.counters().received.load(Ordering::Relaxed) == 1
    })
    .await;
    assert_eq!(other.counters().received.load(Ordering::Relaxed), 0);
}

/// A SYN naming more nodes than one message can: the gossip library panics over it, where overflow is checked.
fn poison(cluster_id: &str) -> Vec<u8> {
    syn(cluster_id, 1600)
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes(), text.as_bytes()].concat()
}

/// A SYN that tells of `count` nodes.
fn syn(cluster_id: &str, count: u16) -> Vec<u8> {
    let mut syn = [&45_139_u16.to_le_bytes()[..], &[0, 0], &count.to_le_bytes()].concat();
    for id in 0..count {
        syn.extend(text(&format!("n{}", 1000 + id)));
        syn.extend(1_u64.to_le_bytes());
        syn.extend([4, 127, 0, 0, 1, 1, 0]);
        syn.extend([1_u64, 0, 0].map(u64::to_le_bytes).concat());
    }
    syn.extend(text(cluster_id));
    syn
}

#[tokio::test]
async fn the_gossip_survives_its_own_end() {
    let cluster = Cluster::new();
    let one = cluster.start(1, &[]).await;
    let ring = format!("{}/0", cluster.0);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for datagram in rogue(cluster, &poison(&ring), &socket, one.local_addr()) {
        socket.send_to(&datagram, one.local_addr()).await.unwrap();
    }
    wait_until("it was started again", || one.counters().restarts.load(Ordering::Relaxed) == 1).await;
    let two = cluster.start(2, &[one.local_addr()]).await;
    for node in [&one, &two] {
        wait_until("it works as before", || serving(node) == [1, 2]).await;
    }
    assert_eq!(one.counters().restarts.load(Ordering::Relaxed), 1);
}

/// An ACK that gives the last of all versions to what node 1 says of itself.
fn last_version(generation: u64, port: u16) -> Vec<u8> {
    let address = [&[4, 127, 0, 0, 1][..], &port.to_le_bytes()].concat();
    let node = [&[0][..], &text("n1"), &generation.to_le_bytes(), &address, &[0; 16]].concat();
    let delta = [&node[..], &[2], &u64::MAX.to_le_bytes()].concat();
    let block = [&[2][..], &(delta.len() as u16).to_le_bytes(), &delta, &[0]].concat();
    [&45_139_u16.to_le_bytes()[..], &[0, 2], &block].concat()
}

#[tokio::test]
async fn nobody_silences_a_node_by_speaking_for_it() {
    let spy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let cluster = Cluster::new();
    let one = cluster.start(1, &[spy.local_addr().unwrap()]).await;
    // Its generation stands before what is sealed.
    let mut heard = [0; 65_536];
    spy.recv_from(&mut heard).await.unwrap();
    let generation = u64::from_be_bytes(*heard[10..].first_chunk().unwrap());
    let message = last_version(generation, one.local_addr().port());
    for datagram in rogue(cluster, &message, &spy, one.local_addr()) {
        spy.send_to(&datagram, one.local_addr()).await.unwrap();
    }
    wait_until("it was started again", || one.counters().restarts.load(Ordering::Relaxed) == 1).await;
    one.set_active_revision(7);
    let two = cluster.start(2, &[one.local_addr()]).await;
    for node in [&one, &two] {
        let says_so = || node.view().load().node(NodeId(1)).is_some_and(|node| node.active_revision == 7);
        wait_until("it still speaks for itself", says_so).await;
    }
}
