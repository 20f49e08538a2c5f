//! What calls stand on: what is active, no older than what was acknowledged before them, and what the log makes of a command.

use std::sync::Arc;
use std::time::Duration;

use shoal_configlog::ProposeError;
use shoal_model::state::Command;
use shoal_model::units::millis_u64;
use shoal_model::{Revision, Site};
use tonic::{Code, Status};

use super::failure::{self, Exit, with_exit};
use crate::node::Node;

/// For this node to apply what the cluster has acknowledged.
pub const CATCH_UP_WAIT: Duration = Duration::from_secs(5);

/// What is active, no older than anything that was acknowledged before now.
pub struct Base {
    /// The revision; 0 = none yet.
    pub(super) revision: Revision,
    pub(super) content: Arc<str>,
}

/// No older than anything that was acknowledged before now; fails without a majority.
pub(super) async fn linearizable_base(node: &Node) -> Result<Base, Status> {
    let index = node.log.read_index().await.map_err(failure::propose)?;
    base_at(node, index).await
}

/// What is active, and whether a majority says so; without one it is what this node has, which is possibly old.
pub async fn newest_base(node: &Node) -> Result<(Base, bool), Status> {
    match node.log.try_read_index().await {
        Ok(index) => Ok((base_at(node, index).await?, true)),
        Err(error @ (ProposeError::Broken { .. } | ProposeError::Diverged { .. })) => {
            Err(failure::propose(error))
        }
        Err(_) => Ok((applied_base(node), false)),
    }
}

/// For how many milliseconds this node has known of no quorum; 0 = it knows of one.
pub(super) fn staleness_ms(node: &Node) -> u64 {
    millis_u64(node.log.status().staleness)
}

/// What is active once this node has applied `index`.
async fn base_at(node: &Node, index: u64) -> Result<Base, Status> {
    let reached = node.await_applied(index, Revision(0), CATCH_UP_WAIT).await;
    if reached.applied_index < index {
        let why =
            format!("this node has applied {} of {index} entries; ask another one", reached.applied_index);
        return Err(with_exit(Code::Unavailable, Exit::Remote, why));
    }
    Ok(applied_base(node))
}

/// What is active as far as this node has applied the log.
fn applied_base(node: &Node) -> Base {
    let (revision, content) = node.log.with_state(|state| state.revisions.active());
    Base { revision, content }
}

/// Puts a command into the log that is answered by nothing but that it is done.
pub(super) async fn put(node: &Node, command: Command) -> Result<(), Status> {
    let proposed = node.log.propose(command).await.map_err(failure::propose)?;
    proposed.reply.done().map_err(failure::reply)
}

/// The site of the log's text. What an older version has let in beside certificates is left out.
pub(super) fn stored_site(content: &str) -> Result<Site, Status> {
    Site::from_json(content)
        .map(Site::with_own_blocks)
        .map_err(|error| Status::internal(format!("a stored site cannot be read: {error}")))
}

/// The same of one that makes way for what was before: where it cannot be read nothing of it is known, and it counts as empty.
pub(super) fn replaced_site(content: &str) -> Site {
    stored_site(content).unwrap_or_default()
}

/// Sites are large: what reads and compares them, or looks at all of their endpoints, must not hold up heartbeats on the control
/// runtime.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Status::internal("working it out panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_can_be_replaced() {
        let readable = r#"{"upstreams":{"u":{"endpoints":["h:1"]}}}"#;
        for (content, upstreams) in [("{}", Some(0)), (readable, Some(1)), ("not json", None)] {
            let stored = stored_site(content).ok().map(|site| site.upstreams.len());
            assert_eq!(stored, upstreams, "{content}");
            assert_eq!(replaced_site(content).upstreams.len(), upstreams.unwrap_or(0), "{content}");
        }
    }
}
