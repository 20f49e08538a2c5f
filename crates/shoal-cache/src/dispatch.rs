//! The workers that take on what begins elsewhere: a peer's request arrives on the control runtime, origins are asked by
//! workers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use shoal_policy::failure::Failure;
use tokio::sync::mpsc;

use crate::rest::RestTask;
use crate::task::FillTask;

/// A question to an origin, on its way to a worker ([`crate::WorkerCache::run_job`]). Dropping it ends the fill: whoever
/// waits for that is told.
pub struct FillJob(pub(crate) Job);

/// What there is to do.
pub(crate) enum Job {
    /// A fill that a peer asked for.
    Fill(Box<FillTask>),
    /// The rest of a body that is damaged.
    Rest(Box<RestTask>),
}

/// The workers that take on what begins elsewhere.
#[derive(Default)]
pub(crate) struct Dispatch {
    workers: Mutex<Vec<mpsc::Sender<FillJob>>>,
    next: AtomicUsize,
}

impl Dispatch {
    pub(crate) fn add_worker(&self, jobs: mpsc::Sender<FillJob>) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(jobs);
    }

    /// Hands a job to some worker, in turn; when all of them are full it fails.
    pub(crate) fn hand_on(&self, job: Job) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut job = FillJob(job);
        for turn in 0..workers.len() {
            match workers[(start + turn) % workers.len()].try_send(job) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => {
                    job = back
                }
            }
        }
        match job.0 {
            Job::Fill(task) => task.fill().fail(Failure::Overflow),
            // Whoever waits for it sees that it is gone.
            Job::Rest(_) => {}
        }
    }
}
