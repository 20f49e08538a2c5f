//! Connections of all workers, and the way of a new one to the worker that has the fewest.
//!
//! The kernel chooses the worker of a connection by a hash. Over many short connections that is even; of few long ones one
//! worker may get twice its share (64 over 4: a quarter more in the median, 1.75 times in the worst of 60 draws; 17 over 4:
//! up to 2.35 times). So a connection moves once, right after it was accepted and before a byte of it was read, and then
//! lives where it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use shoal_policy::balance::better_worker;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};

use super::Listener;
use crate::metrics;
use crate::run::Command;

/// A connection that was accepted elsewhere. Until it is served it counts among those on their way.
pub(crate) struct Arrival {
    pub(crate) listener: Arc<Listener>,
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) seat: Seat,
}

/// How many connections each worker has.
pub(crate) struct Spread {
    workers: Vec<Seats>,
    /// Connections that all workers may have together.
    most: Option<usize>,
}

struct Seats {
    open: AtomicUsize,
    coming: AtomicUsize,
    /// Weak: a worker ends when nobody else commands it any more.
    commands: WeakUnboundedSender<Command>,
}

impl Spread {
    pub(crate) fn over(workers: &[UnboundedSender<Command>], most: Option<usize>) -> Arc<Self> {
        let seats = |commands: &UnboundedSender<Command>| Seats {
            open: AtomicUsize::new(0),
            coming: AtomicUsize::new(0),
            commands: commands.downgrade(),
        };
        Arc::new(Self { workers: workers.iter().map(seats).collect(), most })
    }

    /// Connections of `worker`, those on their way to it included.
    pub(crate) fn open(&self, worker: usize) -> usize {
        self.workers[worker].open.load(SeqCst) + self.coming(worker)
    }

    /// More connections than there may be, the newest included.
    pub(super) fn is_overfull(&self) -> bool {
        self.room().is_some_and(|(open, most)| open > most)
    }

    /// Connections of all workers, and how many they may have; `None` = as many as their listeners.
    pub(crate) fn room(&self) -> Option<(usize, usize)> {
        self.most.map(|most| ((0..self.workers.len()).map(|worker| self.open(worker)).sum(), most))
    }

    /// Connections on their way to `worker`.
    pub(crate) fn coming(&self, worker: usize) -> usize {
        self.workers[worker].coming.load(SeqCst)
    }

    /// Appends the figures as Prometheus text.
    pub(crate) fn render(&self, out: &mut String) {
        metrics::head(out, "shoal_worker_connections", "gauge", "Connections that a worker has open.");
        for worker in 0..self.workers.len() {
            let labels = format!("worker=\"{worker}\"");
            metrics::line(out, "shoal_worker_connections", &labels, self.open(worker) as u64);
        }
    }
}

/// A connection's place among those of its worker, or among those on their way to it.
pub(crate) struct Seat {
    spread: Arc<Spread>,
    worker: usize,
    is_coming: bool,
}

impl Seat {
    /// Of a connection that `worker` serves.
    pub(super) fn take(spread: &Arc<Spread>, worker: usize) -> Self {
        Self::of(spread, worker, false)
    }

    fn of(spread: &Arc<Spread>, worker: usize, is_coming: bool) -> Self {
        let seat = Self { spread: spread.clone(), worker, is_coming };
        // In one order with the word to close: either whoever hands over sees that, or the worker that ends sees this.
        seat.count().fetch_add(1, SeqCst);
        seat
    }

    fn count(&self) -> &AtomicUsize {
        let seats = &self.spread.workers[self.worker];
        if self.is_coming { &seats.coming } else { &seats.open }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.count().fetch_sub(1, SeqCst);
    }
}

/// Hands `stream`, which worker `here` has accepted and counts, to a worker that has clearly fewer. `Some` = it stays.
pub(super) fn hand_over(
    spread: &Arc<Spread>,
    here: usize,
    listener: &Arc<Listener>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<TcpStream> {
    let open = (0..spread.workers.len()).map(|worker| spread.open(worker));
    let Some(there) = better_worker(here, open) else { return Some(stream) };
    let Some(commands) = spread.workers[there].commands.upgrade() else { return Some(stream) };
    let seat = Seat::of(spread, there, true);
    if listener.closing.is_cancelled() {
        return Some(stream);
    }
    let stream = match stream.into_std() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%peer, %error, "a new connection was lost on its way to another worker");
            return None;
        }
    };
    let arrival = Arrival { listener: listener.clone(), stream, peer, seat };
    match commands.send(Command::Adopt(arrival)) {
        Ok(()) => None,
        Err(unsent) => match unsent.0 {
            Command::Adopt(arrival) => TcpStream::from_std(arrival.stream).ok(),
            Command::Open(..) | Command::Retire | Command::Drain(..) => None,
        },
    }
}
