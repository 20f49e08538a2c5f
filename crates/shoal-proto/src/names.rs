//! Enum values as operators read them: `ACK_STATE_APPLIED` is printed `applied`.

use serde::{Serialize, Serializer};

use crate::admin::{AckState, ChangeAction, NodeAck};

pub(crate) fn change_action<S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let action = ChangeAction::try_from(*value).unwrap_or_default();
    write(action.as_str_name(), "CHANGE_ACTION_", serializer)
}

pub(crate) fn ack_state<S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let state = AckState::try_from(*value).unwrap_or_default();
    write(state.as_str_name(), "ACK_STATE_", serializer)
}

/// A [`NodeAck`] of a purge, field by field.
#[derive(Serialize)]
struct PurgeAck<'a> {
    node_id: u64,
    node: &'a str,
    state: &'static str,
    detail: &'a str,
    elapsed_ms: u32,
}

pub(crate) fn purge_acks<S: Serializer>(acks: &[NodeAck], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(acks.iter().map(|ack| {
        let NodeAck { node_id, node, detail, elapsed_ms, .. } = ack;
        let state = ack.state().purge_word();
        PurgeAck { node_id: *node_id, node, state, detail, elapsed_ms: *elapsed_ms }
    }))
}

impl AckState {
    /// What a node made of a purge, as everybody who asks for one is told: it acknowledges it, where it applies a revision.
    pub fn purge_word(self) -> &'static str {
        match self {
            Self::Applied => "acknowledged",
            Self::Lapsed => "lapsed",
            Self::Refused | Self::Silent | Self::Unspecified => "silent",
        }
    }
}

fn write<S: Serializer>(name: &str, prefix: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&name.trim_start_matches(prefix).to_ascii_lowercase())
}
