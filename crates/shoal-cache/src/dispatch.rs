//! The workers that take on the fills that peers ask for: a peer's request arrives on the control runtime, origins are
//! asked by workers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use shoal_policy::failure::Failure;
use tokio::sync::mpsc;

use crate::task::FillTask;

/// A fill that a peer asked for, on its way to a worker.
pub struct FillJob(pub(crate) FillTask);

/// The workers that take on the fills that peers ask for.
#[derive(Default)]
pub(crate) struct Dispatch {
    workers: Mutex<Vec<mpsc::Sender<FillJob>>>,
    next: AtomicUsize,
}

impl Dispatch {
    pub(crate) fn add_worker(&self, jobs: mpsc::Sender<FillJob>) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(jobs);
    }

    /// Hands a fill to some worker, in turn; when all of them are full it fails.
    pub(crate) fn hand_on(&self, task: FillTask) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut job = FillJob(task);
        for turn in 0..workers.len() {
            match workers[(start + turn) % workers.len()].try_send(job) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => {
                    job = back
                }
            }
        }
        job.0.fill().fail(Failure::Overflow);
    }
}
