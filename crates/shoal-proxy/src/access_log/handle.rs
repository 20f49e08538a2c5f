//! What the rest of the node holds of the access log: where lines go in, and what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, Release},
};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_model::ConfigView;

use super::writer;
use crate::metrics;

/// Lines that may wait for the writer; more are dropped and counted.
pub(super) const MAX_WAITING: usize = 8192;

/// A line, and where it goes.
pub(crate) struct LogLine {
    pub(crate) text: String,
    /// `None` = the node's own output.
    pub(crate) path: Option<Arc<Path>>,
}

/// What the writer is told.
pub(super) enum Message {
    Line(LogLine),
    /// [`Shared::changed`], and perhaps no line comes for long.
    Look,
}

/// The access log of a node. Its writer ends with the last of these.
#[derive(Clone)]
pub(crate) struct AccessLog {
    messages: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// What both sides look at.
#[derive(Default)]
pub(super) struct Shared {
    /// Lines that were not written.
    pub(super) lost: AtomicU64,
    /// The site has changed, or [`Shared::reopen`] was set.
    pub(super) changed: AtomicBool,
    /// The files are to be opened anew.
    pub(super) reopen: AtomicBool,
    /// The files that the site names.
    wanted: Mutex<BTreeSet<Arc<Path>>>,
    /// Files that cannot be written to, and why.
    broken: Mutex<BTreeMap<Arc<Path>, String>>,
}

impl Shared {
    pub(super) fn wanted(&self) -> MutexGuard<'_, BTreeSet<Arc<Path>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn broken(&self) -> MutexGuard<'_, BTreeMap<Arc<Path>, String>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessLog {
    /// Starts the writer.
    pub(crate) fn start(out: Box<dyn Write + Send>) -> io::Result<Self> {
        let (messages, waiting) = sync_channel(MAX_WAITING);
        let shared = Arc::<Shared>::default();
        writer::start(out, waiting, shared.clone())?;
        Ok(Self { messages, shared })
    }

    /// Never waits: what the writer cannot keep up with is lost.
    pub(crate) fn write(&self, line: LogLine) {
        if self.messages.try_send(Message::Line(line)).is_err() {
            self.shared.lost.fetch_add(1, Relaxed);
        }
    }

    /// Opens the files that `config` names, so that one that cannot be is known before its first line.
    pub(crate) fn follow(&self, config: &ConfigView) {
        let logs = config.listeners.iter().filter_map(|listener| listener.access_log.as_ref());
        *self.shared.wanted() = logs.filter_map(|log| log.path.clone()).collect();
        self.look();
    }

    /// Opens every file anew, and answers how many there are.
    pub(crate) fn reopen(&self) -> usize {
        self.shared.reopen.store(true, Relaxed);
        self.look();
        self.shared.wanted().len()
    }

    fn look(&self) {
        self.shared.changed.store(true, Release);
        // A writer that has so much to write that it cannot be told looks by itself.
        _ = self.messages.try_send(Message::Look);
    }

    /// Files that cannot be written to, and why.
    pub(crate) fn broken(&self) -> Vec<(Arc<Path>, String)> {
        self.shared.broken().iter().map(|(path, why)| (path.clone(), why.clone())).collect()
    }

    /// Appends what was lost as Prometheus text.
    pub(crate) fn render(&self, out: &mut String) {
        let name = "shoal_access_log_dropped_total";
        let help =
            "Lines of the access log that were not written: their writer was behind, or their file failed.";
        metrics::head(out, name, "counter", help);
        metrics::line(out, name, "", self.shared.lost.load(Relaxed));
    }
}
