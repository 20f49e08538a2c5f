//! Purges that requests ask for, on their way from the workers: those of callers, with the method `PURGE`, and those of
//! origins, which have changed something.
//!
//! What an origin has changed is forgotten sooner or later: when it cannot be now, nobody could be told to come again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_model::state::{PurgeKind, PurgeScope};
use shoal_proxy::{AskedPurge, PurgeAnswer, PurgeAsker};
use tokio::sync::{Semaphore, mpsc};

use crate::node::Node;
use crate::purge_reply::reply;
use crate::purging::PurgeOrder;

/// Purges that wait to be carried out; those of callers beyond are refused where they come in.
pub const MAX_WAITING: usize = 1024;
/// Purges that are carried out at once.
const MAX_RUNNING: usize = 256;
/// How long a request waits until no node serves the URL: longer than any lease.
const WAIT: Duration = Duration::from_secs(10);
/// Scopes that are still to be forgotten; beyond that, it is everything.
const MAX_OWED: usize = 1000;
/// Between two tries to forget them.
const PAUSE: Duration = Duration::from_secs(1);

/// Carries them out, for as long as it is polled.
pub async fn serve(node: Arc<Node>, purges: mpsc::Receiver<AskedPurge>) {
    let owed = Arc::new(Owed::default());
    tokio::join!(take_on(&node, purges, &owed), forget_what_is_owed(&node, &owed));
}

async fn take_on(node: &Arc<Node>, mut purges: mpsc::Receiver<AskedPurge>, owed: &Arc<Owed>) {
    let places = Arc::new(Semaphore::new(MAX_RUNNING));
    while let Some(purge) = purges.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let (node, owed) = (node.clone(), owed.clone());
        tokio::spawn(async move {
            let AskedPurge { scopes, asker, kind, wait_complete, answer } = purge;
            let wait = wait_complete.then_some(WAIT);
            let changed = if asker == PurgeAsker::Origin { scopes.clone() } else { Vec::new() };
            let order = PurgeOrder { scopes, kind, asker, request_id: String::new(), wait };
            let purged = node.purge(order).await;
            if let Err(error) = &purged
                && !changed.is_empty()
            {
                tracing::warn!(%error, "what an origin has changed is not forgotten yet");
                owed.add(changed);
            }
            let (status, json) = reply(&purged, wait_complete);
            // Whoever asked may have gone away.
            _ = answer.send(PurgeAnswer { status, json });
            drop(place);
        });
    }
    // The workers end before the node does.
    std::future::pending().await
}

async fn forget_what_is_owed(node: &Arc<Node>, owed: &Owed) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let scopes = owed.take();
        if scopes.is_empty() {
            continue;
        }
        let (kind, asker) = (PurgeKind::Hard, PurgeAsker::Origin);
        let order = PurgeOrder { scopes: scopes.clone(), kind, asker, request_id: String::new(), wait: None };
        match node.purge(order).await {
            Ok(purged) => tracing::info!(seq = purged.seq, "what origins have changed is forgotten now"),
            Err(_) => owed.add(scopes),
        }
    }
}

/// What origins have changed and could not be forgotten.
#[derive(Debug, Default)]
struct Owed(Mutex<BTreeSet<PurgeScope>>);

impl Owed {
    fn add(&self, scopes: Vec<PurgeScope>) {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owed.extend(scopes);
        if owed.len() > MAX_OWED {
            *owed = BTreeSet::from([PurgeScope::All]);
        }
    }

    fn take(&self) -> Vec<PurgeScope> {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *owed).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_everything() {
        let owed = Owed::default();
        owed.add(vec![PurgeScope::Tag(2), PurgeScope::Tag(1)]);
        owed.add(vec![PurgeScope::Tag(2)]);
        assert_eq!(owed.take(), [PurgeScope::Tag(1), PurgeScope::Tag(2)]);
        assert_eq!(owed.take(), []);
        owed.add((0..MAX_OWED as u64).map(PurgeScope::Tag).collect());
        owed.add(vec![PurgeScope::Tag(7)]);
        assert_eq!(owed.take().len(), MAX_OWED);
        owed.add((0..=MAX_OWED as u64).map(PurgeScope::Tag).collect());
        assert_eq!(owed.take(), [PurgeScope::All]);
    }
}
