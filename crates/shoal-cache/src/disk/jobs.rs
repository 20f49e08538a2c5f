//! What waits for the writer, and what of it must not be found any more once it is written.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use shoal_policy::cache::key::ObjectKey;

use crate::object::Object;

/// Objects that wait to be written, bytes: what comes beyond is not, but for a single one that is larger.
const MAX_WAITING_BYTES: u64 = 32 << 20;
/// The same, in number.
const MAX_WAITING: usize = 16 * 1024;
/// Keys, or variants of them, that wait to be forgotten: beyond that, everything is.
const MAX_FORGOTTEN: usize = 256 * 1024;

/// An object on its way to the disk.
pub(super) struct Put {
    pub object: Arc<Object>,
    pub ticket: Ticket,
}

/// When something was handed in: what is forgotten later does not spare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What there is to do.
#[derive(Default)]
pub(super) struct Work {
    /// First of all: everything that is there goes.
    pub forget_everything: bool,
    /// Then these: keys, or variants of them.
    pub forget: FxHashSet<(ObjectKey, Option<u16>)>,
    pub puts: Vec<Put>,
    /// How often something was to be forgotten so far.
    pub orders: u64,
    /// Last of all: the list of this segment is written again. One at a time, since others wait.
    pub list: Option<u32>,
}

/// What waits for the writer.
#[derive(Default)]
pub(super) struct Jobs {
    queue: Mutex<Queue>,
    news: Condvar,
}

#[derive(Default)]
struct Queue {
    work: Work,
    /// Segments whose objects were checked against purges.
    lists: BTreeSet<u32>,
    /// Of the objects that wait.
    bytes: u64,
    tickets: u64,
    /// Keys of what was handed in and can not be found yet.
    unpublished: FxHashMap<ObjectKey, Unpublished>,
    /// What was handed in before is not to be found.
    forgotten_before: u64,
    /// What is there from before is known.
    is_open: bool,
    is_closed: bool,
}

/// Records of one key that cannot be found yet.
#[derive(Default)]
struct Unpublished {
    count: usize,
    /// Those that were handed in before must not be.
    spoilt_before: u64,
}

impl Jobs {
    /// False = there is too much to write already.
    pub fn offer(&self, object: Arc<Object>) -> bool {
        let mut queue = self.lock();
        let bytes = queue.bytes + object.body_bytes;
        let is_too_much = bytes > MAX_WAITING_BYTES && queue.bytes > 0;
        if is_too_much || queue.work.puts.len() >= MAX_WAITING || queue.is_closed {
            return false;
        }
        queue.bytes = bytes;
        let ticket = queue.ticket(object.key);
        queue.work.puts.push(Put { object, ticket });
        self.news.notify_one();
        true
    }

    /// A record of `key` is about to be written once more, at another place.
    pub fn announce(&self, key: ObjectKey) -> Ticket {
        self.lock().ticket(key)
    }

    /// What there is of `key` goes: `remove` takes it out of what is found, and says whether there was anything. No record
    /// becomes findable meanwhile. As long as it is not known what is there from before, it may be that.
    pub fn forget(&self, key: ObjectKey, variant: Option<u16>, remove: impl FnOnce() -> usize) -> usize {
        let mut queue = self.lock();
        let removed = remove();
        let tickets = queue.tickets;
        let waiting = queue.unpublished.get_mut(&key);
        let is_waiting = waiting.is_some();
        if let Some(waiting) = waiting {
            // All variants of them: what is not written is no loss but of time.
            waiting.spoilt_before = tickets;
        }
        let may_be_there = !queue.is_open && !queue.is_closed;
        if removed > 0 || is_waiting || may_be_there {
            queue.work.orders += 1;
            queue.work.forget.insert((key, variant));
            if queue.work.forget.len() > MAX_FORGOTTEN {
                queue.forget_everything();
            }
            self.news.notify_one();
        }
        removed
    }

    /// All that there is goes, likewise.
    pub fn forget_everything(&self, remove: impl FnOnce() -> usize) -> usize {
        let mut queue = self.lock();
        queue.work.orders += 1;
        queue.forget_everything();
        self.news.notify_one();
        remove()
    }

    /// What is there from before is known from now on; `apply` takes out of it what was forgotten meanwhile.
    pub fn open(&self, apply: impl FnOnce(&Work)) {
        let mut queue = self.lock();
        apply(&queue.work);
        queue.is_open = true;
    }

    /// Objects of these segments were checked against purges: their lists are to say so, when there is time for it.
    pub fn refresh_lists(&self, segments: BTreeSet<u32>) {
        self.lock().lists.extend(segments);
        self.news.notify_one();
    }

    /// How often something was to be forgotten so far.
    pub fn orders(&self) -> u64 {
        self.lock().work.orders
    }

    /// It was not forgotten since.
    pub fn is_wanted(&self, key: ObjectKey, ticket: Ticket) -> bool {
        self.lock().is_wanted(key, ticket)
    }

    /// The record with `ticket` is written, or never will be (`None`): `insert` lets it be found, unless it was forgotten
    /// meanwhile. Says whether it did.
    pub fn settle(&self, key: ObjectKey, ticket: Ticket, insert: Option<impl FnOnce()>) -> bool {
        let mut queue = self.lock();
        let is_wanted = queue.is_wanted(key, ticket);
        if let Some(waiting) = queue.unpublished.get_mut(&key) {
            waiting.count -= 1;
            if waiting.count == 0 {
                queue.unpublished.remove(&key);
            }
        }
        let insert = insert.filter(|_| is_wanted);
        let is_found = insert.is_some();
        if let Some(insert) = insert {
            insert();
        }
        is_found
    }

    /// Nothing is taken in any more.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_all();
    }

    /// Waits a little; true = it is closed.
    pub fn wait_for_close(&self, patience: Duration) -> bool {
        let queue = self.lock();
        let waited = self.news.wait_timeout_while(queue, patience, |queue| !queue.is_closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }

    /// What there is to do, once there is something; `None` = nothing any more.
    pub fn take(&self) -> Option<Work> {
        let mut queue = self.lock();
        while queue.work.is_empty() && (queue.lists.is_empty() || queue.is_closed) {
            if queue.is_closed {
                return None;
            }
            queue = self.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.bytes = 0;
        let orders = queue.work.orders;
        let work = std::mem::replace(&mut queue.work, Work { orders, ..Work::default() });
        Some(Work { list: queue.lists.pop_first(), ..work })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn ticket(&mut self, key: ObjectKey) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.unpublished.entry(key).or_default().count += 1;
        ticket
    }

    fn forget_everything(&mut self) {
        self.forgotten_before = self.tickets;
        self.work.forget.clear();
        self.work.forget_everything = true;
    }

    fn is_wanted(&self, key: ObjectKey, ticket: Ticket) -> bool {
        let spoilt_before = self.unpublished.get(&key).map_or(0, |waiting| waiting.spoilt_before);
        ticket.0 >= spoilt_before.max(self.forgotten_before)
    }
}

impl Work {
    fn is_empty(&self) -> bool {
        !self.forget_everything && self.forget.is_empty() && self.puts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ObjectKey = ObjectKey(7);

    fn open() -> Jobs {
        let jobs = Jobs::default();
        jobs.open(|work| assert!(work.is_empty()));
        jobs
    }

    fn forgotten(jobs: &Jobs) -> Vec<(ObjectKey, Option<u16>)> {
        jobs.take().unwrap().forget.into_iter().collect()
    }

    fn settled(jobs: &Jobs, ticket: Ticket) -> bool {
        jobs.settle(KEY, ticket, Some(|| {}))
    }

    #[test]
    fn what_is_forgotten_on_its_way_is_never_found() {
        let jobs = open();
        let (early, other) = (jobs.announce(KEY), jobs.announce(ObjectKey(8)));
        assert_eq!(jobs.forget(KEY, None, || 0), 0);
        let late = jobs.announce(KEY);
        assert_eq!([jobs.is_wanted(KEY, early), jobs.is_wanted(KEY, late)], [false, true]);
        assert!(!settled(&jobs, early) && settled(&jobs, late));
        assert_eq!(forgotten(&jobs), [(KEY, None)], "it may be on the disk");
        assert!(jobs.settle(ObjectKey(8), other, Some(|| {})));

        let before = jobs.announce(KEY);
        assert_eq!(jobs.forget_everything(|| 3), 3);
        let after = jobs.announce(KEY);
        assert!(!settled(&jobs, before) && settled(&jobs, after));
        assert!(jobs.take().unwrap().forget_everything);
    }

    #[test]
    fn only_what_may_be_there_is_forgotten_on_disk() {
        let jobs = open();
        jobs.forget(KEY, None, || 0);
        let ticket = jobs.announce(KEY);
        assert!(!jobs.settle(KEY, ticket, None::<fn()>), "it could not be written");
        jobs.forget(KEY, None, || 0);
        jobs.forget(KEY, Some(3), || 1);
        assert_eq!(forgotten(&jobs), [(KEY, Some(3))]);
        (0..=MAX_FORGOTTEN).for_each(|_| _ = jobs.forget(KEY, None, || 1));
        assert_eq!(forgotten(&jobs), [(KEY, None)], "the same once more is no more");
        (0..=MAX_FORGOTTEN as u128).for_each(|key| _ = jobs.forget(ObjectKey(key), None, || 1));
        let work = jobs.take().unwrap();
        assert!(work.forget_everything && work.forget.is_empty(), "that is too much to remember");
        jobs.close();
        assert!(jobs.take().is_none() && jobs.wait_for_close(Duration::MAX));
    }

    #[test]
    fn lists_keep_nobody_waiting() {
        let jobs = open();
        jobs.refresh_lists([7, 3, 5].into());
        jobs.forget(KEY, None, || 1);
        assert_eq!(jobs.orders(), 1, "nobody waits for a list");
        let work = jobs.take().unwrap();
        assert_eq!((work.forget.len(), work.list), (1, Some(3)));
        assert_eq!(jobs.take().unwrap().list, Some(5));
        jobs.close();
        assert!(jobs.take().is_none(), "what is not said any more is only older than it could be");
    }

    #[test]
    fn before_it_is_known_what_is_there_all_may_be() {
        let jobs = Jobs::default();
        assert_eq!((jobs.forget(KEY, None, || 0), jobs.orders()), (0, 1));
        jobs.open(|work| assert!(work.forget.contains(&(KEY, None))));
        assert_eq!(forgotten(&jobs), [(KEY, None)], "it is written down as well");
        jobs.forget(KEY, None, || 0);
        assert_eq!(jobs.orders(), 1);

        let jobs = Jobs::default();
        (0..=MAX_FORGOTTEN as u128).for_each(|key| _ = jobs.forget(ObjectKey(key), None, || 0));
        jobs.open(|work| assert!(work.forget_everything));

        let jobs = Jobs::default();
        jobs.close();
        jobs.forget(KEY, None, || 0);
        assert_eq!(jobs.orders(), 0, "nobody would do it");
    }
}
