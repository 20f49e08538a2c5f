//! What did harm once and is not to be applied again: known by its content, so that another revision, or another file, with
//! the same content is known as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, Terms};
use crate::id::Revision;
use crate::is_deceptive;

/// Contents that are remembered; those of the oldest revisions make room.
const MAX_QUARANTINED: usize = 200;
/// Characters of a reason.
const MAX_WHY: usize = 500;

/// Contents that did harm, by their fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine(BTreeMap<String, Quarantined>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The last revision that had it.
    pub revision: Revision,
    /// What it did.
    pub why: String,
    /// When that was found: Unix milliseconds.
    pub at_ms: u64,
}

impl Quarantine {
    /// There is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything, newest first.
    pub fn newest_first(&self) -> Vec<&Quarantined> {
        let mut all: Vec<&Quarantined> = self.0.values().collect();
        all.sort_by_key(|quarantined| std::cmp::Reverse(quarantined.revision));
        all
    }

    /// What is known of the content with this fingerprint.
    pub fn find(&self, fingerprint: &str) -> Option<&Quarantined> {
        self.0.get(fingerprint)
    }

    /// Why something on these terms is not to be published.
    pub(super) fn refusal(&self, terms: &Terms) -> Option<Refusal> {
        let known = self.find(&terms.fingerprint).filter(|_| !terms.despite_quarantine)?;
        Some(Refusal::Quarantined { revision: known.revision, why: known.why.clone() })
    }

    /// Something on these terms is published although it is here.
    pub(super) fn is_defied_by(&self, terms: &Terms) -> bool {
        terms.despite_quarantine && self.find(&terms.fingerprint).is_some()
    }

    /// Somebody wants it all the same.
    pub(super) fn release(&mut self, fingerprint: &str) {
        self.0.remove(fingerprint);
    }

    /// The same, of revisions that have other numbers.
    pub(super) fn renumbered(mut self, renumber: impl Fn(Revision) -> Revision) -> Self {
        for quarantined in self.0.values_mut() {
            quarantined.revision = renumber(quarantined.revision);
        }
        self
    }

    pub(super) fn isolate(&mut self, fingerprint: String, revision: Revision, why: &str, at_ms: u64) {
        // What was published by an earlier version cannot be known again.
        if fingerprint.is_empty() {
            return;
        }
        let why = why.chars().filter(|c| !is_deceptive(*c)).take(MAX_WHY).collect();
        self.0.insert(fingerprint, Quarantined { revision, why, at_ms });
        while self.0.len() > MAX_QUARANTINED {
            let oldest = self.0.iter().min_by_key(|(_, quarantined)| quarantined.revision);
            let Some(oldest) = oldest.map(|(fingerprint, _)| fingerprint.clone()) else { return };
            self.0.remove(&oldest);
        }
    }
}
