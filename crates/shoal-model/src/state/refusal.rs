//! Why a command may change nothing.

use serde::{Deserialize, Serialize};

use super::{MAX_NODE_SECONDS, MAX_NODES, MIN_NODE_SECONDS};
use crate::id::{NodeId, Revision};

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Somebody else was faster.
    #[error("the active revision is {active}, not {expected}")]
    RevisionConflict {
        /// What the caller had seen.
        expected: Revision,
        /// What is there.
        active: Revision,
    },
    /// The active revision may have to be taken back, which is only clear as long as nothing follows it.
    #[error("revision {0} is not confirmed yet: type `shoal confirm {0}` or `shoal abort {0}` first")]
    Unconfirmed(Revision),
    /// It is in force for good, or not any more.
    #[error("revision {0} does not wait to be confirmed")]
    NotUnconfirmed(Revision),
    /// It is in force for good, or waits for somebody to confirm it.
    #[error("revision {0} does not go from wave to wave")]
    NotInWaves(Revision),
    /// Somebody else was faster.
    #[error("revision {revision} is in wave {wave} already")]
    WaveOver {
        /// Which.
        revision: Revision,
        /// Where it is.
        wave: u32,
    },
    /// The same content did harm before.
    #[error("it is what revision {revision} was, which is in quarantine ({why})")]
    Quarantined {
        /// When it was found out.
        revision: Revision,
        /// How.
        why: String,
    },
    /// Parts of the site document are missing.
    #[error("parts of the site document are missing; apply it again")]
    UploadIncomplete,
    /// Too many site documents are on their way in, or this one is too large.
    #[error("the site document is too large, or too many are being applied at once; try again later")]
    UploadTooLarge,
    /// They come faster than the disks of a majority write.
    #[error("too many purges wait to be written into the log; try again later")]
    TooManyPurges,
    /// No such token, or a wrong secret, or it is used up.
    #[error("the token is unknown or used up; create a new one with `shoal token create`")]
    UnknownToken,
    /// Its time has passed.
    #[error("the token has expired; create a new one with `shoal token create`")]
    TokenExpired,
    /// Each tells all others of itself.
    #[error(
        "the cluster has {MAX_NODES} nodes, and takes no more; remove those that are gone with `shoal node remove`"
    )]
    TooManyNodes,
    /// Two nodes cannot have one name.
    #[error("there is already a node called {0:?}; start this one with another --name")]
    NameTaken(String),
    /// Never admitted, or removed.
    #[error("{0} is not a node of this cluster")]
    UnknownNode(NodeId),
    /// Nobody is forgotten who could call.
    #[error(
        "too many certificates of operators, or names that were revoked, are remembered; wait until some have ended"
    )]
    TooManyOperators,
    /// It could not be renewed in time, or not be forgotten.
    #[error(
        "the certificate of a node lasts {MIN_NODE_SECONDS} to {MAX_NODE_SECONDS} seconds, not {seconds}"
    )]
    NodeLife {
        /// What was asked for.
        seconds: u32,
    },
    /// Somebody else was faster, or it is too late for that.
    #[error("that does not follow from how far the authorities are; see `shoal cluster keys`")]
    Succession,
    /// Somebody has to be the cluster.
    #[error("the last node of a cluster cannot be removed")]
    LastNode,
    /// Somebody has to decide.
    #[error("no other node may vote; let one with `shoal node promote` first")]
    LastVoter,
    /// The operator has seen something else.
    #[error("somebody else has changed it meanwhile: the node is {now}")]
    StandingChanged {
        /// What is so.
        now: String,
    },
    /// Nobody would do any more what the node does.
    #[error(
        "no other node of the region {region:?} would be left in service if it were {standing}; --force does it all the same"
    )]
    LastInService {
        /// Of the node.
        region: String,
        /// What it was to be.
        standing: String,
    },
    /// Somebody else was faster, or it would go back.
    #[error("the cluster is at level {now} by now")]
    LevelChanged {
        /// The level.
        now: u32,
    },
    /// The cluster exists.
    #[error("this cluster is already bootstrapped")]
    AlreadyBootstrapped,
}
