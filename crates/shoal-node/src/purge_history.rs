//! The purges that this node has applied lately, and when: what `purge-status` asks every node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use shoal_model::NodeId;
use shoal_model::state::PurgeKind;

/// Purges that are remembered.
const MAX_SEEN: usize = 1000;

/// A purge that was applied here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PurgeSeen {
    /// Its sequence number.
    pub seq: u64,
    /// Objects are stale, not gone.
    pub soft: bool,
    /// How many scopes it has.
    pub scopes: u32,
    /// When it was applied here, Unix milliseconds.
    pub applied_ms: u64,
    /// How many milliseconds later the leases of members had run out at the latest, as the leader knew when it was committed;
    /// only where it was asked for.
    pub lapses: BTreeMap<NodeId, u64>,
}

/// The purges applied lately, the oldest first. Empty after a start: those of before are in force, and nobody asks when.
#[derive(Debug, Default)]
pub struct PurgeHistory(Mutex<VecDeque<PurgeSeen>>);

impl PurgeHistory {
    /// A purge has been applied.
    pub fn note(&self, seq: u64, scopes: usize, kind: PurgeKind, now_ms: u64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_SEEN {
            seen.pop_front();
        }
        seen.push_back(PurgeSeen {
            seq,
            soft: kind == PurgeKind::Soft,
            scopes: u32::try_from(scopes).unwrap_or(u32::MAX),
            applied_ms: now_ms,
            lapses: BTreeMap::new(),
        });
    }

    /// What the leader knew of the leases of members when it was committed.
    pub fn note_lapses(&self, seq: u64, lapses: BTreeMap<NodeId, u64>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(place) = seen.binary_search_by_key(&seq, |seen| seen.seq)
            && let Some(purge) = seen.get_mut(place)
        {
            purge.lapses = lapses;
        }
    }

    /// The newest `count`, the newest first.
    pub fn newest(&self, count: usize) -> Vec<PurgeSeen> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().rev().take(count).cloned().collect()
    }

    /// The one with this number.
    pub fn find(&self, seq: u64) -> Option<PurgeSeen> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = seen.binary_search_by_key(&seq, |seen| seen.seq).ok()?;
        seen.get(place).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let history = PurgeHistory::default();
        for seq in 1..=MAX_SEEN as u64 + 5 {
            history.note(seq * 2, 3, PurgeKind::Soft, seq);
        }
        let newest: Vec<u64> = history.newest(2).iter().map(|seen| seen.seq).collect();
        assert_eq!(newest, [2010, 2008]);
        assert_eq!(history.newest(usize::MAX).len(), MAX_SEEN);
        assert_eq!(history.find(10), None, "too long ago");
        assert_eq!(history.find(2009), None, "no purge");
        let expected = PurgeSeen {
            seq: 12,
            soft: true,
            scopes: 3,
            applied_ms: 6,
            lapses: BTreeMap::from([(NodeId(7), 202)]),
        };
        history.note_lapses(12, expected.lapses.clone());
        history.note_lapses(13, BTreeMap::from([(NodeId(7), 1)]));
        assert_eq!(history.find(12), Some(expected));
    }
}
