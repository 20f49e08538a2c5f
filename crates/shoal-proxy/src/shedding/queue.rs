//! How long a worker's queue lets things wait.
//!
//! The pulse of a worker is served before its other tasks, so it is late by little even when thousands of them wait. A task
//! of its own is put at the end of the queue instead: when it comes to its turn, everything that was ready before it has
//! been served.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A task that waits in the queue like any other, and says for how long it did.
pub(crate) struct QueueProbe {
    /// Since when it waits.
    asked: Cell<Option<Instant>>,
    /// How long it waited last.
    waited: Cell<Duration>,
    turn: Notify,
}

impl QueueProbe {
    /// A probe in the queue of the worker that runs this.
    pub(crate) fn start() -> Rc<Self> {
        let probe =
            Rc::new(Self { asked: Cell::new(None), waited: Cell::new(Duration::ZERO), turn: Notify::new() });
        tokio::task::spawn_local(wait_in_turn(Rc::downgrade(&probe)));
        probe
    }

    /// What is known of the delay by now. What still waits has waited for at least so long; else it waits once more.
    pub(crate) fn look(&self) -> Duration {
        match self.asked.get() {
            Some(since) => since.elapsed(),
            None => {
                self.asked.set(Some(Instant::now()));
                self.turn.notify_one();
                self.waited.get()
            }
        }
    }
}

async fn wait_in_turn(probe: Weak<QueueProbe>) {
    while let Some(probe) = probe.upgrade() {
        probe.turn.notified().await;
        if let Some(since) = probe.asked.take() {
            probe.waited.set(since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    #[tokio::test]
    async fn what_waits_and_what_has_waited_is_seen() {
        LocalSet::new()
            .run_until(async {
                let probe = QueueProbe::start();
                yield_now().await;
                assert_eq!(probe.look(), Duration::ZERO, "nothing is known yet");
                let busy = Duration::from_millis(20);
                std::thread::sleep(busy);
                assert!(probe.look() >= busy, "it has not had its turn");
                while probe.asked.get().is_some() {
                    yield_now().await;
                }
                assert!(probe.look() >= busy, "it had to wait");
            })
            .await;
    }
}
