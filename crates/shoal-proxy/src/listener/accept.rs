//! Accepting: it goes on whatever happens, until the listener closes.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use shoal_policy::shedding::MemoryLevel;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

use super::command::Arrival;
use super::serve::Accepted;
use super::spread::Seat;
use super::{WorkerListener, serve, socket};
use crate::metrics::TurnedAway;

/// How long accepting pauses when the process or the system is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a closing socket goes on accepting those whose handshake had begun: most round trips are shorter.
const HANDSHAKES: Duration = Duration::from_millis(300);

/// Accepts until the listener closes, and then those who were already there: closing the socket would reset them.
pub(crate) async fn accept_loop(listener: Rc<WorkerListener>, socket: TcpListener) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = listener.shared.closing.cancelled() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => take_on_or_hand_over(&listener, stream, peer),
            Err(error) => recover(&listener, &error).await,
        }
        if listener.valve.memory() == MemoryLevel::Full {
            // What comes in meanwhile waits in the kernel, where it costs little.
            sleep(PAUSE).await;
        }
    }
    if listener.shared.is_removed() {
        listener.lobby.connections.finish(&listener.shared);
    }
    if !listener.shared.is_handed_over() {
        accept_begun(&listener, &socket).await;
    }
    if let Err(error) = accept_waiting(&listener, socket) {
        tracing::warn!(listener = %listener.shared.bound, %error, "cannot accept those who wait");
    }
    listener.shared.held.closed_by_worker();
}

/// Nobody new gets in; who had begun to does.
async fn accept_begun(listener: &Rc<WorkerListener>, socket: &TcpListener) {
    if let Err(error) = socket::ignore_newcomers(socket) {
        tracing::debug!(listener = %listener.shared.bound, %error, "cannot filter, closing at once");
        return;
    }
    let until = Instant::now() + HANDSHAKES;
    while let Ok(accepted) = timeout_at(until, socket.accept()).await {
        match accepted {
            Ok((stream, peer)) => take_on(listener, stream, peer),
            Err(error) => recover(listener, &error).await,
        }
    }
}

/// Empties the queue and closes the socket. The kernel is asked itself: what it has told the runtime may be old.
fn accept_waiting(listener: &Rc<WorkerListener>, socket: TcpListener) -> io::Result<()> {
    let socket = socket.into_std()?;
    loop {
        match socket.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                take_on(listener, TcpStream::from_std(stream)?, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_harmless(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn take_on(listener: &Rc<WorkerListener>, stream: TcpStream, peer: SocketAddr) {
    if let Some(place) = let_in(listener) {
        serve(listener.clone(), stream, peer, place);
    }
}

/// The same, unless another worker has clearly fewer connections.
fn take_on_or_hand_over(listener: &Rc<WorkerListener>, stream: TcpStream, peer: SocketAddr) {
    let lobby = &listener.lobby;
    lobby.count_arrival();
    let Some(place) = let_in(listener) else { return };
    let may_move = listener.shared.settings.load().view.balance_connections && !lobby.has_short_connections();
    let stays = match may_move {
        true => lobby.hand_over(&listener.shared, stream, peer),
        false => Some(stream),
    };
    match stays {
        Some(stream) => serve(listener.clone(), stream, peer, place),
        None => listener.worker.metrics.handed_over.add(1),
    }
}

/// Takes on what another worker has accepted.
pub(crate) fn adopt(listener: Rc<WorkerListener>, arrival: Arrival) {
    let (place, _) = Place::take(&listener);
    drop(arrival.seat);
    match TcpStream::from_std(arrival.stream) {
        Ok(stream) => serve(listener, stream, arrival.peer, place),
        Err(error) => tracing::warn!(peer = %arrival.peer, %error, "cannot register a connection"),
    }
}

fn let_in(listener: &Rc<WorkerListener>) -> Option<Place> {
    let (place, open) = Place::take(listener);
    match admit(listener, open) {
        Ok(()) => Some(place),
        Err(turned_away) => {
            listener.worker.metrics.turn_away(turned_away);
            None
        }
    }
}

fn serve(listener: Rc<WorkerListener>, stream: TcpStream, peer: SocketAddr, place: Place) {
    // The runtime moves a task about several times before it runs, and once after: a pointer is a small one.
    if let Some(serving) = serve::serve(Accepted { listener, stream, peer, place }) {
        tokio::task::spawn_local(serving);
    }
}

/// Decides whether one more may come in, when `open` are there with it.
fn admit(listener: &WorkerListener, open: usize) -> Result<(), TurnedAway> {
    let settings = listener.shared.settings.load();
    let limits = &settings.view.limits;
    if open > limits.max_connections {
        return Err(TurnedAway::ListenerFull);
    }
    if listener.lobby.spread.is_overfull() {
        return Err(TurnedAway::NodeFull);
    }
    match limits.max_connection_rate {
        Some(rate) if !listener.shared.admission.admits_arrival(listener.worker.clock.now_ms(), rate) => {
            Err(TurnedAway::TooFast)
        }
        _ => Ok(()),
    }
}

/// A connection's place among those of its listener, and of its worker; one that became a tunnel has it, too.
pub(crate) struct Place {
    listener: Rc<WorkerListener>,
    _seat: Seat,
}

impl Place {
    /// Takes one more; answers how many are taken now.
    pub(crate) fn take(listener: &Rc<WorkerListener>) -> (Self, usize) {
        let seat = Seat::take(&listener.lobby.spread, listener.lobby.number);
        (Self { listener: listener.clone(), _seat: seat }, listener.shared.open.enter())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.listener.shared.open.leave();
    }
}

/// A connection that died before it was accepted is nothing; being out of descriptors passes when others end.
async fn recover(listener: &WorkerListener, error: &io::Error) {
    if !is_harmless(error) {
        tracing::warn!(listener = %listener.shared.bound, %error, "cannot accept, pausing");
        sleep(PAUSE).await;
    }
}

fn is_harmless(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
