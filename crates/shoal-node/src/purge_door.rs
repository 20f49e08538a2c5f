//! Purges that requests ask for, on their way from the workers: those of callers, with the method `PURGE`, and those of
//! origins, which have changed something.
//!
//! What an origin has changed is forgotten sooner or later, for as long as this process lives: when it cannot be now, nobody
//! could be told to come again. Whatever has changed within a moment goes into one purge.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use shoal_model::state::PurgeKind;
use shoal_proxy::{AskedPurge, PurgeAnswer, PurgeAsker};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::node::Node;
use crate::purge_owed::{Batch, Owed};
use crate::purge_reply::{reply, trouble};
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
    let ledger = Arc::new(Ledger::default());
    tokio::join!(take_on(&node, purges, &ledger), forget_what_is_owed(&node, &ledger));
}

async fn take_on(node: &Arc<Node>, mut purges: mpsc::Receiver<AskedPurge>, ledger: &Ledger) {
    let places = Arc::new(Semaphore::new(MAX_RUNNING));
    let started = Instant::now();
    while let Some(purge) = purges.recv().await {
        match purge.asker {
            PurgeAsker::Origin { host } => {
                let now_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                ledger.lock().add(host, purge.scopes, purge.answer, now_us);
                ledger.grows.notify_one();
            }
            PurgeAsker::Caller => match places.clone().try_acquire_owned() {
                Ok(place) => _ = tokio::spawn(carry_out(node.clone(), purge, place)),
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
    let AskedPurge { scopes, asker: _, kind, wait_complete, answer } = purge;
    let wait = wait_complete.then_some(WAIT);
    let order = PurgeOrder { scopes, kind, is_limited: true, request_id: String::new(), wait };
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
    let batch = ledger.lock().take()?;
    Some((place, batch))
}

/// Has every node forget `batch`, or owes it again.
async fn forget(node: Arc<Node>, ledger: Arc<Ledger>, batch: Changed, place: OwnedSemaphorePermit) {
    let (scopes, kind) = (batch.scopes(), PurgeKind::Hard);
    let order = PurgeOrder { scopes, kind, is_limited: false, request_id: String::new(), wait: Some(WAIT) };
    let purged = node.purge(order).await;
    let waiting = match &purged {
        Ok(_) => batch.into_waiting(),
        Err(error) => {
            tracing::warn!(%error, "what an origin has changed is not forgotten yet");
            ledger.lock().put_back(batch)
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
#[derive(Debug, Default)]
struct Ledger {
    owed: Mutex<Owed<oneshot::Sender<PurgeAnswer>>>,
    grows: Notify,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Owed<oneshot::Sender<PurgeAnswer>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
