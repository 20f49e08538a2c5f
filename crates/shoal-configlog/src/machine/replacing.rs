//! Comparing the state with that of the other nodes, and taking over theirs where it is another.
//!
//! openraft hands over entries in order and takes them for applied; it cannot be told that a state has come from elsewhere. So
//! nothing is applied while the state is fetched, it is that after the newest entry applied here or a later one, and the
//! entries that it holds already are passed over when they come.

use std::fmt;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use shoal_model::state::{ConfigState, Reply};
use tokio::sync::Notify;

use super::{Header, Listener, StateDocument, StateMachine, blocking, lock};
use crate::types::Entry;

/// The state after an entry after which those of all nodes are compared.
#[derive(Debug)]
pub struct Compared {
    /// The entry.
    pub index: u64,
    /// Texts are shared with the state that goes on.
    pub state: ConfigState,
}

/// The state of this node is not that of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// After this entry.
    pub index: u64,
    /// Of so many others, who have the same.
    pub others: usize,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, others } = self;
        write!(
            f,
            "the replicated state of this node is another than that of {others} others after entry {index}: it answers no \
             reads that have to be up to date until it has taken over theirs; if that does not happen, move its data \
             directory away and join again with a new token"
        )
    }
}

/// How far that is.
#[derive(Default)]
pub(super) struct Replacing {
    frozen: Mutex<Option<Compared>>,
    has_frozen: Notify,
    divergence: Mutex<Option<Divergence>>,
    /// Held while an entry is applied, and while the state is replaced.
    turn: tokio::sync::Mutex<()>,
    /// Entries before this one are in the state, whether openraft knows it or not.
    next: AtomicU64,
    /// The first one that openraft has not handed over yet.
    handed_over: AtomicU64,
}

impl Replacing {
    /// Entries have an effect again as they come.
    pub(super) fn is_as_handed_over(&self) {
        self.next.store(0, Ordering::Release);
    }
}

impl StateMachine {
    /// What was frozen last to be compared; waits until there is something.
    pub async fn frozen(&self) -> Compared {
        loop {
            let frozen = lock(&self.shared.replacing.frozen).take();
            match frozen {
                Some(frozen) => return frozen,
                None => self.shared.replacing.has_frozen.notified().await,
            }
        }
    }

    pub(super) fn freeze_for_comparison(&self, index: u64, state: &ConfigState) {
        // What happened before a restart has been compared, or will be.
        if matches!(&*lock(&self.shared.listener), Listener::Restoring(_)) {
            return;
        }
        *lock(&self.shared.replacing.frozen) = Some(Compared { index, state: state.clone() });
        self.shared.replacing.has_frozen.notify_one();
    }

    /// How the state is known to be another than that of the other nodes.
    pub fn divergence(&self) -> Option<Divergence> {
        *lock(&self.shared.replacing.divergence)
    }

    /// It is, or is not any more.
    pub fn set_divergence(&self, divergence: Option<Divergence>) {
        *lock(&self.shared.replacing.divergence) = divergence;
    }

    pub(super) async fn apply_in_turn(&self, entry: Entry) -> io::Result<Reply> {
        let replacing = &self.shared.replacing;
        let _turn = replacing.turn.lock().await;
        let index = entry.log_id.index;
        replacing.handed_over.store(index + 1, Ordering::Release);
        match index < replacing.next.load(Ordering::Acquire) {
            true => Ok(Reply::Done),
            false => self.apply_entry(entry),
        }
    }

    /// The state holds entries that openraft has not handed over yet.
    pub(super) fn is_ahead(&self) -> bool {
        let replacing = &self.shared.replacing;
        replacing.next.load(Ordering::Acquire) > replacing.handed_over.load(Ordering::Acquire)
    }

    /// Puts what `fetch` brings in the place of the state, and answers after which entry it is. `fetch` is told which one is
    /// applied here, and nothing is meanwhile.
    ///
    /// # Errors
    /// Why it was not brought, or cannot be used.
    pub async fn replace<F>(&self, fetch: impl FnOnce(u64) -> F) -> Result<u64, String>
    where
        F: Future<Output = Result<(Header, StateDocument), String>>,
    {
        let replacing = &self.shared.replacing;
        let _turn = replacing.turn.lock().await;
        let applied = *self.shared.applied.borrow();
        let (header, document) = fetch(applied).await?;
        let index = header.meta.last_log_id.map_or(0, |id| id.index);
        if index < applied {
            return Err(format!("it was given the state after entry {index}, and has applied {applied}"));
        }
        let state = blocking(move || document.read().map_err(io::Error::other))
            .await
            .map_err(|error| error.to_string())?;
        replacing.next.store(index + 1, Ordering::Release);
        self.put_in_place(state, &header.meta);
        Ok(index)
    }
}
