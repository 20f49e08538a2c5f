//! The verb that changes what holds for the cluster as a whole.

use std::sync::Arc;

use shoal_model::state::{Command, SETUPS, SetupOrder};
use shoal_proto::admin::{ChangeSetupRequest, ChangeSetupResponse};
use tonic::{Code, Status};

use super::base::{linearizable_base, put};
use super::failure::{Exit, with_exit};
use crate::node::Node;

/// Nodes go by another timing when they are started anew, and by another number of voters at once. Until all were, their
/// timings differ: that costs an election at most.
pub async fn change(
    node: &Arc<Node>,
    request: &ChangeSetupRequest,
    caller: &str,
) -> Result<ChangeSetupResponse, Status> {
    let order = SetupOrder::read(&request.timing, request.max_voters)
        .map_err(|error| with_exit(Code::InvalidArgument, Exit::Local, error.to_string()))?;
    linearizable_base(node).await?;
    if !order.is_empty() {
        let old = node.members_without(SETUPS);
        if !old.is_empty() {
            let why =
                format!("{} would not understand it: not heard, or of an older version", old.join(", "));
            return Err(with_exit(Code::FailedPrecondition, Exit::Remote, why));
        }
        put(node, Command::ChangeSetup(order)).await?;
        tracing::info!(?order, by = caller, "what holds for the cluster was changed");
        linearizable_base(node).await?;
    }
    let setup = node.log.with_state(|state| state.setup);
    Ok(ChangeSetupResponse { timing: setup.timing_name(), max_voters: setup.max_voters.into() })
}
