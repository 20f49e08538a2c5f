//! A node that was away until an authority had retired, or until the one of its own certificate had: the others can prove nothing
//! to it, or it nothing to them, and what has happened is in a log that it does not get. It finds out by what they show and say,
//! and says how it gets back; those of the others that hear it still say the same of it.

use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::channel::Belief;
use shoal_model::NodeId;

use crate::everybody::ask_all;
use crate::node::Node;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Members that are asked at each.
const MAX_ASKED: usize = 3;
/// What to do.
const ADVICE: &str = "start it once more with `--join ADDR` and a new `--token` (`shoal token create` on another node), as it is: it \
                      stays the node that it was";

/// Looks whenever no majority is heard, for as long as it is polled.
pub async fn notice_unknown_authority(node: Arc<Node>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let why = match node.log.status().quorum {
            true => None,
            false => kept_out(&node).await,
        };
        let before = node.own_certificate.with(|state| std::mem::replace(&mut state.stranded, why.clone()));
        match (before, why) {
            (None, Some(why)) => tracing::error!("{why}"),
            (Some(_), None) => tracing::info!("the other nodes and this one believe each other again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

/// What is wrong, if no member that answers believes this node and is believed.
async fn kept_out(node: &Node) -> Option<String> {
    let others = node.members().into_iter().filter(|(id, _)| *id != node.id());
    let asked: Vec<(NodeId, String)> = others.map(|(id, member)| (id, member.name)).take(MAX_ASKED).collect();
    let (mut not_here, mut not_there) = (Vec::new(), Vec::new());
    for (id, name) in asked {
        match node.peers.belief_between(id).await {
            Ok(Belief::NotHere) => not_here.push(name),
            Ok(Belief::NotThere) => not_there.push(name),
            Ok(Belief::Mutual) => return None,
            Err(_) => {}
        }
    }
    let what = match (&*not_here, &*not_there) {
        ([], []) => return None,
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
    Some(format!("{what}: {ADVICE}"))
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
