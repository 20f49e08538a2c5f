//! The log's file in the simulation: what was written is readable at once, and there after a crash if it was flushed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::storage::{LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use rand::RngExt;
use tokio::sync::{mpsc, oneshot};

use super::seeded::dice;
use crate::types::{Entry, IoFlushed, LogId, TypeConfig, Vote};

/// What a node keeps while it does not run.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    durable: Pages,
    /// Who writes now: what an earlier process has on its way never arrives.
    process: u64,
    /// The next flush fails, as all do after it until the node is started again.
    is_failing: bool,
    /// What a flush takes longer than usual.
    is_slow: bool,
}

/// The log as somebody sees it.
#[derive(Clone, Debug, Default)]
struct Pages {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

/// One thing that is on its way to the disk.
enum Order {
    Append(Vec<Entry>, IoFlushed),
    Change(Change, oneshot::Sender<io::Result<()>>),
    Committed(Option<LogId>),
}

#[derive(Clone, Copy)]
enum Change {
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
}

impl Disk {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log as the last process left it, for a new one.
    pub fn open(&self) -> Store {
        let (pages, process) = {
            let mut shared = self.shared();
            shared.process += 1;
            shared.is_failing = false;
            (shared.durable.clone(), shared.process)
        };
        let (orders, queue) = mpsc::unbounded_channel();
        tokio::spawn(write(self.clone(), process, queue));
        Store { pages: Arc::new(Mutex::new(pages)), orders }
    }

    /// The process that has it open is gone.
    pub fn crash(&self) {
        self.shared().process += 1;
    }

    /// Writes fail from now on, until it is opened again.
    pub fn fail(&self) {
        self.shared().is_failing = true;
    }

    /// Whether they do.
    pub fn is_failing(&self) -> bool {
        self.shared().is_failing
    }

    /// Flushes take long from now on, or no longer.
    pub fn set_slow(&self, is_slow: bool) {
        self.shared().is_slow = is_slow;
    }
}

/// The thread that writes: in order, and each thing is told of once it is flushed.
async fn write(disk: Disk, process: u64, mut queue: mpsc::UnboundedReceiver<Order>) {
    let mut dice = dice();
    while let Some(order) = queue.recv().await {
        let is_slow = disk.shared().is_slow;
        let millis = if is_slow { dice.random_range(50..600) } else { dice.random_range(0..4) };
        tokio::time::sleep(Duration::from_millis(millis)).await;
        let mut shared = disk.shared();
        if shared.process != process {
            return;
        }
        let result = match shared.is_failing {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        };
        let pages = &mut shared.durable;
        match order {
            Order::Append(entries, flushed) => {
                if result.is_ok() {
                    pages.append(entries);
                }
                drop(shared);
                flushed.io_completed(result);
            }
            Order::Change(change, done) => {
                if result.is_ok() {
                    pages.change(&change);
                }
                drop(shared);
                done.send(result).ok();
            }
            Order::Committed(committed) if result.is_ok() => pages.committed = committed,
            Order::Committed(_) => {}
        }
    }
}

impl Pages {
    fn append(&mut self, entries: Vec<Entry>) {
        self.entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Truncate(after) => {
                drop(self.entries.split_off(&after.map_or(0, |id| id.index + 1)));
            }
            Change::Purge(up_to) => {
                self.entries = self.entries.split_off(&(up_to.index + 1));
                self.purged = self.purged.max(Some(*up_to));
            }
        }
    }
}

/// The log of a running node.
#[derive(Clone)]
pub struct Store {
    pages: Arc<Mutex<Pages>>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Store {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).map_err(|_| io::Error::other("the process is gone"))
    }

    async fn change(&self, change: Change) -> io::Result<()> {
        let (done, flushed) = oneshot::channel();
        self.order(Order::Change(change, done))?;
        flushed.await.map_err(|_| io::Error::other("the process is gone"))??;
        self.pages().change(&change);
        Ok(())
    }
}

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let pages = self.pages();
        let wanted = pages.entries.iter().filter(|(index, _)| range.contains(index));
        Ok(wanted.map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.pages().vote)
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let pages = self.pages();
        let last = pages.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState { last_purged_log_id: pages.purged, last_log_id: last.or(pages.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.change(Change::Vote(*vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.pages().committed = committed;
        self.order(Order::Committed(committed))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.pages().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.pages().append(entries.clone());
        self.order(Order::Append(entries, flushed))
    }

    async fn truncate_after(&mut self, after: Option<LogId>) -> io::Result<()> {
        self.change(Change::Truncate(after)).await
    }

    async fn purge(&mut self, up_to: LogId) -> io::Result<()> {
        self.change(Change::Purge(up_to)).await
    }
}
