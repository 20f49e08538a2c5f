//! The level of the cluster: which commands every member knows, and when later ones may be written. The leader raises it by
//! itself once all nodes are of a version that knows more, unless somebody holds it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cluster::NodeState;
use shoal_model::NodeId;
use shoal_model::state::{ClusterLevel, Command};
use shoal_policy::levels::{Member, Outlook, outlook};

use crate::node::Node;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long every node has to be of the new version before there is no way back: who upgrades them may hold it meanwhile.
const RAISED_AFTER: Duration = Duration::from_secs(60);

/// What is known of a member's version.
#[derive(Clone, Debug)]
pub struct MemberVersion {
    pub id: NodeId,
    pub name: String,
    /// Empty = nobody has heard of it.
    pub version: String,
    /// It is heard now.
    pub is_heard: bool,
    /// The highest level it knows; 0 = of before there were any, or nobody has heard of it.
    pub knows: u32,
}

/// Looks and proposes, for as long as it is polled.
pub async fn raise(node: Arc<Node>) {
    let mut reachable_since: Option<(u32, Instant)> = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let (level, _, outlook) = node.levels();
        let reachable = outlook.reachable;
        let due = reachable > level.number && level.held.is_none();
        if !due || !node.leads() {
            reachable_since = None;
            continue;
        }
        let since = match reachable_since {
            Some((before, since)) if before == reachable => since,
            _ => {
                let after = RAISED_AFTER.as_secs();
                tracing::info!(from = level.number, to = reachable, after, "every node knows a later level");
                Instant::now()
            }
        };
        reachable_since = Some((reachable, since));
        if since.elapsed() < RAISED_AFTER {
            continue;
        }
        let command = Command::SetLevel { from: level.number, to: reachable };
        match node.of_its_own("SetLevel", node.log.propose_as_leader(command)).await {
            Ok(proposed) => tracing::info!(to = reachable, reply = %proposed.reply, "the level was raised"),
            Err(error) => tracing::warn!(%error, to = reachable, "the level is not raised yet"),
        }
    }
}

impl Node {
    /// The level of the cluster, the versions of its members, and what follows.
    pub(crate) fn levels(&self) -> (ClusterLevel, Vec<MemberVersion>, Outlook) {
        let view = self.gossip.view().load_full();
        let level = self.log.with_state(|state| state.level.clone());
        let versions: Vec<MemberVersion> = self
            .members()
            .into_iter()
            .map(|(id, member)| {
                let seen = view.node(id);
                let is_heard =
                    id == self.id() || seen.is_some_and(|seen| seen.alive && seen.state != NodeState::Left);
                MemberVersion {
                    id,
                    name: member.name,
                    version: seen.map_or_else(String::new, |seen| seen.version.to_string()),
                    is_heard,
                    knows: match id == self.id() {
                        true => shoal_configlog::known_level(),
                        false => seen.map_or(0, |seen| seen.commands),
                    },
                }
            })
            .collect();
        let members = versions.iter().map(|it| Member { knows: it.is_heard.then_some(it.knows) });
        let outlook = outlook(level.number, &members.collect::<Vec<_>>());
        (level, versions, outlook)
    }

    /// Names of members that are not known to know commands of this number: an older version runs there, or nobody has
    /// heard of them for long. None, once the cluster's level says that all do.
    pub(crate) fn members_without(&self, command: u32) -> Vec<String> {
        if self.log.with_state(|state| state.level.number) >= command {
            return Vec::new();
        }
        let view = self.gossip.view().load_full();
        let knows = |id| id == self.id() || view.node(id).is_some_and(|said| said.commands >= command);
        self.members().into_iter().filter(|(id, _)| !knows(*id)).map(|(_, member)| member.name).collect()
    }
}
