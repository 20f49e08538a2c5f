//! What the log tells the rest of the node when entries take effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_model::state::{ConfigState, Keys, MemberRecord, PurgeKind, PurgeScope, Revisions};
use shoal_model::{NodeId, Revision};

/// Something took effect. Told in the order of the log, before whoever proposed it gets its answer.
#[derive(Debug)]
pub enum Applied<'a> {
    /// The site has a new revision, or the newest one is for all nodes now.
    Revision {
        /// Its number.
        revision: Revision,
        /// Index of the entry.
        index: u64,
        /// Its content, as published.
        site: Arc<str>,
        /// All there are.
        revisions: &'a Revisions,
    },
    /// Objects were purged.
    Purge {
        /// Index of its entry: the purge's sequence number.
        seq: u64,
        /// Which.
        scopes: &'a [PurgeScope],
        /// How.
        kind: PurgeKind,
    },
    /// Purges are remembered no longer one by one.
    PurgesForgotten {
        /// Up to this one.
        up_to: u64,
        /// Index of the entry.
        index: u64,
    },
    /// Nodes were admitted, changed or removed.
    Members {
        /// All there are now.
        nodes: &'a BTreeMap<NodeId, MemberRecord>,
        /// Who is to be cut off at once.
        revoked: &'a BTreeSet<NodeId>,
        /// Index of the entry.
        index: u64,
    },
    /// The cluster's own keys and certificates are kept otherwise.
    Keys {
        /// All that was agreed on.
        keys: &'a Keys,
    },
    /// The whole state was replaced: at start, or because this node had fallen behind the log.
    Snapshot {
        /// All of it.
        state: &'a ConfigState,
        /// Index of the last entry in it; 0 = none.
        index: u64,
    },
}

/// Called on the log's own task: must be quick and must not block or call back into the log.
pub type OnApplied = Arc<dyn Fn(Applied<'_>) + Send + Sync>;
