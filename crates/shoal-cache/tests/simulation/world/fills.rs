//! Requests, and the fills that answer them.

use shoal_policy::cache::purge::Validity;
use shoal_policy::cache::sources::{Hop, Role, may_fill, may_wait};
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::trust::{Begun, Moment, may_join};

use super::{Answer, Broken, Client, Fetching, KEYS, LIFETIME_MS, ORPHAN_MS, Wire, World};
use crate::node::{Fill, Look, Reader, Step, Stored, memory};

impl World {
    pub(super) fn ask(&mut self, n: usize) -> Result<(), Broken> {
        let key = self.dice.below(KEYS);
        self.ask_for(n, key)
    }

    pub(super) fn ask_for(&mut self, n: usize, key: usize) -> Result<(), Broken> {
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

    pub(super) fn serve(&mut self, client: usize, stored: Stored) -> Result<(), Broken> {
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
    pub(super) fn board(
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
                && may_join(trust, fill.begun, moment(now_ms))
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
    pub(super) fn advance(&mut self, n: usize, number: usize) -> Result<(), Broken> {
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

    pub(super) fn fetch(&mut self, n: usize, number: usize) -> Result<(), Broken> {
        let node = &mut self.nodes[n];
        let (life, applied, now_ms) = (node.life, node.applied, self.now_ms);
        let Some(fill) = node.fills.get_mut(&number) else { return Ok(()) };
        fill.fill_seq = applied;
        fill.begun = Begun::At(moment(now_ms));
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

    pub(super) fn take_question(&mut self, wire: Wire) -> Result<(), Broken> {
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

    pub(super) fn take_answer(&mut self, n: usize, number: usize, answer: Answer) -> Result<(), Broken> {
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

    pub(super) fn take_fetched(
        &mut self,
        n: usize,
        number: usize,
        version: u64,
        confirmed: bool,
    ) -> Result<(), Broken> {
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
    pub(super) fn settle(&mut self, n: usize, number: usize, head: Stored) -> Result<(), Broken> {
        let life = self.nodes[n].life;
        let Some(fill) = self.nodes[n].fills.get_mut(&number) else { return Ok(()) };
        fill.head = Some(head);
        fill.waits_for = None;
        let readers = std::mem::take(&mut fill.readers);
        self.wires.push(Wire::BodyEnd { node: n, life, fill: number });
        readers.into_iter().try_for_each(|reader| self.give(reader, head))
    }

    pub(super) fn give(&mut self, reader: Reader, head: Stored) -> Result<(), Broken> {
        match reader {
            Reader::Client(client) => self.serve(client, head),
            Reader::Peer { node, life, fill } => {
                self.wires.push(Wire::Answer { to: node, life, fill, answer: Answer::Object(head) });
                Ok(())
            }
        }
    }

    /// The body is whole.
    pub(super) fn end(&mut self, n: usize, number: usize) -> Result<(), Broken> {
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

    pub(super) fn forget_fetch(&mut self, n: usize, number: usize) {
        let life = self.nodes[n].life;
        self.fetching.retain(|other| (other.node, other.life, other.fill) != (n, life, number));
    }
}

/// Both clocks of a node agree here.
const fn moment(now_ms: u64) -> Moment {
    Moment { wall_ms: now_ms, steady_ms: now_ms }
}
