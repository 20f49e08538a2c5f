//! The site's history: who changed it when, and the content of as many revisions as fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{EndedRollout, Quarantine, Refusal, Reply, RevertCause, RevisionStanding, Rollout, Terms, Waves};
use crate::id::{NodeId, Revision};

/// Revisions whose record is kept.
const MAX_RECORDS: usize = 1_000;
/// Bytes of site documents that are kept; the newest [`MIN_CONTENTS`] stay whatever they weigh.
const MAX_CONTENT_BYTES: usize = 64 << 20;
/// Revisions that can always be rolled back to.
const MIN_CONTENTS: usize = 5;
/// By how much the numbers of revisions rise with a new cluster: whoever follows them sees that they are others.
const REVISIONS_APART: u64 = 1_000_000_000;

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
    /// Whether it is in force for good.
    #[serde(default, skip_serializing_if = "RevisionStanding::is_final")]
    pub standing: RevisionStanding,
    /// See [`Terms::fingerprint`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
}

impl RevisionRecord {
    /// It may be taken back: it waits to be confirmed, or has not come to all nodes yet.
    pub fn is_on_trial(&self) -> bool {
        self.standing == RevisionStanding::Unconfirmed
    }
}

/// All revisions, oldest dropped first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revisions {
    active: Revision,
    records: BTreeMap<Revision, RevisionRecord>,
    contents: BTreeMap<Revision, Arc<str>>,
    /// Of the active revision, as long as that is not in force for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollout: Option<Rollout>,
    /// The last rollout in waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<EndedRollout>,
    /// What is not to be applied again.
    #[serde(default, skip_serializing_if = "Quarantine::is_empty")]
    pub(super) quarantine: Quarantine,
}

/// A revision as somebody is told of it who follows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub revision: Revision,
    /// The content of the revision before; `None` = it is not stored any more, or was not known, so that only the whole tells
    /// what there is.
    pub before: Option<Arc<str>>,
    /// Its content.
    pub content: Arc<str>,
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

    /// The active revision's way to being in force for good, unless it is.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.rollout.as_ref()
    }

    /// The last rollout in waves that has ended.
    pub fn ended_rollout(&self) -> Option<&EndedRollout> {
        self.ended.as_ref()
    }

    /// What is not to be applied again.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Contents are known again by their fingerprints: every member knew what those are when this began.
    pub fn keeps_fingerprints(&self) -> bool {
        self.records.values().rev().any(|record| !record.fingerprint.is_empty())
    }

    pub(super) fn rollout_of(&mut self, revision: Revision) -> Option<&mut Rollout> {
        self.rollout.as_mut().filter(|rollout| rollout.revision == revision)
    }

    /// The revision that `node` is to serve: the active one, unless others are to try it first.
    pub fn served_by(&self, node: NodeId) -> Revision {
        self.rollout
            .as_ref()
            .filter(|rollout| !rollout.includes(node))
            .map_or(self.active, |rollout| rollout.before)
    }

    /// What the others serve where `node` tries the active revision before them.
    pub fn tried_beside(&self, node: NodeId) -> Option<Revision> {
        let tried =
            self.rollout.as_ref().filter(|rollout| rollout.canary.is_some() && rollout.includes(node))?;
        Some(tried.before)
    }

    /// What somebody has to be told next who knows `known`; `None` = he knows everything. Who knows nothing is told the
    /// active revision.
    pub fn after(&self, known: Option<Revision>) -> Option<Step> {
        if known.is_some_and(|known| known >= self.active) {
            return None;
        }
        let next = known.map(|known| Revision(known.0 + 1));
        let delta = known.zip(next).and_then(|(known, next)| {
            Some(Step { revision: next, before: Some(self.content(known)?), content: self.content(next)? })
        });
        let (revision, content) = self.active();
        Some(delta.unwrap_or(Step { revision, before: None, content }))
    }

    /// Why nothing is to be published on these terms now.
    pub(super) fn refusal(&self, expected: Option<Revision>, terms: &Terms) -> Option<Refusal> {
        if let Some(rollout) = self.rollout.as_ref().filter(|_| !terms.overrides) {
            return Some(Refusal::Unconfirmed(rollout.revision));
        }
        if let Some(expected) = expected.filter(|expected| *expected != self.active) {
            return Some(Refusal::RevisionConflict { expected, active: self.active });
        }
        self.quarantine.refusal(terms)
    }

    /// `keeps_quarantine` = what is tried despite its quarantine leaves that when it stays, and not before.
    pub(super) fn publish(
        &mut self,
        expected: Option<Revision>,
        site: String,
        mut record: RevisionRecord,
        terms: Terms,
        keeps_quarantine: bool,
    ) -> Reply {
        if let Some(refusal) = self.refusal(expected, &terms) {
            return Reply::Refused(refusal);
        }
        let is_defied = self.quarantine.is_defied_by(&terms);
        let lifts_quarantine = is_defied && keeps_quarantine && terms.confirm_within_ms.is_some();
        if is_defied && !lifts_quarantine {
            self.quarantine.release(&terms.fingerprint);
        }
        record.fingerprint = terms.fingerprint;
        let before = self.active;
        let reply = self.succeed(site.into(), record);
        if let Some(confirm_within_ms) = terms.confirm_within_ms {
            let (revision, canary, waves) = (self.active, terms.canary, terms.waves.map(Waves::first));
            self.rollout =
                Some(Rollout { revision, before, confirm_within_ms, canary, waves, lifts_quarantine });
            self.mark(self.active, RevisionStanding::Unconfirmed);
        }
        reply
    }

    /// `why` = what is to be said of the end of the last wave.
    pub(super) fn confirm(&mut self, revision: Revision, author: String, why: String, at_ms: u64) -> Reply {
        let Some(rollout) = self.rollout.take_if(|rollout| rollout.revision == revision) else {
            return Reply::Refused(Refusal::NotUnconfirmed(revision));
        };
        if let Some(record) = self.records.get(&revision).filter(|_| rollout.lifts_quarantine) {
            self.quarantine.release(&record.fingerprint);
        }
        self.note_end(rollout, None, why, at_ms);
        self.mark(revision, RevisionStanding::Confirmed { author, at_ms });
        Reply::Confirmed(revision)
    }

    /// What was before `revision` becomes the next one. Its content is there: nothing was published in between.
    pub(super) fn revert(
        &mut self,
        revision: Revision,
        cause: RevertCause,
        mut record: RevisionRecord,
    ) -> Reply {
        let rollout = self.rollout.as_ref().filter(|rollout| rollout.revision == revision);
        let Some(site) = rollout.and_then(|rollout| self.content(rollout.before)) else {
            return Reply::Refused(Refusal::NotUnconfirmed(revision));
        };
        let [added, removed, changed] = self.record(revision).map_or([0; 3], |record| record.counts);
        record.counts = [removed, added, changed];
        let before = self.rollout.as_ref().and_then(|rollout| self.record(rollout.before));
        record.fingerprint = before.map(|before| before.fingerprint.clone()).unwrap_or_default();
        if self.did_harm(revision, cause) {
            self.isolate(revision, &record.message, record.at_ms);
        }
        self.succeed(site, record)
    }

    /// What `revision` was goes into quarantine when it is taken back for that.
    pub(super) fn did_harm(&self, revision: Revision, cause: RevertCause) -> bool {
        match cause {
            RevertCause::NotConfirmed | RevertCause::Aborted => false,
            RevertCause::Worse => true,
            // A node that dies once may have died of it, unless all of them have lived with it.
            RevertCause::Unwatched => !self.has_stayed_before(revision),
        }
    }

    /// Another revision with the same content was in force on all nodes for good.
    fn has_stayed_before(&self, revision: Revision) -> bool {
        let fingerprint = self.record(revision).map_or("", |record| record.fingerprint.as_str());
        self.records.iter().any(|(other, record)| {
            let stayed =
                matches!(record.standing, RevisionStanding::Final | RevisionStanding::Confirmed { .. });
            *other != revision && stayed && record.fingerprint == fingerprint
        })
    }

    /// What `revision` was is not to be applied again.
    pub(super) fn isolate(&mut self, revision: Revision, why: &str, at_ms: u64) {
        let fingerprint = self.record(revision).map(|record| record.fingerprint.clone()).unwrap_or_default();
        let is_active = self.record(self.active).is_some_and(|active| active.fingerprint == fingerprint);
        // Who wanted it all the same did not know that.
        if let Some(rollout) = self.rollout.as_mut().filter(|_| is_active) {
            rollout.lifts_quarantine = false;
        }
        self.quarantine.isolate(fingerprint, revision, why, at_ms);
    }

    fn note_end(&mut self, rollout: Rollout, reverted_by: Option<Revision>, why: String, at_ms: u64) {
        if let Some(waves) = rollout.waves {
            self.ended = Some(EndedRollout { revision: rollout.revision, waves, reverted_by, why, at_ms });
        }
    }

    /// Makes `site` the active revision, and ends what the one before was waiting for.
    fn succeed(&mut self, site: Arc<str>, record: RevisionRecord) -> Reply {
        self.active = Revision(self.active.0 + 1);
        if let Some(ended) = self.rollout.take() {
            self.mark(ended.revision, RevisionStanding::Reverted { by: self.active });
            self.note_end(ended, Some(self.active), record.message.clone(), record.at_ms);
        }
        self.records.insert(self.active, record);
        self.contents.insert(self.active, site);
        while self.records.len() > MAX_RECORDS {
            self.records.pop_first();
        }
        let mut bytes: usize = self.contents.values().map(|content| content.len()).sum();
        while self.contents.len() > MIN_CONTENTS && bytes > MAX_CONTENT_BYTES {
            bytes -= self.contents.pop_first().map_or(0, |(_, content)| content.len());
        }
        Reply::Published(self.active)
    }

    /// The same in another cluster: with numbers that are higher by [`REVISIONS_APART`], and sites as `carry` makes them. Old
    /// ones of which it makes none are left out: by their new numbers, and why.
    pub(super) fn carried_over<E>(
        self,
        mut carry: impl FnMut(&str) -> Result<String, E>,
    ) -> Result<(Self, BTreeMap<Revision, E>), E> {
        let (active, content) = self.active();
        let mut contents = BTreeMap::from([(later(active), carry(&content)?.into())]);
        let mut left_out = BTreeMap::new();
        for (revision, content) in self.contents.iter().filter(|(revision, _)| **revision != active) {
            match carry(content) {
                Ok(content) => _ = contents.insert(later(*revision), content.into()),
                Err(why) => _ = left_out.insert(later(*revision), why),
            }
        }
        let records = self.records.into_iter().map(|(revision, mut record)| {
            if let RevisionStanding::Reverted { by } = &mut record.standing {
                *by = later(*by);
            }
            (later(revision), record)
        });
        let rollout = self.rollout.map(|mut rollout| {
            (rollout.revision, rollout.before) = (later(rollout.revision), later(rollout.before));
            // They were nodes of the old one.
            (rollout.canary, rollout.waves) = (None, None);
            rollout
        });
        let ended = self.ended.map(|mut ended| {
            (ended.revision, ended.reverted_by) = (later(ended.revision), ended.reverted_by.map(later));
            ended
        });
        let quarantine = self.quarantine.renumbered(later);
        let (active, records) = (later(active), records.collect());
        let mut rollout: Option<Rollout> = rollout;
        // There is nothing to go back to.
        let final_one = rollout.take_if(|rollout| !contents.contains_key(&rollout.before));
        let mut carried = Self { active, records, contents, rollout, ended, quarantine };
        if let Some(ended) = final_one {
            carried.mark(ended.revision, RevisionStanding::Final);
        }
        Ok((carried, left_out))
    }

    fn mark(&mut self, revision: Revision, standing: RevisionStanding) {
        if let Some(record) = self.records.get_mut(&revision) {
            record.standing = standing;
        }
    }
}

const fn later(revision: Revision) -> Revision {
    Revision(revision.0.saturating_add(REVISIONS_APART))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_carried_over_is_left_out_unless_it_is_active() {
        let carry = |site: &str| if site == "bad" { Err("it is bad") } else { Ok(site.to_owned()) };
        // What is kept, what is left out, and whether the active one waits to be confirmed.
        let check = |sites: &[&str], waits, expected: Result<(Vec<u64>, Vec<u64>, bool), &str>| {
            let mut revisions = Revisions::default();
            for (n, site) in (1..).zip(sites) {
                let confirm_within_ms = (waits && n == sites.len()).then_some(9);
                let terms = Terms { confirm_within_ms, ..Terms::default() };
                revisions.publish(None, (*site).to_owned(), RevisionRecord::default(), terms, true);
            }
            let carried = revisions.carried_over(carry).map(|(carried, left_out)| {
                let waits = carried.rollout.is_some();
                let record = carried.record(carried.active);
                assert_eq!(record.is_some_and(RevisionRecord::is_on_trial), waits, "{sites:?}");
                let before = |revision: &Revision| revision.0 - REVISIONS_APART;
                let kept: Vec<u64> = carried.contents.keys().map(before).collect();
                let left_out: Vec<u64> = left_out.keys().map(before).collect();
                (kept, left_out, waits)
            });
            assert_eq!(carried, expected, "{sites:?}");
        };
        check(&["a", "b"], false, Ok((vec![1, 2], vec![], false)));
        check(&["a", "bad", "bad", "b"], false, Ok((vec![1, 4], vec![2, 3], false)));
        check(&["a", "bad"], false, Err("it is bad"));
        check(&["bad", "a", "b"], true, Ok((vec![2, 3], vec![1], true)));
        check(&["a", "bad", "b"], true, Ok((vec![1, 3], vec![2], false)));
    }

    #[test]
    fn followers_miss_nothing_and_hear_nothing_twice() {
        let mut revisions = Revisions::default();
        for n in 1..=7 {
            revisions.publish(None, format!("site {n}"), RevisionRecord::default(), Terms::default(), true);
        }
        (1..=3).for_each(|n| _ = revisions.contents.remove(&Revision(n)));
        let check = |known: Option<u64>, expected: Option<(u64, Option<&str>)>| {
            let step = revisions.after(known.map(Revision));
            let seen = step.as_ref().map(|step| (step.revision.0, step.before.as_deref()));
            assert_eq!(seen, expected, "{known:?}");
            assert!(step.is_none_or(|step| *step.content == format!("site {}", step.revision)));
        };
        check(None, Some((7, None)));
        check(Some(4), Some((5, Some("site 4"))));
        check(Some(6), Some((7, Some("site 6"))));
        check(Some(7), None);
        check(Some(99), None); // yet to come
        check(Some(3), Some((7, None))); // what 4 has changed is forgotten
        check(Some(1), Some((7, None)));
        check(Some(0), Some((7, None)));
    }
}
