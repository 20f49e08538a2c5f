//! The newest part of the log in memory: what is being written, and as much of what was as replication likes to reread.

use std::collections::VecDeque;

use openraft::storage::LogState;

use crate::types::{Entry, LogId, TypeConfig, Vote};

/// Encoded bytes of written entries that stay in memory; entries on their way to the disk always do.
const MAX_TAIL_BYTES: usize = 8 << 20;

/// The log's end and its vote. Entries are consecutive; those before the first one are on disk only.
#[derive(Debug, Default)]
pub struct Tail {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    entries: VecDeque<Recent>,
    bytes: usize,
    /// Newest index that is on disk for good.
    written: Option<u64>,
}

#[derive(Debug)]
struct Recent {
    entry: Entry,
    bytes: usize,
}

impl Tail {
    /// The end of a log as found on disk; no entry is in memory yet.
    pub fn on_disk(
        vote: Option<Vote>,
        committed: Option<LogId>,
        purged: Option<LogId>,
        last: Option<LogId>,
    ) -> Self {
        let written = last.map(|id| id.index);
        Self { vote, committed, purged, last: last.or(purged), written, ..Self::default() }
    }

    /// What was purged and what is there.
    pub fn log_state(&self) -> LogState<TypeConfig> {
        LogState { last_purged_log_id: self.purged, last_log_id: self.last }
    }

    /// First index that is in memory.
    pub fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|recent| recent.entry.log_id.index)
    }

    /// Adds an entry that is about to be written.
    pub fn push(&mut self, entry: Entry, bytes: usize) {
        self.last = Some(entry.log_id);
        self.bytes += bytes;
        self.entries.push_back(Recent { entry, bytes });
    }

    /// Copies entries of `start..end` that are in memory, as long as `budget` lasts.
    pub fn copy(&self, start: u64, end: u64, budget: &mut Budget, into: &mut Vec<Entry>) {
        let Some(first) = self.first_index() else { return };
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        for recent in self.entries.iter().skip(skip) {
            if recent.entry.log_id.index >= end || !budget.spend(recent.bytes) {
                return;
            }
            into.push(recent.entry.clone());
        }
    }

    /// Everything up to `index` is on disk for good: the oldest may leave memory, but the newest stays.
    pub fn note_written(&mut self, index: u64) {
        self.written = Some(index);
        while self.bytes > MAX_TAIL_BYTES && self.entries.len() > 1 && self.first_index() <= self.written {
            self.pop_front();
        }
    }

    /// Forgets what comes after `after` (`None`: everything).
    pub fn truncate(&mut self, after: Option<LogId>) {
        while self
            .entries
            .back()
            .is_some_and(|recent| Some(recent.entry.log_id.index) > after.map(|id| id.index))
        {
            self.bytes -= self.entries.pop_back().map_or(0, |recent| recent.bytes);
        }
        self.last = self.last.min(after).max(self.purged);
        self.written = self.written.min(after.map(|id| id.index));
    }

    /// Forgets everything up to and with `up_to`.
    pub fn purge(&mut self, up_to: LogId) {
        while self.first_index().is_some_and(|first| first <= up_to.index) {
            self.pop_front();
        }
        self.purged = self.purged.max(Some(up_to));
        self.last = self.last.max(Some(up_to));
    }

    fn pop_front(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |recent| recent.bytes);
    }
}

/// Encoded bytes that one read may return; the first entry always fits.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: usize,
    state: Spending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spending {
    Untouched,
    Begun,
    Refused,
}

impl Budget {
    /// This many bytes.
    pub fn of(bytes: usize) -> Self {
        Self { left: bytes, state: Spending::Untouched }
    }

    /// Takes `bytes`, or says that there is no room.
    pub fn spend(&mut self, bytes: usize) -> bool {
        let fits = match self.state {
            Spending::Untouched => true,
            Spending::Begun => bytes <= self.left,
            Spending::Refused => false,
        };
        self.left = self.left.saturating_sub(bytes);
        self.state = if fits { Spending::Begun } else { Spending::Refused };
        fits
    }

    /// Something did not fit.
    pub fn is_spent(&self) -> bool {
        self.state == Spending::Refused
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::vote::RaftLeaderId;

    use super::*;

    fn id(index: u64) -> LogId {
        LogId::new(openraft::impls::leader_id_adv::LeaderId::new(1, 1).to_committed(), index)
    }

    fn tail_with(indexes: std::ops::Range<u64>, bytes: usize) -> Tail {
        let mut tail = Tail::default();
        for index in indexes {
            tail.push(Entry { log_id: id(index), payload: EntryPayload::Blank }, bytes);
        }
        tail
    }

    fn indexes(tail: &Tail, start: u64, end: u64, budget: usize) -> Vec<u64> {
        let mut entries = Vec::new();
        tail.copy(start, end, &mut Budget::of(budget), &mut entries);
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn reads_end_at_the_range_and_at_the_budget() {
        let tail = tail_with(5..10, 100);
        let check =
            |start, end, budget, expected: &[u64]| assert_eq!(indexes(&tail, start, end, budget), expected);
        check(5, 10, usize::MAX, &[5, 6, 7, 8, 9]);
        check(0, 7, usize::MAX, &[5, 6]);
        check(8, 99, usize::MAX, &[8, 9]);
        check(10, 99, usize::MAX, &[]);
        check(6, 10, 250, &[6, 7]);
        check(6, 10, 1, &[6]);
    }

    #[test]
    fn only_what_is_on_disk_leaves_memory() {
        let mut tail = tail_with(1..5, MAX_TAIL_BYTES / 2);
        tail.note_written(1);
        assert_eq!(tail.first_index(), Some(2));
        tail.note_written(4);
        assert_eq!(tail.first_index(), Some(3));
    }

    #[test]
    fn truncated_and_purged_entries_are_gone() {
        let mut tail = tail_with(1..7, 1);
        tail.truncate(Some(id(4)));
        assert_eq!(tail.log_state().last_log_id, Some(id(4)));
        tail.purge(id(2));
        assert_eq!(indexes(&tail, 0, 9, 99), [3, 4]);
        tail.purge(id(8));
        assert_eq!(indexes(&tail, 0, 9, 99), [] as [u64; 0]);
        assert_eq!(tail.log_state().last_log_id, Some(id(8)));
        assert_eq!(tail.log_state().last_purged_log_id, Some(id(8)));
    }
}
