//! The sockets of one listener, beside the workers that accept on them.

use std::io;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use crate::metrics::Gauge;

/// How many sockets the workers hold, and a duplicate of each for a process that takes over: a connection that waits in the
/// queue of a socket is lost only when the last descriptor of it is closed.
pub(crate) struct HeldSockets {
    by_workers: Gauge,
    duplicates: Mutex<Vec<TcpListener>>,
}

impl HeldSockets {
    /// Before `sockets` are given to the workers.
    pub(super) fn of(sockets: &[TcpListener]) -> io::Result<Self> {
        let duplicates = sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
        let by_workers = Gauge::default();
        for _ in sockets {
            by_workers.enter();
        }
        Ok(Self { by_workers, duplicates: Mutex::new(duplicates) })
    }

    /// A worker has closed its socket.
    pub(crate) fn closed_by_worker(&self) {
        self.by_workers.leave();
    }

    /// The port may still be taken, by nobody else but this process.
    pub(super) fn may_be_bound(&self) -> bool {
        self.by_workers.read() > 0
    }

    /// Keeps no duplicates any more: who connects after the workers have closed theirs is refused instead of left waiting.
    pub(super) fn release(&self) {
        self.duplicates.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The sockets once more, for another process.
    pub(crate) fn duplicate(&self) -> io::Result<Vec<TcpListener>> {
        self.duplicates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(TcpListener::try_clone)
            .collect()
    }
}
