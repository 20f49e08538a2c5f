//! The one thread that writes the log: orders in, one transaction and one fsync per batch of them.
//!
//! A failed write is final: what an fsync that failed has left on the disk is unknown, so nothing is written after it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use redb::{Database, Durability, WriteTransaction};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Shared;
use super::tables::{COMMITTED, ENTRIES, PURGED, RECORDS, VOTE, encode};
use crate::trouble::io_error;
use crate::types::{IoFlushed, LogId, Vote};

/// Orders that share a transaction, at most.
const MAX_BATCH: usize = 64;
/// How long a commit index waits for a write it can travel with before it is written on its own. Losing it costs nothing
/// but the last entries' effect on a node that restarts without its peers.
const COMMITTED_DELAY: Duration = Duration::from_millis(200);

/// Something to be written, and its place in the queue.
pub struct Order {
    pub task: Task,
    pub _place: OwnedSemaphorePermit,
}

/// What is to be written, and who is told when it is on disk.
pub enum Task {
    Append {
        entries: Vec<(u64, Vec<u8>)>,
        flushed: IoFlushed,
    },
    Vote {
        vote: Vote,
        done: Done,
    },
    Truncate {
        after: Option<LogId>,
        done: Done,
    },
    Purge {
        up_to: LogId,
        done: Done,
    },
    /// Written along with the next durable write, or after a moment of silence.
    Committed(Option<LogId>),
}

type Done = oneshot::Sender<io::Result<()>>;

impl Task {
    /// Whether it has to outlive a power cut before it counts as done.
    fn is_durable(&self) -> bool {
        match self {
            Self::Append { .. } | Self::Vote { .. } => true,
            Self::Truncate { .. } | Self::Purge { .. } | Self::Committed(_) => false,
        }
    }
}

/// The thread's whole life: ends when nobody can order anything any more.
pub fn run(shared: &Arc<Shared>, orders: &Receiver<Order>) {
    let mut writer = Writer { shared, unwritten_commit: None, broken: None };
    loop {
        let first = match writer.unwritten_commit {
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => orders.recv_timeout(COMMITTED_DELAY),
        };
        match first {
            Ok(first) => {
                let mut batch = vec![first];
                batch.extend(orders.try_iter().take(MAX_BATCH - 1));
                writer.carry_out(batch);
            }
            Err(RecvTimeoutError::Timeout) => writer.carry_out(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => {
                if writer.unwritten_commit.is_some() {
                    writer.carry_out(Vec::new());
                }
                return;
            }
        }
    }
}

struct Writer<'a> {
    shared: &'a Arc<Shared>,
    unwritten_commit: Option<Option<LogId>>,
    /// Why nothing is written any more.
    broken: Option<String>,
}

impl Writer<'_> {
    /// Writes a batch and tells everyone. An empty batch writes the commit index alone.
    fn carry_out(&mut self, batch: Vec<Order>) {
        let durable = batch.is_empty() || batch.iter().any(|order| order.task.is_durable());
        for order in &batch {
            if let Task::Committed(committed) = &order.task {
                self.unwritten_commit = Some(*committed);
            }
        }
        let written = match &self.broken {
            Some(broken) => Err(io::Error::other(broken.clone())),
            None => self.write(&batch, durable),
        };
        if durable {
            self.unwritten_commit = None;
        }
        if let Err(error) = &written
            && self.broken.is_none()
        {
            self.shared.trouble.note(error);
            self.broken = Some(format!("the log is broken since an earlier write: {error}"));
        }
        self.announce(batch, &written);
    }

    fn write(&self, batch: &[Order], durable: bool) -> io::Result<()> {
        if !durable && batch.iter().all(|order| matches!(order.task, Task::Committed(_))) {
            return Ok(());
        }
        let mut transaction = begin(&self.shared.database, durable)?;
        for order in batch {
            write_task(&mut transaction, &order.task)?;
        }
        if durable && let Some(committed) = &self.unwritten_commit {
            let mut records = transaction.open_table(RECORDS).map_err(io_error)?;
            records.insert(COMMITTED, encode(committed)?.as_slice()).map_err(io_error)?;
        }
        transaction.commit().map_err(io_error)
    }

    fn announce(&self, batch: Vec<Order>, written: &io::Result<()>) {
        let result = || match written {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        for order in batch {
            match order.task {
                Task::Append { entries, flushed } => {
                    if written.is_ok()
                        && let Some((index, _)) = entries.last()
                    {
                        self.shared.tail().note_written(*index);
                    }
                    flushed.io_completed(result());
                }
                // Whoever asked may be gone; the write has happened all the same.
                Task::Vote { done, .. } | Task::Truncate { done, .. } | Task::Purge { done, .. } => {
                    done.send(result()).ok();
                }
                Task::Committed(_) => {}
            }
        }
    }
}

fn begin(database: &Database, durable: bool) -> io::Result<WriteTransaction> {
    let mut transaction = database.begin_write().map_err(io_error)?;
    let durability = if durable { Durability::Immediate } else { Durability::None };
    transaction.set_durability(durability).map_err(io_error)?;
    Ok(transaction)
}

fn write_task(transaction: &mut WriteTransaction, task: &Task) -> io::Result<()> {
    match task {
        Task::Append { entries, .. } => {
            let mut table = transaction.open_table(ENTRIES).map_err(io_error)?;
            for (index, bytes) in entries {
                table.insert(index, bytes.as_slice()).map_err(io_error)?;
            }
        }
        Task::Vote { vote, .. } => {
            let mut records = transaction.open_table(RECORDS).map_err(io_error)?;
            records.insert(VOTE, encode(vote)?.as_slice()).map_err(io_error)?;
        }
        Task::Truncate { after, .. } => {
            let first_gone = after.map_or(0, |id| id.index + 1);
            let mut table = transaction.open_table(ENTRIES).map_err(io_error)?;
            table.retain_in(first_gone.., |_, _| false).map_err(io_error)?;
        }
        Task::Purge { up_to, .. } => {
            {
                let mut table = transaction.open_table(ENTRIES).map_err(io_error)?;
                table.retain_in(..=up_to.index, |_, _| false).map_err(io_error)?;
            }
            let mut records = transaction.open_table(RECORDS).map_err(io_error)?;
            records.insert(PURGED, encode(up_to)?.as_slice()).map_err(io_error)?;
        }
        Task::Committed(_) => {}
    }
    Ok(())
}
