//! The keys that seal the gossip: one that this node uses, and those that it believes.

use super::{ClusterSecret, Purpose};

/// Most keys that are believed at once.
const MAX_KEYS: usize = 4;

/// They may be replaced while datagrams come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRing {
    /// The one that is used is the first.
    keys: Vec<ClusterSecret>,
}

impl KeyRing {
    /// The one key that follows from the cluster's secret: that of a cluster that has never made another.
    pub fn of_secret(secret: &ClusterSecret) -> Self {
        Self { keys: vec![secret.clone()] }
    }

    /// These, the one that is used first; `None` = there is none, or one is not a key.
    pub fn of_keys<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let keys: Option<Vec<_>> = keys.into_iter().take(MAX_KEYS).map(ClusterSecret::from_bytes).collect();
        keys.filter(|keys| !keys.is_empty()).map(|keys| Self { keys })
    }

    /// All of them, for a node that was just admitted: the one that is used first.
    pub fn expose(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(ClusterSecret::expose)
    }

    /// What a datagram of `sender` may be sealed with, the key that is used first.
    pub(crate) fn derive(&self, sender: u64, generation: u64) -> impl Iterator<Item = [u8; 32]> {
        let context = [sender.to_be_bytes(), generation.to_be_bytes()].concat();
        self.keys.iter().map(move |key| key.derive(Purpose::Gossip, &context))
    }
}
