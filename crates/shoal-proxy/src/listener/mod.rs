//! Sockets that downstreams connect to: opened, kept or drained by comparing what is with what shall be.

mod accept;
mod admission;
mod arrivals;
mod certificates;
mod coalesced;
mod command;
mod connection;
mod downstream_certificate;
mod h2_state;
mod held;
mod http1;
mod http2;
mod io;
mod last_words;
mod lobby;
mod opening;
mod portions;
mod preface;
mod proxy_protocol;
mod reading;
mod serve;
mod socket;
mod spread;
mod state;
mod stream;
mod tickets;
mod tls;
mod unheard;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use http::HeaderValue;
use shoal_model::ConfigView;
use shoal_model::site::Protocol;
use shoal_model::view::{ListenAddress, ListenerView};
use shoal_policy::gate::Gate;
use tokio_util::sync::CancellationToken;

pub(crate) use accept::{Place, accept_loop, adopt};
pub(crate) use admission::{AddressPlace, counted_as};
pub(crate) use certificates::Certificates;
pub(crate) use command::{AfterDrain, Command};
pub(crate) use connection::{Connection, WorkerListener};
pub(crate) use http1::Channel;
pub(crate) use lobby::{Lobby, Neighbours};
pub(crate) use socket::set_nodelay;
pub(crate) use spread::Spread;
pub(crate) use state::{ConnectionState, Order};
pub use tickets::TicketSeed;

use admission::Admission;
use held::HeldSockets;

use crate::metrics::Gauge;

/// A listener could not be opened or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("listener {listener:?}: {message}")]
pub struct BindError {
    /// Its name in the site.
    pub listener: String,
    /// What was tried, and why it failed.
    pub message: String,
}

/// What becomes of the listening sockets when a node drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Nobody accepts on them any more.
    Closed,
    /// Another process accepts on them already.
    HandedOver,
}

/// Who keeps sockets open that were bound before this process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// The processes of the node alone.
    #[default]
    Node,
    /// A service manager: who connects while nobody accepts waits for the next process.
    Manager,
}

/// A socket that is open, on every worker. Its settings may change while its connections go on.
pub(crate) struct Listener {
    /// As configured: what tells one listener from another.
    pub(crate) address: ListenAddress,
    /// As bound.
    pub(crate) bound: SocketAddr,
    pub(crate) settings: ArcSwap<ListenerSettings>,
    /// No more connections.
    pub(crate) closing: CancellationToken,
    /// It closes because the node goes: its connections may ask until the drain is over.
    pub(crate) draining: AtomicBool,
    /// Another process has the same sockets: who waits there is its affair.
    handed_over: AtomicBool,
    /// Connections of all workers.
    pub(crate) open: Gauge,
    pub(crate) held: HeldSockets,
    /// Who of them came when and from where, as far as that is limited.
    pub(crate) admission: Arc<Admission>,
}

impl Listener {
    /// Accepts no more, because the node goes.
    pub(crate) fn drain(&self, ports: Ports) {
        self.draining.store(true, Ordering::Relaxed);
        if ports == Ports::HandedOver {
            self.handed_over.store(true, Ordering::Relaxed);
        }
        self.close();
    }

    /// Accepts no more.
    pub(crate) fn close(&self) {
        // First: what waits on a socket is reset only when its last duplicate is closed, and that must be the worker's.
        self.held.release();
        self.closing.cancel();
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed)
    }

    /// It accepts no more, but not every worker has noticed yet.
    pub(crate) fn is_leaving(&self) -> bool {
        self.closing.is_cancelled() && self.held.may_be_bound()
    }

    /// The site has it no more: its connections shall end.
    pub(crate) fn is_removed(&self) -> bool {
        self.closing.is_cancelled() && !self.draining.load(Ordering::Relaxed)
    }
}

/// What new connections of a listener are served by.
pub(crate) struct ListenerSettings {
    pub(crate) view: Arc<ListenerView>,
    pub(crate) gate: Gate,
    /// `None` = clear text.
    pub(crate) tls: Option<Tls>,
}

pub(crate) struct Tls {
    pub(crate) config: Arc<rustls::ServerConfig>,
    pub(crate) certificates: Arc<Certificates>,
}

impl ListenerSettings {
    fn new(
        view: &Arc<ListenerView>,
        config: &ConfigView,
        bound: SocketAddr,
        seed: TicketSeed,
        before: Option<&Self>,
    ) -> Result<Self, BindError> {
        let refused = |message| BindError { listener: view.name.to_string(), message };
        let https = view.protocol == Protocol::Https;
        let before = before.and_then(|before| before.tls.as_ref());
        let tls = if https { Some(tls::build(view, config, seed, before).map_err(refused)?) } else { None };
        let default_authority = HeaderValue::try_from(bound.to_string())
            .map_err(|error| refused(format!("{bound} is no authority: {error}")))?;
        let gate = Gate {
            https,
            max_uri_bytes: view.limits.max_uri_bytes,
            max_field_count: view.limits.max_header_count,
            default_authority,
        };
        Ok(Self { view: view.clone(), gate, tls })
    }
}

/// How the listeners shall change; nothing has happened to those that are open yet.
pub(crate) struct ListenerPlan {
    /// New listeners, each with a socket per worker.
    pub(crate) open: Vec<(Arc<Listener>, Vec<std::net::TcpListener>)>,
    /// Listeners that stay, with their new settings.
    pub(crate) keep: Vec<(Arc<Listener>, ListenerSettings)>,
    /// Listeners that are gone.
    pub(crate) close: Vec<Arc<Listener>>,
}

/// What is known of sockets when the listeners are to change.
#[derive(Default)]
pub(crate) struct Listeners {
    /// Those that accept.
    pub(crate) open: Vec<Arc<Listener>>,
    /// Those that have just been closed: their ports are ours for a moment still.
    pub(crate) leaving: Vec<Arc<Listener>>,
    /// Those that a node at rest has closed, as long as they have connections.
    pub(crate) ending: Vec<Arc<Listener>>,
    /// Nothing is accepted on until it is over.
    pub(crate) is_resting: bool,
    /// Bound by the process whose place this one takes, until a listener wants them.
    pub(crate) inherited: Vec<std::net::TcpListener>,
    /// Who else has those.
    pub(crate) owner: Owner,
}

/// Compares what is open with what `config` wants, and binds what is new. On any error every socket bound here is closed
/// again. With no `workers` it is only found out whether it could be bound: nobody can connect to it.
pub(crate) fn plan(
    listeners: &Listeners,
    config: &ConfigView,
    listen_ip: IpAddr,
    workers: usize,
    seed: TicketSeed,
) -> Result<ListenerPlan, Vec<BindError>> {
    let is_wanted =
        |listener: &&Arc<Listener>| config.listeners.iter().any(|view| view.address == listener.address);
    let (kept, closed): (Vec<_>, Vec<_>) = listeners.open.iter().partition(is_wanted);
    let mut plan =
        ListenerPlan { open: Vec::new(), keep: Vec::new(), close: closed.into_iter().cloned().collect() };
    let mut errors = Vec::new();
    for view in &config.listeners {
        if listeners.is_resting {
            // Whether it could be bound nobody can tell by then.
            let address = view.address.on(listen_ip);
            errors.extend(ListenerSettings::new(view, config, address, seed, None).err());
            continue;
        }
        let result = match kept.iter().find(|listener| listener.address == view.address) {
            Some(listener) => {
                let before = listener.settings.load();
                ListenerSettings::new(view, config, listener.bound, seed, Some(&before))
                    .map(|settings| plan.keep.push(((*listener).clone(), settings)))
            }
            None => {
                // A port that we are about to give up ourselves, or have just given up, is no conflict.
                let port = view.address.on(listen_ip).port();
                let mut closing = plan.close.iter().chain(&listeners.leaving);
                let ours = closing.any(|listener| listener.bound.port() == port);
                let sockets =
                    Sockets { inherited: &listeners.inherited, owner: listeners.owner, ours, count: workers };
                open_listener(view, config, sockets, listen_ip, seed).map(|opened| plan.open.push(opened))
            }
        };
        errors.extend(result.err());
    }
    if errors.is_empty() { Ok(plan) } else { Err(errors) }
}

/// Where the sockets of a new listener come from.
struct Sockets<'a> {
    inherited: &'a [std::net::TcpListener],
    owner: Owner,
    ours: bool,
    count: usize,
}

impl Sockets<'_> {
    /// At least `count` sockets on `address`, inherited ones first, each of which may have connections waiting; and whether
    /// somebody else keeps them open.
    fn on(&self, address: SocketAddr) -> std::io::Result<(Vec<std::net::TcpListener>, bool)> {
        let is_there =
            |socket: &&std::net::TcpListener| socket.local_addr().is_ok_and(|bound| bound == address);
        let inherited = self.inherited.iter().filter(is_there).map(std::net::TcpListener::try_clone);
        let mut sockets = inherited.collect::<std::io::Result<Vec<_>>>()?;
        let of_manager = !sockets.is_empty() && self.owner == Owner::Manager;
        let missing = self.count.saturating_sub(sockets.len());
        if of_manager {
            // One that was bound elsewhere shares its port with nobody, so workers share it.
            for place in 0..missing {
                sockets.push(sockets[place].try_clone()?);
            }
        } else if self.count == 0 && sockets.is_empty() && !self.ours {
            socket::probe(address)?;
        } else if missing > 0 {
            sockets.extend(socket::bind(address, missing, self.ours || !sockets.is_empty())?);
        }
        Ok((sockets, of_manager))
    }
}

fn open_listener(
    view: &Arc<ListenerView>,
    config: &ConfigView,
    sockets: Sockets<'_>,
    listen_ip: IpAddr,
    seed: TicketSeed,
) -> Result<(Arc<Listener>, Vec<std::net::TcpListener>), BindError> {
    let address = view.address.on(listen_ip);
    let refused = |error| BindError {
        listener: view.name.to_string(),
        message: format!("cannot listen on {address}: {error}"),
    };
    let (sockets, of_manager) = sockets.on(address).map_err(refused)?;
    let bound = sockets.first().map_or(Ok(address), std::net::TcpListener::local_addr).map_err(refused)?;
    let listener = Listener {
        address: view.address,
        bound,
        settings: ArcSwap::from_pointee(ListenerSettings::new(view, config, bound, seed, None)?),
        closing: CancellationToken::new(),
        draining: AtomicBool::new(false),
        handed_over: AtomicBool::new(of_manager),
        open: Gauge::default(),
        held: HeldSockets::of(&sockets).map_err(refused)?,
        admission: Arc::default(),
    };
    Ok((Arc::new(listener), sockets))
}
