//! Comparing the states of all nodes: after an entry that asks for it, each hashes its own.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde::Serialize;
use shoal_model::state::ConfigState;
use shoal_policy::agreement::StateHash;
use shoal_proto::raft as proto;
use tokio::sync::watch;

use super::status::Leadership;
use super::{ConfigLog, MembershipError};
use crate::levels::known_level;
use crate::machine::{Compared, Hasher, Header, StateDocument};
use crate::network::{Part, collect};

pub use crate::machine::Divergence;

/// For the state to arrive. Nothing is applied here meanwhile.
const FETCH_DEADLINE: Duration = Duration::from_secs(20);

/// What is another in another version may be a state that is written in another way.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A state, and what it cost to look at all of it.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    /// What others may compare.
    pub hash: StateHash,
    /// How long a core was busy.
    pub took: Duration,
}

/// Hashes what is frozen for it, for as long as it is polled.
pub(super) async fn run(log: ConfigLog) {
    loop {
        let Compared { index, state } = log.shared.machine.frozen().await;
        let hashing = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let digest = digest_of(&state)?;
            let [shape, ..] =
                digest_of(&(VERSION, known_level(), ConfigState::default()))?.map(|part| part as u32);
            let hash = StateHash { index, shape, digest: digest[0] };
            Ok::<_, serde_json::Error>(Hashed { hash, took: began.elapsed() })
        });
        match hashing.await {
            Ok(Ok(hashed)) => _ = log.shared.hashed.send_replace(Some(hashed)),
            Ok(Err(error)) => {
                tracing::error!(%error, index, "the state cannot be written, and is not compared")
            }
            Err(error) => tracing::error!(%error, index, "hashing the state has failed"),
        }
    }
}

/// SHA-256 of a document, in four parts.
fn digest_of<T: Serialize>(value: &T) -> Result<[u64; 4], serde_json::Error> {
    let mut hasher = Hasher::new();
    serde_json::to_writer(&mut hasher, value)?;
    let digest = hasher.finish();
    let mut parts = [0; 4];
    for (part, bytes) in parts.iter_mut().zip(digest.as_ref().chunks_exact(8)) {
        *part = u64::from_be_bytes(*bytes.first_chunk().expect("a chunk has 8 bytes"));
    }
    Ok(parts)
}

impl ConfigLog {
    /// The state of this node after the newest entry after which all are compared, once it is known.
    pub fn hashed(&self) -> watch::Receiver<Option<Hashed>> {
        self.shared.hashed.subscribe()
    }

    /// How the state of this node is known to be another than that of the others; it answers no linearizable reads then.
    pub fn divergence(&self) -> Option<Divergence> {
        self.shared.machine.divergence()
    }

    /// The state is not that of the others: reads that have to be up to date are refused, until it is replaced by that of the
    /// leader. Answers after which entry that is.
    ///
    /// # Errors
    /// Why it was not replaced. The reads are refused until a later try succeeds.
    pub async fn take_over_state(&self, divergence: Divergence) -> Result<u64, String> {
        self.shared.machine.set_divergence(Some(divergence));
        // Whoever leads is to have the right one.
        match self.transfer_leader(None).await {
            Ok(()) | Err(MembershipError::NotLeader) => {}
            Err(error) => return Err(error.to_string()),
        }
        let fetching = self.shared.machine.replace(|applied| self.fetch_state(applied));
        let index = match tokio::time::timeout(FETCH_DEADLINE, fetching).await {
            Ok(replaced) => replaced?,
            Err(_) => return Err(format!("the state did not arrive within {FETCH_DEADLINE:?}")),
        };
        self.shared.hashed.send_replace(None);
        self.shared.machine.set_divergence(None);
        // What is on the disk is still the other one.
        self.trigger_snapshot().await;
        Ok(index)
    }

    async fn fetch_state(&self, at_least: u64) -> Result<(Header, StateDocument), String> {
        let Leadership::There(leader) = self.leadership() else {
            return Err("no other node is heard that leads".to_owned());
        };
        let mut client = self.snapshot_peer(leader).map_err(|error| error.to_string())?;
        let leader = self.called(leader);
        let refused =
            |status: tonic::Status| format!("{leader} answered {:?}: {:?}", status.code(), status.message());
        let answer = client.fetch_state(proto::FetchStateRequest { at_least }).await.map_err(refused)?;
        let parts = answer.into_inner().map(|part| part.map(Part::from));
        collect(parts).await.map_err(refused)
    }
}
