//! Nodes, what is on its way between them, an origin, and what is promised to those who ask.

mod copies;
mod fills;
mod lives;
mod promises;
mod purges;
mod wire;

use std::time::Duration;

use shoal_policy::cache::lease::Askers;

use crate::dice::Dice;
use crate::figures::Figures;
use crate::node::{Entry, Node, Place};

use wire::{Answer, Wire};

pub const KEYS: usize = 3;
/// How long what the origin gives is fresh.
const LIFETIME_MS: u64 = 3_000;
/// On a node that does not own it.
const ORPHAN_MS: u64 = 600;

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
}
