//! What can be put into the log.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::level::{Envelope, Hold, LEVELS};
use super::{
    Asker, ClusterSetup, KeyOrder, MemberRecord, OperatorRecord, Pace, PurgeKind, PurgeScope, Refusal,
    RolloutStep, SetupOrder, StandingOrder, Terms, TokenRecord,
};
use crate::id::{ClusterId, NodeId, Revision};
use crate::site::Site;

/// The least [`COMMANDS`] of a node that knows [`Command::ForgetPurges`].
pub const FORGET_PURGES: u32 = 1;
/// The least [`COMMANDS`] of a node that knows [`Command::Rollout`], and [`Terms`] of [`Command::Publish`].
pub const ROLLOUTS: u32 = 2;
/// The least [`COMMANDS`] of a node that knows [`Terms::canary`].
pub const CANARIES: u32 = 3;
/// The least [`COMMANDS`] of a node that knows [`Command::SetStanding`].
pub const STANDINGS: u32 = 4;
/// The least [`COMMANDS`] of a node that knows [`Command::AskedBy`].
pub const ASKERS: u32 = 5;
/// The least [`COMMANDS`] of a node that knows [`Command::RevokeNode`], [`Command::GiveCertificate`] and
/// [`Command::RevokeOperator`].
pub const REVOKING: u32 = 6;
/// The least [`COMMANDS`] of a node that knows [`Command::CompareStates`].
pub const COMPARING: u32 = 7;
/// The least [`COMMANDS`] of a node that knows [`Command::Recover`].
pub const RECOVERING: u32 = 8;
/// The least [`COMMANDS`] of a node that knows [`Command::ChangeSetup`].
pub const SETUPS: u32 = 9;
/// The least [`COMMANDS`] of a node that knows [`Terms::waves`] and what comes with it, [`Command::SetRolloutPolicy`] and
/// [`Command::Quarantine`].
pub const WAVES: u32 = 10;
/// The least [`COMMANDS`] of a node that knows [`Command::KeepKeys`].
pub const KEEPING_KEYS: u32 = 11;
/// From this level on a command that is refused changes nothing at all, of too many revoked nodes those are forgotten that
/// were revoked first, no member takes the name of another one, and what is tried despite its quarantine leaves that once it
/// stays: what applying some commands does, so that every node has to know it.
/// [`Unwatched`](super::RevertCause::Unwatched) is new.
pub const REFUSING_WHOLLY: u32 = LEVELS + 1;
/// From this level on every certificate that operators are given is on a list, and soon no other one is good: at once in a new
/// cluster, in one of before once the last that is on no list has ended (see [`Operators`](super::Operators)).
pub const LISTING_OPERATORS: u32 = REFUSING_WHOLLY;
/// The least [`COMMANDS`] of a node that knows [`Command::SetVote`], and tokens by which learners join.
pub const VOTES: u32 = REFUSING_WHOLLY;
/// Which commands this version knows: one more with each that was added since nodes tell each other. Whatever is added beyond
/// [`LEVELS`] is only written where the cluster's level has reached it, in an [`Envelope`]: [`Command::needs`] has to say so.
/// What a level brings is settled once a version with it is released: until then more may come with it.
pub const COMMANDS: u32 = REFUSING_WHOLLY;

/// One entry of the log. The proposer has filled in every time; nothing is read from the outside when it is applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// First entry of a new cluster.
    Bootstrap {
        /// Random.
        cluster_id: ClusterId,
        /// DER.
        ca_certificate: Vec<u8>,
        /// Sealed with the cluster's secret.
        ca_key_sealed: Vec<u8>,
        /// The first node; it gets id 1.
        node: MemberRecord,
        /// Before there was a choice there was none.
        #[serde(default, skip_serializing_if = "ClusterSetup::is_usual")]
        setup: ClusterSetup,
        /// The level that the cluster begins with.
        #[serde(default, skip_serializing_if = "is_zero")]
        level: u32,
    },
    /// A part of a site document that is too large for one entry.
    UploadPart {
        /// Chosen at random by the uploader.
        upload: String,
        /// From 0, in order.
        part: u32,
        /// At most 256 KiB.
        text: String,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// A new revision of the site.
    Publish {
        /// The same id is applied once.
        request_id: String,
        /// Refused unless this is the active revision.
        expected: Option<Revision>,
        /// Canonical JSON, private keys sealed.
        site: SiteText,
        /// Who.
        author: String,
        /// Why.
        message: String,
        /// Unix milliseconds.
        at_ms: u64,
        /// Objects added, removed, changed.
        counts: [u32; 3],
        /// Others than the usual ones only where every member knows [`ROLLOUTS`].
        #[serde(default, skip_serializing_if = "Terms::are_usual")]
        terms: Terms,
    },
    /// What becomes of a revision that is not in force for good. Proposed only where every member knows [`ROLLOUTS`], or
    /// there would be none.
    Rollout {
        /// The same id is applied once.
        request_id: String,
        /// Refused unless this is the one.
        revision: Revision,
        /// What.
        step: RolloutStep,
        /// Who.
        author: String,
        /// Why.
        message: String,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// How a revision comes into force where nobody says: in waves of this pace, or at once. Proposed only where every member
    /// knows [`WAVES`].
    SetRolloutPolicy {
        /// `None` = at once.
        waves: Option<Pace>,
    },
    /// A node cannot live with the content of a revision: it is not to be applied again. Proposed only where every member
    /// knows [`WAVES`].
    Quarantine {
        /// Which.
        revision: Revision,
        /// Which node, and why.
        why: String,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// Cached objects are to be forgotten. The index of the entry is the purge's sequence number.
    Purge {
        /// The same id is applied once.
        request_id: String,
        /// At most 1,000.
        scopes: Vec<PurgeScope>,
        /// Forget, or only treat as stale.
        kind: PurgeKind,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// Purges up to this log index are remembered no longer one by one: what was not checked since has to be validated.
    /// Proposed only where every member knows [`FORGET_PURGES`].
    ForgetPurges {
        /// The index.
        up_to: u64,
    },
    /// A token with which nodes may join.
    CreateToken {
        /// Its public part.
        id: String,
        /// What it allows.
        token: TokenRecord,
    },
    /// A stranger with a token becomes a node.
    Admit(Admission),
    /// A node has moved, or was renamed: from a level of [`REFUSING_WHOLLY`] on never to the name of another one.
    UpdateNode {
        /// Which.
        node_id: NodeId,
        /// As it is now.
        record: MemberRecord,
    },
    /// A node is gone for good; its id is never used again.
    RemoveNode {
        /// Which.
        node_id: NodeId,
    },
    /// An operator takes a node out of service, or puts it back. Proposed only where every member that is known to be of
    /// some version knows [`STANDINGS`].
    SetStanding(StandingOrder),
    /// An operator lets a node vote, or does not. Proposed only at a level of [`VOTES`].
    SetVote {
        /// Which.
        node_id: NodeId,
        /// False = it never does, whoever else is lost.
        may_vote: bool,
    },
    /// What holds for the cluster as a whole changes. Proposed only where every member knows [`SETUPS`].
    ChangeSetup(SetupOrder),
    /// A node is not trusted any more: it is gone for good like one that was removed, and cut off at once. Proposed only where
    /// every other member knows [`REVOKING`].
    RevokeNode {
        /// Which.
        node_id: NodeId,
    },
    /// An operator has got a certificate. Proposed only where every member knows [`REVOKING`], or some are remembered.
    GiveCertificate {
        /// Its serial number, hex.
        serial: String,
        /// What it is good for.
        record: OperatorRecord,
    },
    /// The certificates of an operator are good for nothing any more. Proposed only where [`Command::GiveCertificate`] is.
    RevokeOperator {
        /// Whose.
        name: String,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// One node goes on alone, a majority of the voters being lost for good. Never proposed: it is written into the log of that
    /// node while it does not run.
    Recover {
        /// Which; all others are gone, and nobody may listen to them.
        survivor: NodeId,
        /// From now on.
        cluster_epoch: u64,
    },
    /// Changes nothing: a place in the log after which the states of all nodes are compared, and what is on the record that
    /// changes nothing. Proposed only where every member knows [`COMPARING`].
    CompareStates,
    /// The cluster's own certificates are kept otherwise from now on. Proposed only where every member knows the order.
    KeepKeys(KeyOrder),
    /// Commands of a later level may be written from now on. Proposed only where every member knows them.
    SetLevel {
        /// Refused unless this is the level.
        from: u32,
        /// Never lower.
        to: u32,
    },
    /// The level is not raised by itself, or is again. Proposed only where every member knows [`LEVELS`].
    HoldLevel {
        /// Who does not want it; `None` = nobody any more.
        hold: Option<Hold>,
    },
    /// A command that was added after [`LEVELS`].
    Later(Envelope),
    /// What somebody has asked for, and is on the record for it. Proposed only where every member knows [`ASKERS`],
    /// or the record has begun.
    AskedBy {
        /// More than one where purges went together.
        askers: Vec<Asker>,
        /// What is to be done.
        command: Box<Self>,
    },
}

/// The text of a site, or where its parts are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SiteText {
    /// In this entry.
    Inline(String),
    /// In earlier [`Command::UploadPart`] entries.
    Uploaded {
        /// Their id.
        upload: String,
        /// How many there are.
        parts: u32,
    },
}

impl SiteText {
    /// A site can be read of it. Of one that is in other entries nobody can tell by this one.
    pub fn may_be_read(&self) -> bool {
        match self {
            Self::Inline(text) => Site::from_json(text).is_ok(),
            Self::Uploaded { .. } => true,
        }
    }
}

/// A stranger with a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Admission {
    /// Public part of the token.
    pub token_id: String,
    /// SHA-256 of its secret part, hex.
    pub secret_sha256: String,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// The node to be.
    pub node: MemberRecord,
}

/// What a state says of an [`Admission`] that nobody has proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// The token is good, or the key is a member's.
    Fits,
    /// The state has no such token. One that was just made may still be on its way.
    Unheard,
    /// Nothing that is to come makes it good.
    Refused(Refusal),
}

fn is_zero(level: &u32) -> bool {
    *level == 0
}

impl Command {
    /// The least [`COMMANDS`] of a node that can apply it.
    pub fn needs(&self) -> u32 {
        match self {
            Self::CreateToken { token, .. } if token.is_for_learners() => VOTES,
            Self::UploadPart { .. }
            | Self::Purge { .. }
            | Self::CreateToken { .. }
            | Self::Admit(_)
            | Self::UpdateNode { .. }
            | Self::RemoveNode { .. } => 0,
            Self::Bootstrap { setup, level, .. } if setup.is_usual() => *level,
            Self::Bootstrap { level, .. } => SETUPS.max(*level),
            Self::Publish { terms, .. } => terms.needs(),
            Self::Rollout { step: RolloutStep::Confirm, .. } => ROLLOUTS,
            Self::Rollout { step: RolloutStep::Revert(cause), .. } => cause.needs(),
            Self::Rollout { .. } | Self::SetRolloutPolicy { .. } | Self::Quarantine { .. } => WAVES,
            Self::ForgetPurges { .. } => FORGET_PURGES,
            Self::SetStanding(_) => STANDINGS,
            Self::SetVote { .. } => VOTES,
            Self::RevokeNode { .. } | Self::GiveCertificate { .. } | Self::RevokeOperator { .. } => REVOKING,
            Self::CompareStates => COMPARING,
            Self::Recover { .. } => RECOVERING,
            Self::ChangeSetup(_) => SETUPS,
            Self::KeepKeys(_) => KEEPING_KEYS,
            Self::SetLevel { to, .. } => LEVELS.max(*to),
            Self::HoldLevel { .. } => LEVELS,
            Self::Later(envelope) => LEVELS.max(envelope.cmd_version),
            Self::AskedBy { command, .. } => ASKERS.max(command.needs()),
        }
    }

    /// What is to be done, whoever asks for it.
    pub fn innermost(&self) -> &Self {
        match self {
            Self::AskedBy { command, .. } => command.innermost(),
            command => command,
        }
    }

    /// Who asks, and what is to be done.
    pub fn into_parts(self) -> (Vec<Asker>, Self) {
        match self {
            Self::AskedBy { askers, command } => (askers, *command),
            command => (Vec::new(), command),
        }
    }

    /// The same because `askers` ask for it; nobody = of its own accord.
    pub fn asked_by(self, askers: Vec<Asker>) -> Self {
        match askers.is_empty() {
            true => self,
            false => Self::AskedBy { askers, command: Box::new(self) },
        }
    }

    /// A node may ask another one to put it into the log. The rest is written by whoever founds a cluster, or saves one.
    pub fn may_be_passed_on(&self) -> bool {
        match self {
            Self::AskedBy { command, .. } => {
                !matches!(**command, Self::AskedBy { .. }) && command.may_be_passed_on()
            }
            command => !matches!(command, Self::Bootstrap { .. } | Self::Recover { .. }),
        }
    }

    /// The text of a site, or of a part of one, that it carries.
    pub fn site_text(&self) -> Option<&str> {
        if let Self::AskedBy { command, .. } = self {
            return command.site_text();
        }
        let (Self::UploadPart { text, .. } | Self::Publish { site: SiteText::Inline(text), .. }) = self
        else {
            return None;
        };
        Some(text)
    }

    /// The request id and time of a command that is applied once however often it is proposed.
    pub(super) fn request(&self) -> Option<(String, u64)> {
        match self {
            Self::Publish { request_id, at_ms, .. }
            | Self::Rollout { request_id, at_ms, .. }
            | Self::Purge { request_id, at_ms, .. } => {
                (!request_id.is_empty()).then(|| (request_id.clone(), *at_ms))
            }
            Self::Bootstrap { .. }
            | Self::UploadPart { .. }
            | Self::SetRolloutPolicy { .. }
            | Self::Quarantine { .. }
            | Self::ForgetPurges { .. }
            | Self::CreateToken { .. }
            | Self::Admit(_)
            | Self::UpdateNode { .. }
            | Self::RemoveNode { .. }
            | Self::SetStanding(_)
            | Self::SetVote { .. }
            | Self::ChangeSetup(_)
            | Self::RevokeNode { .. }
            | Self::GiveCertificate { .. }
            | Self::RevokeOperator { .. }
            | Self::Recover { .. }
            | Self::SetLevel { .. }
            | Self::HoldLevel { .. }
            | Self::Later(_)
            | Self::CompareStates
            | Self::KeepKeys(_) => None,
            Self::AskedBy { command, .. } => command.request(),
        }
    }
}

/// What kind of command, for logs: its content may be long or secret.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bootstrap { .. } => "bootstrap",
            Self::UploadPart { .. } => "upload part",
            Self::Publish { .. } => "publish",
            Self::Rollout { .. } => "rollout",
            Self::SetRolloutPolicy { .. } => "set rollout policy",
            Self::Quarantine { .. } => "quarantine",
            Self::Purge { .. } => "purge",
            Self::ForgetPurges { .. } => "forget purges",
            Self::CreateToken { .. } => "create token",
            Self::Admit(_) => "admit",
            Self::UpdateNode { .. } => "update node",
            Self::RemoveNode { .. } => "remove node",
            Self::SetStanding(_) => "set standing",
            Self::SetVote { .. } => "set vote",
            Self::ChangeSetup(_) => "change setup",
            Self::RevokeNode { .. } => "revoke node",
            Self::GiveCertificate { .. } => "give certificate",
            Self::RevokeOperator { .. } => "revoke operator",
            Self::Recover { .. } => "recover",
            Self::CompareStates => "compare states",
            Self::KeepKeys(_) => "keep keys",
            Self::SetLevel { .. } => "set level",
            Self::HoldLevel { .. } => "hold level",
            Self::Later(envelope) => return write!(f, "{:?}", envelope.kind),
            Self::AskedBy { command, .. } => return command.fmt(f),
        })
    }
}
