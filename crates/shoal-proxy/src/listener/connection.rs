//! One downstream connection, as its requests see it, and the listener that it came to.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use shoal_model::view::ListenerView;
use shoal_model::{ConfigView, Revision};
use shoal_policy::forwarding::Caller;
use shoal_policy::gate::Admitted;
use shoal_policy::tcp::proxy_header::Ends;
use tokio::sync::oneshot;

use super::downstream_certificate::{self, DownstreamCertificate};
use super::http1::Channel;
use super::{AddressPlace, ConnectionState, Listener, ListenerSettings, Lobby};
use crate::hints::Hints;
use crate::metrics::Traffic;
use crate::shedding::Valve;
use crate::sources::Sources;
use crate::worker::Worker;

/// A listener as one worker has it.
pub(crate) struct WorkerListener {
    pub(crate) shared: Arc<Listener>,
    pub(crate) worker: Rc<Worker>,
    pub(crate) sources: Rc<Sources>,
    pub(crate) lobby: Rc<Lobby>,
    pub(crate) traffic: Arc<Traffic>,
    /// What is refused of its requests.
    pub(crate) valve: Valve,
}

/// One downstream connection, as its requests see it.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) listener: Rc<WorkerListener>,
    pub(crate) settings: Arc<ListenerSettings>,
    pub(crate) state: Rc<ConnectionState>,
    pub(crate) caller: Caller,
    /// Only known where some upstream wants to be told.
    pub(crate) ends: Option<Ends>,
    /// Who waits for the connection to become a tunnel.
    pub(crate) tunnel: Cell<Option<oneshot::Sender<Channel>>>,
    pub(super) _place: Option<AddressPlace>,
    /// Place of the certificate that was shown.
    pub(super) certificate: Option<usize>,
    /// What the downstream has proved to be.
    pub(crate) downstream_certificate: Option<Box<DownstreamCertificate>>,
    /// Place of the listener in the ConfigView of that revision.
    pub(super) place: Cell<Option<(Revision, usize)>>,
    /// Bytes of a response that are handed on at a time to the stream that is polled.
    pub(crate) portion: Cell<usize>,
    /// A response on HTTP/2 has had the id of its request.
    pub(crate) has_named_request_id: Cell<bool>,
    /// What is to be told of the request that is worked on in this turn.
    pub(crate) hints: Hints,
}

impl Connection {
    /// The listener's place in `config`. One that is gone from there has none that any route names: what is still under
    /// way on it goes by the routes of all listeners.
    pub(crate) fn listener_place(&self, config: &ConfigView) -> usize {
        if let Some((revision, place)) = self.place.get()
            && revision == config.revision
        {
            return place;
        }
        let is_ours = |view: &Arc<_>| Arc::ptr_eq(view, &self.settings.view);
        let same_address = |view: &Arc<ListenerView>| view.address == self.listener.shared.address;
        let place = config.listeners.iter().position(is_ours);
        let place = place.or_else(|| config.listeners.iter().position(same_address)).unwrap_or(usize::MAX);
        self.place.set(Some((config.revision, place)));
        place
    }

    /// A request for this host would be answered with another certificate, so it does not belong here (RFC 9110 §7.4).
    pub(crate) fn is_misdirected(&self, admitted: &Admitted) -> bool {
        let (Some(tls), Some(shown)) = (&self.settings.tls, self.certificate) else { return false };
        self.state.is_h2() && tls.certificates.find(Some(admitted.host())) != shown
    }
}

impl Connection {
    /// Sees to it that nobody is believed about a certificate but this node, or a trusted caller where this node asks for
    /// none. `claimed`: the downstream says something about one.
    pub(crate) fn vouch_for_downstream(&self, headers: &mut HeaderMap, claimed: bool) {
        if claimed && (self.settings.view.client_auth.is_some() || !self.caller.trusted) {
            downstream_certificate::forget(headers);
        }
        if let Some(shown) = &self.downstream_certificate {
            shown.introduce(headers);
        }
    }

    /// Whether the next request has a line in the access log.
    pub(crate) fn logs_request(&self) -> bool {
        match &self.settings.view.access_log {
            None => self.worker.logs_access(),
            Some(log) => log.sample.includes(self.worker.entropy()),
        }
    }
}
