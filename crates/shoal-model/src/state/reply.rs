//! What applying a command answers, and how whoever proposed it gets at the part that belongs to it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::id::{NodeId, Revision};

/// What applying a command answered, equal on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing to tell.
    #[default]
    Done,
    /// The new revision.
    Published(Revision),
    /// This revision is in force for good.
    Confirmed(Revision),
    /// The purge is in force from this sequence number on.
    Purged {
        /// Index of its entry.
        seq: u64,
    },
    /// The node has this id, for ever.
    Admitted(NodeId),
    /// Nothing was changed.
    Refused(Refusal),
}

/// A reply that is not what was hoped for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtherReply {
    /// Nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It belongs to something else.
    #[error("the log answered with a reply that does not belong to the command")]
    Stray,
}

impl Reply {
    /// Of what is answered by nothing but that it is done.
    pub fn done(self) -> Result<(), OtherReply> {
        match self {
            Self::Done => Ok(()),
            other => Err(other.other()),
        }
    }

    /// The revision that was made.
    pub fn published(self) -> Result<Revision, OtherReply> {
        match self {
            Self::Published(revision) => Ok(revision),
            other => Err(other.other()),
        }
    }

    /// The revision that stays.
    pub fn confirmed(self) -> Result<Revision, OtherReply> {
        match self {
            Self::Confirmed(revision) => Ok(revision),
            other => Err(other.other()),
        }
    }

    /// The sequence number of a purge.
    pub fn purged(self) -> Result<u64, OtherReply> {
        match self {
            Self::Purged { seq } => Ok(seq),
            other => Err(other.other()),
        }
    }

    /// The id of a new node.
    pub fn admitted(self) -> Result<NodeId, OtherReply> {
        match self {
            Self::Admitted(id) => Ok(id),
            other => Err(other.other()),
        }
    }

    fn other(self) -> OtherReply {
        match self {
            Self::Refused(refusal) => OtherReply::Refused(refusal),
            Self::Done
            | Self::Published(_)
            | Self::Confirmed(_)
            | Self::Purged { .. }
            | Self::Admitted(_) => OtherReply::Stray,
        }
    }
}

/// In short, for people.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Published(revision) => write!(f, "revision {revision}"),
            Self::Confirmed(revision) => write!(f, "revision {revision} stays"),
            Self::Purged { seq } => write!(f, "purge {seq}"),
            Self::Admitted(id) => write!(f, "admitted as {id}"),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_the_command_is_an_answer() {
        assert_eq!(Reply::Done.done(), Ok(()));
        assert_eq!(Reply::Published(Revision(3)).published(), Ok(Revision(3)));
        assert_eq!(Reply::Confirmed(Revision(3)).confirmed(), Ok(Revision(3)));
        assert_eq!(Reply::Purged { seq: 7 }.purged(), Ok(7));
        assert_eq!(Reply::Admitted(NodeId(2)).admitted(), Ok(NodeId(2)));
        assert_eq!(Reply::Published(Revision(3)).confirmed(), Err(OtherReply::Stray));
        assert_eq!(Reply::Done.published(), Err(OtherReply::Stray));
        let refusal = Refusal::UnknownNode(NodeId(4));
        assert_eq!(Reply::Refused(refusal.clone()).done(), Err(OtherReply::Refused(refusal)));
    }
}
