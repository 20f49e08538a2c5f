//! What the verbs that change the site end with.

use shoal_proto::admin::{AckState, ApplyResponse, NodeAck};

use super::Session;
use crate::failure::{Exit, Failure};
use crate::render;

/// Prints what `apply`, `rollback` and `abort` answer; the exit says whether every node has it.
/// `message`: what was to be kept in the history with it.
pub(super) fn print_applied(
    session: &Session,
    response: &ApplyResponse,
    message: &str,
) -> Result<Exit, Failure> {
    session.print(response, |response| render::applied(response, message))?;
    Ok(exit_of(&response.acks))
}

/// Whether everybody who was waited for has it.
pub(super) fn exit_of(acks: &[NodeAck]) -> Exit {
    let everywhere = acks.iter().all(|ack| ack.state() == AckState::Applied);
    if everywhere { Exit::Done } else { Exit::Unacknowledged }
}
