//! Connections to an endpoint that wait for their next request: the last one in is the first one out.

use std::cell::RefCell;

use hyper::client::conn::http1::SendRequest;
use shoal_model::view::UpstreamView;
use tokio::task::AbortHandle;

use super::endpoint::Occupied;
use super::interim::Awaited;
use crate::body::RequestBody;

/// A connection to an endpoint. Dropping it closes it, whatever it is doing: a connection whose answer came before its
/// request was sent to the end would otherwise never end.
pub(super) struct Link {
    pub(super) sender: SendRequest<RequestBody>,
    /// `None` = its task looks after itself.
    task: Option<AbortHandle>,
    born_ms: u64,
    idle_since_ms: u64,
    /// Requests it has served.
    pub(super) served: u64,
    awaited: Awaited,
    occupied: Option<Occupied>,
}

impl Link {
    pub(super) fn new(
        sender: SendRequest<RequestBody>,
        task: AbortHandle,
        now_ms: u64,
        awaited: Awaited,
        occupied: Occupied,
    ) -> Self {
        Self {
            sender,
            task: Some(task),
            born_ms: now_ms,
            idle_since_ms: now_ms,
            served: 0,
            awaited,
            occupied: Some(occupied),
        }
    }

    /// A request is about to be sent.
    pub(super) fn begin(&mut self) {
        self.served += 1;
        self.awaited.set();
    }

    /// Lets its task run on without it: the connection has become a tunnel. It is open until the answer is dropped.
    pub(super) fn detach(&mut self) -> Option<Occupied> {
        self.task = None;
        self.occupied.take()
    }

    /// It may serve one more. What was opened in the name of one caller serves no other.
    fn is_fit(&self, now_ms: u64, view: &UpstreamView) -> bool {
        !self.sender.is_closed()
            && view.proxy_protocol.is_none()
            && self.served < view.max_requests_per_connection
            && u128::from(now_ms.saturating_sub(self.born_ms)) < view.max_connection_age.as_millis()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// The idle connections of one endpoint on one worker, in the order they came back.
#[derive(Default)]
pub(super) struct Idle(RefCell<Vec<Link>>);

impl Idle {
    /// The connection that came back last and may still be used.
    pub(super) fn take(&self, now_ms: u64, view: &UpstreamView) -> Option<Link> {
        let mut idle = self.0.borrow_mut();
        while let Some(connection) = idle.pop() {
            if connection.sender.is_ready() && connection.is_fit(now_ms, view) {
                return Some(connection);
            }
        }
        None
    }

    /// Takes a connection back, unless it is spent or there are `max` already.
    pub(super) fn put(&self, mut connection: Link, now_ms: u64, view: &UpstreamView, max: usize) {
        let mut idle = self.0.borrow_mut();
        if connection.is_fit(now_ms, view) && idle.len() < max {
            connection.idle_since_ms = now_ms;
            idle.push(connection);
        }
    }

    /// Closes those that waited for too long or were closed by the endpoint.
    pub(super) fn close_stale(&self, now_ms: u64, view: &UpstreamView) {
        let timeout_ms = view.idle_timeout.as_millis();
        self.0.borrow_mut().retain(|connection| {
            let idle_ms = u128::from(now_ms.saturating_sub(connection.idle_since_ms));
            idle_ms < timeout_ms && connection.is_fit(now_ms, view)
        });
    }
}
