//! What was purged when: for each scope the newest sequence number, hard and soft apart.
//!
//! An object is judged against these tables by its own `fill_seq`; the rule itself lives with the other cache decisions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Scopes that are remembered, at most; beyond that everything older is forgotten at once by raising the floor. Where every
/// node checks what it has, they are forgotten long before.
pub const MAX_RECORDS: usize = 2_000_000;

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

impl PurgeScope {
    /// It says nothing of the keys of those that it concerns, and does not concern all.
    pub const fn is_of_many(&self) -> bool {
        match self {
            Self::Host(_) | Self::Prefix(_) | Self::Tag(_) => true,
            Self::All | Self::Url(_) => false,
        }
    }
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

/// Records that are remembered no longer. It takes a while to give their memory back, where there were many.
#[derive(Debug, Default)]
#[must_use = "dropping it takes a while: let go of locks first"]
pub struct Forgotten(PurgeTable, PurgeTable);

impl Forgotten {
    /// How many there are.
    pub fn records(&self) -> usize {
        self.0.len() + self.1.len()
    }
}

impl PurgeTables {
    /// Notes a purge. The log's state does it on apply, and so does every node that keeps tables of its own for hits.
    pub fn record(&mut self, seq: u64, scopes: &[PurgeScope], kind: PurgeKind) -> Forgotten {
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
        let mut forgotten = Forgotten::default();
        if *scopes == [PurgeScope::All] && kind == PurgeKind::Hard {
            forgotten.0 = table.take_records();
        }
        if self.records() > MAX_RECORDS {
            self.floor = seq;
            forgotten = Forgotten(self.hard.take_records(), self.soft.take_records());
        }
        forgotten
    }

    /// These tables without the records of purges up to `up_to`: what was filled before and not checked since has to be
    /// validated then. Like [`Self::record`], that is done with the log's state and with every node's own tables. `None` =
    /// nothing changes.
    pub fn without(&self, up_to: u64) -> Option<Self> {
        (up_to > self.floor).then(|| Self {
            newest: self.newest,
            floor: up_to,
            hard: self.hard.after(up_to),
            soft: self.soft.after(up_to),
        })
    }

    /// How many scopes are remembered.
    pub fn records(&self) -> usize {
        self.hard.len() + self.soft.len()
    }

    /// How many of them are missing in [`Self::without`].
    pub fn records_up_to(&self, up_to: u64) -> usize {
        self.hard.count(up_to) + self.soft.count(up_to)
    }

    /// Newest purge of a host, a prefix or a tag: what is older has to be looked at to know whether it is concerned.
    pub fn newest_of_many(&self) -> u64 {
        self.hard.newest_of_many().max(self.soft.newest_of_many())
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

    fn after(&self, up_to: u64) -> Self {
        Self {
            all: self.all,
            url: after(&self.url, up_to),
            host: after(&self.host, up_to),
            prefix: after(&self.prefix, up_to),
            tag: after(&self.tag, up_to),
        }
    }

    fn count(&self, up_to: u64) -> usize {
        let many = [&self.host, &self.prefix, &self.tag].into_iter().flat_map(BTreeMap::values);
        many.chain(self.url.values()).filter(|seq| **seq <= up_to).count()
    }

    fn newest_of_many(&self) -> u64 {
        let many = [&self.host, &self.prefix, &self.tag].into_iter().flat_map(BTreeMap::values);
        many.copied().max().unwrap_or(0)
    }

    /// Leaves nothing but when everything was purged.
    fn take_records(&mut self) -> Self {
        let all = self.all;
        std::mem::replace(self, Self { all, ..Self::default() })
    }
}

fn after<K: Copy + Ord>(records: &BTreeMap<K, u64>, up_to: u64) -> BTreeMap<K, u64> {
    records.iter().filter(|(_, seq)| **seq > up_to).map(|(key, seq)| (*key, *seq)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_leaves_a_floor() {
        let mut tables = PurgeTables::default();
        let (hard, soft) = (PurgeKind::Hard, PurgeKind::Soft);
        _ = tables.record(3, &[PurgeScope::Url(1), PurgeScope::Host(2), PurgeScope::Tag(3)], hard);
        _ = tables.record(5, &[PurgeScope::Url(1), PurgeScope::Prefix(4)], soft);
        _ = tables.record(7, &[PurgeScope::Url(1), PurgeScope::Tag(9)], hard);
        assert_eq!((tables.records(), tables.newest_of_many()), (6, 7));
        let check = |up_to, floor, left: usize, tables: &mut PurgeTables| {
            let (before, counted) = (tables.records(), tables.records_up_to(up_to));
            if let Some(left) = tables.without(up_to) {
                *tables = left;
            }
            assert_eq!((tables.floor, tables.records()), (floor, left), "up to {up_to}");
            assert_eq!(before - counted, left, "counted up to {up_to}");
        };
        check(2, 2, 6, &mut tables);
        check(3, 3, 4, &mut tables);
        check(6, 6, 2, &mut tables);
        assert_eq!(tables.hard.url.get(&1), Some(&7), "the newest of a scope stays");
        check(5, 6, 2, &mut tables); // a floor never sinks
        check(7, 7, 0, &mut tables);
        assert_eq!((tables.newest, tables.newest_of_many()), (7, 0));
        _ = tables.record(9, &[PurgeScope::All], soft);
        tables = tables.without(9).unwrap();
        assert_eq!(tables.soft.all, 9, "that is one number, and stays");
    }

    #[test]
    fn everything_is_one_record() {
        let mut tables = PurgeTables::default();
        _ = tables.record(3, &[PurgeScope::Url(1), PurgeScope::Tag(3)], PurgeKind::Hard);
        _ = tables.record(4, &[PurgeScope::Url(1)], PurgeKind::Soft);
        let forgotten = tables.record(5, &[PurgeScope::All], PurgeKind::Hard);
        assert_eq!(forgotten.records(), 2);
        assert_eq!((tables.records(), tables.hard.all, tables.floor), (1, 5, 0), "it hides no soft one");
    }

    #[test]
    fn too_many_are_forgotten_at_once() {
        let mut tables = PurgeTables::default();
        tables.soft.tag = (0..MAX_RECORDS as u64).map(|tag| (tag, 1)).collect();
        assert_eq!(tables.record(2, &[PurgeScope::Tag(0)], PurgeKind::Soft).records(), 0);
        let forgotten = tables.record(3, &[PurgeScope::Url(1)], PurgeKind::Hard);
        assert_eq!(forgotten.records(), MAX_RECORDS + 1);
        assert_eq!((tables.records(), tables.floor), (0, 3));
    }
}
