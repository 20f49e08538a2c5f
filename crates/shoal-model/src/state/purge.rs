//! What was purged when: for each scope the newest sequence number, hard and soft apart.
//!
//! An object is judged against these tables by its own `fill_seq`; the rule itself lives with the other cache decisions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Scopes that are remembered, at most; beyond that everything older is forgotten at once by raising the floor.
const MAX_RECORDS: usize = 2_000_000;

/// Forget, or only treat as stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PurgeKind {
    /// Objects are gone.
    Hard,
    /// Objects are stale: validated before use, or served stale where that is allowed.
    Soft,
}

/// Which objects. Names are hashed by the proposer with the same functions that key objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PurgeScope {
    /// All of them.
    All,
    /// One URL: its object key.
    Url(u128),
    /// Everything of a host.
    Host(u64),
    /// Everything below a path of a host, by whole segments.
    Prefix(u64),
    /// Everything that carries a tag.
    Tag(u64),
}

/// Newest sequence number per scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeTables {
    /// Sequence number of the newest purge.
    pub newest: u64,
    /// What was filled before and not checked since has to be validated: records below were dropped.
    pub floor: u64,
    /// Purges that forget.
    pub hard: PurgeTable,
    /// Purges that make stale.
    pub soft: PurgeTable,
}

/// The tables of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeTable {
    /// Newest purge of everything.
    pub all: u64,
    /// By object key.
    #[serde(with = "pairs")]
    pub url: BTreeMap<u128, u64>,
    /// By host hash.
    #[serde(with = "pairs")]
    pub host: BTreeMap<u64, u64>,
    /// By prefix hash.
    #[serde(with = "pairs")]
    pub prefix: BTreeMap<u64, u64>,
    /// By tag hash.
    #[serde(with = "pairs")]
    pub tag: BTreeMap<u64, u64>,
}

impl PurgeTables {
    /// Notes a purge. The log's state does it on apply, and so does every node that keeps tables of its own for hits.
    pub fn record(&mut self, seq: u64, scopes: &[PurgeScope], kind: PurgeKind) {
        self.newest = seq;
        let table = match kind {
            PurgeKind::Hard => &mut self.hard,
            PurgeKind::Soft => &mut self.soft,
        };
        for scope in scopes {
            match scope {
                PurgeScope::All => table.all = seq,
                PurgeScope::Url(key) => _ = table.url.insert(*key, seq),
                PurgeScope::Host(hash) => _ = table.host.insert(*hash, seq),
                PurgeScope::Prefix(hash) => _ = table.prefix.insert(*hash, seq),
                PurgeScope::Tag(hash) => _ = table.tag.insert(*hash, seq),
            }
        }
        if *scopes == [PurgeScope::All] && kind == PurgeKind::Hard {
            table.forget_older();
        }
        if self.hard.len() + self.soft.len() > MAX_RECORDS {
            self.floor = seq;
            self.hard.forget_older();
            self.soft.forget_older();
        }
    }
}

impl PurgeTable {
    /// How many scopes are remembered.
    pub fn len(&self) -> usize {
        self.url.len() + self.host.len() + self.prefix.len() + self.tag.len()
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn forget_older(&mut self) {
        self.url.clear();
        self.host.clear();
        self.prefix.clear();
        self.tag.clear();
    }
}

/// Maps as lists of pairs, since the keys are numbers.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer, K: Serialize, V: Serialize>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.iter())
    }

    pub fn deserialize<'de, D: Deserializer<'de>, K: Deserialize<'de> + Ord, V: Deserialize<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}
