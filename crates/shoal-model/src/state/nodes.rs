//! Who belongs to the cluster, and who may join.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Command, ConfigState, Refusal, Reply};
use crate::id::NodeId;

/// Longest name of a node, region or zone.
const MAX_NAME: usize = 63;

/// A name that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("names have 1 to {MAX_NAME} letters, digits, '-', '_' or '.', not {0:?}")]
pub struct NameError(String);

/// Whether a node, region or zone may be called this: names stand in headers, metrics and tables.
pub fn check_member_name(name: &str) -> Result<(), NameError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        return Err(NameError(name.chars().take(80).collect()));
    }
    Ok(())
}

/// A node that was admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its `--name`.
    pub name: String,
    /// Its `--region`.
    pub region: String,
    /// Its `--zone`.
    pub zone: String,
    /// Gossip (UDP) and peer RPC (TCP).
    pub cluster_addr: String,
    /// Operator gRPC.
    pub admin_addr: String,
    /// SHA-256 of its public key (SPKI, DER), hex: joining again with the same key is the same node.
    pub public_key_sha256: String,
    /// How long the leases may be under which it answers from its cache, milliseconds: its `--purge-lease`; 0 = it does not
    /// say, being of before there was a choice.
    #[serde(default)]
    pub purge_lease_ms: u64,
}

/// A record that describes no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// See there.
    #[error(transparent)]
    Name(#[from] NameError),
    /// As addresses are written.
    #[error("{0:?} is not an address")]
    Address(String),
}

impl MemberRecord {
    /// Whether a node may be described so.
    pub fn check(&self) -> Result<(), RecordError> {
        [&self.name, &self.region, &self.zone].into_iter().try_for_each(|name| check_member_name(name))?;
        let is_address = |text: &str| text.parse::<SocketAddr>().is_ok_and(|read| read.to_string() == text);
        let wrong = [&self.cluster_addr, &self.admin_addr].into_iter().find(|text| !is_address(text));
        wrong.map_or(Ok(()), |text| Err(RecordError::Address(text.chars().take(80).collect())))
    }
}

/// A member must not have another node write this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotItsOwn {
    /// Another node was asked, which says so itself.
    #[error("{by} may say who has asked it, and not who has asked {of}")]
    Asker {
        /// Who wants it.
        by: NodeId,
        /// Who was asked, as it says.
        of: NodeId,
    },
    /// It is of another one.
    #[error("{by} may say where it is itself, and not where {of} is")]
    Member {
        /// Who wants it.
        by: NodeId,
        /// Whom it would change.
        of: NodeId,
    },
    /// Two cannot have one.
    #[error("{by} cannot take the name of {of}")]
    Name {
        /// Who wants it.
        by: NodeId,
        /// Whose it is.
        of: NodeId,
    },
    /// An operator says so to another one.
    #[error("{0} may not give itself a vote: ask another node")]
    Vote(NodeId),
    /// Each is known by one for good.
    #[error("{0} is known by another key, and keeps it: who has a new one joins as a new node")]
    Key(NodeId),
    /// There is nothing to compare with.
    #[error("{0} is not known here as a node of this cluster")]
    Unknown(NodeId),
}

impl ConfigState {
    /// What is known of a member only that member changes, whoever has asked it to, and never the key by which it is known; and
    /// only that member says who has asked it. That it may vote another one says.
    pub fn check_own(&self, by: NodeId, command: &Command) -> Result<(), NotItsOwn> {
        if let Command::AskedBy { askers, .. } = command
            && let Some(asker) = askers.iter().find(|asker| asker.node != by)
        {
            return Err(NotItsOwn::Asker { by, of: asker.node });
        }
        let (node_id, record) = match command.innermost() {
            Command::SetVote { node_id, may_vote: true } if *node_id == by => {
                return Err(NotItsOwn::Vote(by));
            }
            Command::UpdateNode { node_id, record } => (node_id, record),
            _ => return Ok(()),
        };
        if *node_id != by {
            return Err(NotItsOwn::Member { by, of: *node_id });
        }
        match self.nodes.get(&by).map(|known| &known.public_key_sha256) {
            None => Err(NotItsOwn::Unknown(by)),
            Some(key) if !key.is_empty() && *key != record.public_key_sha256 => Err(NotItsOwn::Key(by)),
            Some(_) => match self.whose_name_it_takes(by, record) {
                Some(of) => Err(NotItsOwn::Name { by, of }),
                None => Ok(()),
            },
        }
    }

    /// Whose name `node` would have as `record` says, if it is another one than it has: who shares one of old may still move.
    pub fn whose_name_it_takes(&self, node: NodeId, record: &MemberRecord) -> Option<NodeId> {
        let is_new = self.nodes.get(&node).is_none_or(|known| known.name != record.name);
        let mut others = self.nodes.iter().filter(|(id, _)| **id != node);
        let namesake = others.find(|(_, other)| other.name == record.name).filter(|_| is_new);
        namesake.map(|(id, _)| *id)
    }

    pub(super) fn update_node(&mut self, node: NodeId, record: MemberRecord) -> Reply {
        if self.refuses_wholly() && self.whose_name_it_takes(node, &record).is_some() {
            return Reply::Refused(Refusal::NameTaken(record.name));
        }
        match self.nodes.get_mut(&node) {
            Some(known) => {
                *known = record;
                Reply::Done
            }
            None => Reply::Refused(Refusal::UnknownNode(node)),
        }
    }

    /// `node` as people call it: by its name, with its number where that is another word; by that alone where nobody has it.
    pub fn called(&self, node: NodeId) -> String {
        let name = self.nodes.get(&node).map(|record| &record.name).filter(|name| **name != node.to_string());
        name.map_or_else(|| node.to_string(), |name| format!("{name} ({node})"))
    }
}

/// A token with which nodes may join, or programs purge. Its secret is stored only as a hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// SHA-256 of the secret part, hex.
    pub secret_sha256: String,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
    /// How many more nodes may use it; of one for purges it says nothing.
    pub uses_left: u32,
    /// What it is for: `node`, `learner` or `purge`.
    pub role: String,
    /// SHA-256 of the certificate of the authority that it names, hex; empty = it was made by a version that does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authority_sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Asker, REFUSING_WHOLLY};

    #[test]
    fn a_member_changes_only_itself_and_keeps_its_key() {
        let mut state = ConfigState::default();
        let record = |key: &str, at: &str| MemberRecord {
            cluster_addr: at.into(),
            public_key_sha256: key.into(),
            ..MemberRecord::default()
        };
        for (id, key) in [(1, "one"), (2, "two"), (3, "")] {
            state.nodes.insert(NodeId(id), record(key, "a"));
        }
        let other = |by, of| Err(NotItsOwn::Member { by: NodeId(by), of: NodeId(of) });
        let another_key = |of| Err(NotItsOwn::Key(NodeId(of)));
        for (by, of, key, expected) in [
            (1, 1, "one", Ok(())),
            (2, 2, "two", Ok(())),
            (2, 1, "one", other(2, 1)),
            (2, 1, "two", other(2, 1)),
            (2, 7, "two", other(2, 7)),
            (2, 2, "one", another_key(2)),
            (2, 2, "", another_key(2)),
            // Of before keys were kept.
            (3, 3, "three", Ok(())),
            (7, 7, "seven", Err(NotItsOwn::Unknown(NodeId(7)))),
        ] {
            let command = Command::UpdateNode { node_id: NodeId(of), record: record(key, "b") };
            let asked = command.clone().asked_by(vec![Asker { node: NodeId(by), ..Asker::default() }]);
            for command in [command, asked] {
                assert_eq!(state.check_own(NodeId(by), &command), expected, "{by}: {of} with {key:?}");
            }
        }
        let removal = Command::RemoveNode { node_id: NodeId(1) };
        assert_eq!(state.check_own(NodeId(2), &removal), Ok(()), "whoever was asked has it written");
        let raised = Err(NotItsOwn::Vote(NodeId(2)));
        for (of, may_vote, expected) in [(2, true, raised), (2, false, Ok(())), (1, true, Ok(()))] {
            let command = Command::SetVote { node_id: NodeId(of), may_vote };
            let asked = command.clone().asked_by(vec![Asker { node: NodeId(2), ..Asker::default() }]);
            for command in [command, asked] {
                assert_eq!(state.check_own(NodeId(2), &command), expected, "{of}: {may_vote}");
            }
        }
        let asked = |nodes: &[u64]| {
            let askers = nodes.iter().map(|node| Asker { node: NodeId(*node), ..Asker::default() });
            removal.clone().asked_by(askers.collect())
        };
        let forged = Err(NotItsOwn::Asker { by: NodeId(2), of: NodeId(1) });
        for (nodes, expected) in
            [(vec![2], Ok(())), (vec![2, 2], Ok(())), (vec![1], forged), (vec![2, 1], forged)]
        {
            assert_eq!(state.check_own(NodeId(2), &asked(&nodes)), expected, "{nodes:?}");
        }
    }

    #[test]
    fn no_member_takes_the_name_of_another_one() {
        let record = |name: &str, at: &str| MemberRecord {
            name: name.into(),
            cluster_addr: at.into(),
            ..MemberRecord::default()
        };
        let mut state = ConfigState::default();
        // Two share a name since before that was refused.
        for (id, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "c")] {
            state.nodes.insert(NodeId(id), record(name, "old"));
        }
        let taken = |name: &str, of| Some((name.to_owned(), NodeId(of)));
        for (id, name, expected) in [
            (2, "b", None),
            (2, "d", None),
            (2, "a", taken("a", 1)),
            (1, "b", taken("b", 2)),
            (4, "c", None),
            (4, "a", taken("a", 1)),
        ] {
            let (id, update) = (NodeId(id), record(name, "new"));
            let command = Command::UpdateNode { node_id: id, record: update.clone() };
            let own = expected.clone().map_or(Ok(()), |(_, of)| Err(NotItsOwn::Name { by: id, of }));
            assert_eq!(state.check_own(id, &command), own, "{id}: {name}");
            for (level, refused) in [(REFUSING_WHOLLY - 1, None), (REFUSING_WHOLLY, expected)] {
                let mut state = state.clone();
                state.level.number = level;
                let before = state.nodes[&id].clone();
                let (reply, after) = match refused {
                    Some((name, _)) => (Reply::Refused(Refusal::NameTaken(name)), before),
                    None => (Reply::Done, update.clone()),
                };
                assert_eq!(state.apply(9, command.clone()), reply, "{id}: {name} at {level}");
                assert_eq!(state.nodes[&id], after, "{id}: {name} at {level}");
            }
        }
        let unknown = Command::UpdateNode { node_id: NodeId(7), record: record("g", "new") };
        assert_eq!(state.apply(9, unknown), Reply::Refused(Refusal::UnknownNode(NodeId(7))));
    }

    #[test]
    fn nodes_are_called_by_their_names() {
        let mut state = ConfigState::default();
        for (id, name) in [(1, "n1"), (7, "n2")] {
            let record = MemberRecord { name: name.to_owned(), ..MemberRecord::default() };
            state.nodes.insert(NodeId(id), record);
        }
        assert_eq!([1, 2, 7].map(|id| state.called(NodeId(id))), ["n1", "n2", "n2 (n7)"]);
    }
}
