//! A node that was away until the authority it believes had retired: the others can prove nothing to it, nor it to them, and what
//! has happened is in a log that it does not get. It finds out by what they show, and says how it gets back.

use std::sync::Arc;
use std::time::Duration;

use shoal_model::NodeId;

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
            false => shown_by_others(&node).await,
        };
        let before = node.own_certificate.with(|state| std::mem::replace(&mut state.stranded, why.clone()));
        match (before, why) {
            (None, Some(why)) => tracing::error!("{why}"),
            (Some(_), None) => tracing::info!("the other nodes and this one believe each other again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

/// What is wrong, if every member that answers shows a certificate of an authority that is not known here.
async fn shown_by_others(node: &Node) -> Option<String> {
    let others = node.members().into_iter().filter(|(id, _)| *id != node.id());
    let asked: Vec<(NodeId, String)> = others.map(|(id, member)| (id, member.name)).take(MAX_ASKED).collect();
    let mut shown = Vec::new();
    for (id, name) in asked {
        match node.peers.connect_http1(id).await {
            Err(error) if error.is_of_unknown_authority() => shown.push(name),
            Ok(_) => return None,
            Err(_) => {}
        }
    }
    let names = Some(shown.join(", ")).filter(|names| !names.is_empty())?;
    Some(format!(
        "{names} show certificates of an authority that this node does not know, as where one has taken the place of another \
         while this node was away: {ADVICE}"
    ))
}
