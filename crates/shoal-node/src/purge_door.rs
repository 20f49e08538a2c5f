//! Purges that requests with the method `PURGE` ask for, on their way from the workers.

use std::sync::Arc;
use std::time::Duration;

use shoal_proxy::{PurgeAnswer, UrlPurge};
use tokio::sync::{Semaphore, mpsc};

use crate::node::Node;
use crate::purge_reply::reply;
use crate::purging::PurgeOrder;

/// Purges that wait to be carried out; those beyond are refused where they come in.
pub const MAX_WAITING: usize = 1024;
/// Purges that are carried out at once.
const MAX_RUNNING: usize = 256;
/// How long a request waits until no node serves the URL: longer than any lease.
const WAIT: Duration = Duration::from_secs(10);

/// Carries them out, for as long as it is polled.
pub async fn serve(node: Arc<Node>, mut purges: mpsc::Receiver<UrlPurge>) {
    let places = Arc::new(Semaphore::new(MAX_RUNNING));
    while let Some(purge) = purges.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let node = node.clone();
        tokio::spawn(async move {
            let UrlPurge { scope, kind, wait_complete, answer } = purge;
            let order = PurgeOrder {
                scopes: vec![scope],
                kind,
                request_id: String::new(),
                wait: wait_complete.then_some(WAIT),
            };
            let (status, json) = reply(&node.purge(order).await, wait_complete);
            // Whoever asked may have gone away.
            _ = answer.send(PurgeAnswer { status, json });
            drop(place);
        });
    }
    // The workers end before the node does.
    std::future::pending().await
}
