//! Before a node that was away opens its listeners: what its cluster has committed meanwhile is applied here.

use std::time::Duration;

use shoal_configlog::{LogStatus, ProposeError};
use shoal_model::NodeId;
use shoal_model::units::millis_u64;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::node::Node;
use crate::room::unless_full;

/// Between two questions while there is nobody to answer.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// How long a node that starts may serve nothing.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a leader that says how far the log is committed. Without one nobody knows more than this node.
    pub leader: Duration,
    /// For the entries, once a leader has said that there are some.
    pub entries: Duration,
    /// For room on the disk, once the log has none.
    pub room: Duration,
}

impl Patience {
    /// A node with a site of its own. The elections of a cluster that starts as a whole may outlast it: then the last known
    /// site is as new as any.
    pub const RETURNING: Self =
        Self { leader: Duration::from_secs(2), entries: Duration::from_secs(10), room: Duration::ZERO };
    /// A node without any history serves nothing useful before it has the site of its cluster.
    pub const NEW: Self =
        Self { leader: Duration::from_secs(60), entries: Duration::from_secs(60), room: Duration::MAX };
}

/// Nobody can know more of the log than this node, or nobody can make use of it.
pub fn is_needless(local: NodeId, log: &LogStatus) -> bool {
    !log.broken.is_empty() || log.voters == [local]
}

/// Whether everything that was committed before this was asked is applied here now. Without room for it that is not waited
/// for: the log goes on by itself when there is some.
pub async fn catch_up(node: &Node, patience: Patience) -> bool {
    match unless_full(follow(node, patience), node.lacks_room_for(patience.room)).await {
        Ok(whole) => whole,
        Err(why) => {
            tracing::warn!(why, "going on with what is known here");
            false
        }
    }
}

async fn follow(node: &Node, patience: Patience) -> bool {
    let started = Instant::now();
    let Some(index) = committed(node, started + patience.leader).await else {
        tracing::info!(waited_ms = millis(started), "no leader is found: going on with what is known here");
        return false;
    };
    let mut applied = node.log.applied();
    let arriving = async {
        while *applied.borrow_and_update() < index && node.log.status().broken.is_empty() {
            _ = timeout(ASK_AGAIN, applied.changed()).await;
        }
    };
    _ = timeout(patience.entries, arriving).await;
    let applied = *node.log.applied().borrow();
    let whole = applied >= index;
    match whole {
        true => tracing::info!(index, waited_ms = millis(started), "caught up with the log of the cluster"),
        false => tracing::warn!(
            index,
            applied,
            "the log of the cluster has not arrived yet: going on with what is known here"
        ),
    }
    whole
}

/// How far the log is committed, confirmed by a majority until `deadline`.
async fn committed(node: &Node, deadline: Instant) -> Option<u64> {
    let asking = async {
        loop {
            match node.log.try_read_index().await {
                Ok(index) => return Some(index),
                Err(error @ ProposeError::Broken { .. }) => {
                    tracing::error!(%error, "cannot catch up");
                    return None;
                }
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
    };
    timeout_at(deadline, asking).await.ok().flatten()
}

fn millis(since: Instant) -> u64 {
    millis_u64(since.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_a_site_goes_on_without_room() {
        assert_eq!(
            [Patience::RETURNING, Patience::NEW].map(|patience| patience.room.is_zero()),
            [true, false]
        );
    }

    #[test]
    fn only_who_may_have_missed_something_waits() {
        let check = |voters: &[u64], broken: &str, expected| {
            let voters = voters.iter().copied().map(NodeId).collect();
            let log = LogStatus { voters, broken: broken.to_owned(), ..LogStatus::default() };
            assert_eq!(is_needless(NodeId(1), &log), expected, "{log:?}");
        };
        check(&[1], "", true);
        check(&[1, 2, 3], "", false);
        check(&[2], "", false);
        check(&[], "", false); // it has joined, and has not heard of the log yet
        check(&[1, 2, 3], "bad page", true);
    }
}
