//! The site's history: who changed it when, and the content of as many revisions as fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Refusal, Reply};
use crate::id::Revision;

/// Revisions whose record is kept.
const MAX_RECORDS: usize = 1_000;
/// Bytes of site documents that are kept; the newest [`MIN_CONTENTS`] stay whatever they weigh.
const MAX_CONTENT_BYTES: usize = 64 << 20;
/// Revisions that can always be rolled back to.
const MIN_CONTENTS: usize = 5;

/// Who made a revision, when and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// Who.
    pub author: String,
    /// Why.
    pub message: String,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// Index of its entry.
    pub index: u64,
    /// Objects added, removed, changed.
    pub counts: [u32; 3],
}

/// All revisions, oldest dropped first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revisions {
    active: Revision,
    records: BTreeMap<Revision, RevisionRecord>,
    contents: BTreeMap<Revision, Arc<str>>,
}

impl Revisions {
    /// The active revision and its content (canonical JSON, keys sealed); revision 0 is the empty site.
    pub fn active(&self) -> (Revision, Arc<str>) {
        (self.active, self.contents.get(&self.active).cloned().unwrap_or_else(|| "{}".into()))
    }

    /// The content of `revision`, unless it was dropped.
    pub fn content(&self, revision: Revision) -> Option<Arc<str>> {
        match revision {
            Revision(0) => Some("{}".into()),
            _ => self.contents.get(&revision).cloned(),
        }
    }

    /// Records, newest first.
    pub fn history(&self) -> impl Iterator<Item = (Revision, &RevisionRecord)> {
        self.records.iter().rev().map(|(revision, record)| (*revision, record))
    }

    /// The record of `revision`.
    pub fn record(&self, revision: Revision) -> Option<&RevisionRecord> {
        self.records.get(&revision)
    }

    pub(super) fn publish(
        &mut self,
        expected: Option<Revision>,
        site: String,
        record: RevisionRecord,
    ) -> Reply {
        if let Some(expected) = expected
            && expected != self.active
        {
            return Reply::Refused(Refusal::RevisionConflict { expected, active: self.active });
        }
        self.active = Revision(self.active.0 + 1);
        self.records.insert(self.active, record);
        self.contents.insert(self.active, site.into());
        while self.records.len() > MAX_RECORDS {
            self.records.pop_first();
        }
        let mut bytes: usize = self.contents.values().map(|content| content.len()).sum();
        while self.contents.len() > MIN_CONTENTS && bytes > MAX_CONTENT_BYTES {
            bytes -= self.contents.pop_first().map_or(0, |(_, content)| content.len());
        }
        Reply::Published(self.active)
    }
}
