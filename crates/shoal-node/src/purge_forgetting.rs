//! Lets the log forget the purges that every node has checked its cache against. The leader decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cluster::ClusterView;
use shoal_model::NodeId;
use shoal_model::state::{Command, FORGET_PURGES};
use shoal_policy::cache::forgetting::{Member, Remembered, forgettable, is_worthwhile};

use crate::node::Node;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What was heard of a member last, and when.
#[derive(Clone, Copy, Debug)]
struct Heard {
    checked_seq: u64,
    commands: u32,
    at: Instant,
}

/// Looks and proposes, for as long as it is polled.
pub async fn forget(node: Arc<Node>) {
    let mut heard = BTreeMap::new();
    let mut last: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = Instant::now();
        let members: Vec<NodeId> = node.members().into_keys().collect();
        listen(&mut heard, &members, &node.gossip.view().load(), now);
        if !node.leads() {
            continue;
        }
        let members: Vec<Member> = members.iter().map(|id| judge(heard.get(id), now)).collect();
        let retention = node.settings.purge_retention;
        let up_to = node.log.with_state(|state| {
            let tables = &state.purges;
            let (records, floor, newest) = (tables.records(), tables.floor, tables.newest);
            let up_to = forgettable(&members, Remembered { records, floor, newest }, retention)?;
            let since_last = last.map(|last| now.duration_since(last));
            is_worthwhile(tables.records_up_to(up_to), since_last).then_some(up_to)
        });
        if let Some(up_to) = up_to {
            last = Some(now);
            match node.log.propose_as_leader(Command::ForgetPurges { up_to }).await {
                Ok(_) => tracing::debug!(
                    up_to,
                    "purges were forgotten: every node has checked its cache against them"
                ),
                Err(error) => tracing::debug!(%error, "purges were not forgotten yet"),
            }
        }
    }
}

/// Notes what members say that are heard now. Of one that nobody has heard since this process began, it begins to count now.
fn listen(heard: &mut BTreeMap<NodeId, Heard>, members: &[NodeId], view: &ClusterView, now: Instant) {
    heard.retain(|id, _| members.contains(id));
    for id in members {
        let said = view.node(*id);
        let known = heard.entry(*id).or_insert(Heard { checked_seq: 0, commands: 0, at: now });
        if let Some(said) = said {
            (known.checked_seq, known.commands) = (said.checked_seq, said.commands);
            if said.alive || *id == view.local {
                known.at = now;
            }
        }
    }
}

fn judge(heard: Option<&Heard>, now: Instant) -> Member {
    let Some(Heard { checked_seq, commands, at }) = heard.copied() else {
        return Member { checked_seq: 0, knows: false, away: None };
    };
    let away = Some(now.duration_since(at)).filter(|away| !away.is_zero());
    Member { checked_seq, knows: commands >= FORGET_PURGES, away }
}
