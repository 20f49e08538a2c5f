//! Purges, their being forgotten, and leases.

use std::time::Duration;

use shoal_model::state::{PurgeKind, PurgeScope};
use shoal_policy::cache::lease::{DEFAULT_LEASE, lapse_left};

use super::{KEYS, Purge, Wire, World};
use crate::node::{Entry, LEASE_MS, Node, object_key};

impl World {
    pub(super) fn purge(&mut self) {
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
    pub(super) fn sweep(&mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].is_alive && self.dice.says(85) {
                self.nodes[n].sweep();
                self.tell(|| format!("n{} has checked what it has", n + 1));
            }
        }
    }

    /// What all nodes have checked what they have against is forgotten; a node that has been away for long does not count,
    /// and nobody does where there is too much to remember.
    pub(super) fn forget_purges(&mut self) {
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
    pub(super) fn acknowledge(&mut self) {
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

    pub(super) fn apply_next(&mut self, n: usize) {
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

    pub(super) fn ask_for_lease(&mut self, n: usize) {
        if self.nodes[n].is_alive {
            self.wires.push(Wire::LeaseAsk { node: n, life: self.nodes[n].life, asked_ms: self.now_ms });
        }
    }
}
