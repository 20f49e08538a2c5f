//! What origins have changed and no node is known to have forgotten yet, by host: one that changes too much for its changes to
//! be kept apart is forgotten as a whole, and nobody else with it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use shoal_model::state::PurgeScope;
use shoal_policy::tcp::arrival;

use crate::purge_debts::Debtor;

/// Scopes in one purge.
const MAX_BATCH: usize = 1000;
/// Scopes that are kept apart for one host; beyond that, it is all of the host.
const MAX_OF_HOST: usize = 256;
/// The same for all hosts together: each has its share of them.
const MAX_SCOPES: usize = 20_000;
/// Hosts that are kept apart; beyond that, it is everything.
const MAX_HOSTS: usize = 20_000;
/// New scopes that one host may name in a second, and at once; beyond that, it is all of the host. Each is remembered by every
/// node for long.
const SCOPES_PER_SECOND: u32 = 100;

/// What is owed, with those who wait for it.
#[derive(Debug)]
pub struct Owed<W> {
    hosts: BTreeMap<u64, Changes<W>>,
    /// How fast each of them names scopes.
    rates: BTreeMap<u64, u64>,
    /// Where the next batch begins: hosts take turns.
    next: u64,
    /// There were too many hosts; and who waits for it.
    everything: Option<Vec<W>>,
}

/// What has changed of one host.
#[derive(Debug)]
struct Changes<W> {
    /// `None` = all of it.
    scopes: Option<BTreeSet<PurgeScope>>,
    waiting: Vec<W>,
}

/// What is forgotten by one purge.
#[derive(Debug)]
pub struct Batch<W> {
    changes: Vec<(u64, Changes<W>)>,
    everything: Option<Vec<W>>,
}

impl<W> Default for Owed<W> {
    fn default() -> Self {
        Self { hosts: BTreeMap::new(), rates: BTreeMap::new(), next: 0, everything: None }
    }
}

impl<W> Owed<W> {
    /// An origin has changed `scopes` of `host`, and `waiting` is to hear when they are forgotten. `now_us` is of any clock
    /// that never goes back.
    pub fn add(&mut self, host: u64, scopes: Vec<PurgeScope>, waiting: W, now_us: u64) {
        let is_known = |scope| self.hosts.get(&host).is_some_and(|changes| changes.includes(scope));
        let fresh = scopes.iter().filter(|scope| !is_known(scope)).count();
        let scopes = (0..fresh).all(|_| self.admits(host, now_us)).then(|| scopes.into_iter().collect());
        self.merge(host, Changes { scopes, waiting: vec![waiting] });
    }

    /// Something is owed to `debtor`, nobody knows what, and nobody waits for it.
    pub fn owe(&mut self, debtor: Debtor) {
        match debtor {
            Debtor::Host(host) => self.merge(host, Changes { scopes: None, waiting: Vec::new() }),
            Debtor::Everybody => self.owe_everything(),
        }
    }

    /// To whom something is owed.
    pub fn debtors(&self) -> impl Iterator<Item = Debtor> {
        let everybody = self.everything.iter().map(|_| Debtor::Everybody);
        everybody.chain(self.hosts.keys().copied().map(Debtor::Host))
    }

    /// The next purge, and who waits for it; `None` = nothing is owed.
    pub fn take(&mut self) -> Option<Batch<W>> {
        let mut batch = Batch { changes: Vec::new(), everything: self.everything.take() };
        let mut scopes = 0;
        while let Some(host) = self.host_from(self.next) {
            let Entry::Occupied(changes) = self.hosts.entry(host) else { break };
            scopes += changes.get().len();
            if scopes > MAX_BATCH {
                break;
            }
            batch.changes.push((host, changes.remove()));
            self.next = host.wrapping_add(1);
        }
        (batch.everything.is_some() || !batch.changes.is_empty()).then_some(batch)
    }

    /// What could not be forgotten is owed again; who waited for it is told so.
    pub fn put_back(&mut self, batch: Batch<W>) -> Vec<W> {
        let mut waiting = Vec::new();
        if let Some(mut all) = batch.everything {
            waiting.append(&mut all);
            self.owe_everything();
        }
        for (host, mut changes) in batch.changes {
            waiting.append(&mut changes.waiting);
            self.merge(host, changes);
        }
        waiting
    }

    fn merge(&mut self, host: u64, changes: Changes<W>) {
        if let Some(waiting) = &mut self.everything {
            waiting.extend(changes.waiting);
            return;
        }
        let share = (MAX_SCOPES / (self.hosts.len() + 1)).clamp(1, MAX_OF_HOST);
        let known = self.hosts.entry(host).or_insert_with(Changes::none);
        known.waiting.extend(changes.waiting);
        known.scopes = match (known.scopes.take(), changes.scopes) {
            (Some(mut scopes), Some(more)) => {
                scopes.extend(more);
                Some(scopes).filter(|scopes| scopes.len() <= share)
            }
            _ => None,
        };
        if self.hosts.len() > MAX_HOSTS {
            self.owe_everything();
        }
    }

    fn owe_everything(&mut self) {
        let hosts = mem::take(&mut self.hosts);
        let waiting = hosts.into_values().flat_map(|changes| changes.waiting);
        self.everything.get_or_insert_default().extend(waiting);
    }

    /// The first host from `host` on, in a circle.
    fn host_from(&self, host: u64) -> Option<u64> {
        let mut hosts = self.hosts.range(host..).chain(self.hosts.range(..host));
        hosts.next().map(|(host, _)| *host)
    }

    fn admits(&mut self, host: u64, now_us: u64) -> bool {
        if self.rates.len() >= MAX_HOSTS && !self.rates.contains_key(&host) {
            // Who has not named any for long starts anew.
            self.rates.retain(|_, rate| *rate > now_us);
            if self.rates.len() >= MAX_HOSTS {
                return false;
            }
        }
        let rate = self.rates.entry(host).or_default();
        arrival::admit(*rate, now_us, SCOPES_PER_SECOND).map(|next| *rate = next).is_some()
    }
}

impl<W> Changes<W> {
    fn none() -> Self {
        Self { scopes: Some(BTreeSet::new()), waiting: Vec::new() }
    }

    fn includes(&self, scope: &PurgeScope) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.contains(scope))
    }

    fn len(&self) -> usize {
        self.scopes.as_ref().map_or(1, BTreeSet::len)
    }
}

impl<W> Batch<W> {
    /// What is to be forgotten.
    pub fn scopes(&self) -> Vec<PurgeScope> {
        if self.everything.is_some() {
            return vec![PurgeScope::All];
        }
        let scopes = self.changes.iter().flat_map(|(host, changes)| match &changes.scopes {
            Some(scopes) => scopes.iter().cloned().collect(),
            None => vec![PurgeScope::Host(*host)],
        });
        scopes.collect()
    }

    /// Who waits for that.
    pub fn into_waiting(self) -> Vec<W> {
        let waiting = self.changes.into_iter().flat_map(|(_, changes)| changes.waiting);
        waiting.chain(self.everything.into_iter().flatten()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn tags(tags: std::ops::Range<u64>) -> Vec<PurgeScope> {
        tags.map(PurgeScope::Tag).collect()
    }

    fn taken(owed: &mut Owed<u32>) -> (Vec<PurgeScope>, Vec<u32>) {
        let batch = owed.take().unwrap();
        (batch.scopes(), batch.into_waiting())
    }

    #[test]
    fn the_same_is_owed_once_and_all_who_wait_for_it_hear_of_it() {
        let mut owed = Owed::default();
        owed.add(1, tags(1..3), 10, 0);
        owed.add(1, tags(2..4), 11, 0);
        owed.add(2, tags(7..8), 12, 0);
        assert_eq!(taken(&mut owed), ([tags(1..4), tags(7..8)].concat(), vec![10, 11, 12]));
        assert!(owed.take().is_none());
    }

    #[test]
    fn a_host_that_changes_too_much_is_forgotten_alone() {
        let mut owed = Owed::default();
        owed.add(2, tags(1..2), 0, 0);
        // Within the rate, for long: there is no quorum.
        for second in 0..10 {
            owed.add(1, tags(second * 50..(second + 1) * 50), 0, second * SECOND);
        }
        assert_eq!(taken(&mut owed).0, [PurgeScope::Host(1), PurgeScope::Tag(1)]);
        // Too many at once.
        owed.add(2, tags(1..2), 0, 10 * SECOND);
        owed.add(1, tags(0..101), 0, 10 * SECOND);
        assert_eq!(taken(&mut owed).0, [PurgeScope::Host(1), PurgeScope::Tag(1)]);
        owed.add(1, tags(0..1), 0, 10 * SECOND);
        assert_eq!(taken(&mut owed).0, [PurgeScope::Host(1)], "so soon again");
        owed.add(1, tags(0..50), 0, 12 * SECOND);
        for again in 0..1000 {
            owed.add(1, tags(0..50), again, 12 * SECOND);
        }
        assert_eq!(taken(&mut owed).0, tags(0..50), "what is owed already is nothing new");
    }

    #[test]
    fn what_is_put_back_is_owed_again_with_what_came_meanwhile() {
        let mut owed = Owed::default();
        owed.add(1, tags(1..3), 10, 0);
        let batch = owed.take().unwrap();
        owed.add(1, tags(2..4), 11, 0);
        assert_eq!(owed.put_back(batch), [10]);
        assert_eq!(taken(&mut owed), (tags(1..4), vec![11]));
    }

    #[test]
    fn of_what_a_process_owed_the_next_one_knows_the_host() {
        let mut owed = Owed::default();
        owed.add(1, tags(1..3), 10, 0);
        [Debtor::Host(1), Debtor::Host(2)].into_iter().for_each(|debtor| owed.owe(debtor));
        assert_eq!(owed.debtors().collect::<Vec<_>>(), [Debtor::Host(1), Debtor::Host(2)]);
        assert_eq!(taken(&mut owed), (vec![PurgeScope::Host(1), PurgeScope::Host(2)], vec![10]));
        owed.owe(Debtor::Everybody);
        owed.add(3, tags(1..3), 11, 0);
        assert_eq!(owed.debtors().collect::<Vec<_>>(), [Debtor::Everybody]);
        assert_eq!(taken(&mut owed), (vec![PurgeScope::All], vec![11]));
        assert_eq!(owed.debtors().count(), 0);
    }

    #[test]
    fn hosts_take_turns() {
        let mut owed = Owed::default();
        for host in 1..=30 {
            owed.add(host, tags(host * 100..host * 100 + 100), host as u32, 0);
        }
        let first: Vec<u32> = (1..=10).collect();
        assert_eq!(taken(&mut owed).1, first);
        owed.add(1, tags(0..1), 99, SECOND);
        assert_eq!(taken(&mut owed).1, (11..=20).collect::<Vec<_>>());
        assert_eq!(taken(&mut owed).1, (21..=30).collect::<Vec<_>>());
        assert_eq!(taken(&mut owed).1, [99]);
    }

    #[test]
    fn more_hosts_than_can_be_told_apart_are_everything() {
        let mut owed = Owed::default();
        for host in 0..=MAX_HOSTS as u64 {
            owed.add(host, tags(0..1), (), host);
        }
        let batch = owed.take().unwrap();
        assert_eq!(batch.scopes(), [PurgeScope::All]);
        assert!(owed.take().is_none());
        owed.add(7, tags(0..1), (), 0);
        assert_eq!(owed.put_back(batch).len(), MAX_HOSTS + 1);
        let batch = owed.take().unwrap();
        assert_eq!((batch.scopes(), batch.into_waiting().len()), (vec![PurgeScope::All], 1));
        assert!(owed.take().is_none());
    }
}
