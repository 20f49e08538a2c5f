//! One node of the simulation: what it has, what it knows, and what the pure decisions make of that.

use std::collections::{BTreeMap, VecDeque};

use shoal_model::NodeId;
use shoal_model::site::PurgeUnverified;
use shoal_model::state::{PurgeKind, PurgeScope, PurgeTables};
use shoal_policy::cache::directives::Wishes;
use shoal_policy::cache::keeping::Rank;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::lease::DEFAULT_LEASE;
use shoal_policy::cache::placement::{Candidate, Owners, former_owners};
use shoal_policy::cache::purge::{Subject, Validity, judge_validity};
use shoal_policy::cache::reuse::{Freshened, Reuse, judge_reuse};
use shoal_policy::cache::sources::{Asked, Hop, MAX_PEEKS, Role, Situation, plan};
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::trust::{Begun, Trust};

/// Seed of keys.
pub const SEED: u64 = 42;
/// For this long a node knows that it has not missed a purge.
pub const LEASE_MS: u64 = DEFAULT_LEASE.as_millis() as u64;
/// A new owner asks those of before for this long.
const SETTLING_MS: u64 = 600_000;

/// Where nodes stand; the first region holds most of them, the other one, if there is one, shields the origin.
#[derive(Clone, Debug)]
pub struct Place {
    pub region: usize,
    pub zone: &'static str,
}

/// An entry of the log.
pub enum Entry {
    Purge(PurgeScope, PurgeKind),
    Forget { up_to: u64 },
}

/// A stored response of some version of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub version: u64,
    pub fill_seq: u64,
    pub checked_seq: u64,
    /// As far as that is known after a restart.
    pub durable_seq: u64,
    pub terms: Terms,
    /// The memory of the cluster under which its second copy is where it belongs.
    pub copied_under: Option<u64>,
}

/// Who waits for a fill.
#[derive(Clone, Copy, Debug)]
pub enum Reader {
    Client(usize),
    Peer { node: usize, life: u32, fill: usize },
}

/// Whom a fill still has to ask.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Ask { node: usize, role: Role, hop: Hop },
    Origin,
}

/// One fill.
#[derive(Clone, Debug)]
pub struct Fill {
    pub key: usize,
    pub fill_seq: u64,
    /// Others may join it.
    pub is_open: bool,
    pub found: Option<Stored>,
    pub begun: Begun,
    /// What the node saw when it decided whom to ask.
    pub view: Vec<Option<u32>>,
    pub is_primary: bool,
    pub readers: Vec<Reader>,
    pub left: VecDeque<Step>,
    pub waits_for: Option<Step>,
    /// Why somebody else than the primary may ask the origin: an owner did not answer, or sees another cluster.
    pub excuse: Option<&'static str>,
    /// Its head is there, the body is still coming.
    pub head: Option<Stored>,
    pub is_owned: bool,
}

impl Fill {
    /// It has nothing yet, and other owners are to bring it.
    pub fn waits_for_owners(&self) -> bool {
        let asks_owner = |step: &Step| matches!(step, Step::Ask { hop: Hop::Owner, .. });
        self.head.is_none() && self.waits_for.iter().chain(&self.left).any(asks_owner)
    }
}

/// What a node finds in its store.
pub enum Look {
    Fresh(Stored),
    /// `alone`: nobody else's answer will do.
    Ask {
        found: Option<Stored>,
        alone: bool,
    },
}

/// One node.
pub struct Node {
    pub id: NodeId,
    pub place: Place,
    pub is_alive: bool,
    /// It hears nothing of the log.
    pub is_cut_off: bool,
    /// How many times it was started.
    pub life: u32,
    pub tables: PurgeTables,
    pub applied: u64,
    /// Up to where it has said that it has checked what it has.
    pub swept: u64,
    pub lease_until_ms: u64,
    /// When a lease was asked for, and how far the log was committed.
    pub grant: Option<(u64, u64)>,
    /// Nodes that serve, as it sees them, and in which of their lives; `stamps` orders the news.
    pub view: Vec<Option<u32>>,
    pub stamps: Vec<u64>,
    pub past: Vec<(Vec<Option<u32>>, u64)>,
    pub serving_since_ms: u64,
    pub store: BTreeMap<usize, Stored>,
    pub fills: BTreeMap<usize, Fill>,
}

/// Names the nodes in a view, and which of their lives.
pub fn memory(view: &[Option<u32>]) -> u64 {
    view.iter().fold(7, |sum, life| sum * 31 + life.map_or(0, |life| u64::from(life) + 1))
}

pub fn text(key: usize) -> String {
    format!("http://a.org/{key} shop")
}

pub fn object_key(key: usize) -> ObjectKey {
    ObjectKey::of_text(SEED, &text(key))
}

impl Node {
    pub fn new(n: usize, place: Place, nodes: usize) -> Self {
        Self {
            id: NodeId(n as u64 + 1),
            place,
            is_alive: true,
            is_cut_off: false,
            life: 0,
            tables: PurgeTables::default(),
            applied: 0,
            swept: 0,
            lease_until_ms: 0,
            grant: None,
            view: vec![Some(0); nodes],
            stamps: vec![0; nodes],
            past: Vec::new(),
            serving_since_ms: 0,
            store: BTreeMap::new(),
            fills: BTreeMap::new(),
        }
    }

    /// It is gone with all it had, but for what it has on disk of the log and, perhaps, of objects.
    pub fn die(&mut self, keeps_objects: bool) {
        self.is_alive = false;
        self.lease_until_ms = 0;
        self.grant = None;
        self.fills.clear();
        self.store.retain(|_, _| keeps_objects);
        self.store.values_mut().for_each(|stored| stored.checked_seq = stored.durable_seq);
    }

    pub fn apply(&mut self, entry: &Entry) {
        self.applied += 1;
        match entry {
            Entry::Purge(scope, kind) => {
                drop(self.tables.record(self.applied, std::slice::from_ref(scope), *kind));
            }
            Entry::Forget { up_to } => {
                if let Some(remembered) = self.tables.without(*up_to) {
                    self.tables = remembered;
                }
            }
        }
        self.take_lease();
    }

    /// Checks all that it has, and says so.
    pub fn sweep(&mut self) {
        let applied = self.applied;
        for key in self.store.keys().copied().collect::<Vec<_>>() {
            let stored = self.store[&key];
            match self.judge(key, stored.fill_seq, stored.checked_seq) {
                Validity::Valid => {
                    let (checked_seq, durable_seq) = (stored.checked_seq.max(applied), applied);
                    self.store.insert(key, Stored { checked_seq, durable_seq, ..stored });
                }
                Validity::Gone => _ = self.store.remove(&key),
                Validity::Stale | Validity::Unknown => {}
            }
        }
        self.swept = applied;
    }

    /// A lease counts from when it was asked for, once everything is applied that was committed by then.
    pub fn take_lease(&mut self) {
        if let Some((asked_ms, committed)) = self.grant
            && self.applied >= committed
        {
            self.lease_until_ms = self.lease_until_ms.max(asked_ms + LEASE_MS);
            self.grant = None;
        }
    }

    pub fn has_lease(&self, now_ms: u64) -> bool {
        now_ms < self.lease_until_ms
    }

    /// Names the nodes that it sees, and which of their lives.
    pub fn memory(&self) -> u64 {
        memory(&self.view)
    }

    /// How far it may trust what it has.
    pub fn trust(&self, now_ms: u64) -> Trust {
        Trust::of(self.has_lease(now_ms), PurgeUnverified::Revalidate)
    }

    /// Another node came or went.
    pub fn hear(&mut self, about: usize, life: Option<u32>, stamp: u64, now_ms: u64) {
        if self.stamps[about] < stamp {
            self.stamps[about] = stamp;
            if self.view[about] != life {
                let before = self.view.clone();
                self.view[about] = life;
                self.past.insert(0, (before, now_ms));
                self.past.truncate(8);
            }
        }
    }

    pub fn judge(&self, key: usize, fill_seq: u64, checked_seq: u64) -> Validity {
        let text = text(key);
        let subject = Subject { key: object_key(key), text: &text, tags: &[], fill_seq, checked_seq };
        judge_validity(SEED, &subject, &self.tables, self.applied)
    }

    /// How new a response to `key` is.
    pub fn rank(&self, key: usize, stored: &Stored) -> Rank {
        let is_valid = self.judge(key, stored.fill_seq, stored.checked_seq) == Validity::Valid;
        Rank { is_valid, response_ms: stored.terms.response_ms }
    }

    /// What it has of `key`.
    pub fn look(&mut self, key: usize, now_ms: u64) -> Look {
        let Some(stored) = self.store.get(&key).copied() else {
            return Look::Ask { found: None, alone: false };
        };
        let freshened = match self.judge(key, stored.fill_seq, stored.checked_seq) {
            Validity::Gone => return Look::Ask { found: None, alone: false },
            Validity::Valid => Freshened::Untouched,
            Validity::Stale => Freshened::SoftPurged,
            Validity::Unknown => Freshened::Unknown,
        };
        let applied = self.applied;
        if let Some(stored) = self.store.get_mut(&key)
            && freshened == Freshened::Untouched
        {
            stored.checked_seq = stored.checked_seq.max(applied);
        }
        match self.trust(now_ms).limit(judge_reuse(&stored.terms, freshened, &Wishes::default(), now_ms)) {
            Reuse::Fresh => Look::Fresh(self.store[&key]),
            Reuse::Unverified | Reuse::ValidateOnRequest => Look::Ask { found: Some(stored), alone: true },
            Reuse::Validate | Reuse::Stale { .. } => Look::Ask { found: Some(stored), alone: false },
        }
    }

    /// The owners of `key` in `region`, as it sees the cluster.
    pub fn owners_in(&self, places: &[Place], region: usize, key: usize) -> Owners {
        Owners::of(object_key(key), candidates(places, &self.view, region, None))
    }

    pub fn owners(&self, places: &[Place], key: usize) -> Owners {
        let owners = self.owners_in(places, self.place.region, key);
        if owners.primary.is_none() { Owners { primary: Some(self.id), secondary: None } } else { owners }
    }

    fn former(&self, places: &[Place], key: usize, now_ms: u64) -> [Option<NodeId>; MAX_PEEKS] {
        let region = self.place.region;
        let is_recent = |since_ms: u64| now_ms.saturating_sub(since_ms) < SETTLING_MS;
        let past = self.past.iter().filter(|(_, ended_ms)| is_recent(*ended_ms));
        let mut sets: Vec<Vec<Candidate<'_>>> =
            past.map(|(view, _)| candidates(places, view, region, None).collect()).collect();
        if is_recent(self.serving_since_ms) {
            sets.push(candidates(places, &self.view, region, Some(self.id)).collect());
        }
        let is_there = |node: NodeId| self.view[node.0 as usize - 1].is_some();
        former_owners(object_key(key), self.id, sets.into_iter().map(Vec::into_iter), is_there)
    }

    /// A fill that is about to begin, and whom it asks.
    pub fn new_fill(
        &self,
        places: &[Place],
        key: usize,
        (hop, asker): (Hop, Option<usize>),
        (found, alone): (Option<Stored>, bool),
        now_ms: u64,
    ) -> Fill {
        let owners = self.owners(places, key);
        let is_owned = owners.includes(self.id);
        let shield = (self.place.region == 0 && places.iter().any(|place| place.region == 1))
            .then(|| self.owners_in(places, 1, key))
            .filter(|owners| owners.primary.is_some());
        let plan = plan(&Situation {
            local: self.id,
            hop,
            asker: asker.map(|node| NodeId(node as u64 + 1)),
            owners,
            former: if is_owned { self.former(places, key, now_ms) } else { [None; MAX_PEEKS] },
            shield,
            is_peek: false,
            is_known: found.is_some(),
        });
        let ask = |node: NodeId, role, hop| Step::Ask { node: node.0 as usize - 1, role, hop };
        let both = |asked: Option<Asked>| {
            let Asked { primary, second, hop } = asked?;
            let second = second.map(|second| ask(second, Role::Deputy, hop));
            Some([Some(ask(primary, Role::Primary, hop)), second].into_iter().flatten())
        };
        let mut left = VecDeque::new();
        left.extend(both(plan.owners).into_iter().flatten());
        left.extend(plan.peeks.into_iter().flatten().map(|node| ask(node, Role::Holder, Hop::Last)));
        left.extend(both(plan.shield).into_iter().flatten());
        left.extend(plan.origin.then_some(Step::Origin));
        Fill {
            key,
            fill_seq: self.applied,
            is_open: !alone,
            found,
            begun: Begun::NotYet,
            view: self.view.clone(),
            is_primary: owners.primary == Some(self.id),
            readers: Vec::new(),
            left,
            waits_for: None,
            excuse: None,
            head: None,
            is_owned,
        }
    }
}

fn candidates<'a>(
    places: &'a [Place],
    view: &'a [Option<u32>],
    region: usize,
    except: Option<NodeId>,
) -> impl Iterator<Item = Candidate<'a>> + Clone {
    let there = view.iter().enumerate().filter(|(_, life)| life.is_some()).map(|(n, _)| n);
    let nodes = there.map(|n| (NodeId(n as u64 + 1), &places[n]));
    let nodes = nodes.filter(move |(id, place)| place.region == region && Some(*id) != except);
    nodes.map(|(id, place)| Candidate { id, zone: place.zone, weight: 1 })
}
