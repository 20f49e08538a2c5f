//! What this node knows of purges: its own copy of the tables, and how far the log is applied.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use shoal_model::state::{PurgeKind, PurgeScope, PurgeTables};
use shoal_policy::cache::keeping::Rank;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::purge::{Subject, Validity, judge_key, judge_url, judge_validity};
use shoal_policy::cache::reuse::Freshened;
use shoal_policy::cache::trust::is_plausible;
use tokio::sync::watch;

use crate::object::Object;
use crate::search::Alias;

/// Purge tables and the log index they stand for. Nearly every hit is one load and one compare.
pub(crate) struct Purges {
    seed: u64,
    applied: AtomicU64,
    /// Until then this node knows of every purge, Unix milliseconds.
    lease_until_ms: AtomicU64,
    tables: RwLock<PurgeTables>,
    progress: watch::Sender<u64>,
}

impl Purges {
    pub(crate) fn new(seed: u64) -> Self {
        let tables = RwLock::new(PurgeTables::default());
        let (applied, lease_until_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { seed, applied, lease_until_ms, tables, progress: watch::Sender::new(0) }
    }

    /// The log is applied, and every purge in it recorded, up to here.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    pub(crate) fn record(&self, seq: u64, scopes: &[PurgeScope], kind: PurgeKind) {
        self.tables.write().unwrap_or_else(PoisonError::into_inner).record(seq, scopes, kind);
        self.advance(seq);
    }

    /// Purges up to `up_to` are remembered no longer one by one; the log is applied up to `applied`.
    pub(crate) fn forget(&self, up_to: u64, applied: u64) {
        self.tables.write().unwrap_or_else(PoisonError::into_inner).forget(up_to);
        self.advance(applied);
    }

    /// How many records there are, and up to where others were forgotten.
    pub(crate) fn remembered(&self) -> (usize, u64) {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        (tables.records(), tables.floor)
    }

    /// How many records there are of purges after `seq`.
    pub(crate) fn records_after(&self, seq: u64) -> usize {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        if tables.newest <= seq { 0 } else { tables.records() - tables.records_up_to(seq) }
    }

    /// Newest purge of many objects.
    pub(crate) fn newest_of_many(&self) -> u64 {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).newest_of_many()
    }

    /// Judges an object of which only the key is at hand; `None` = that is not enough.
    pub(crate) fn judge_key(
        &self,
        key: ObjectKey,
        seqs: (u64, u64),
        newest_of_many: u64,
    ) -> Option<Validity> {
        judge_key(key, seqs, &self.tables.read().unwrap_or_else(PoisonError::into_inner), newest_of_many)
    }

    pub(crate) fn replace(&self, tables: &PurgeTables, applied: u64) {
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = tables.clone();
        self.advance(applied);
    }

    pub(crate) fn advance(&self, applied: u64) {
        let before = self.applied.fetch_max(applied, Ordering::AcqRel);
        if applied > before {
            self.progress.send_replace(applied);
        }
    }

    pub(crate) fn set_lease(&self, until_ms: u64) {
        self.lease_until_ms.store(until_ms, Ordering::Release);
    }

    /// Every purge that was committed a moment ago is recorded, and applied says so to whoever reads it after this. A
    /// clock that is wrong says nothing of a lease.
    #[inline]
    pub(crate) fn has_lease(&self, now_ms: u64) -> bool {
        is_plausible(now_ms) && now_ms < self.lease_until_ms.load(Ordering::Acquire)
    }

    /// Newest purge.
    pub(crate) fn newest(&self) -> u64 {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).newest
    }

    /// Waits until the log is applied up to `seq`; false = not within `patience`.
    pub(crate) async fn reached(&self, seq: u64, patience: Duration) -> bool {
        if self.applied() >= seq {
            return true;
        }
        let mut progress = self.progress.subscribe();
        tokio::time::timeout(patience, progress.wait_for(|applied| *applied >= seq)).await.is_ok()
    }

    /// Judges a stored object; `None` = purged.
    #[inline]
    pub(crate) fn check(&self, object: &Object) -> Option<Freshened> {
        // The index first: tables read later know at least as much.
        let applied = self.applied();
        if object.checked_seq.load(Ordering::Relaxed) >= applied {
            return Some(Freshened::Untouched);
        }
        let validity = self.judge(&object.subject(), applied);
        if validity == Validity::Valid {
            object.checked_seq.fetch_max(applied, Ordering::Relaxed);
        }
        freshened(validity)
    }

    /// Judges a stored object as the answer for the URL of `alias`, too.
    #[inline]
    pub(crate) fn check_for(&self, object: &Object, alias: Option<&Alias>) -> Option<Freshened> {
        let own = self.check(object)?;
        match alias {
            None => Some(own),
            Some(alias) => self.check_alias(alias, object.fill_seq).map(|other| own.max(other)),
        }
    }

    /// Judges what was filled at `fill_seq` as far as purges of the URL of `alias` go.
    pub(crate) fn check_alias(&self, alias: &Alias, fill_seq: u64) -> Option<Freshened> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        freshened(judge_url(alias.key, fill_seq, &tables))
    }

    /// How new a stored object is.
    pub(crate) fn rank(&self, object: &Object) -> Rank {
        let is_valid = self.check(object) == Some(Freshened::Untouched);
        Rank { is_valid, response_ms: object.terms.response_ms }
    }

    /// Judges something that is not stored (yet); `None` = purged.
    pub(crate) fn check_subject(&self, subject: &Subject<'_>) -> Option<Freshened> {
        freshened(self.judge(subject, self.applied()))
    }

    /// What purges have made of a stored object, for whoever only looks at it.
    pub(crate) fn verdict(&self, object: &Object) -> Validity {
        self.judge(&object.subject(), self.applied())
    }

    pub(crate) fn judge(&self, subject: &Subject<'_>, applied: u64) -> Validity {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        judge_validity(self.seed, subject, &tables, applied)
    }
}

const fn freshened(validity: Validity) -> Option<Freshened> {
    match validity {
        Validity::Valid => Some(Freshened::Untouched),
        Validity::Stale => Some(Freshened::SoftPurged),
        Validity::Unknown => Some(Freshened::Unknown),
        Validity::Gone => None,
    }
}
