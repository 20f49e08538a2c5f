//! What this node knows of purges: its own copy of the tables, and how far the log is applied.
//!
//! A hit may have to look into the tables, so whoever changes them locks them for a moment only, however many records there
//! are: what takes longer is done on the side, before or after, and two who change them wait for each other elsewhere.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
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
    /// Newest purge of a host, a prefix or a tag, also when that is not remembered any more.
    newest_of_many: AtomicU64,
    /// How many records there ever were.
    recorded: AtomicU64,
    /// Held by whoever changes the tables, from before it looks at what it changes.
    changing: Mutex<()>,
    progress: watch::Sender<u64>,
}

impl Purges {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            applied: AtomicU64::new(0),
            lease_until_ms: AtomicU64::new(0),
            tables: RwLock::default(),
            newest_of_many: AtomicU64::new(0),
            recorded: AtomicU64::new(0),
            changing: Mutex::default(),
            progress: watch::Sender::new(0),
        }
    }

    /// The log is applied, and every purge in it recorded, up to here.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    pub(crate) fn record(&self, seq: u64, scopes: &[PurgeScope], kind: PurgeKind) {
        let changing = self.begin_change();
        if scopes.iter().any(PurgeScope::is_of_many) {
            self.newest_of_many.fetch_max(seq, Ordering::Release);
        }
        let forgotten = self.tables_to_change().record(seq, scopes, kind);
        self.advance(seq);
        self.count(scopes.len());
        drop((changing, forgotten));
    }

    /// Purges up to `up_to` are remembered no longer one by one; the log is applied up to `applied`.
    pub(crate) fn forget(&self, up_to: u64, applied: u64) {
        let changing = self.begin_change();
        // Nobody waits to change them, so hits look into them as well.
        let remembered = self.tables().without(up_to);
        let before = remembered.map(|tables| self.swap(tables));
        self.advance(applied);
        drop((changing, before));
    }

    /// The tables are these now.
    pub(crate) fn replace(&self, tables: &PurgeTables, applied: u64) {
        let tables = tables.clone();
        let changing = self.begin_change();
        self.newest_of_many.fetch_max(tables.newest_of_many(), Ordering::Release);
        let records = tables.records();
        let before = self.swap(tables);
        self.advance(applied);
        self.count(records);
        drop((changing, before));
    }

    /// How many records there are, and up to where others were forgotten.
    pub(crate) fn remembered(&self) -> (usize, u64) {
        let tables = self.tables();
        (tables.records(), tables.floor)
    }

    /// How many records there ever were: of all of these the log is known to be applied when this says so.
    pub(crate) fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Acquire)
    }

    /// Newest purge of many objects that may be remembered.
    pub(crate) fn newest_of_many(&self) -> u64 {
        self.newest_of_many.load(Ordering::Acquire)
    }

    fn tables(&self) -> RwLockReadGuard<'_, PurgeTables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hits wait for whoever has this.
    fn tables_to_change(&self) -> RwLockWriteGuard<'_, PurgeTables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `tables` into place, and answers what was there: it takes a while to give its memory back.
    fn swap(&self, tables: PurgeTables) -> PurgeTables {
        mem::replace(&mut *self.tables_to_change(), tables)
    }

    fn count(&self, records: usize) {
        self.recorded.fetch_add(records as u64, Ordering::AcqRel);
    }

    /// Judges an object of which only the key is at hand; `None` = that is not enough.
    pub(crate) fn judge_key(
        &self,
        key: ObjectKey,
        seqs: (u64, u64),
        newest_of_many: u64,
    ) -> Option<Validity> {
        judge_key(key, seqs, &self.tables(), newest_of_many)
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

    /// For how long the lease lasts, if there is one.
    pub(crate) fn lease_left(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.lease_until_ms.load(Ordering::Acquire).saturating_sub(now_ms))
    }

    /// Newest purge.
    pub(crate) fn newest(&self) -> u64 {
        self.tables().newest
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
        freshened(judge_url(alias.key, fill_seq, &self.tables()))
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
        judge_validity(self.seed, subject, &self.tables(), applied)
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const PURGES: u64 = 20_000;

    fn judge(purges: &Purges, key: u64, known_seq: u64) -> Validity {
        let (key, text) = (ObjectKey(key.into()), "http://a.org/");
        let subject = Subject { key, text, tags: &[], fill_seq: known_seq, checked_seq: known_seq };
        purges.judge(&subject, purges.applied())
    }

    #[test]
    fn no_purge_is_lost_while_others_are_forgotten() {
        let purges = Purges::new(7);
        let purge = |seq: u64| purges.record(seq, &[PurgeScope::Url(seq.into())], PurgeKind::Hard);
        thread::scope(|scope| {
            scope.spawn(|| (1..=PURGES).for_each(purge));
            scope.spawn(|| {
                while purges.applied() < PURGES {
                    purges.forget(purges.applied() / 2, 0);
                }
            });
            loop {
                let applied = purges.applied();
                let purged = 1..=applied;
                let some = [1, applied / 2, applied / 2 + 1, applied];
                for seq in some.into_iter().filter(|seq| purged.contains(seq)) {
                    assert_ne!(judge(&purges, seq, seq - 1), Validity::Valid, "{seq} of {applied}");
                }
                if applied == PURGES {
                    break;
                }
            }
        });
        purges.forget(PURGES, PURGES + 1);
        assert_eq!(purges.remembered(), (0, PURGES));
        assert_eq!(judge(&purges, 1, PURGES - 1), Validity::Unknown);
    }

    #[test]
    fn hits_look_into_the_tables_while_they_are_gone_over() {
        let purges = Purges::new(7);
        purges.record(3, &[PurgeScope::Url(1)], PurgeKind::Hard);
        thread::scope(|scope| {
            let (changing, tables) = (purges.begin_change(), purges.tables());
            scope.spawn(|| purges.record(4, &[PurgeScope::Url(2)], PurgeKind::Hard));
            let hit = scope.spawn(|| judge(&purges, 1, 2));
            assert_eq!(hit.join().unwrap(), Validity::Gone);
            drop((tables, changing));
        });
        assert_eq!(judge(&purges, 2, 3), Validity::Gone);
    }

    #[test]
    fn what_takes_the_place_of_the_tables_counts() {
        let purges = Purges::new(7);
        purges.record(3, &[PurgeScope::Url(1), PurgeScope::Host(2)], PurgeKind::Hard);
        assert_eq!((purges.recorded(), purges.newest_of_many(), purges.remembered()), (2, 3, (2, 0)));
        let mut others = PurgeTables::default();
        drop(others.record(6, &[PurgeScope::Tag(9), PurgeScope::Url(1)], PurgeKind::Soft));
        purges.replace(&others, 8);
        assert_eq!((purges.recorded(), purges.newest_of_many(), purges.remembered()), (4, 6, (2, 0)));
        assert_eq!((purges.applied(), purges.newest()), (8, 6));
        purges.record(9, &[PurgeScope::All], PurgeKind::Hard);
        assert_eq!((purges.recorded(), purges.newest_of_many()), (5, 6));
    }
}
