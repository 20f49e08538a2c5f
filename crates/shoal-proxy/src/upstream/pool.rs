//! Connections to an endpoint that wait for their next request: the last one in is the first one out.

use std::cell::{Cell, RefCell};

use hyper::client::conn::http1::SendRequest;
use shoal_model::view::UpstreamView;
use shoal_policy::age::is_over_age;
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
            && !is_over_age(self.born_ms, now_ms, view.max_connection_age)
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
pub(super) struct Idle {
    links: RefCell<Vec<Link>>,
    /// How many were not needed at any moment since the last review.
    spare: Cell<usize>,
}

impl Idle {
    /// The connection that came back last and may still be used.
    pub(super) fn take(&self, now_ms: u64, view: &UpstreamView) -> Option<Link> {
        let mut links = self.links.borrow_mut();
        let mut taken = None;
        while let Some(link) = links.pop() {
            if link.sender.is_ready() && link.is_fit(now_ms, view) {
                taken = Some(link);
                break;
            }
        }
        self.spare.set(self.spare.get().min(links.len()));
        taken
    }

    /// Takes a connection back, unless it is spent.
    pub(super) fn put(&self, mut link: Link, now_ms: u64, view: &UpstreamView) {
        if link.is_fit(now_ms, view) {
            link.idle_since_ms = now_ms;
            self.links.borrow_mut().push(link);
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
