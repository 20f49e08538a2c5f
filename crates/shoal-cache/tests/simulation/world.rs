//! Nodes, what is on its way between them, an origin, and what is promised to those who ask.

use std::time::Duration;

use shoal_model::state::{PurgeKind, PurgeScope};
use shoal_policy::cache::lease::{Askers, DEFAULT_LEASE, lapse_left};
use shoal_policy::cache::purge::Validity;
use shoal_policy::cache::sources::{Hop, Role, may_fill, may_wait};
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::trust::{Begun, may_join};

use crate::dice::Dice;
use crate::node::{Entry, Fill, LEASE_MS, Look, Node, Place, Reader, Step, Stored, memory, object_key};

pub const KEYS: usize = 3;
/// How long what the origin gives is fresh.
const LIFETIME_MS: u64 = 3_000;
/// On a node that does not own it.
const ORPHAN_MS: u64 = 600;

/// Something on its way. Whatever is, may arrive next.
#[derive(Clone, Debug)]
pub enum Wire {
    Ask {
        from: usize,
        life: u32,
        fill: usize,
        to: usize,
        key: usize,
        role: Role,
        hop: Hop,
        min_seq: u64,
        memory: u64,
    },
    Answer {
        to: usize,
        life: u32,
        fill: usize,
        answer: Answer,
    },
    Fetch {
        node: usize,
        life: u32,
        fill: usize,
        known: Option<u64>,
    },
    Fetched {
        node: usize,
        life: u32,
        fill: usize,
        version: u64,
        confirmed: bool,
    },
    BodyEnd {
        node: usize,
        life: u32,
        fill: usize,
    },
    Copy {
        to: usize,
        key: usize,
        stored: Stored,
    },
    LeaseAsk {
        node: usize,
        life: u32,
        asked_ms: u64,
    },
    LeaseGrant {
        node: usize,
        life: u32,
        asked_ms: u64,
        committed: u64,
    },
    News {
        to: usize,
        about: usize,
        about_life: Option<u32>,
        stamp: u64,
    },
}

/// What a peer says.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Object(Stored),
    Miss { views_differ: bool },
    Behind,
    Unreachable,
}

/// A request from outside.
#[derive(Clone, Copy, Debug)]
struct Client {
    node: usize,
    key: usize,
    /// Older than this was purged, and said to be, before it began.
    at_least: u64,
}

struct Purge {
    seq: u64,
    keys: Vec<usize>,
    versions: [u64; KEYS],
    committed_ms: u64,
    /// When each node cannot have a lease any more that does not know of it.
    lapses_ms: Vec<u64>,
    is_acknowledged: bool,
}

/// A fetch that a primary makes for everybody.
struct Fetching {
    node: usize,
    life: u32,
    fill: usize,
    key: usize,
    fill_seq: u64,
    view: Vec<Option<u32>>,
}

/// What happened in all runs: a simulation in which nothing happens proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub hits: usize,
    pub joined: usize,
    pub fetches: usize,
    pub confirmed: usize,
    pub purges: usize,
    pub acknowledged: usize,
    pub silent: usize,
    pub early: usize,
    pub deaths: usize,
    pub copies: usize,
    pub peer_objects: usize,
    pub orphans: usize,
    pub refused: usize,
    pub survived: usize,
    pub outdated: usize,
    pub forgotten: usize,
    pub unknown: usize,
}

impl Figures {
    const fn each(&self) -> [usize; 17] {
        let Self {
            hits,
            joined,
            fetches,
            confirmed,
            purges,
            acknowledged,
            silent,
            early,
            deaths,
            copies,
            peer_objects,
            orphans,
            refused,
            survived,
            outdated,
            forgotten,
            unknown,
        } = *self;
        [
            hits,
            joined,
            fetches,
            confirmed,
            purges,
            acknowledged,
            silent,
            early,
            deaths,
            copies,
            peer_objects,
            orphans,
            refused,
            survived,
            outdated,
            forgotten,
            unknown,
        ]
    }

    /// The rarest of them.
    pub fn least(&self) -> usize {
        self.each().into_iter().min().unwrap_or(0)
    }

    /// Those of one more run.
    pub fn with(&self, other: &Self) -> Self {
        let [
            hits,
            joined,
            fetches,
            confirmed,
            purges,
            acknowledged,
            silent,
            early,
            deaths,
            copies,
            peer_objects,
            orphans,
            refused,
            survived,
            outdated,
            forgotten,
            unknown,
        ] = std::array::from_fn(|n| self.each()[n] + other.each()[n]);
        Self {
            hits,
            joined,
            fetches,
            confirmed,
            purges,
            acknowledged,
            silent,
            early,
            deaths,
            copies,
            peer_objects,
            orphans,
            refused,
            survived,
            outdated,
            forgotten,
            unknown,
        }
    }
}

/// The world.
pub struct World {
    pub dice: Dice,
    pub now_ms: u64,
    pub nodes: Vec<Node>,
    pub places: Vec<Place>,
    pub figures: Figures,
    /// What happened, if anybody wants to know.
    pub story: Option<Vec<String>>,
    wires: Vec<Wire>,
    log: Vec<Entry>,
    origin: [u64; KEYS],
    purged: [u64; KEYS],
    purges: Vec<Purge>,
    /// Which leader it is, and who has asked it for leases.
    term: u64,
    askers: Askers,
    clients: Vec<Client>,
    fetching: Vec<Fetching>,
    next_fill: usize,
    news: u64,
}

/// A promise that was broken.
pub type Broken = String;

impl World {
    pub fn new(seed: u64, tells: bool) -> Self {
        let mut dice = Dice::new(seed);
        let place = |region, zone| Place { region, zone };
        let places = match dice.below(4) {
            0 => vec![place(0, "a"), place(0, "a"), place(0, "a")],
            1 => vec![place(0, "a"), place(0, "b"), place(0, "c")],
            2 => vec![place(0, "a"), place(0, "a"), place(0, "b"), place(0, "b")],
            _ => vec![place(0, "a"), place(0, "b"), place(0, "b"), place(1, "a"), place(1, "b")],
        };
        let nodes = (0..places.len()).map(|n| Node::new(n, places[n].clone(), places.len())).collect();
        Self {
            dice,
            now_ms: 1_000_000,
            nodes,
            places,
            figures: Figures::default(),
            story: tells.then(Vec::new),
            wires: Vec::new(),
            log: Vec::new(),
            origin: [1; KEYS],
            purged: [0; KEYS],
            purges: Vec::new(),
            term: 1,
            askers: Askers::default(),
            clients: Vec::new(),
            fetching: Vec::new(),
            next_fill: 0,
            news: 0,
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>6} {}", self.now_ms - 1_000_000, what()));
        }
    }

    /// One thing happens.
    pub fn step(&mut self) -> Result<(), Broken> {
        self.now_ms += self.dice.below(5) as u64;
        let n = self.dice.below(self.nodes.len());
        match self.dice.below(110) {
            0..=49 => self.deliver_any()?,
            50..=69 => self.ask(n)?,
            70..=77 => self.apply_next(n),
            78..=86 => self.ask_for_lease(n),
            87..=89 => self.purge(),
            90..=91 if self.nodes.iter().filter(|node| node.is_alive).count() > 1 => self.kill(n),
            90..=94 => self.start_again(n),
            95..=96 => {
                self.nodes[n].is_cut_off = !self.nodes[n].is_cut_off;
                self.tell(|| format!("n{} is cut off or not", n + 1));
            }
            97 => {
                self.term += 1;
                self.askers = Askers::default();
            }
            98..=99 => self.now_ms += self.dice.below(1_500) as u64,
            100..=105 => self.sweep(),
            _ => self.forget_purges(),
        }
        self.acknowledge();
        Ok(())
    }

    /// Everything arrives, everybody is there again and knows everything.
    pub fn come_to_rest(&mut self) -> Result<(), Broken> {
        for n in 0..self.nodes.len() {
            self.nodes[n].is_cut_off = false;
            self.start_again(n);
        }
        for _ in 0..3 {
            self.drain()?;
            for n in (0..self.nodes.len()).filter(|n| self.nodes[*n].is_alive).collect::<Vec<_>>() {
                while self.nodes[n].applied < self.log.len() as u64 {
                    self.apply_next(n);
                }
                self.ask_for_lease(n);
            }
        }
        self.acknowledge();
        let lives = |node: &&Node| node.is_alive;
        let waiting =
            self.nodes.iter().filter(lives).find_map(|node| Some((node.id, node.fills.keys().next()?)));
        match waiting {
            Some((node, fill)) => Err(format!("fill {fill} of n{node} waits for ever")),
            None => Ok(()),
        }
    }

    /// Every object is on two nodes, in two zones where there are two, and survives whatever dies at once.
    pub fn survives_a_loss(&mut self) -> Result<(), Broken> {
        for key in 0..KEYS {
            // Fetched by one, used by its owner.
            for n in (0..self.nodes.len()).filter(|n| self.places[*n].region == 0).collect::<Vec<_>>() {
                self.ask(n)?;
                self.ask_for(n, key)?;
                self.drain()?;
                self.ask_for_lease(n);
                self.drain()?;
            }
            self.check_copies(key)?;
        }
        let here: Vec<usize> = (0..self.nodes.len()).filter(|n| self.places[*n].region == 0).collect();
        let zone = self.places[here[self.dice.below(here.len())]].zone;
        let is_one_zone = here.iter().all(|n| self.places[*n].zone == zone);
        let victims: Vec<usize> = match is_one_zone {
            true => vec![here[self.dice.below(here.len())]],
            false => here.iter().copied().filter(|n| self.places[*n].zone == zone).collect(),
        };
        let fetched = self.figures.fetches;
        victims.iter().for_each(|n| self.kill(*n));
        // At once, before anybody knows, and afterwards.
        for knows in [false, true] {
            if knows {
                self.drain()?;
            }
            for n in here.iter().copied().filter(|n| !victims.contains(n)) {
                for key in 0..KEYS {
                    self.ask_for_lease(n);
                    self.drain_but_news()?;
                    self.ask_for(n, key)?;
                    self.drain_but_news()?;
                }
            }
        }
        if self.figures.fetches != fetched {
            return Err(format!("{} fetches after {victims:?} died at once", self.figures.fetches - fetched));
        }
        self.figures.survived += 1;
        Ok(())
    }

    fn check_copies(&mut self, key: usize) -> Result<(), Broken> {
        let now_ms = self.now_ms;
        let here = self.nodes.iter().filter(|node| node.place.region == 0);
        let owners = self.nodes[0].owners(&self.places, key);
        let holders: Vec<&Node> = here
            .filter(|node| {
                let stored = node.store.get(&key);
                owners.includes(node.id)
                    && stored.is_some_and(|stored| {
                        stored.terms.is_fresh(now_ms)
                            && node.judge(key, stored.fill_seq, stored.checked_seq) == Validity::Valid
                    })
            })
            .collect();
        let [one, two] = &holders[..] else {
            return Err(format!("key {key} is on {} of its owners {owners:?}", holders.len()));
        };
        let zones =
            self.places.iter().filter(|place| place.region == 0 && place.zone != one.place.zone).count();
        match one.place.zone == two.place.zone && zones > 0 {
            true => Err(format!("both copies of key {key} are in one zone")),
            false => Ok(()),
        }
    }

    fn drain(&mut self) -> Result<(), Broken> {
        while !self.wires.is_empty() {
            self.deliver_any()?;
        }
        Ok(())
    }

    fn drain_but_news(&mut self) -> Result<(), Broken> {
        let is_news = |wire: &Wire| matches!(wire, Wire::News { .. });
        while let Some(next) = self.wires.iter().position(|wire| !is_news(wire)) {
            let wire = self.wires.swap_remove(next);
            self.deliver(wire)?;
        }
        Ok(())
    }

    fn deliver_any(&mut self) -> Result<(), Broken> {
        if self.wires.is_empty() {
            return Ok(());
        }
        let next = self.dice.below(self.wires.len());
        let wire = self.wires.swap_remove(next);
        self.deliver(wire)
    }

    fn deliver(&mut self, wire: Wire) -> Result<(), Broken> {
        self.tell(|| format!("{wire:?}"));
        match wire {
            Wire::Ask { .. } => self.take_question(wire)?,
            Wire::Answer { to, life, fill, answer } if self.runs(to, life) => {
                self.take_answer(to, fill, answer)?
            }
            Wire::Fetch { node, life, fill, known } if self.runs(node, life) => {
                let Some(key) = self.nodes[node].fills.get(&fill).map(|fill| fill.key) else { return Ok(()) };
                let version = self.origin[key];
                let confirmed = known == Some(version);
                self.wires.push(Wire::Fetched { node, life, fill, version, confirmed });
            }
            Wire::Fetched { node, life, fill, version, confirmed } if self.runs(node, life) => {
                self.take_fetched(node, fill, version, confirmed)?;
            }
            Wire::BodyEnd { node, life, fill } if self.runs(node, life) => self.end(node, fill)?,
            Wire::Copy { to, key, stored } if self.nodes[to].is_alive => self.take_copy(to, key, stored)?,
            Wire::LeaseAsk { node, life, asked_ms }
                if self.runs(node, life) && !self.nodes[node].is_cut_off =>
            {
                self.askers.note(self.term, self.nodes[node].id, Duration::from_millis(self.now_ms));
                let committed = self.log.len() as u64;
                self.wires.push(Wire::LeaseGrant { node, life, asked_ms, committed });
            }
            Wire::LeaseGrant { node, life, asked_ms, committed } if self.runs(node, life) => {
                self.nodes[node].grant = Some((asked_ms, committed));
                self.nodes[node].take_lease();
            }
            Wire::News { to, about, about_life, stamp } if self.nodes[to].is_alive => {
                let now_ms = self.now_ms;
                self.nodes[to].hear(about, about_life, stamp, now_ms);
            }
            // Whom it was for is gone.
            _ => {}
        }
        Ok(())
    }

    fn runs(&self, node: usize, life: u32) -> bool {
        self.nodes[node].is_alive && self.nodes[node].life == life
    }

    // Requests.

    fn ask(&mut self, n: usize) -> Result<(), Broken> {
        let key = self.dice.below(KEYS);
        self.ask_for(n, key)
    }

    fn ask_for(&mut self, n: usize, key: usize) -> Result<(), Broken> {
        if !self.nodes[n].is_alive {
            return Ok(());
        }
        let client = Client { node: n, key, at_least: self.purged[key] };
        self.clients.push(client);
        let number = self.clients.len() - 1;
        self.tell(|| format!("client {number} asks n{} for {key}: {} at least", n + 1, client.at_least));
        let now_ms = self.now_ms;
        let is_unknown = |stored: &Stored| {
            self.nodes[n].judge(key, stored.fill_seq, stored.checked_seq) == Validity::Unknown
        };
        self.figures.unknown += usize::from(self.nodes[n].store.get(&key).is_some_and(is_unknown));
        match self.nodes[n].look(key, now_ms) {
            Look::Fresh(stored) => {
                self.figures.hits += 1;
                self.see_to_copy(n, key);
                self.serve(number, stored)
            }
            Look::Ask { found, alone } => {
                self.board(n, key, Reader::Client(number), (Hop::Ingress, None), (found, alone), None)
            }
        }
    }

    fn serve(&mut self, client: usize, stored: Stored) -> Result<(), Broken> {
        let Client { node, key, at_least } = self.clients[client];
        match stored.version >= at_least {
            true => Ok(()),
            false => Err(format!(
                "client {client} got version {} of key {key} from n{}: version {at_least} and all before were purged \
                 when it asked, and that was acknowledged",
                stored.version,
                node + 1
            )),
        }
    }

    /// A place in a running fill, or in a new one.
    fn board(
        &mut self,
        n: usize,
        key: usize,
        reader: Reader,
        from: (Hop, Option<usize>),
        (found, alone): (Option<Stored>, bool),
        excuse: Option<&'static str>,
    ) -> Result<(), Broken> {
        let now_ms = self.now_ms;
        let node = &self.nodes[n];
        let trust = node.trust(now_ms);
        let fits = |fill: &Fill| {
            let (fill_seq, checked_seq) =
                fill.head.map_or((fill.fill_seq, fill.fill_seq), |head| (head.fill_seq, head.checked_seq));
            fill.key == key
                && fill.is_open
                && may_wait(from.0, fill.waits_for_owners())
                && may_join(trust, fill.begun, now_ms)
                && node.judge(key, fill_seq, checked_seq) == Validity::Valid
        };
        let running = node.fills.iter().find(|(_, fill)| !alone && fits(fill)).map(|(number, _)| *number);
        if let Some(number) = running {
            self.figures.joined += 1;
            let Some(fill) = self.nodes[n].fills.get_mut(&number) else { return Ok(()) };
            return match fill.head {
                Some(head) => self.give(reader, head),
                None => {
                    fill.readers.push(reader);
                    Ok(())
                }
            };
        }
        if !alone {
            // What runs cannot be joined any more: somebody else begins.
            self.nodes[n]
                .fills
                .values_mut()
                .filter(|fill| fill.key == key)
                .for_each(|fill| fill.is_open = false);
        }
        let mut fill = self.nodes[n].new_fill(&self.places, key, from, (found, alone), now_ms);
        fill.readers.push(reader);
        fill.excuse = excuse;
        self.next_fill += 1;
        self.nodes[n].fills.insert(self.next_fill, fill);
        self.advance(n, self.next_fill)
    }

    /// The next one is asked.
    fn advance(&mut self, n: usize, number: usize) -> Result<(), Broken> {
        let (life, min_seq) = (self.nodes[n].life, self.nodes[n].tables.newest);
        let Some(fill) = self.nodes[n].fills.get_mut(&number) else { return Ok(()) };
        let (key, next) = (fill.key, fill.left.pop_front());
        fill.waits_for = next;
        match next {
            Some(Step::Ask { node, role, hop }) => {
                fill.begun = Begun::Elsewhere;
                let memory = memory(&fill.view);
                self.wires.push(Wire::Ask {
                    from: n,
                    life,
                    fill: number,
                    to: node,
                    key,
                    role,
                    hop,
                    min_seq,
                    memory,
                });
                Ok(())
            }
            Some(Step::Origin) => self.fetch(n, number),
            None => Err(format!("fill {number} of n{} has nobody left to ask", n + 1)),
        }
    }

    fn fetch(&mut self, n: usize, number: usize) -> Result<(), Broken> {
        let node = &mut self.nodes[n];
        let (life, applied, now_ms) = (node.life, node.applied, self.now_ms);
        let Some(fill) = node.fills.get_mut(&number) else { return Ok(()) };
        fill.fill_seq = applied;
        fill.begun = Begun::At(now_ms);
        let (view, is_primary) = (fill.view.clone(), fill.is_primary);
        let (key, found, is_open, excuse) = (fill.key, fill.found, fill.is_open, fill.excuse);
        let known =
            found.filter(|found| node.judge(key, found.fill_seq, found.checked_seq) != Validity::Gone);
        self.figures.fetches += 1;
        self.wires.push(Wire::Fetch { node: n, life, fill: number, known: known.map(|found| found.version) });
        if known.is_none()
            && let Some(fill) = self.nodes[n].fills.get_mut(&number)
        {
            fill.found = None;
        }
        if !is_open || excuse.is_some() {
            return Ok(());
        }
        if !is_primary {
            return Err(format!(
                "n{} asks the origin for key {key}, which it does not own, for no reason",
                n + 1
            ));
        }
        let region = self.places[n].region;
        // What cannot be joined any more is out of the way.
        let is_open =
            |other: &Fetching| self.nodes[other.node].fills.get(&other.fill).is_some_and(|fill| fill.is_open);
        let other = self.fetching.iter().find(|other| {
            (other.key, other.fill_seq, &other.view) == (key, applied, &view)
                && self.places[other.node].region == region
                && is_open(other)
        });
        if let Some(other) = other {
            return Err(format!(
                "n{} and n{} fetch key {key} at once, and see the same cluster",
                n + 1,
                other.node + 1
            ));
        }
        self.fetching.push(Fetching { node: n, life, fill: number, key, fill_seq: applied, view });
        Ok(())
    }

    fn take_question(&mut self, wire: Wire) -> Result<(), Broken> {
        let Wire::Ask { from, life, fill, to, key, role, hop, min_seq, memory } = wire.clone() else {
            return Ok(());
        };
        let back = |answer| Wire::Answer { to: from, life, fill, answer };
        let now_ms = self.now_ms;
        let node = &mut self.nodes[to];
        if !node.is_alive {
            self.wires.push(back(Answer::Unreachable));
            return Ok(());
        }
        if node.applied < min_seq {
            self.wires.push(back(Answer::Behind));
            return Ok(());
        }
        let (found, alone) = match node.look(key, now_ms) {
            Look::Fresh(stored) => {
                self.wires.push(back(Answer::Object(stored)));
                self.see_to_copy(to, key);
                return Ok(());
            }
            Look::Ask { found, alone } => (found, alone),
        };
        let owners = self.nodes[to].owners(&self.places, key);
        if !may_fill(role, owners, self.nodes[to].id) {
            self.wires.push(back(Answer::Miss { views_differ: memory != self.nodes[to].memory() }));
            return Ok(());
        }
        let is_primary = owners.primary == Some(self.nodes[to].id);
        let excuse = match (role, is_primary) {
            (_, true) => None,
            (Role::Deputy, false) => Some("the primary was asked first"),
            (Role::Primary | Role::Holder, false) if memory != self.nodes[to].memory() => {
                Some("views differ")
            }
            (Role::Primary | Role::Holder, false) => None,
        };
        let reader = Reader::Peer { node: from, life, fill };
        self.board(to, key, reader, (hop, Some(from)), (found, alone), excuse)
    }

    fn take_answer(&mut self, n: usize, number: usize, answer: Answer) -> Result<(), Broken> {
        let memory = self.nodes[n].memory();
        let node = &mut self.nodes[n];
        let Some(fill) = node.fills.get(&number) else { return Ok(()) };
        if let Answer::Object(stored) = answer {
            let validity = node.judge(fill.key, stored.fill_seq, stored.checked_seq);
            if validity == Validity::Valid {
                self.figures.peer_objects += 1;
                let is_from_owner = match fill.waits_for {
                    Some(Step::Ask { node: peer, .. }) => {
                        let id = self.nodes[peer].id;
                        self.nodes[n].owners(&self.places, self.nodes[n].fills[&number].key).includes(id)
                    }
                    Some(Step::Origin) | None => false,
                };
                let copied_under = is_from_owner.then_some(memory);
                return self.settle(n, number, Stored { copied_under, ..stored });
            }
        }
        let was_peek = matches!(fill.waits_for, Some(Step::Ask { role: Role::Holder, .. }));
        let excuse = match answer {
            Answer::Object(_) => Some("what a peer has was purged"),
            Answer::Behind => Some("a peer was behind"),
            Answer::Unreachable => Some("a peer is dead"),
            Answer::Miss { views_differ } => views_differ.then_some("views differ"),
        };
        if let Some(fill) = node.fills.get_mut(&number)
            && !was_peek
        {
            fill.excuse = fill.excuse.or(excuse);
        }
        self.advance(n, number)
    }

    fn take_fetched(&mut self, n: usize, number: usize, version: u64, confirmed: bool) -> Result<(), Broken> {
        self.forget_fetch(n, number);
        let now_ms = self.now_ms;
        let Some(fill) = self.nodes[n].fills.get(&number) else { return Ok(()) };
        self.figures.confirmed += usize::from(confirmed);
        self.figures.orphans += usize::from(!fill.is_owned);
        let lifetime_ms = if fill.is_owned { LIFETIME_MS } else { ORPHAN_MS };
        let terms = Terms { lifetime_ms, response_ms: now_ms, date: now_ms / 1000, ..Terms::default() };
        let (fill_seq, checked_seq) = (fill.fill_seq, fill.fill_seq);
        let stored =
            Stored { version, fill_seq, checked_seq, durable_seq: checked_seq, terms, copied_under: None };
        self.settle(n, number, stored)
    }

    /// The head is there: everybody who waits has his answer.
    fn settle(&mut self, n: usize, number: usize, head: Stored) -> Result<(), Broken> {
        let life = self.nodes[n].life;
        let Some(fill) = self.nodes[n].fills.get_mut(&number) else { return Ok(()) };
        fill.head = Some(head);
        fill.waits_for = None;
        let readers = std::mem::take(&mut fill.readers);
        self.wires.push(Wire::BodyEnd { node: n, life, fill: number });
        readers.into_iter().try_for_each(|reader| self.give(reader, head))
    }

    fn give(&mut self, reader: Reader, head: Stored) -> Result<(), Broken> {
        match reader {
            Reader::Client(client) => self.serve(client, head),
            Reader::Peer { node, life, fill } => {
                self.wires.push(Wire::Answer { to: node, life, fill, answer: Answer::Object(head) });
                Ok(())
            }
        }
    }

    /// The body is whole.
    fn end(&mut self, n: usize, number: usize) -> Result<(), Broken> {
        let Some(fill) = self.nodes[n].fills.remove(&number) else { return Ok(()) };
        let Some(head) = fill.head else { return Ok(()) };
        let came_from_origin = head.copied_under.is_none() && head.fill_seq == fill.fill_seq;
        if fill.is_owned || came_from_origin {
            let (node, now_ms) = (&self.nodes[n], self.now_ms);
            let rank = |stored: &Stored| node.rank(fill.key, stored);
            let may_replace = |known: &Stored| rank(&head).may_replace(rank(known), now_ms);
            if !node.store.get(&fill.key).is_none_or(may_replace) {
                self.figures.outdated += 1;
                return Ok(());
            }
            self.put(n, fill.key, head)?;
            self.see_to_copy(n, fill.key);
        }
        Ok(())
    }

    // Copies.

    fn see_to_copy(&mut self, n: usize, key: usize) {
        let memory = self.nodes[n].memory();
        let owners = self.nodes[n].owners(&self.places, key);
        let Some(other) = owners.other_than(self.nodes[n].id).filter(|_| owners.includes(self.nodes[n].id))
        else {
            return;
        };
        let Some(stored) = self.nodes[n].store.get_mut(&key) else { return };
        if stored.copied_under != Some(memory) {
            stored.copied_under = Some(memory);
            let stored = *stored;
            self.figures.copies += 1;
            self.wires.push(Wire::Copy { to: other.0 as usize - 1, key, stored });
        }
    }

    fn take_copy(&mut self, n: usize, key: usize, stored: Stored) -> Result<(), Broken> {
        let memory = self.nodes[n].memory();
        let node = &mut self.nodes[n];
        let rank = |stored: &Stored| node.rank(key, stored);
        let is_older = |known: &Stored| {
            (rank(known).is_valid && !rank(&stored).is_valid)
                || known.terms.response_ms > stored.terms.response_ms
        };
        if node.judge(key, stored.fill_seq, stored.checked_seq) == Validity::Gone
            || node.store.get(&key).is_some_and(is_older)
        {
            self.figures.refused += 1;
            return Ok(());
        }
        self.put(n, key, Stored { copied_under: Some(memory), ..stored })
    }

    /// Nothing that may be used gives way to what may not.
    fn put(&mut self, n: usize, key: usize, stored: Stored) -> Result<(), Broken> {
        let node = &mut self.nodes[n];
        if let Some(known) = node.store.get(&key)
            && node.rank(key, known).is_valid
            && !node.rank(key, &stored).is_valid
        {
            let (old, new) = (known.version, stored.version);
            return Err(format!(
                "version {old} of key {key} on n{} gives way to version {new}, which was purged",
                n + 1
            ));
        }
        node.store.insert(key, stored);
        Ok(())
    }

    // Purges and leases.

    fn purge(&mut self) {
        let key = self.dice.below(KEYS + 1);
        let kind = if self.dice.says(80) { PurgeKind::Hard } else { PurgeKind::Soft };
        let (scope, keys) = match key {
            KEYS => (PurgeScope::All, (0..KEYS).collect()),
            key => (PurgeScope::Url(object_key(key).0), vec![key]),
        };
        keys.iter().for_each(|key| self.origin[*key] += 1);
        self.log.push(Entry::Purge(scope, kind));
        let (seq, versions, committed_ms) = (self.log.len() as u64, self.origin, self.now_ms);
        self.tell(|| format!("purge {seq} of {keys:?}, {kind:?}"));
        self.figures.purges += 1;
        let now = Duration::from_millis(committed_ms);
        let mut left = |node: &Node| {
            let silent = self.askers.silent_for(self.term, node.id, now);
            lapse_left(DEFAULT_LEASE, Some(silent)).as_millis() as u64
        };
        let lapses_ms = self.nodes.iter().map(|node| committed_ms + left(node)).collect();
        self.purges.push(Purge { seq, keys, versions, committed_ms, lapses_ms, is_acknowledged: false });
    }

    /// Nodes check what they have; some are slow.
    fn sweep(&mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].is_alive && self.dice.says(85) {
                self.nodes[n].sweep();
                self.tell(|| format!("n{} has checked what it has", n + 1));
            }
        }
    }

    /// What all nodes have checked what they have against is forgotten; a node that has been away for long does not count,
    /// and nobody does where there is too much to remember.
    fn forget_purges(&mut self) {
        let (waits, is_crowded) = (self.dice.says(40), self.dice.says(15));
        let swept = self.nodes.iter().filter(|node| waits || node.is_alive).map(|node| node.swept).min();
        let newest = self.purges.last().map_or(0, |purge| purge.seq);
        let up_to = if is_crowded { newest } else { swept.unwrap_or(0).min(newest) };
        if up_to > 0 {
            self.log.push(Entry::Forget { up_to });
            self.tell(|| format!("purges up to {up_to} are forgotten"));
            self.figures.forgotten += 1;
        }
    }

    /// Whoever is silent is waited for until no lease of his can be left, and nothing that is shared without one.
    fn acknowledge(&mut self) {
        let (nodes, now_ms) = (&self.nodes, self.now_ms);
        for purge in self.purges.iter_mut().filter(|purge| !purge.is_acknowledged) {
            let is_silent = |node: &Node| !node.is_alive || node.is_cut_off || node.applied < purge.seq;
            let lapses = nodes.iter().zip(&purge.lapses_ms);
            let silent = lapses.filter(|(node, _)| is_silent(node)).map(|(_, lapse_ms)| *lapse_ms).max();
            if silent.is_none_or(|lapse_ms| now_ms >= lapse_ms) {
                purge.is_acknowledged = true;
                self.figures.acknowledged += 1;
                self.figures.silent += usize::from(silent.is_some());
                let is_early = now_ms < purge.committed_ms + LEASE_MS;
                self.figures.early += usize::from(silent.is_some() && is_early);
                for key in &purge.keys {
                    self.purged[*key] = self.purged[*key].max(purge.versions[*key]);
                }
            }
        }
    }

    fn apply_next(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.is_alive
            && !node.is_cut_off
            && let Some(entry) = self.log.get(node.applied as usize)
        {
            node.apply(entry);
            let applied = node.applied;
            self.tell(|| format!("n{} has applied {applied}", n + 1));
        }
    }

    fn ask_for_lease(&mut self, n: usize) {
        if self.nodes[n].is_alive {
            self.wires.push(Wire::LeaseAsk { node: n, life: self.nodes[n].life, asked_ms: self.now_ms });
        }
    }

    // Loss and return.

    fn kill(&mut self, n: usize) {
        if !self.nodes[n].is_alive {
            return;
        }
        self.tell(|| format!("n{} dies", n + 1));
        self.figures.deaths += 1;
        let keeps_objects = self.dice.says(50);
        self.nodes[n].die(keeps_objects);
        self.fetching.retain(|fetching| fetching.node != n);
        let answer = Answer::Unreachable;
        let waits = |fill: &Fill| matches!(fill.waits_for, Some(Step::Ask { node, .. }) if node == n);
        let asked =
            |fill: usize, wire: &Wire| matches!(wire, Wire::Ask { fill: other, .. } if *other == fill);
        let mut lost = Vec::new();
        for (to, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_alive) {
            let waiting = node.fills.iter().filter(|(_, fill)| waits(fill)).map(|(number, _)| *number);
            lost.extend(waiting.map(|fill| (to, node.life, fill)));
        }
        for (to, life, fill) in lost {
            // What is still on its way finds nobody there; what was answered arrives.
            let is_open = self.wires.iter().any(|wire| {
                asked(fill, wire) || matches!(wire, Wire::Answer { fill: other, .. } if *other == fill)
            });
            if !is_open {
                self.wires.push(Wire::Answer { to, life, fill, answer });
            }
        }
        self.spread(n, None);
    }

    fn start_again(&mut self, n: usize) {
        if self.nodes[n].is_alive {
            return;
        }
        self.tell(|| format!("n{} is back", n + 1));
        let lives: Vec<Option<u32>> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(m, node)| (node.is_alive || m == n).then_some(node.life))
            .collect();
        let (now_ms, stamp) = (self.now_ms, self.news);
        let node = &mut self.nodes[n];
        node.is_alive = true;
        node.is_cut_off = false;
        node.life += 1;
        node.view = lives;
        node.view[n] = Some(node.life);
        node.stamps = vec![stamp; node.stamps.len()];
        node.past.clear();
        node.serving_since_ms = now_ms;
        let life = node.life;
        self.spread(n, Some(life));
    }

    fn spread(&mut self, about: usize, about_life: Option<u32>) {
        self.news += 1;
        let stamp = self.news;
        for to in (0..self.nodes.len()).filter(|to| *to != about) {
            self.wires.push(Wire::News { to, about, about_life, stamp });
        }
    }

    fn forget_fetch(&mut self, n: usize, number: usize) {
        let life = self.nodes[n].life;
        self.fetching.retain(|other| (other.node, other.life, other.fill) != (n, life, number));
    }
}
