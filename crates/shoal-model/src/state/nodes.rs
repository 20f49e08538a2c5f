//! Who belongs to the cluster, and who may join.

use serde::{Deserialize, Serialize};

use super::ConfigState;
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

impl ConfigState {
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
    /// What it is for: `node` or `purge`.
    pub role: String,
    /// SHA-256 of the certificate of the authority that it names, hex; empty = it was made by a version that does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authority_sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;

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
