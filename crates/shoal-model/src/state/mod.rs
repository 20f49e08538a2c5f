//! The replicated state: what the Raft log adds up to. Deterministic: no clock, randomness, IO or hash-map order.

mod audit;
mod command;
mod content;
mod gossip_keys;
mod keys;
mod level;
mod nodes;
mod operators;
mod purge;
mod quarantine;
mod refounding;
mod refusal;
mod reply;
mod revisions;
mod rollout;
mod setup;
mod standing;
mod succession;
mod uploads;
mod votes;
mod waves;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

pub use audit::{Asker, Audit, AuditRecord, AuditTrail, RESTORE, on_record, on_record_of};
pub use command::{
    ASKERS, Admission, CANARIES, COMMANDS, COMPARING, Command, Examined, FORGET_PURGES, KEEPING_KEYS,
    LISTING_OPERATORS, RECOVERING, REFUSING_WHOLLY, REVOKING, ROLLOUTS, SETUPS, STANDINGS, SiteText, VOTES,
    WAVES,
};
pub use content::ContentError;
pub use gossip_keys::{GossipKey, GossipKeyStep, GossipKeys};
pub use keys::{KeyOrder, Keys, MAX_NODE_SECONDS, MIN_NODE_SECONDS};
pub use level::{ClusterLevel, Envelope, Hold, LEVELS, OLDEST_LEVEL, UnknownCommand};
pub use nodes::{MemberRecord, NameError, NotItsOwn, RecordError, TokenRecord, check_member_name};
pub use operators::{MAX_OPERATOR_SECONDS, NotAdmitted, OperatorRecord, Operators};
pub use purge::{
    Forgotten as ForgottenPurges, MAX_RECORDS as MAX_PURGE_RECORDS, PurgeKind, PurgeScope, PurgeTable,
    PurgeTables,
};
pub use quarantine::{Quarantine, Quarantined};
pub use refounding::Founding;
pub use refusal::Refusal;
pub use reply::{OtherReply, Reply};
pub use revisions::{RevisionRecord, Revisions, Step};
pub use rollout::{
    LONGEST_CONFIRM, RevertCause, RevisionStanding, Rollout, RolloutStep, SHORTEST_CONFIRM, Terms,
};
pub use setup::{ClusterSetup, OrderError, SetupOrder, Timing, UnknownLimit, UnknownTiming, voter_limit};
pub use standing::{NodeStanding, StandingOrder, StandingRecord};
pub use succession::{Succession, SuccessionStep};
use uploads::Uploads;
pub use uploads::{MAX_UPLOADED_BYTES, MAX_UPLOADS, WITHDRAWN};
pub use votes::ROLE_LEARNER;
pub use waves::{
    DEFAULT_BAKE, DEFAULT_CHECKS, EndedRollout, LONGEST_BAKE, MAX_CHECKS, NextWave, Pace, PassedWave,
    SHORTEST_BAKE, Stage, Waves,
};

use crate::id::{ClusterId, NodeId, Revision};

/// Results of how many mutations are remembered for de-duplication, at most.
const MAX_REMEMBERED: usize = 10_000;
/// For how long they are remembered, milliseconds by the times in the entries.
const REMEMBER_MS: u64 = 24 * 3600 * 1000;
/// Tokens that are kept, at most: beyond that the one that expires first makes room.
const MAX_TOKENS: usize = 1_000;

/// Revoked nodes that are remembered as such, at most; those before are merely removed, and have long been left out of
/// everything.
const MAX_REVOKED: usize = 1_000;

/// Nodes of one cluster. Counted before one is let in, not where the log is applied: many that come at once may be some more.
pub const MAX_NODES: usize = 1_000;

/// Everything nodes agree on. The only way to change it is [`ConfigState::apply`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigState {
    /// Which cluster this is; fixed by the first entry.
    pub cluster_id: ClusterId,
    /// Raised by recovery: what carries a lower one is refused.
    pub cluster_epoch: u64,
    /// Which commands may be written.
    #[serde(default, skip_serializing_if = "ClusterLevel::is_unset")]
    pub level: ClusterLevel,
    /// The cluster CA's certificate (DER) and its private key, sealed with the cluster's secret.
    pub ca_certificate: Vec<u8>,
    /// See [`ConfigState::ca_certificate`].
    pub ca_key_sealed: Vec<u8>,
    /// What holds for the cluster as a whole.
    #[serde(default, skip_serializing_if = "ClusterSetup::is_usual")]
    pub setup: ClusterSetup,
    /// Nodes that were admitted and not removed.
    pub nodes: BTreeMap<NodeId, MemberRecord>,
    /// What operators have said of how far they take part; see [`ConfigState::standing`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub standings: BTreeMap<NodeId, StandingRecord>,
    /// Those that are not to vote; see [`ConfigState::may_vote`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    voteless: BTreeSet<NodeId>,
    /// Of those that were removed, the ones that nobody may listen to from then on, whatever else they are still part of.
    #[serde(default)]
    pub revoked: BTreeSet<NodeId>,
    /// In which entry each of them was, if that was at a level of [`REFUSING_WHOLLY`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    revoked_in: BTreeMap<NodeId, u64>,
    /// Join tokens that were not used up, by their public part.
    pub tokens: BTreeMap<String, TokenRecord>,
    /// The site and its history.
    pub revisions: Revisions,
    /// How a revision comes into force where nobody says: in waves of this pace; `None` = at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_policy: Option<Pace>,
    /// What was purged when.
    pub purges: PurgeTables,
    /// Who may call, and who may not any more.
    #[serde(default)]
    pub operators: Operators,
    /// How its certificates are kept.
    #[serde(default, skip_serializing_if = "Keys::are_usual")]
    pub keys: Keys,
    /// Who has asked for what.
    #[serde(default)]
    pub audit: Audit,
    /// Large site documents on their way in.
    uploads: Uploads,
    /// Results of recent mutations by request id, oldest first in `remembered_order`.
    remembered: BTreeMap<String, Reply>,
    remembered_order: VecDeque<(u64, String)>,
}

impl ConfigState {
    /// Applies the command of the entry at `index`. Never fails: a command that cannot be carried out answers with a
    /// [`Refusal`] and changes nothing, from a level of [`REFUSING_WHOLLY`] on: below that some take away parts of a site that is
    /// on its way in, or a place for one.
    pub fn apply(&mut self, index: u64, command: Command) -> Reply {
        let Some((request_id, at_ms)) = command.request() else { return self.carry_out(index, command) };
        if let Some(reply) = self.remembered.get(&request_id) {
            return reply.clone();
        }
        let reply = self.carry_out(index, command);
        // What was refused has made nothing: the same request may be tried again over what is active by then.
        if !matches!(reply, Reply::Refused(_)) {
            self.remember(request_id, at_ms, &reply);
        }
        reply
    }

    /// What the mutation with this request id answered, if it was carried out not too long ago.
    pub fn answered(&self, request_id: &str) -> Option<&Reply> {
        self.remembered.get(request_id)
    }

    /// Whether a mutation whose request id begins like this was carried out not too long ago.
    pub fn has_answered_below(&self, beginning: &str) -> bool {
        let mut from = self.remembered.range::<str, _>((Bound::Included(beginning), Bound::Unbounded));
        from.next().is_some_and(|(id, _)| id.starts_with(beginning))
    }

    /// What is to be said of an admission before it is proposed: strangers are many, and what they send must not fill the log.
    pub fn examine(&self, admission: &Admission) -> Examined {
        let key = &admission.node.public_key_sha256;
        let is_known = self.nodes.values().any(|node| node.public_key_sha256 == *key);
        match self.check_token(admission) {
            // Whose answer was lost asks again, with what was used up for it. The key alone is no proof: it may be an old copy.
            Ok(_) if is_known => Examined::Fits,
            Ok(token) if token.uses_left == 0 => Examined::Refused(Refusal::UnknownToken),
            Ok(_) if self.nodes.len() >= MAX_NODES => Examined::Refused(Refusal::TooManyNodes),
            Ok(_) => Examined::Fits,
            Err(Refusal::UnknownToken) if !self.tokens.contains_key(&admission.token_id) => Examined::Unheard,
            Err(refusal) => Examined::Refused(refusal),
        }
    }

    fn check_token(&self, admission: &Admission) -> Result<&TokenRecord, Refusal> {
        let known = self.tokens.get(&admission.token_id);
        match known.filter(|token| token.secret_sha256 == admission.secret_sha256) {
            None => Err(Refusal::UnknownToken),
            Some(token) if token.expires_at_ms <= admission.at_ms => Err(Refusal::TokenExpired),
            Some(token) => Ok(token),
        }
    }

    /// Whether `node` was a member once and is none any more, in the state after the entry at `applied`. Ids are indexes of
    /// the log: one that is not yet applied belongs to a member that is still to be heard of.
    pub fn was_removed(&self, node: NodeId, applied: u64) -> bool {
        node.0 <= applied && !self.nodes.is_empty() && !self.nodes.contains_key(&node)
    }

    fn carry_out(&mut self, index: u64, command: Command) -> Reply {
        match command {
            Command::Bootstrap { cluster_id, ca_certificate, ca_key_sealed, node, setup, level } => {
                if !self.nodes.is_empty() {
                    return Reply::Refused(Refusal::AlreadyBootstrapped);
                }
                self.cluster_id = cluster_id;
                self.ca_certificate = ca_certificate;
                self.ca_key_sealed = ca_key_sealed;
                self.setup = setup;
                self.level.number = level;
                self.operators = Operators::of_new_cluster(level);
                self.nodes.insert(NodeId(1), node);
                Reply::Admitted(NodeId(1))
            }
            Command::UploadPart { upload, part, text, at_ms } => {
                let refuses_wholly = self.refuses_wholly();
                self.uploads.add(upload, part, &text, at_ms, refuses_wholly)
            }
            Command::Publish { expected, site, author, message, at_ms, counts, terms, .. } => {
                let site = match self.text_of(site, expected, &terms) {
                    Ok(site) => site,
                    Err(refusal) => return Reply::Refused(refusal),
                };
                let record =
                    RevisionRecord { author, message, at_ms, index, counts, ..RevisionRecord::default() };
                let keeps_quarantine = self.refuses_wholly();
                self.revisions.publish(expected, site, record, terms, keeps_quarantine)
            }
            Command::Rollout { revision, step, author, message, at_ms, .. } => match step {
                RolloutStep::Confirm => self.revisions.confirm(revision, author, message, at_ms),
                RolloutStep::Revert(cause) => {
                    let message = cause.explain(revision, &message);
                    let record =
                        RevisionRecord { author, message, at_ms, index, ..RevisionRecord::default() };
                    self.revisions.revert(revision, cause, record)
                }
                RolloutStep::Advance(next) => self.revisions.advance(revision, next, message, at_ms),
                RolloutStep::Pause => self.revisions.pause(revision, Some(author)),
                RolloutStep::Resume => self.revisions.pause(revision, None),
            },
            Command::SetRolloutPolicy { waves } => {
                self.rollout_policy = waves;
                Reply::Done
            }
            Command::Quarantine { revision, why, at_ms } => {
                self.revisions.isolate(revision, &why, at_ms);
                Reply::Done
            }
            Command::Purge { scopes, kind, .. } => {
                // No hit waits for this state.
                drop(self.purges.record(index, &scopes, kind));
                Reply::Purged { seq: index }
            }
            Command::ForgetPurges { up_to } => {
                // What was filled from now on is above it, whatever the proposer says.
                if let Some(remembered) = self.purges.without(up_to.min(index)) {
                    self.purges = remembered;
                }
                Reply::Done
            }
            Command::CreateToken { id, token } => {
                self.keep_token(id, token);
                Reply::Done
            }
            Command::Admit(admission) => self.admit(index, admission),
            Command::UpdateNode { node_id, record } => self.update_node(node_id, record),
            Command::RemoveNode { node_id } => self.remove_node(node_id),
            Command::SetStanding(order) => self.set_standing(index, order),
            Command::SetVote { node_id, may_vote } => self.set_vote(node_id, may_vote),
            Command::ChangeSetup(order) => {
                self.setup = self.setup.with(order);
                Reply::Done
            }
            Command::RevokeNode { node_id } => {
                let reply = self.remove_node(node_id);
                if reply == Reply::Done {
                    self.revoke(index, node_id);
                }
                reply
            }
            Command::GiveCertificate { serial, record } => {
                self.operators.give(serial, record, self.level.number)
            }
            Command::RevokeOperator { name, at_ms } => self.operators.revoke(name, at_ms),
            Command::CompareStates => Reply::Done,
            Command::Recover { survivor, cluster_epoch } => self.recover(index, survivor, cluster_epoch),
            Command::KeepKeys(order) => self.keep_keys(index, order),
            Command::SetLevel { from, to } => {
                let now = self.level.number;
                if from != now || to < now {
                    return Reply::Refused(Refusal::LevelChanged { now });
                }
                // What was held is done.
                self.level = ClusterLevel { number: to, held: None };
                Reply::Done
            }
            Command::HoldLevel { hold } => {
                self.level.held = hold;
                Reply::Done
            }
            // Opened by whoever applies it, or left out.
            Command::Later(_) => Reply::Done,
            Command::AskedBy { askers, command } => {
                let is_purge = matches!(*command, Command::Purge { .. });
                let is_of_stranger = matches!(*command, Command::Admit(_));
                let reply = self.carry_out(index, *command);
                // Anybody could fill the record with tokens that are none.
                if !(is_of_stranger && matches!(reply, Reply::Refused(_))) {
                    self.audit.note(index, askers, is_purge, &reply);
                }
                reply
            }
        }
    }

    fn recover(&mut self, index: u64, survivor: NodeId, cluster_epoch: u64) -> Reply {
        let lost: Vec<NodeId> = self.nodes.keys().copied().filter(|node| *node != survivor).collect();
        for node in lost {
            self.nodes.remove(&node);
            self.standings.remove(&node);
            self.revoke(index, node);
        }
        // Somebody has to.
        self.voteless.clear();
        // Who has one may have used it up where nobody can tell any more.
        self.tokens.clear();
        self.cluster_epoch = self.cluster_epoch.max(cluster_epoch);
        Reply::Done
    }

    fn refuses_wholly(&self) -> bool {
        self.level.number >= REFUSING_WHOLLY
    }

    /// The text of a site that is to be published. Of one that came in parts those are taken only when nothing is in its way,
    /// or when it is withdrawn.
    fn text_of(
        &mut self,
        site: SiteText,
        expected: Option<Revision>,
        terms: &Terms,
    ) -> Result<String, Refusal> {
        let (upload, parts) = match site {
            SiteText::Inline(text) => return Ok(text),
            SiteText::Uploaded { upload, parts } => (upload, parts),
        };
        if self.refuses_wholly() && parts != WITHDRAWN {
            if !self.uploads.is_complete(&upload, parts) {
                return Err(Refusal::UploadIncomplete);
            }
            if let Some(refusal) = self.revisions.refusal(expected, terms) {
                return Err(refusal);
            }
        }
        self.uploads.take(&upload, parts).ok_or(Refusal::UploadIncomplete)
    }

    /// What is to be said of a part of a site before it is proposed, `bytes` long.
    pub fn examine_part(&self, bytes: usize, at_ms: u64) -> Option<Refusal> {
        (!self.uploads.have_room(bytes, at_ms)).then_some(Refusal::UploadTooLarge)
    }

    fn revoke(&mut self, index: u64, node: NodeId) {
        self.revoked.insert(node);
        if self.refuses_wholly() {
            self.revoked_in.insert(node, index);
        }
        while self.revoked.len() > MAX_REVOKED {
            // Ids say when a node came. Those that were revoked before entries were kept were before all others.
            let first = match self.refuses_wholly() {
                true => self.revoked.iter().min_by_key(|id| self.revoked_in.get(id)).copied(),
                false => self.revoked.first().copied(),
            };
            let Some(first) = first else { return };
            self.revoked.remove(&first);
            self.revoked_in.remove(&first);
        }
    }

    /// Two nodes that remove each other at once must not leave a cluster of nobody.
    fn remove_node(&mut self, id: NodeId) -> Reply {
        if !self.nodes.contains_key(&id) {
            return Reply::Refused(Refusal::UnknownNode(id));
        }
        if self.nodes.len() == 1 {
            return Reply::Refused(Refusal::LastNode);
        }
        if !self.others_may_vote(id) {
            return Reply::Refused(Refusal::LastVoter);
        }
        self.nodes.remove(&id);
        self.standings.remove(&id);
        self.voteless.remove(&id);
        Reply::Done
    }

    fn keep_token(&mut self, id: String, token: TokenRecord) {
        self.tokens.insert(id, token);
        while self.tokens.len() > MAX_TOKENS {
            let first = self.tokens.iter().min_by_key(|(_, token)| token.expires_at_ms);
            let Some(id) = first.map(|(id, _)| id.clone()) else { return };
            self.tokens.remove(&id);
        }
    }

    fn admit(&mut self, index: u64, admission: Admission) -> Reply {
        let known =
            self.nodes.iter().find(|(_, node)| node.public_key_sha256 == admission.node.public_key_sha256);
        if let Some((id, _)) = known {
            return Reply::Admitted(*id);
        }
        // Only who has a token may learn which names there are.
        let only_learns = match self.check_token(&admission) {
            Ok(token) if token.uses_left == 0 && self.refuses_wholly() => {
                return Reply::Refused(Refusal::UnknownToken);
            }
            Ok(token) => token.is_for_learners() && self.level.number >= VOTES,
            Err(refusal) => return Reply::Refused(refusal),
        };
        if self.nodes.values().any(|node| node.name == admission.node.name) {
            return Reply::Refused(Refusal::NameTaken(admission.node.name));
        }
        // What is used up is kept for whoever has used it, until it expires.
        let is_kept = self.refuses_wholly();
        if let Entry::Occupied(mut token) = self.tokens.entry(admission.token_id) {
            token.get_mut().uses_left = token.get().uses_left.saturating_sub(1);
            if token.get().uses_left == 0 && !is_kept {
                token.remove();
            }
        }
        let id = NodeId(index.max(2));
        self.nodes.insert(id, admission.node);
        if only_learns {
            self.voteless.insert(id);
        }
        Reply::Admitted(id)
    }

    fn remember(&mut self, request_id: String, at_ms: u64, reply: &Reply) {
        self.remembered.insert(request_id.clone(), reply.clone());
        self.remembered_order.push_back((at_ms, request_id));
        while let Some((at, _)) = self.remembered_order.front() {
            if self.remembered_order.len() <= MAX_REMEMBERED && at.saturating_add(REMEMBER_MS) > at_ms {
                break;
            }
            if let Some((_, old)) = self.remembered_order.pop_front() {
                self.remembered.remove(&old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Revision;

    fn publish(request_id: &str, expected: Option<u64>, site: &str) -> Command {
        Command::Publish {
            request_id: request_id.into(),
            expected: expected.map(Revision),
            site: SiteText::Inline(site.into()),
            author: "ann".into(),
            message: String::new(),
            at_ms: 1,
            counts: [1, 0, 0],
            terms: Terms::default(),
        }
    }

    fn node(name: &str) -> MemberRecord {
        MemberRecord { name: name.into(), public_key_sha256: name.into(), ..MemberRecord::default() }
    }

    #[test]
    fn revisions_count_up_and_conflicts_are_refused() {
        let mut state = ConfigState::default();
        assert_eq!(state.apply(1, publish("a", None, "{}")), Reply::Published(Revision(1)));
        assert_eq!(state.apply(2, publish("b", Some(1), "{ }")), Reply::Published(Revision(2)));
        let conflict =
            Reply::Refused(Refusal::RevisionConflict { expected: Revision(1), active: Revision(2) });
        assert_eq!(state.apply(3, publish("c", Some(1), "{}")), conflict);
        assert_eq!(state.revisions.active().0, Revision(2));
        assert_eq!(state.revisions.content(Revision(1)).as_deref(), Some("{}"));
    }

    #[test]
    fn a_retried_request_is_applied_once() {
        let mut state = ConfigState::default();
        assert_eq!(state.apply(1, publish("same", None, "{}")), Reply::Published(Revision(1)));
        assert_eq!(state.apply(2, publish("same", None, "{}")), Reply::Published(Revision(1)));
        assert_eq!(state.revisions.active().0, Revision(1));
    }

    #[test]
    fn a_refused_request_may_be_tried_again() {
        let mut state = ConfigState::default();
        state.apply(1, publish("other", None, "{}"));
        let conflict =
            Reply::Refused(Refusal::RevisionConflict { expected: Revision(0), active: Revision(1) });
        assert_eq!(state.apply(2, publish("same", Some(0), "{ }")), conflict);
        assert_eq!(state.answered("same"), None);
        assert_eq!(state.apply(3, publish("same", Some(1), "{ }")), Reply::Published(Revision(2)));
        assert_eq!(state.answered("same"), Some(&Reply::Published(Revision(2))));
    }

    #[test]
    fn purges_are_forgotten_up_to_what_is_applied() {
        let mut state = ConfigState::default();
        let purge = |n: u128| Command::Purge {
            request_id: String::new(),
            scopes: vec![PurgeScope::Url(n)],
            kind: PurgeKind::Hard,
            at_ms: 1,
        };
        (1..=9).for_each(|n| _ = state.apply(n, purge(n.into())));
        assert_eq!(state.apply(10, Command::ForgetPurges { up_to: 4 }), Reply::Done);
        assert_eq!((state.purges.records(), state.purges.floor), (5, 4));
        state.apply(11, Command::ForgetPurges { up_to: u64::MAX });
        assert_eq!(
            (state.purges.records(), state.purges.floor),
            (0, 11),
            "what is filled from now on is above"
        );
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<ConfigState>(&text).unwrap(), state);
    }

    #[test]
    fn who_asks_is_on_the_record_once_and_with_the_outcome() {
        let mut state = ConfigState::default();
        let asked = |request_id: &str, command: Command| {
            let asker = Asker { by: "ada".into(), request_id: request_id.into(), ..Asker::default() };
            Command::AskedBy { askers: vec![asker], command: Box::new(command) }
        };
        let token = || Command::CreateToken { id: "t".into(), token: TokenRecord::default() };
        let conflict =
            Reply::Refused(Refusal::RevisionConflict { expected: Revision(7), active: Revision(1) });
        for (index, command, expected) in [
            (1, asked("a", publish("a", None, "{}")), Reply::Published(Revision(1))),
            (2, asked("a", publish("a", None, "{}")), Reply::Published(Revision(1))),
            (3, asked("b", publish("b", Some(7), "{}")), conflict.clone()),
            (4, asked("c", token()), Reply::Done),
            (5, asked("c", token()), Reply::Done),
            (6, token(), Reply::Done),
        ] {
            assert_eq!(state.apply(index, command), expected, "{index}");
        }
        let records = state.audit.changes.newest_first().map(|(_, record)| (record.index, &record.outcome));
        let expected = [(4, &Reply::Done), (3, &conflict), (1, &Reply::Published(Revision(1)))];
        assert_eq!(records.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn tokens_are_bounded() {
        let mut state = ConfigState::default();
        for n in 0..=MAX_TOKENS as u64 {
            let token = TokenRecord { expires_at_ms: 10_000 - n, ..TokenRecord::default() };
            state.apply(n + 1, Command::CreateToken { id: format!("t{n}"), token });
        }
        assert_eq!(state.tokens.len(), MAX_TOKENS);
        assert!(!state.tokens.contains_key("t1000"), "the one that expires first made room");
    }

    #[test]
    fn uploads_arrive_in_order_and_once() {
        let mut state = ConfigState::default();
        let part =
            |part, text: &str| Command::UploadPart { upload: "u".into(), part, text: text.into(), at_ms: 1 };
        assert_eq!(state.apply(1, part(0, "{")), Reply::Done);
        assert_eq!(state.apply(2, part(0, "{")), Reply::Done);
        assert_eq!(state.apply(3, part(2, "x")), Reply::Refused(Refusal::UploadIncomplete));
        assert_eq!(state.apply(4, part(1, "}")), Reply::Done);
        let mut command = publish("p", None, "");
        if let Command::Publish { site, .. } = &mut command {
            *site = SiteText::Uploaded { upload: "u".into(), parts: 2 };
        }
        assert_eq!(state.apply(5, command), Reply::Published(Revision(1)));
        assert_eq!(state.revisions.active().1.as_ref(), "{}");
    }

    #[test]
    fn uploads_are_bounded_and_forgotten() {
        let mut state = ConfigState::default();
        let part = |upload: usize, at_ms| {
            let upload = format!("u{upload}");
            Command::UploadPart { upload, part: 0, text: "x".into(), at_ms }
        };
        for upload in 0..MAX_UPLOADS {
            assert_eq!(state.apply(1, part(upload, 1)), Reply::Done);
        }
        assert_eq!(state.apply(2, part(99, 2)), Reply::Refused(Refusal::UploadTooLarge));
        let mut withdrawal = publish("", None, "");
        if let Command::Publish { site, .. } = &mut withdrawal {
            *site = SiteText::Uploaded { upload: "u3".into(), parts: u32::MAX };
        }
        assert_eq!(state.apply(3, withdrawal), Reply::Refused(Refusal::UploadIncomplete));
        assert_eq!(state.apply(4, part(99, 2)), Reply::Done, "one was withdrawn");
        assert_eq!(state.apply(5, part(77, 10 * 60_000 + 1)), Reply::Done, "old ones are forgotten");
    }

    #[test]
    fn no_time_is_too_late() {
        let mut state = ConfigState::default();
        for (index, at_ms) in [(1, u64::MAX), (2, u64::MAX), (3, 1)] {
            let name = || format!("n{index}");
            let scopes = vec![PurgeScope::All];
            let purge = Command::Purge { request_id: name(), scopes, kind: PurgeKind::Hard, at_ms };
            assert_eq!(state.apply(index, purge), Reply::Purged { seq: index });
            let part = Command::UploadPart { upload: name(), part: 0, text: "x".into(), at_ms };
            assert_eq!(state.apply(index, part), Reply::Done, "{index}");
            let revoking = Command::RevokeOperator { name: name(), at_ms };
            assert_eq!(state.apply(index, revoking), Reply::Done, "{index}");
        }
        assert!(state.answered("n3").is_some());
    }

    #[test]
    fn removed_nodes_are_told_from_those_to_come() {
        let mut state = ConfigState::default();
        let check = |id, state: &ConfigState, expected| {
            assert_eq!(state.was_removed(NodeId(id), 10), expected, "{id}")
        };
        check(5, &state, false);
        state.nodes.extend([1, 7].map(|id| (NodeId(id), MemberRecord::default())));
        check(1, &state, false);
        check(7, &state, false);
        check(5, &state, true);
        check(11, &state, false);
    }

    #[test]
    fn a_removed_node_leaves_its_name_and_never_its_id() {
        let mut state = ConfigState::default();
        state.nodes.extend([(NodeId(1), node("a")), (NodeId(3), node("b"))]);
        let token = TokenRecord {
            secret_sha256: "s".into(),
            expires_at_ms: 100,
            uses_left: 9,
            ..TokenRecord::default()
        };
        state.apply(4, Command::CreateToken { id: "t".into(), token });
        let remove = |id| Command::RemoveNode { node_id: NodeId(id) };
        let admit = |key: &str| {
            let node = MemberRecord { public_key_sha256: key.into(), ..node("b") };
            let (token_id, secret_sha256) = ("t".into(), "s".into());
            Command::Admit(Admission { token_id, secret_sha256, at_ms: 1, node })
        };
        let unknown = |id| Reply::Refused(Refusal::UnknownNode(NodeId(id)));
        for (index, command, expected) in [
            (5, admit("new"), Reply::Refused(Refusal::NameTaken("b".into()))),
            (6, remove(2), unknown(2)),
            (7, remove(3), Reply::Done),
            (8, remove(3), unknown(3)),
            (9, remove(1), Reply::Refused(Refusal::LastNode)),
            (10, admit("new"), Reply::Admitted(NodeId(10))),
            (11, remove(10), Reply::Done),
            (12, admit("new"), Reply::Admitted(NodeId(12))),
        ] {
            assert_eq!(state.apply(index, command.clone()), expected, "{index}: {command:?}");
        }
        assert!(state.was_removed(NodeId(3), 12) && state.was_removed(NodeId(10), 12));
    }

    #[test]
    fn revoked_nodes_are_removed_and_remembered() {
        let mut state = ConfigState::default();
        for id in 1..=2 {
            state.nodes.insert(NodeId(id), node(&format!("n{id}")));
        }
        let revoke = |id| Command::RevokeNode { node_id: NodeId(id) };
        assert_eq!(state.apply(5, revoke(7)), Reply::Refused(Refusal::UnknownNode(NodeId(7))));
        assert_eq!(state.apply(6, revoke(2)), Reply::Done);
        assert_eq!(state.apply(7, revoke(1)), Reply::Refused(Refusal::LastNode));
        assert!(state.was_removed(NodeId(2), 7));
        assert_eq!(state.revoked, BTreeSet::from([NodeId(2)]));
        for id in 100..=100 + MAX_REVOKED as u64 {
            state.nodes.insert(NodeId(id), node(&format!("n{id}")));
            state.apply(id, revoke(id));
        }
        assert_eq!(state.revoked.len(), MAX_REVOKED);
        assert!(!state.revoked.contains(&NodeId(2)));
        // An old node that is revoked after all of them.
        let revoke_old = |level: u32| {
            let mut state = state.clone();
            state.level.number = level;
            state.nodes.insert(NodeId(3), node("old"));
            assert_eq!(state.apply(9_000, revoke(3)), Reply::Done);
            state.nodes.extend([4, 9_001].map(|id| (NodeId(id), node(&format!("n{id}")))));
            state.apply(9_002, revoke(9_001));
            state.apply(9_003, revoke(4));
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<ConfigState>(&text).unwrap(), state);
            [3, 4, 9_001].map(|id| state.revoked.contains(&NodeId(id)))
        };
        assert_eq!(revoke_old(REFUSING_WHOLLY - 1), [false, false, true]);
        assert_eq!(revoke_old(REFUSING_WHOLLY), [true; 3]);
    }

    #[test]
    fn who_has_used_a_token_up_may_show_it_again() {
        let mut state = ConfigState::default();
        state.level.number = REFUSING_WHOLLY;
        let token = TokenRecord {
            secret_sha256: "s".into(),
            expires_at_ms: 100,
            uses_left: 1,
            ..TokenRecord::default()
        };
        state.apply(7, Command::CreateToken { id: "t".into(), token });
        let admission = |name: &str, secret: &str, at_ms| Admission {
            token_id: "t".into(),
            secret_sha256: secret.into(),
            at_ms,
            node: node(name),
        };
        assert_eq!(state.apply(10, Command::Admit(admission("b", "s", 99))), Reply::Admitted(NodeId(10)));
        let unknown = || Examined::Refused(Refusal::UnknownToken);
        for (name, secret, at_ms, expected) in [
            ("b", "s", 99, Examined::Fits),
            ("b", "s", 100, Examined::Refused(Refusal::TokenExpired)),
            ("b", "wrong", 99, unknown()),
            ("c", "s", 99, unknown()),
        ] {
            assert_eq!(
                state.examine(&admission(name, secret, at_ms)),
                expected,
                "{name} {secret} at {at_ms}"
            );
        }
        let refused = Reply::Refused(Refusal::UnknownToken);
        assert_eq!(state.apply(11, Command::Admit(admission("c", "s", 99))), refused);
        assert_eq!(state.tokens["t"].uses_left, 0);
    }

    #[test]
    fn tokens_admit_as_often_as_they_say() {
        let mut state = ConfigState::default();
        let token = TokenRecord {
            secret_sha256: "s".into(),
            expires_at_ms: 100,
            uses_left: 1,
            role: "node".into(),
            ..TokenRecord::default()
        };
        state.apply(7, Command::CreateToken { id: "t".into(), token });
        let admit = |name: &str, secret: &str, at_ms| {
            Command::Admit(Admission {
                token_id: "t".into(),
                secret_sha256: secret.into(),
                at_ms,
                node: node(name),
            })
        };
        let examine = |state: &ConfigState, command: Command| match command {
            Command::Admit(admission) => state.examine(&admission),
            command => panic!("{command}"),
        };
        for (name, secret, at_ms, expected) in [
            ("b", "wrong", 1, Examined::Refused(Refusal::UnknownToken)),
            ("b", "s", 100, Examined::Refused(Refusal::TokenExpired)),
            ("b", "s", 99, Examined::Fits),
        ] {
            assert_eq!(examine(&state, admit(name, secret, at_ms)), expected, "{secret} at {at_ms}");
        }
        assert_eq!(state.apply(8, admit("b", "wrong", 1)), Reply::Refused(Refusal::UnknownToken));
        assert_eq!(state.apply(9, admit("b", "s", 100)), Reply::Refused(Refusal::TokenExpired));
        assert_eq!(state.apply(10, admit("b", "s", 99)), Reply::Admitted(NodeId(10)));
        assert_eq!(state.apply(11, admit("b", "s", 99)), Reply::Admitted(NodeId(10)), "same key, same id");
        assert_eq!(state.apply(12, admit("c", "s", 99)), Reply::Refused(Refusal::UnknownToken), "used up");
        assert_eq!(examine(&state, admit("c", "s", 99)), Examined::Unheard, "it may still be to come");
        for secret in ["wrong", "s"] {
            let told = examine(&state, admit("b", secret, 99));
            assert_eq!(told, Examined::Unheard, "its key alone lets nobody back in");
        }
        let namesake = |secret: &str| {
            let node = MemberRecord { public_key_sha256: "other".into(), ..node("b") };
            let (token_id, secret_sha256) = ("u".into(), secret.into());
            Command::Admit(Admission { token_id, secret_sha256, at_ms: 1, node })
        };
        let token = TokenRecord {
            secret_sha256: "s".into(),
            expires_at_ms: 100,
            uses_left: 1,
            ..TokenRecord::default()
        };
        state.apply(13, Command::CreateToken { id: "u".into(), token });
        assert_eq!(state.apply(14, namesake("wrong")), Reply::Refused(Refusal::UnknownToken));
        assert_eq!(state.apply(15, namesake("s")), Reply::Refused(Refusal::NameTaken("b".into())));
        assert_eq!(state.tokens["u"].uses_left, 1, "a refusal costs no use");
        for id in 100..100 + MAX_NODES as u64 {
            state.nodes.insert(NodeId(id), node(&format!("n{id}")));
        }
        assert_eq!(examine(&state, namesake("s")), Examined::Refused(Refusal::TooManyNodes));
    }

    #[test]
    fn what_founds_a_cluster_is_passed_on_to_nobody() {
        let asked = |command: Command| command.asked_by(vec![Asker::default()]);
        let recover = Command::Recover { survivor: NodeId(1), cluster_epoch: 2 };
        for (command, may_be) in [
            (Command::CompareStates, true),
            (asked(Command::CompareStates), true),
            (recover.clone(), false),
            (asked(recover), false),
            (asked(asked(Command::CompareStates)), false),
        ] {
            assert_eq!(command.may_be_passed_on(), may_be, "{command}");
        }
    }
}
