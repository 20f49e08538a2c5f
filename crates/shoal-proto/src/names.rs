//! Enum values as operators read them: `ACK_STATE_APPLIED` is printed `applied`.

use serde::Serializer;

use crate::admin::{AckState, ChangeAction};

pub(crate) fn change_action<S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let action = ChangeAction::try_from(*value).unwrap_or_default();
    write(action.as_str_name(), "CHANGE_ACTION_", serializer)
}

pub(crate) fn ack_state<S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let state = AckState::try_from(*value).unwrap_or_default();
    write(state.as_str_name(), "ACK_STATE_", serializer)
}

fn write<S: Serializer>(name: &str, prefix: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&name.trim_start_matches(prefix).to_ascii_lowercase())
}
