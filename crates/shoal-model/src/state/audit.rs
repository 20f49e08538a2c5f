//! Who has changed what: a record of each command that was put into the log because somebody asked for it, or a node did so of
//! its own accord.
//!
//! Records are chained: each has the hash of the one before it and of its own [`AuditRecord::line`], so that none can be
//! changed, left out or put in without every later hash being another. Purges are many and have a chain of their own, lest
//! they push out everything else.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Command, ConfigState, GossipKeyStep, KeyOrder, Pace, Reply, RolloutStep, SiteText, SuccessionStep,
    WITHDRAWN,
};
use crate::id::NodeId;
use crate::is_deceptive;
use crate::units::Period;

/// Changes that are remembered; the oldest make room.
pub const MAX_CHANGES: usize = 5_000;
/// Purges that are remembered.
pub const MAX_PURGES: usize = 2_000;
/// Among so many of the newest records the same is looked for before it is noted: a command that is proposed again since its
/// answer was lost was asked for once.
const REPEATS: usize = 16;
/// Characters of each text of a record.
const MAX_TEXT: usize = 256;

/// The call of the record that a restored cluster begins with.
pub const RESTORE: &str = "Restore";

/// On whose behalf a command is proposed. The proposer fills it in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// Who, as was proven: an operator's name, `local`, a token's id, or a node of its own accord.
    pub by: String,
    /// What it may do; empty = who it is says so.
    pub role: String,
    /// An address, or the local socket and the user behind it.
    pub from: String,
    /// The node that was asked, or did it of its own accord.
    pub node: NodeId,
    /// The call of the API.
    pub call: String,
    /// What was asked for, in short.
    pub what: String,
    /// Under which the lines of the asked node's log may be found, and the same request is done once.
    pub request_id: String,
    /// When, by the clock of that node: Unix milliseconds.
    pub at_ms: u64,
}

impl Asker {
    /// With texts that are short, and in which nothing is hidden.
    fn cleaned(self) -> Self {
        let Self { by, role, from, node, call, what, request_id, at_ms } = self;
        let [by, role, from, call, what, request_id] =
            [by, role, from, call, what, request_id].map(|text| cleaned(&text));
        Self { by, role, from, node, call, what, request_id, at_ms }
    }
}

fn cleaned(text: &str) -> String {
    text.chars().filter(|c| !is_deceptive(*c)).take(MAX_TEXT).collect()
}

/// Something was asked for, and this came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Counts the records of a chain, from 1.
    pub number: u64,
    /// Index of the entry.
    pub index: u64,
    /// Who asked, and for what.
    pub asker: Asker,
    /// What came of it.
    pub outcome: Reply,
    /// SHA-256 of the hash of the record before, as hex digits (none before the first), and [`AuditRecord::line`]; hex.
    pub hash: String,
}

impl AuditRecord {
    /// All of it but the hash, as one line of JSON: what the hash is of.
    pub fn line(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            number: u64,
            index: u64,
            asker: &'a Asker,
            outcome: &'a Reply,
        }
        let Self { number, index, asker, outcome, hash: _ } = self;
        let line = Line { number: *number, index: *index, asker, outcome };
        serde_json::to_string(&line).expect("numbers and texts can be written")
    }
}

/// The hash of a record with this line.
fn link(previous: &str, line: &str) -> String {
    let digest = Sha256::new().chain_update(previous).chain_update(line).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditTrail {
    /// The hash of the record before the oldest that is remembered.
    before: String,
    /// The number of the newest.
    newest: u64,
    records: VecDeque<Arc<AuditRecord>>,
}

impl AuditTrail {
    fn note(&mut self, index: u64, asker: Asker, outcome: &Reply, most: usize) {
        let asker = asker.cleaned();
        let is_same = |record: &Arc<AuditRecord>| record.asker == asker && record.outcome == *outcome;
        if self.records.iter().rev().take(REPEATS).any(is_same) {
            return;
        }
        let previous = self.records.back().map_or(&self.before, |record| &record.hash);
        self.newest += 1;
        let (number, outcome) = (self.newest, outcome.clone());
        let mut record = AuditRecord { number, index, asker, outcome, hash: String::new() };
        record.hash = link(previous, &record.line());
        self.records.push_back(Arc::new(record));
        while self.records.len() > most {
            let Some(oldest) = self.records.pop_front() else { return };
            self.before.clone_from(&oldest.hash);
        }
    }

    /// Each with the hash of the one before it, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = (&str, &Arc<AuditRecord>)> {
        let hashes = self.records.iter().rev().skip(1).map(|record| &record.hash);
        hashes.chain(std::iter::once(&self.before)).map(String::as_str).zip(self.records.iter().rev())
    }
}

/// Both chains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Of everything but purges.
    pub changes: AuditTrail,
    /// Of purges.
    pub purges: AuditTrail,
}

impl Audit {
    /// Somebody has asked for something on the record.
    pub fn has_begun(&self) -> bool {
        self.changes.newest + self.purges.newest > 0
    }

    /// The index of the entry with which this became another cluster, if that is remembered: what is before it was asked of
    /// nodes of the old one.
    pub fn restored_at(&self) -> Option<u64> {
        let mut changes = self.changes.newest_first();
        changes.find(|(_, record)| record.asker.call == RESTORE).map(|(_, record)| record.index)
    }

    pub(super) fn note(&mut self, index: u64, askers: Vec<Asker>, is_purge: bool, outcome: &Reply) {
        let (trail, most) = match is_purge {
            true => (&mut self.purges, MAX_PURGES),
            false => (&mut self.changes, MAX_CHANGES),
        };
        for asker in askers {
            trail.note(index, asker, outcome, most);
        }
    }
}

/// `command`, on the record as asked for by `asker`, unless it is one that goes without. What is asked for is said by the
/// command, as far as `state` can name it, where the asker does not say it.
pub fn on_record(command: Command, mut asker: Asker, state: &ConfigState) -> Command {
    let Some(summary) = summary(&command, state) else { return command };
    if asker.what.is_empty() {
        asker.what = summary;
    }
    if let Some((request_id, _)) = command.request() {
        asker.request_id = request_id;
    }
    command.asked_by(vec![asker.cleaned()])
}

/// `command`, which the member `by` has another node write: once there is a record, what it does not say somebody has asked for
/// is on it as its own, but for what nodes do without a word.
pub fn on_record_of(by: NodeId, command: Command, at_ms: u64, state: &ConfigState) -> Command {
    let (askers, command) = command.into_parts();
    if !askers.is_empty() || !state.audit.has_begun() || goes_unasked(&command) {
        return command.asked_by(askers);
    }
    let name = state.nodes.get(&by).map_or_else(|| by.to_string(), |known| known.name.clone());
    let call = "Propose".to_owned();
    let asker = Asker { by: format!("node {name}"), node: by, call, at_ms, ..Asker::default() };
    on_record(command, asker, state)
}

/// What nodes do again and again, and without a word: states are compared, what origins have changed is purged, and what is left
/// over of an upload is withdrawn.
fn goes_unasked(command: &Command) -> bool {
    match command {
        Command::CompareStates | Command::Purge { .. } => true,
        Command::Publish { site: SiteText::Uploaded { parts, .. }, .. } => *parts == WITHDRAWN,
        _ => false,
    }
}

fn summary(command: &Command, state: &ConfigState) -> Option<String> {
    let name_of = |id: &NodeId| state.called(*id);
    Some(match command {
        Command::Bootstrap { cluster_id, node, .. } => format!("cluster {cluster_id}, {}", node.name),
        Command::Publish { author, message, counts: [added, removed, changed], terms, .. } => {
            let how = match terms.waves {
                Some(Pace { is_urgent: true, .. }) => ", urgent",
                Some(_) => ", in waves",
                None if state.rollout_policy.is_some() && terms.confirm_within_ms.is_none() => ", at once",
                None => "",
            };
            let despite = if terms.despite_quarantine { ", despite any quarantine" } else { "" };
            format!("+{added} ~{changed} -{removed}{how}{despite} as {author}: {message}")
        }
        Command::Rollout { revision, step: RolloutStep::Confirm, author, .. } => {
            format!("revision {revision} stays, as {author}")
        }
        Command::Rollout { revision, step: RolloutStep::Revert(cause), author, .. } => {
            // One of an earlier version has no fingerprint, and is not known again.
            let is_known = state.revisions.record(*revision).is_some_and(|one| !one.fingerprint.is_empty());
            let quarantine = match is_known && state.revisions.did_harm(*revision, *cause) {
                true => ", its content goes into quarantine",
                false => "",
            };
            format!("back from revision {revision}, {cause}{quarantine}, as {author}")
        }
        Command::Rollout { revision, step: RolloutStep::Advance(next), author, .. } => {
            format!("revision {revision} to wave {}, {}, as {author}", next.wave, next.stage)
        }
        Command::Rollout { revision, step: RolloutStep::Pause, author, .. } => {
            format!("revision {revision} goes no further, as {author}")
        }
        Command::Rollout { revision, step: RolloutStep::Resume, author, .. } => {
            format!("revision {revision} goes on, as {author}")
        }
        Command::SetRolloutPolicy { waves: None } => "revisions come at once".to_owned(),
        Command::SetRolloutPolicy { waves: Some(pace) } => {
            format!("revisions come in waves of {} s", pace.bake_ms / 1000)
        }
        Command::Quarantine { revision, why, .. } => format!("what revision {revision} was: {why}"),
        Command::Purge { scopes, .. } => format!("{} scopes", scopes.len()),
        Command::CreateToken { id, token } if token.expires_at_ms == 0 => format!("token {id} revoked"),
        Command::CreateToken { id, token } => {
            format!("token {id} for a {}, {} uses", token.role, token.uses_left)
        }
        Command::Admit(admission) => format!("{} at {}", admission.node.name, admission.node.cluster_addr),
        Command::UpdateNode { node_id, record } => {
            format!("{} is {} at {}", name_of(node_id), record.name, record.cluster_addr)
        }
        Command::RemoveNode { node_id } | Command::RevokeNode { node_id } => name_of(node_id),
        Command::SetStanding(order) => format!("{} {}", name_of(&order.node_id), order.standing.name()),
        Command::SetVote { node_id, may_vote: true } => format!("{} may vote", name_of(node_id)),
        Command::SetVote { node_id, may_vote: false } => format!("{} may not vote", name_of(node_id)),
        Command::ChangeSetup(order) => state.setup.with(*order).to_string(),
        Command::GiveCertificate { serial, record } => {
            format!("{} as {}, certificate {serial}", record.name, record.role)
        }
        Command::RevokeOperator { name, .. } => name.clone(),
        Command::Recover { survivor, cluster_epoch } => {
            format!("{} alone, epoch {cluster_epoch}", name_of(survivor))
        }
        Command::KeepKeys(KeyOrder::Gossip(step)) => match step {
            GossipKeyStep::Make { .. } => "a new key of the gossip".to_owned(),
            GossipKeyStep::Use { id } => format!("key {id} of the gossip is used"),
            GossipKeyStep::Drop { id } => format!("key {id} of the gossip alone is believed"),
        },
        Command::KeepKeys(KeyOrder::Authority(step)) => match step {
            SuccessionStep::Begin { .. } => "another authority is to be believed".to_owned(),
            SuccessionStep::Switch { begun, .. } => format!("the authority of entry {begun} signs"),
            SuccessionStep::Retire { .. } => "the authority before is not believed any more".to_owned(),
            SuccessionStep::Abort { begun } => format!("the authority of entry {begun} does not come"),
        },
        Command::KeepKeys(KeyOrder::NodeLife { seconds }) => {
            format!("certificates of nodes last {}", Period::seconds((*seconds).into()))
        }
        Command::SetLevel { from, to } => format!("level {from} to {to}"),
        Command::HoldLevel { hold: Some(hold) } => format!("held: {}", hold.message),
        Command::HoldLevel { hold: None } => "held no more".to_owned(),
        Command::AskedBy { command, .. } => return summary(command, state),
        Command::CompareStates => "nothing changes".to_owned(),
        // The revision that follows is on the record; and forgetting changes nothing that anybody sees.
        Command::UploadPart { .. } | Command::ForgetPurges { .. } => return None,
        // Only once it is on the record does a command get its envelope.
        Command::Later(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Revision;
    use crate::state::{MemberRecord, PurgeKind, RevertCause, Terms};

    fn asker(what: &str) -> Asker {
        let text = |text: &str| text.to_owned();
        Asker {
            by: text("ada"),
            role: text("operator"),
            from: text("192.0.2.7:5000"),
            node: NodeId(3),
            call: text("Apply"),
            what: text(what),
            request_id: text("r1"),
            at_ms: 17,
        }
    }

    #[test]
    fn a_record_is_one_line_and_its_hash_is_of_it() {
        let mut audit = Audit::default();
        assert!(!audit.has_begun());
        audit.note(9, vec![asker("a\n\u{202e}b")], false, &Reply::Published(Revision(4)));
        let (previous, record) = audit.changes.newest_first().next().unwrap();
        assert_eq!(previous, "");
        let line = "{\"number\":1,\"index\":9,\"asker\":{\"by\":\"ada\",\"role\":\"operator\",\
                    \"from\":\"192.0.2.7:5000\",\"node\":3,\"call\":\"Apply\",\"what\":\"ab\",\"request_id\":\"r1\",\
                    \"at_ms\":17},\"outcome\":{\"Published\":4}}";
        assert_eq!(record.line(), line);
        assert_eq!(record.hash, link("", line));
        assert!(audit.has_begun());
    }

    #[test]
    fn a_node_that_moves_is_told_as_it_was_and_as_it_is() {
        let record = |name: &str, at: &str| MemberRecord {
            name: name.to_owned(),
            cluster_addr: at.to_owned(),
            ..MemberRecord::default()
        };
        let mut state = ConfigState::default();
        state.nodes.insert(NodeId(7), record("n2", "192.0.2.1:7400"));
        let moved = Command::UpdateNode { node_id: NodeId(7), record: record("n2", "192.0.2.2:7400") };
        let told = on_record(moved.clone(), asker(""), &state);
        let what = "n2 (n7) is n2 at 192.0.2.2:7400";
        assert_eq!(told, moved.asked_by(vec![asker(what)]));
    }

    #[test]
    fn what_a_member_says_nobody_has_asked_for_is_its_own() {
        let mut state = ConfigState::default();
        state.nodes.insert(NodeId(7), MemberRecord { name: "n2".to_owned(), ..MemberRecord::default() });
        let removal = Command::RemoveNode { node_id: NodeId(7) };
        assert_eq!(on_record_of(NodeId(7), removal.clone(), 5, &state), removal, "there is no record yet");
        state.audit.note(1, vec![asker("")], false, &Reply::Done);
        let own = |what: &str| Asker {
            by: "node n2".to_owned(),
            node: NodeId(7),
            call: "Propose".to_owned(),
            what: what.to_owned(),
            at_ms: 5,
            ..Asker::default()
        };
        let publish = |parts| Command::Publish {
            request_id: String::new(),
            expected: None,
            site: SiteText::Uploaded { upload: "u".to_owned(), parts },
            author: "eve".to_owned(),
            message: "hm".to_owned(),
            at_ms: 1,
            counts: [1, 0, 0],
            terms: Terms::default(),
        };
        let (request_id, scopes, kind) = (String::new(), Vec::new(), PurgeKind::Hard);
        let unasked = [
            Command::CompareStates,
            Command::ForgetPurges { up_to: 3 },
            Command::Purge { request_id, scopes, kind, at_ms: 1 },
            publish(WITHDRAWN),
            removal.clone().asked_by(vec![asker("x")]),
        ];
        for command in unasked {
            assert_eq!(on_record_of(NodeId(7), command.clone(), 5, &state), command, "{command}");
        }
        for (command, what) in [
            (removal, "n2 (n7)"),
            (publish(1), "+1 ~0 -0 as eve: hm"),
            (Command::HoldLevel { hold: None }, "held no more"),
            (Command::SetVote { node_id: NodeId(7), may_vote: false }, "n2 (n7) may not vote"),
        ] {
            let recorded = command.clone().asked_by(vec![own(what)]);
            let by_nobody = Command::AskedBy { askers: Vec::new(), command: Box::new(command.clone()) };
            for command in [command, by_nobody] {
                assert_eq!(on_record_of(NodeId(7), command.clone(), 5, &state), recorded, "{command}");
            }
        }
    }

    #[test]
    fn what_goes_into_quarantine_is_told() {
        let (author, message) = (|| "ann".to_owned(), String::new);
        let check = |fingerprint: &str, cause: RevertCause, expected: &str| {
            let mut state = ConfigState::default();
            let publish = Command::Publish {
                request_id: String::new(),
                expected: None,
                site: SiteText::Inline("a".to_owned()),
                author: author(),
                message: message(),
                at_ms: 1,
                counts: [0; 3],
                terms: Terms {
                    confirm_within_ms: Some(5000),
                    fingerprint: fingerprint.to_owned(),
                    ..Terms::default()
                },
            };
            assert_eq!(state.apply(1, publish), Reply::Published(Revision(1)));
            let back = Command::Rollout {
                request_id: String::new(),
                revision: Revision(1),
                step: RolloutStep::Revert(cause),
                author: author(),
                message: message(),
                at_ms: 2,
            };
            assert_eq!(summary(&back, &state).unwrap(), format!("back from revision 1, {expected}, as ann"));
        };
        check("f", RevertCause::Worse, "worse than what was before, its content goes into quarantine");
        check("", RevertCause::Worse, "worse than what was before");
        let unwatched = "it could not be watched to the end, its content goes into quarantine";
        check("f", RevertCause::Unwatched, unwatched);
        check("f", RevertCause::Aborted, "aborted");
    }

    #[test]
    fn records_are_chained_and_bounded() {
        let mut trail = AuditTrail::default();
        for n in 0..7 {
            let asker = Asker { at_ms: n, ..asker(&"x".repeat(1000)) };
            trail.note(n, asker.clone(), &Reply::Done, 3);
            trail.note(n + 100, asker, &Reply::Done, 3); // proposed again
        }
        let kept: Vec<_> = trail.newest_first().collect();
        let numbers: Vec<u64> = kept.iter().map(|(_, record)| record.number).collect();
        assert_eq!(numbers, [7, 6, 5]);
        for (previous, record) in &kept {
            assert_eq!(record.hash, link(previous, &record.line()), "{}", record.number);
            assert_eq!(record.asker.what.len(), MAX_TEXT);
        }
        assert!(kept.windows(2).all(|pair| pair[0].0 == pair[1].1.hash) && !kept[2].0.is_empty());
        let text = serde_json::to_string(&trail).unwrap();
        assert_eq!(serde_json::from_str::<AuditTrail>(&text).unwrap(), trail);
    }
}
