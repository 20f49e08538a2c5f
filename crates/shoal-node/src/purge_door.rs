//! Purges that requests ask for, on their way from the workers: those of callers, with the method `PURGE`, and those of
//! origins, which have changed something.
//!
//! What an origin has changed is forgotten sooner or later: when it cannot be now, nobody could be told to come again. If
//! this process ends before, however it does, the next one sees to it. That an answer is given while something is owed is
//! known to the next one by then; a process that dies sooner gives none, as if the request had been lost. Whatever has changed within a moment goes into one purge.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use shoal_configlog::on_behalf_of;
use shoal_model::state::PurgeKind;
use shoal_proxy::{AskedPurge, PurgeAnswer, PurgeAsker};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::asking::Who;
use crate::node::Node;
use crate::purge_debts::{Debtor, Debts};
use crate::purge_owed::{Batch, Owed};
use crate::purge_reply::{reply, trouble};
use crate::purge_trail::PurgeTrail;
use crate::purging::PurgeOrder;

/// Purges on their way here; those of callers beyond are refused where they come in.
pub const MAX_WAITING: usize = 1024;
/// Purges of callers that are carried out at once; those beyond are refused.
const MAX_RUNNING: usize = 1024;
/// Purges for origins that are carried out at once; meanwhile what else has changed is gathered.
const MAX_BATCHES: usize = 256;
/// How long a request waits until no node serves the URL: longer than any lease.
const WAIT: Duration = Duration::from_secs(10);
/// Between two purges for origins.
const GATHER: Duration = Duration::from_millis(10);
/// Until what could not be forgotten is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Carries them out, for as long as it is polled.
pub async fn serve(node: Arc<Node>, purges: mpsc::Receiver<AskedPurge>) {
    let ledger = Arc::new(Ledger::resume(&node.settings.data_dir));
    tokio::join!(take_on(&node, purges, &ledger), forget_what_is_owed(&node, &ledger));
}

async fn take_on(node: &Arc<Node>, mut purges: mpsc::Receiver<AskedPurge>, ledger: &Ledger) {
    let places = Arc::new(Semaphore::new(MAX_RUNNING));
    let started = Instant::now();
    while let Some(purge) = purges.recv().await {
        match purge.asker {
            PurgeAsker::Origin { host } => {
                let now_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                ledger.lock().add(host, purge, now_us);
                ledger.grows.notify_one();
            }
            PurgeAsker::Caller { address, .. } => match places.clone().try_acquire_owned() {
                Ok(place) => {
                    let who = Who { from: address.to_string(), ..Who::default() };
                    let carrying = carry_out(node.clone(), purge, place);
                    tokio::spawn(on_behalf_of(node.asker(who, "PURGE"), carrying));
                }
                Err(_) => {
                    let json = trouble("too many purges are under way on this node");
                    tell(purge.answer, StatusCode::SERVICE_UNAVAILABLE, json);
                }
            },
        }
    }
    // The workers end before the node does.
    std::future::pending().await
}

async fn carry_out(node: Arc<Node>, purge: AskedPurge, place: OwnedSemaphorePermit) {
    let AskedPurge { scopes, asker, kind, wait_complete, answer } = purge;
    let wait = wait_complete.then_some(WAIT);
    let trail = PurgeTrail::from(&asker);
    let order = PurgeOrder { scopes, kind, is_limited: true, request_id: String::new(), wait, trail };
    let (status, json) = reply(&node.purge(order).await, wait_complete);
    tell(answer, status, json);
    drop(place);
}

async fn forget_what_is_owed(node: &Arc<Node>, ledger: &Arc<Ledger>) {
    let places = Arc::new(Semaphore::new(MAX_BATCHES));
    loop {
        ledger.grows.notified().await;
        while let Some((place, batch)) = next_batch(&places, ledger).await {
            tokio::spawn(forget(node.clone(), ledger.clone(), batch, place));
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn next_batch(places: &Arc<Semaphore>, ledger: &Ledger) -> Option<(OwnedSemaphorePermit, Changed)> {
    let place = places.clone().acquire_owned().await.ok()?;
    Some((place, ledger.lock().take()?))
}

/// Has every node forget `batch`, or owes it again.
async fn forget(node: Arc<Node>, ledger: Arc<Ledger>, batch: Changed, place: OwnedSemaphorePermit) {
    let (scopes, kind) = (batch.scopes(), PurgeKind::Hard);
    let order = PurgeOrder {
        scopes,
        kind,
        is_limited: false,
        request_id: String::new(),
        wait: Some(WAIT),
        trail: PurgeTrail::default(),
    };
    let purged = node.purge(order).await;
    let waiting = match &purged {
        Ok(_) => ledger.lock().settle(batch),
        Err(error) => {
            let mut books = ledger.lock();
            // Once, until there is nothing left of it.
            if books.debts.noted().is_empty() {
                tracing::warn!(%error, "what an origin has changed is not forgotten yet");
            }
            books.put_back(batch)
        }
    };
    let (status, json) = reply(&purged, true);
    waiting.into_iter().for_each(|answer| tell(answer, status, json.clone()));
    if purged.is_err() {
        tokio::time::sleep(PAUSE).await;
        ledger.grows.notify_one();
    }
    drop(place);
}

/// Whoever asked may have gone away.
fn tell(answer: oneshot::Sender<PurgeAnswer>, status: StatusCode, json: String) {
    _ = answer.send(PurgeAnswer { status, json });
}

type Changed = Batch<oneshot::Sender<PurgeAnswer>>;

/// What origins have changed and is not forgotten.
#[derive(Debug)]
struct Ledger {
    books: Mutex<Books>,
    grows: Notify,
}

#[derive(Debug)]
struct Books {
    owed: Owed<oneshot::Sender<PurgeAnswer>>,
    /// Batches on their way into the log.
    under_way: usize,
    debts: Debts,
}

impl Ledger {
    /// With what the process before this one owed.
    fn resume(data_dir: &Path) -> Self {
        let (mut owed, debts) = (Owed::default(), Debts::in_dir(data_dir));
        debts.noted().iter().for_each(|debtor| owed.owe(*debtor));
        if !debts.noted().is_empty() {
            let hosts = debts.noted().len();
            tracing::warn!(
                hosts,
                "origins have changed what was not forgotten when the last process ended: their hosts are purged"
            );
        }
        let grows = Notify::new();
        grows.notify_one();
        Self { books: Mutex::new(Books { owed, under_way: 0, debts }), grows }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn add(&mut self, host: u64, purge: AskedPurge, now_us: u64) {
        if !self.debts.noted().is_empty() {
            // There is trouble: this will wait as well.
            self.debts.note([Debtor::Host(host)]);
        }
        self.owed.add(host, purge.scopes, purge.answer, now_us);
    }

    fn take(&mut self) -> Option<Changed> {
        let batch = self.owed.take()?;
        self.under_way += 1;
        Some(batch)
    }

    /// `batch` is in the log. Answers who waits for it.
    fn settle(&mut self, batch: Changed) -> Vec<oneshot::Sender<PurgeAnswer>> {
        self.under_way -= 1;
        if self.under_way == 0 && self.owed.debtors().next().is_none() {
            self.debts.settle();
        }
        batch.into_waiting()
    }

    /// `batch` is not. Answers who waits for it: they are told that it is owed, and so is whatever waits behind it.
    fn put_back(&mut self, batch: Changed) -> Vec<oneshot::Sender<PurgeAnswer>> {
        self.under_way -= 1;
        let waiting = self.owed.put_back(batch);
        self.debts.note(self.owed.debtors());
        waiting
    }
}
