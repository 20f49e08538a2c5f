//! Connections to an endpoint that wait for their next request: the last one in is the first one out.

use std::cell::{Cell, RefCell};

use http::StatusCode;
use http::request::Parts as RequestHead;
use shoal_model::view::UpstreamView;
use shoal_policy::age::is_over_age;
use shoal_policy::forwarding::OwnFields;

use super::http1::{Connection, ExchangeError, Interim};
use super::occupied::Occupied;
use crate::request_body::RequestBody;

/// A connection to an endpoint, and its history. Dropping it closes it, whatever it is doing.
pub(super) struct Link {
    pub(super) connection: Connection,
    born_ms: u64,
    idle_since_ms: u64,
    /// Requests it has served.
    pub(super) served: u64,
    pub(super) occupied: Occupied,
}

impl Link {
    pub(super) fn new(connection: Connection, now_ms: u64, occupied: Occupied) -> Self {
        Self { connection, born_ms: now_ms, idle_since_ms: now_ms, served: 0, occupied }
    }

    /// Sends a request, with fields of this node, and waits for the head of the answer. `interim`: see [`Connection::exchange`].
    pub(super) fn exchange(
        &mut self,
        head: &RequestHead,
        own: Option<&OwnFields>,
        body: &mut RequestBody,
        interim: Interim<'_>,
    ) -> impl Future<Output = Result<StatusCode, ExchangeError>> {
        self.served += 1;
        self.connection.exchange(head, own, body, interim)
    }

    /// It may serve one more. What was opened in the name of one caller serves no other.
    fn is_fit(&self, now_ms: u64, view: &UpstreamView) -> bool {
        view.proxy_protocol.is_none()
            && self.served < view.max_requests_per_connection
            && !is_over_age(self.born_ms, now_ms, view.max_connection_age)
            && self.connection.is_quiet()
    }
}

/// The idle connections of one endpoint on one worker, in the order they came back.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "a link stays where it is while it is lent")]
pub(super) struct Idle {
    links: RefCell<Vec<Box<Link>>>,
    /// How many were not needed at any moment since the last review.
    spare: Cell<usize>,
    /// None is kept: the endpoint gets no more requests.
    closed: Cell<bool>,
}

impl Idle {
    /// The connection that came back last and may still be used.
    pub(super) fn take(&self, now_ms: u64, view: &UpstreamView) -> Option<Box<Link>> {
        let mut links = self.links.borrow_mut();
        let mut taken = None;
        while let Some(link) = links.pop() {
            if link.is_fit(now_ms, view) {
                taken = Some(link);
                break;
            }
        }
        self.spare.set(self.spare.get().min(links.len()));
        taken
    }

    /// Takes a connection back whose answer has ended, unless it is spent.
    pub(super) fn put(&self, mut link: Box<Link>, now_ms: u64, view: &UpstreamView) {
        if link.connection.settle() && link.is_fit(now_ms, view) && !self.closed.get() {
            link.idle_since_ms = now_ms;
            self.links.borrow_mut().push(link);
        }
    }

    /// Says whether connections are kept; else those that wait are closed now, and others as soon as they come back.
    pub(super) fn set_closed(&self, closed: bool) {
        self.closed.set(closed);
        if closed {
            self.links.borrow_mut().clear();
        }
    }

    /// Closes the one that has waited for longest; `false` = there is none.
    pub(super) fn close_oldest(&self) -> bool {
        let mut idle = self.links.borrow_mut();
        if idle.is_empty() {
            return false;
        }
        drop(idle.remove(0));
        true
    }

    /// Closes those that waited for too long or were closed by the endpoint; beyond `max` also those that were spare all
    /// the time since the last review. What comes and goes in bursts is kept: opening it anew each time is dearer.
    pub(super) fn review(&self, now_ms: u64, view: &UpstreamView, max: usize) {
        let timeout_ms = view.idle_timeout.as_millis();
        let mut links = self.links.borrow_mut();
        links.retain(|link| {
            let idle_ms = u128::from(now_ms.saturating_sub(link.idle_since_ms));
            idle_ms < timeout_ms && link.is_fit(now_ms, view)
        });
        let surplus = links.len().saturating_sub(max).min(self.spare.get());
        links.drain(..surplus);
        self.spare.set(links.len());
    }
}
