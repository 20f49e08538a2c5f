//! What the listeners of one worker share: who is here, who comes, and who had better go to another worker.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc::WeakUnboundedSender;

use super::Listener;
use super::command::{Arrival, Command};
use super::spread::{Seat, Spread};
use crate::connections::Connections;

/// The way to all workers, in the order of their numbers. Weak: a worker ends when nobody else commands it any more.
pub(crate) type Neighbours = Arc<[WeakUnboundedSender<Command>]>;

/// What the listeners of one worker share.
pub(crate) struct Lobby {
    /// Of the worker, counted from 0.
    pub(super) number: usize,
    pub(crate) spread: Arc<Spread>,
    neighbours: Neighbours,
    pub(crate) connections: Rc<Connections>,
    /// Connections accepted in this tick, and in the one before.
    arrivals: Cell<(usize, usize)>,
}

impl Lobby {
    pub(crate) fn new(number: usize, spread: Arc<Spread>, neighbours: Neighbours) -> Rc<Self> {
        Rc::new(Self { number, spread, neighbours, connections: Rc::default(), arrivals: Cell::default() })
    }

    /// How many are here, or still on their way from another worker.
    pub(crate) fn occupants(&self) -> usize {
        self.connections.len() + self.spread.coming(self.number)
    }

    /// A connection was accepted here.
    pub(super) fn count_arrival(&self) {
        let (now, before) = self.arrivals.get();
        self.arrivals.set((now + 1, before));
    }

    /// More connections came in the last tick than there are: they live so shortly that the kernel spreads them well.
    pub(super) fn has_short_connections(&self) -> bool {
        self.arrivals.get().1 > self.spread.open(self.number)
    }

    /// Hands `stream`, which this worker has accepted and counts, to one that has clearly fewer. `Some` = it stays.
    pub(super) fn hand_over(
        &self,
        listener: &Arc<Listener>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<TcpStream> {
        let Some(there) = self.spread.better_than(self.number) else { return Some(stream) };
        let Some(commands) = self.neighbours[there].upgrade() else { return Some(stream) };
        let seat = Seat::reserve(&self.spread, there);
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
                Command::Open(..) | Command::Retire | Command::Drain(..) | Command::Resume => None,
            },
        }
    }

    /// A tick is over.
    pub(crate) fn turn(&self) {
        let (now, _) = self.arrivals.get();
        self.arrivals.set((0, now));
    }
}
