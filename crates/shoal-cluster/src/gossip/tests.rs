//! Three nodes gossip over loopback, and those who should not be heard are not.

use std::sync::atomic::Ordering;
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

fn settings(id: u64, secret: u8, seeds: &[SocketAddr]) -> GossipSettings {
    GossipSettings {
        cluster_id: ClusterId(1),
        cluster_epoch: 0,
        secret: ClusterSecret::from_bytes(&[secret; 32]).unwrap(),
        node_id: NodeId(id),
        name: format!("node-{id}"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise: None,
        admin_addr: String::new(),
        region: String::new(),
        zone: String::new(),
        version: String::new(),
        seeds: seeds.to_vec(),
        timing: GossipTiming {
            interval: Duration::from_millis(50),
            initial_interval: Duration::from_millis(200),
            phi_threshold: 8.0,
        },
    }
}

async fn start(id: u64, seeds: &[SocketAddr]) -> Gossip {
    let gossip = Gossip::start(settings(id, 1, seeds)).await.unwrap();
    gossip.set_state(NodeState::Ready);
    gossip
}

async fn three() -> [Gossip; 3] {
    let one = start(1, &[]).await;
    let two = start(2, &[one.local_addr()]).await;
    let three = start(3, &[one.local_addr()]).await;
    let nodes = [one, two, three];
    for node in &nodes {
        wait_until("all serve", || serving(node) == [1, 2, 3]).await;
    }
    nodes
}

fn serving(gossip: &Gossip) -> Vec<u64> {
    let view = gossip.view().load();
    view.nodes.iter().filter(|node| node.is_serving()).map(|node| node.id.0).collect()
}

#[tokio::test]
async fn a_node_knows_itself_from_the_start() {
    let one = Gossip::start(settings(1, 1, &[])).await.unwrap();
    let view = one.view().load_full();
    let node = view.node(NodeId(1)).unwrap();
    assert_eq!((&*node.name, node.state, node.alive), ("node-1", NodeState::Joining, true));
    assert_eq!(node.cluster_addr, one.local_addr());
}

#[tokio::test]
async fn what_a_node_says_reaches_all() {
    let nodes = three().await;
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
    let placements: Vec<_> = nodes.iter().map(|node| node.view().load().placement_id).collect();
    assert_eq!(placements, [placements[0]; 3]);
}

#[tokio::test]
async fn facts_of_a_majority_reach_all() {
    let nodes = three().await;
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
    assert_eq!(says(&nodes[2]), ["n1 down", "n2 down", "n3 up"]);
    wait_until("one of three does not", || {
        publish(1);
        all_hold(Availability::Up)
    })
    .await;
}

#[tokio::test]
async fn a_killed_node_is_noticed_and_comes_back_as_the_same() {
    let [one, two, three] = three().await;
    let members =
        [(NodeId(1), one.local_addr()), (NodeId(2), two.local_addr()), (NodeId(3), three.local_addr())];
    one.set_members(members);
    two.set_members(members);
    let before = one.view().load().placement_id;
    drop(three);
    for node in [&one, &two] {
        wait_until("its death is noticed", || serving(node) == [1, 2]).await;
        let view = node.view().load();
        assert!(view.node(NodeId(3)).is_some_and(|node| !node.alive));
        assert_ne!(view.placement_id, before);
    }
    let again = start(3, &[one.local_addr()]).await;
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
    let [one, two, three] = three().await;
    three.leave().await;
    for node in [&one, &two] {
        wait_until("it has left", || {
            node.view().load().node(NodeId(3)).is_some_and(|node| node.state == NodeState::Left)
        })
        .await;
        assert_eq!(serving(node), [1, 2]);
    }
}

#[tokio::test]
async fn those_without_the_secret_or_a_place_in_the_log_are_not_heard() {
    let one = start(1, &[]).await;
    let stranger = Gossip::start(settings(2, 9, &[one.local_addr()])).await.unwrap();
    let removed = start(3, &[one.local_addr()]).await;
    let member = start(4, &[one.local_addr()]).await;
    one.set_members([(NodeId(4), member.local_addr())]);
    wait_until("the member is heard", || serving(&one) == [1, 4]).await;
    wait_until("the stranger tried often", || one.wire().unauthentic.load(Ordering::Relaxed) >= 5).await;
    let ids: Vec<_> = one.view().load().nodes.iter().map(|node| node.id.0).collect();
    assert_eq!(ids, [1, 4]);
    assert_eq!(stranger.wire().received.load(Ordering::Relaxed), 0, "a stranger was answered");
    assert_eq!(stranger.wire().unauthentic.load(Ordering::Relaxed), 0, "a stranger was answered");
    drop(removed);
}

#[tokio::test]
async fn replays_and_garbage_earn_no_answer() {
    let spy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let talker = start(1, &[spy.local_addr().unwrap()]).await;
    let victim = start(2, &[]).await;
    let mut captured = vec![0; 65_536];
    let (length, from) = spy.recv_from(&mut captured).await.unwrap();
    assert_eq!(from, talker.local_addr());
    drop(talker);
    for garbage in [&b""[..], b"x", &[0xff; 1400], &captured[..length - 1]] {
        spy.send_to(garbage, victim.local_addr()).await.unwrap();
    }
    for _ in 0..3 {
        spy.send_to(&captured[..length], victim.local_addr()).await.unwrap();
    }
    wait_until("all was received", || {
        victim.wire().unauthentic.load(Ordering::Relaxed) == 4
            && victim.wire().replayed.load(Ordering::Relaxed) == 2
    })
    .await;
    let mut answers = 0;
    wait_until("the first is answered", || {
        while let Ok((_, from)) = spy.try_recv_from(&mut captured) {
            answers += usize::from(from == victim.local_addr());
        }
        answers > 0
    })
    .await;
    assert_eq!((answers, victim.wire().received.load(Ordering::Relaxed)), (1, 1));
}
