//! Many nodes gossip on a clock and a network of the simulation's own, with everything of the gossip but its sockets and seals:
//! how soon all know each other, a change, and a death, how many bytes that takes, and how many nodes check an endpoint.
//!
//! `SHOAL_SIM_NODES` nodes, or sixty, and `SHOAL_SIM_LOSS` lost messages in a hundred, or none; the figures are printed. The gossip
//! chooses whom it calls by dice of its own, so that no run is like another. What is rare is looked for with
//! `SHOAL_SIM_DEATHS` deaths of one after the other, and in `SHOAL_SIM_MINUTES` in which nodes only stand still for a while.

use std::collections::HashMap;
use std::env;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use shoal_model::EndpointId;
use shoal_policy::health::CHECKERS_PER_ENDPOINT;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::*;
use crate::identity::ClusterSecret;

/// From one node to any other.
const LATENCY: Duration = Duration::from_millis(1);
/// Between two looks at everybody.
const LOOK: Duration = Duration::from_millis(25);
/// What lasts longer does not come to an end.
const DEADLINE: Duration = Duration::from_secs(120);
/// For the gaps between signs of life to be those of a cluster at rest, and to count what that costs.
const REST: Duration = Duration::from_secs(5);

/// Endpoints of which it is counted who checks them.
const ENDPOINTS: u64 = 100;

type Letter = (SocketAddr, Vec<u8>);

/// Carries every message a moment later, or loses it.
#[derive(Clone)]
pub(super) struct Air(Arc<AirState>);

struct AirState {
    boxes: Mutex<HashMap<SocketAddr, mpsc::UnboundedSender<Letter>>>,
    /// Who stands still says and hears nothing until then, and all of it after that.
    still_until: Mutex<HashMap<SocketAddr, Instant>>,
    lost_percent: u64,
    dice: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Air {
    fn losing(lost_percent: u64) -> Self {
        let (dice, sent_bytes) = (AtomicU64::new(7), AtomicU64::new(0));
        let (boxes, still_until) = (Mutex::default(), Mutex::default());
        Self(Arc::new(AirState { boxes, still_until, lost_percent, dice, sent_bytes }))
    }

    fn stand_still(&self, address: SocketAddr, pause: Duration) {
        self.0.still_until.lock().unwrap().insert(address, Instant::now() + pause);
    }

    /// When what is sent now is heard.
    fn arrival(&self, from: SocketAddr, to: SocketAddr) -> Instant {
        let still = self.0.still_until.lock().unwrap();
        let until = |address| still.get(&address).copied().unwrap_or_else(Instant::now);
        Instant::now().max(until(from)).max(until(to)) + LATENCY
    }

    fn throw(&self, sides: u64) -> u64 {
        let thrown = self.0.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (thrown ^ (thrown >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 29)) % sides
    }

    fn loses(&self) -> bool {
        self.throw(100) < self.0.lost_percent
    }
}

#[async_trait::async_trait]
impl Transport for Air {
    async fn open(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let (letters, inbox) = mpsc::unbounded_channel();
        self.0.boxes.lock().unwrap().insert(address, letters);
        Ok(Box::new(Mouth { air: self.clone(), address, inbox }))
    }
}

struct Mouth {
    air: Air,
    address: SocketAddr,
    inbox: mpsc::UnboundedReceiver<Letter>,
}

#[async_trait::async_trait]
impl Socket for Mouth {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let mut bytes = Vec::with_capacity(message.serialized_len());
        message.serialize(&mut bytes);
        assert!(bytes.len() <= 65_507, "a message of {} bytes is no datagram any more", bytes.len());
        self.air.0.sent_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let boxes = self.air.0.boxes.lock().unwrap();
        // Who has gone says and reads nothing.
        if let Some(letters) = boxes.get(&to).filter(|_| boxes.contains_key(&self.address))
            && !self.air.loses()
        {
            let (letters, letter) = (letters.clone(), (self.address, bytes));
            let arrival = self.air.arrival(self.address, to);
            tokio::spawn(async move {
                sleep_until(arrival).await;
                // Who has gone meanwhile does not read it.
                _ = letters.send(letter);
            });
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        match self.inbox.recv().await {
            Some((from, bytes)) => Ok((from, ChitchatMessage::deserialize(&mut bytes.as_slice())?)),
            None => std::future::pending().await,
        }
    }
}

fn address(n: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, (n / 250) as u8, (n % 250) as u8], 7400))
}

fn start(air: &Air, n: u64) -> Gossip {
    let settings = GossipSettings {
        cluster_id: ClusterId(1),
        cluster_epoch: 0,
        keys: KeyRing::of_secret(&ClusterSecret::from_bytes(&[1; 32]).unwrap()),
        node_id: NodeId(n),
        name: format!("node-{n}"),
        listen: address(n),
        advertise: None,
        admin_addr: "10.0.0.1:7401".to_owned(),
        region: "eu".to_owned(),
        zone: "a".to_owned(),
        version: "1.0.0".to_owned(),
        public: Vec::new(),
        seeds: Vec::new(),
        timing: GossipTiming::default(),
    };
    let gossip = Gossip::start_over(Wire::Simulated(air.clone()), address(n), settings);
    gossip.set_state(NodeState::Ready);
    gossip
}

/// When the first, half and all of `nodes` see it so, from now on. `watch` looks as often.
async fn until(
    what: &str,
    nodes: &[Gossip],
    sees: impl Fn(&ClusterView) -> bool,
    mut watch: impl FnMut(),
) -> [Duration; 3] {
    let began = Instant::now();
    let mut times: Vec<Option<Duration>> = vec![None; nodes.len()];
    while times.iter().any(Option::is_none) {
        let late = times.iter().filter(|time| time.is_none()).count();
        assert!(began.elapsed() < DEADLINE, "{late} of {} nodes do not see {what}", nodes.len());
        for (node, time) in nodes.iter().zip(&mut times) {
            if time.is_none() && sees(&node.view().load()) {
                *time = Some(began.elapsed());
            }
        }
        watch();
        sleep(LOOK).await;
    }
    let mut times: Vec<Duration> = times.into_iter().flatten().collect();
    times.sort();
    [times[0], times[times.len() / 2], times[times.len() - 1]]
}

/// Counts who checks an endpoint: each node decides that for itself, by what it knows of the others.
#[derive(Default)]
struct Checks {
    /// Nodes that know the same come to the same.
    known: HashMap<(u64, EndpointId), Vec<NodeId>>,
}

impl Checks {
    fn count(&mut self, nodes: &[Gossip], endpoint: EndpointId) -> usize {
        let is_checker = |node: &&Gossip| {
            let view = node.view().load();
            let checkers = self.known.entry((view.placement_id, endpoint));
            checkers.or_insert_with(|| view.checkers(endpoint)).contains(&view.local)
        };
        nodes.iter().filter(is_checker).count()
    }
}

/// What a cluster does, in seconds and bytes.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
struct Figures {
    met: [Duration; 3],
    change: [Duration; 3],
    death: [Duration; 3],
    false_deaths: usize,
    bytes_a_second: f64,
    /// Nodes that check an endpoint, the most of all endpoints: at rest, and while a checker is missed.
    checkers: usize,
    checkers_at_a_death: usize,
}

fn everybody(view: &ClusterView) -> u64 {
    view.nodes.iter().filter(|node| node.is_serving()).count() as u64
}

/// So many nodes at rest, and how long they took to meet.
async fn at_rest(air: &Air, nodes: Range<u64>) -> (Vec<Gossip>, [Duration; 3]) {
    let count = nodes.end - nodes.start;
    let gossips: Vec<Gossip> = nodes.clone().map(|n| start(air, n)).collect();
    for gossip in &gossips {
        gossip.set_members(nodes.clone().map(|n| (NodeId(n), address(n))), count);
    }
    let met = until("everybody", &gossips, |view| everybody(view) == count, || {}).await;
    sleep(REST).await;
    (gossips, met)
}

/// The last of `gossips` dies without a word. When the others know.
async fn die(air: &Air, gossips: &mut Vec<Gossip>, watch: impl FnMut(&[Gossip])) -> [Duration; 3] {
    let victim = gossips.pop().unwrap();
    let dead = victim.view().load().local;
    victim.stop().await;
    air.0.boxes.lock().unwrap().remove(&victim.local_addr());
    let gone = |view: &ClusterView| view.node(dead).is_none_or(|node| !node.alive);
    let (gossips, mut watch) = (&*gossips, watch);
    until("the death", gossips, gone, || watch(gossips)).await
}

async fn measure(nodes: Range<u64>, lost_percent: u64) -> Figures {
    let air = Air::losing(lost_percent);
    let count = nodes.end - nodes.start;
    let (mut gossips, met) = at_rest(&air, nodes.clone()).await;
    let before = air.0.sent_bytes.load(Ordering::Relaxed);
    sleep(REST).await;
    let sent = air.0.sent_bytes.load(Ordering::Relaxed) - before;
    let mut checks = Checks::default();
    let checkers = (0..ENDPOINTS).map(|n| checks.count(&gossips, EndpointId(n))).max().unwrap_or(0);
    let false_deaths = gossips.iter().filter(|gossip| everybody(&gossip.view().load()) < count).count();

    gossips[0].set_active_revision(9);
    let teller = NodeId(nodes.start);
    let told = |view: &ClusterView| view.node(teller).is_some_and(|node| node.active_revision == 9);
    let change = until("the change", &gossips, told, || {}).await;

    let dead = NodeId(nodes.end - 1);
    let last = gossips[gossips.len() - 1].view().load_full();
    let orphan = (0..).map(EndpointId).find(|endpoint| last.checkers(*endpoint).contains(&dead)).unwrap();
    let mut checkers_at_a_death = 0;
    let count_checks =
        |nodes: &[Gossip]| checkers_at_a_death = checkers_at_a_death.max(checks.count(nodes, orphan));
    let death = die(&air, &mut gossips, count_checks).await;
    let bytes_a_second = sent as f64 / REST.as_secs_f64() / count as f64;
    Figures { met, change, death, false_deaths, bytes_a_second, checkers, checkers_at_a_death }
}

fn of_environment(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test(start_paused = true)]
async fn many_nodes_meet_and_miss_who_dies() {
    let (count, lost) = (of_environment("SHOAL_SIM_NODES", 60), of_environment("SHOAL_SIM_LOSS", 0));
    let figures = measure(1..count + 1, lost).await;
    eprintln!("{count} nodes, {lost} % lost: {figures:?}");
    // By the simulation's clock, which no other work on the machine disturbs.
    assert_eq!(figures.false_deaths, 0, "{figures:?}");
    assert!(figures.change[2] < Duration::from_secs(5), "{figures:?}");
    assert!(figures.death[2] < Duration::from_secs(12), "{figures:?}");
    assert_eq!(figures.checkers, CHECKERS_PER_ENDPOINT, "{figures:?}");
    // Whoever is next in line begins as soon as it knows.
    assert!(figures.checkers_at_a_death <= CHECKERS_PER_ENDPOINT, "{figures:?}");
    assert!(figures.bytes_a_second < 2_500.0 * count as f64, "{figures:?}");
}

/// Deaths before a cluster begins anew, so that there are never many fewer nodes than there should be.
const DEATHS_OF_EACH: u64 = 8;

#[tokio::test(start_paused = true)]
async fn a_death_is_known_to_all_in_time() {
    let (count, lost) = (of_environment("SHOAL_SIM_NODES", 50), of_environment("SHOAL_SIM_LOSS", 0));
    let deaths = of_environment("SHOAL_SIM_DEATHS", 3);
    let of_each = DEATHS_OF_EACH.min(count / 6 + 1).min(deaths);
    let (mut known, mut false_deaths) = ([const { Vec::new() }; 3], 0);
    while (known[0].len() as u64) < deaths {
        let air = Air::losing(lost);
        let (mut gossips, _) = at_rest(&air, 1..count + 1 + of_each / 2).await;
        for _ in 0..of_each {
            let left = gossips.len() as u64 - 1;
            let times = die(&air, &mut gossips, |_| {}).await;
            known.iter_mut().zip(times).for_each(|(known, time)| known.push(time));
            for _ in 0..(REST.as_millis() / LOOK.as_millis()) {
                sleep(LOOK).await;
                let misses = |gossip: &&Gossip| everybody(&gossip.view().load()) < left;
                false_deaths += gossips.iter().filter(misses).count();
            }
        }
    }
    for (who, times) in ["the first", "half", "all"].into_iter().zip(&mut known) {
        times.sort();
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
        eprintln!("{who}: {:?}, p99 {:?}, at most {:?} of {}", at(50), at(99), at(100), times.len());
    }
    assert_eq!(false_deaths, 0);
    if lost == 0 && count <= 100 {
        let latest = known[2].iter().max();
        assert!(
            latest.is_some_and(|latest| *latest <= Duration::from_secs(3)),
            "known to all after {latest:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_stands_still_is_not_declared_dead() {
    let (count, lost) = (of_environment("SHOAL_SIM_NODES", 15), of_environment("SHOAL_SIM_LOSS", 20));
    let still = Duration::from_millis(of_environment("SHOAL_SIM_STILL_MS", 1500));
    let air = Air::losing(lost);
    let (gossips, _) = at_rest(&air, 1..count + 1).await;
    let (began, mut declared, mut pauses) = (Instant::now(), 0, 0);
    while began.elapsed() < Duration::from_secs(60 * of_environment("SHOAL_SIM_MINUTES", 1)) {
        air.stand_still(address(1 + air.throw(count)), still);
        pauses += 1;
        let mut missed = vec![false; gossips.len()];
        for _ in 0..(REST.as_millis() / LOOK.as_millis()) {
            sleep(LOOK).await;
            let look = |(gossip, missed): (&Gossip, &mut bool)| {
                *missed |= everybody(&gossip.view().load()) < count;
            };
            gossips.iter().zip(&mut missed).for_each(look);
        }
        let by = missed.iter().filter(|missed| **missed).count();
        declared += usize::from(by > 0);
        if by > 0 {
            eprintln!("declared dead by {by}");
        }
    }
    eprintln!(
        "{count} nodes, {lost} % lost: {declared} of {pauses} that stood still for {still:?} were declared dead"
    );
    assert_eq!(declared, 0);
}
