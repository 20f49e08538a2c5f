//! How much has happened.

use std::ops::Add;

/// Counts over one story, or over many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub acknowledged: u64,
    pub reads: u64,
    pub unknown: u64,
    pub unseen: u64,
    pub terms: u64,
    pub kills: u64,
    pub lulls: u64,
    pub cuts: u64,
    pub one_way: u64,
    pub losses: u64,
    pub slow_disks: u64,
    pub failed_disks: u64,
    pub snapshots: u64,
    pub transfers: u64,
    pub memberships: u64,
    pub blackouts: u64,
}

impl Figures {
    fn all(&self) -> [u64; 16] {
        [
            self.acknowledged,
            self.reads,
            self.unknown,
            self.unseen,
            self.terms,
            self.kills,
            self.lulls,
            self.cuts,
            self.one_way,
            self.losses,
            self.slow_disks,
            self.failed_disks,
            self.snapshots,
            self.transfers,
            self.memberships,
            self.blackouts,
        ]
    }

    /// What happened least, of what is not up to chance alone.
    pub fn least(&self) -> u64 {
        Self { unseen: u64::MAX, ..*self }.all().into_iter().min().unwrap_or(0)
    }

    /// Both together.
    pub fn with(&self, other: &Self) -> Self {
        let mut sums = self.all().into_iter().zip(other.all()).map(|(one, other)| one.add(other));
        let mut sum = || sums.next().unwrap_or(0);
        Self {
            acknowledged: sum(),
            reads: sum(),
            unknown: sum(),
            unseen: sum(),
            terms: sum(),
            kills: sum(),
            lulls: sum(),
            cuts: sum(),
            one_way: sum(),
            losses: sum(),
            slow_disks: sum(),
            failed_disks: sum(),
            snapshots: sum(),
            transfers: sum(),
            memberships: sum(),
            blackouts: sum(),
        }
    }
}
