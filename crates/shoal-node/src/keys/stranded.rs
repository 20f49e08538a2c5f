//! A node that was away until an authority had retired, or until the one of its own certificate had: the others can prove nothing
//! to it, or it nothing to them, and what has happened is in a log that it does not get. It finds out by what they show and say,
//! and says how it gets back; those of the others that hear it still say the same of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::channel::Belief;
use shoal_model::NodeId;

use crate::everybody::ask_all;
use crate::node::Node;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Members that are asked at each.
const MAX_ASKED: usize = 8;
/// Of them so many since it is their turn; the others are those that the gossip hears, as far as there are any.
const IN_TURN: usize = 4;
/// What to do.
const ADVICE: &str = "start it once more with `--join ADDR` and a new `--token` (`shoal token create` on another node), as it is: it \
                      stays the node that it was";

/// Looks whenever no majority is heard, for as long as it is polled.
pub async fn notice_unknown_authority(node: Arc<Node>) {
    let mut turn = 0;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let why = match node.log.status().quorum {
            true => None,
            false => match kept_out(&node, turn).await {
                Standing::Believed => None,
                Standing::KeptOut(why) => Some(why),
                // What was so when somebody answered is so.
                Standing::Unknown => {
                    turn = turn.wrapping_add(IN_TURN);
                    continue;
                }
            },
        };
        let before = node.own_certificate.with(|state| std::mem::replace(&mut state.stranded, why.clone()));
        match (before, why) {
            (None, Some(why)) => tracing::error!("{why}"),
            (Some(_), None) => tracing::info!("the other nodes and this one believe each other again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

/// How a node that hears no majority stands with the others.
enum Standing {
    /// Somebody believes it, and is believed.
    Believed,
    /// Nobody who answers does, and what to do.
    KeptOut(String),
    /// Nobody answers.
    Unknown,
}

/// Asks some of the others, in another `turn` others.
async fn kept_out(node: &Arc<Node>, turn: usize) -> Standing {
    let heard: BTreeSet<NodeId> = node.live_members().into_iter().map(|(id, _)| id).collect();
    let members = node.members().into_iter().map(|(id, member)| (id, member.name));
    let others: Vec<(NodeId, String)> = members.filter(|(id, _)| *id != node.id()).collect();
    let asked = ask_all(in_turn(others, &heard, turn), |id, _| {
        let node = node.clone();
        async move { node.peers.belief_between(id).await.ok() }
    });
    let (mut not_here, mut not_there) = (Vec::new(), Vec::new());
    for asked in asked.await {
        match asked.answer.ok().flatten() {
            Some(Belief::NotHere) => not_here.push(asked.name),
            Some(Belief::NotThere) => not_there.push(asked.name),
            Some(Belief::Mutual) => return Standing::Believed,
            None => {}
        }
    }
    let what = match (&*not_here, &*not_there) {
        ([], []) => return Standing::Unknown,
        ([], names) => format!(
            "{} do not believe the authority of this node's certificate any more, as where another has taken its place before \
             this node had a certificate of that one",
            names.join(", ")
        ),
        (names, _) => format!(
            "{} show certificates of an authority that this node does not know, as where one has taken the place of another \
             while this node was away",
            names.join(", ")
        ),
    };
    Standing::KeptOut(format!("{what}: {ADVICE}"))
}

/// As many of these as are asked at once: from the one on whose turn it is on, and of the others who is heard first.
fn in_turn(
    mut members: Vec<(NodeId, String)>,
    heard: &BTreeSet<NodeId>,
    turn: usize,
) -> Vec<(NodeId, String)> {
    let start = turn % members.len().max(1);
    members.rotate_left(start);
    let others = members.len().min(IN_TURN);
    members[others..].sort_by_key(|(id, _)| !heard.contains(id));
    members.truncate(MAX_ASKED);
    members
}

impl Node {
    /// Why some of these nodes, which are heard, cannot be called.
    pub(crate) async fn why_unreachable(
        self: &Arc<Self>,
        silent: Vec<(NodeId, String)>,
    ) -> Vec<(NodeId, String)> {
        let asked = ask_all(silent, |id, _| {
            let node = self.clone();
            async move {
                let why = match node.peers.belief_between(id).await {
                    Ok(Belief::Mutual) => return None,
                    Ok(Belief::NotHere) => {
                        format!("its certificate is of an authority that is not believed any more: {ADVICE}")
                    }
                    Ok(Belief::NotThere) => {
                        "it does not believe the authority of this node's certificate".to_owned()
                    }
                    Err(error) => error.to_string(),
                };
                Some(format!("is heard, but cannot be called: {why}"))
            }
        });
        let asked = asked.await.into_iter();
        asked.filter_map(|asked| Some((asked.id, asked.answer.ok().flatten()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_asked_in_time_and_who_is_heard_each_time() {
        let members: Vec<(NodeId, String)> = (1..=20).map(|id| (NodeId(id), id.to_string())).collect();
        let heard = BTreeSet::from([NodeId(15)]);
        let mut asked = BTreeSet::new();
        for turn in [0, 4, 8, 12, 16] {
            let now = in_turn(members.clone(), &heard, turn);
            assert_eq!(now.len(), MAX_ASKED, "{turn}");
            assert!(now.iter().any(|(id, _)| *id == NodeId(15)), "{turn}");
            asked.extend(now.into_iter().map(|(id, _)| id.0));
        }
        assert_eq!(asked, (1..=20).collect());
        assert_eq!(in_turn(Vec::new(), &heard, 8), []);
    }
}
