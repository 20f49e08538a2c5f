//! Waits until a cluster can lose a node: a newcomer is told to kill one.

use std::time::Duration;

use shoal_ctl::Client;
use shoal_proto::admin::StatusResponse;
use tokio::time::{Instant, sleep};

/// From one question to the next.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Fewest voters of which one may die.
const MIN_VOTERS: usize = 3;

/// Returns once every node of `client`'s cluster serves the newest revision and, from three nodes on, three vote.
pub async fn wait(client: &Client, timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let why = match client.status().await {
            Ok(status) => match missing(&status) {
                None => return Ok(()),
                Some(why) => why,
            },
            Err(failure) => failure.why,
        };
        if Instant::now() >= deadline {
            anyhow::bail!("the cluster is not complete after {} s: {why}", timeout.as_secs());
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// What keeps the cluster from losing a node.
fn missing(status: &StatusResponse) -> Option<String> {
    if !status.quorum {
        return Some("it has no quorum".to_owned());
    }
    let behind = status.nodes.iter().find(|node| !node.reported || node.active_revision != status.revision);
    if let Some(node) = behind {
        return Some(format!("{} does not serve revision {}", node.node, status.revision));
    }
    let voters = status.nodes.iter().filter(|node| node.role == "leader" || node.role == "voter").count();
    (status.nodes.len() >= MIN_VOTERS && voters < MIN_VOTERS)
        .then(|| format!("only {voters} of {} nodes vote", status.nodes.len()))
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::NodeStatus;

    use super::*;

    fn check(quorum: bool, nodes: &[(&str, u64, bool)], expected: Option<&str>) {
        let node = |(n, (role, active_revision, reported)): (usize, &(&str, u64, bool))| NodeStatus {
            node: format!("node{}", n + 1),
            role: (*role).to_owned(),
            active_revision: *active_revision,
            reported: *reported,
            ..NodeStatus::default()
        };
        let nodes = nodes.iter().enumerate().map(node).collect();
        let status = StatusResponse { quorum, revision: 7, nodes, ..StatusResponse::default() };
        assert_eq!(missing(&status).as_deref(), expected, "{status:?}");
    }

    #[test]
    fn three_voters_on_the_newest_revision_can_lose_one() {
        let (leader, voter, learner) = (("leader", 7, true), ("voter", 7, true), ("learner", 7, true));
        check(true, &[leader, voter, voter], None);
        check(true, &[leader, voter, voter, learner], None);
        check(true, &[leader], None);
        check(true, &[leader, learner], None);
        check(false, &[leader, voter, voter], Some("it has no quorum"));
        check(true, &[leader, voter, learner], Some("only 2 of 3 nodes vote"));
        check(true, &[leader, ("voter", 6, true), voter], Some("node2 does not serve revision 7"));
        check(true, &[leader, voter, ("voter", 7, false)], Some("node3 does not serve revision 7"));
    }
}
