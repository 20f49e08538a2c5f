//! Waiting for an endpoint that may take one more request.

use std::cell::Cell;
use std::rc::Rc;

use shoal_policy::balance::Pick;
use shoal_policy::failure::Failure;
use tokio::sync::Notify;

use super::Upstream;
use super::endpoint::Pending;
use super::send::unless_overdue;
use crate::deadline::Deadline;
use crate::worker::Worker;

/// Those who wait for an endpoint of an upstream, on one worker. Who came first goes first.
#[derive(Default)]
pub(super) struct Queue {
    freed: Notify,
    waiting: Cell<usize>,
}

impl Queue {
    /// A request has ended: there is room for another one.
    pub(super) fn advance(&self) {
        self.freed.notify_one();
    }
}

/// One that waits, until dropped.
struct Waiting(Rc<Queue>);

impl Waiting {
    fn begin(queue: &Rc<Queue>) -> Self {
        queue.waiting.set(queue.waiting.get() + 1);
        Self(queue.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Upstream {
    /// Chooses an endpoint; where all that could be used have as many requests as they may have, waits for one.
    pub(super) async fn place(
        &self,
        worker: &Worker,
        hash: u64,
        total: Option<&Deadline>,
    ) -> Result<Pick, Failure> {
        if self.view.max_requests.is_none() || self.queue.waiting.get() == 0 {
            match self.pick(worker, hash, 0) {
                Some(picked) => return Ok(picked),
                None if !self.has_full() => return Err(Failure::NoEndpoint),
                None => {}
            }
        }
        self.wait(worker, hash, total).await
    }

    async fn wait(&self, worker: &Worker, hash: u64, total: Option<&Deadline>) -> Result<Pick, Failure> {
        let _pending = Pending::begin(self, worker)?;
        let _waiting = Waiting::begin(&self.queue);
        let patience = worker.deadlines.arm(self.view.queue_timeout);
        loop {
            let freed = unless_overdue(total, self.queue.freed.notified());
            if unless_overdue(Some(&patience), freed).await.flatten().is_none() {
                self.traffic.overflows.add(1);
                return Err(Failure::Overflow);
            }
            if let Some(picked) = self.pick(worker, hash, 0) {
                return Ok(picked);
            }
        }
    }

    fn has_full(&self) -> bool {
        self.slots.borrow().iter().any(|slot| slot.full && slot.weight > 0)
    }
}
