//! Sockets that downstreams connect to: opened, kept or drained by comparing what is with what shall be.

mod accept;
mod connection;
mod io;
mod preface;
mod socket;
mod state;
mod tls;

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

pub(crate) use accept::{Place, accept_loop};
pub(crate) use connection::{Connection, WorkerListener};
pub(crate) use state::{ConnectionState, Order};
pub(crate) use tls::Certificates;

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
    /// Connections of all workers.
    pub(crate) open: Gauge,
}

impl Listener {
    /// Accepts no more, because the node goes.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.closing.cancel();
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
    /// `before` = what the listener had until now, if it was there.
    fn new(
        view: &Arc<ListenerView>,
        config: &ConfigView,
        bound: SocketAddr,
        before: Option<&Self>,
    ) -> Result<Self, BindError> {
        let refused = |message| BindError { listener: view.name.to_string(), message };
        let https = view.protocol == Protocol::Https;
        let before = before.and_then(|before| before.tls.as_ref());
        let tls = if https { Some(tls::build(view, config, before).map_err(refused)?) } else { None };
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

/// Compares `open` with what `config` wants, and binds what is new. On any error every socket bound here is closed again.
pub(crate) fn plan(
    open: &[Arc<Listener>],
    config: &ConfigView,
    listen_ip: IpAddr,
    workers: usize,
) -> Result<ListenerPlan, Vec<BindError>> {
    let is_wanted =
        |listener: &&Arc<Listener>| config.listeners.iter().any(|view| view.address == listener.address);
    let (kept, closed): (Vec<_>, Vec<_>) = open.iter().partition(is_wanted);
    let mut plan =
        ListenerPlan { open: Vec::new(), keep: Vec::new(), close: closed.into_iter().cloned().collect() };
    let mut errors = Vec::new();
    for view in &config.listeners {
        let result = match kept.iter().find(|listener| listener.address == view.address) {
            Some(listener) => {
                ListenerSettings::new(view, config, listener.bound, Some(&listener.settings.load()))
                    .map(|settings| plan.keep.push(((*listener).clone(), settings)))
            }
            None => open_listener(view, config, &plan.close, listen_ip, workers)
                .map(|opened| plan.open.push(opened)),
        };
        errors.extend(result.err());
    }
    if errors.is_empty() { Ok(plan) } else { Err(errors) }
}

fn open_listener(
    view: &Arc<ListenerView>,
    config: &ConfigView,
    closing: &[Arc<Listener>],
    listen_ip: IpAddr,
    workers: usize,
) -> Result<(Arc<Listener>, Vec<std::net::TcpListener>), BindError> {
    let address = view.address.on(listen_ip);
    // A port that we are about to give up ourselves is no conflict.
    let ours = closing.iter().any(|listener| listener.bound.port() == address.port());
    let refused = |error| BindError {
        listener: view.name.to_string(),
        message: format!("cannot listen on {address}: {error}"),
    };
    let sockets = socket::bind(address, workers, ours).map_err(refused)?;
    let bound = sockets.first().map_or(Ok(address), std::net::TcpListener::local_addr).map_err(refused)?;
    let listener = Listener {
        address: view.address,
        bound,
        settings: ArcSwap::from_pointee(ListenerSettings::new(view, config, bound, None)?),
        closing: CancellationToken::new(),
        draining: AtomicBool::new(false),
        open: Gauge::default(),
    };
    Ok((Arc::new(listener), sockets))
}
