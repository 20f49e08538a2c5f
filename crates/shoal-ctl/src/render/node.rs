//! A node that was taken out of the cluster, or should be.

use std::fmt::Write as _;

use shoal_proto::admin::RemoveNodeResponse;

use super::changes::acknowledged;
use crate::failure::one_line;

/// Who was removed, or however else it was `done`, who knows of it, and who votes now.
pub fn removed(done: &str, response: &RemoveNodeResponse) -> String {
    let RemoveNodeResponse { node, node_id, state, acks, absent, elapsed_ms, .. } = response;
    let mut text = format!("{done} {} (n{node_id}, {})\n", one_line(node), one_line(state));
    text.push_str(&acknowledged("in force on", acks, absent, *elapsed_ms));
    let voters: Vec<String> = response.voters.iter().map(|name| one_line(name)).collect();
    let _ = writeln!(text, "voters: {}", voters.join(", "));
    if !response.left_membership {
        text.push_str("it is not yet out of the log's membership; the leader goes on, see: shoal status\n");
    }
    text
}

/// What to do about a member that is not heard: it stays one until somebody says that it is gone.
pub(super) fn way_out(node: &str) -> String {
    format!("if it will not come back: shoal node remove {}", one_line(node))
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::{AckState, NodeAck};

    use super::*;

    #[test]
    fn a_removal_says_what_happened() {
        let ack = |node: &str, state: AckState| NodeAck {
            node: node.to_owned(),
            state: state.into(),
            ..NodeAck::default()
        };
        let done = RemoveNodeResponse {
            node_id: 9,
            node: "n4".to_owned(),
            state: "dead".to_owned(),
            acks: vec![ack("n1", AckState::Applied), ack("n2", AckState::Applied)],
            left_membership: true,
            voters: vec!["n1".to_owned(), "n2".to_owned()],
            elapsed_ms: 84,
            ..RemoveNodeResponse::default()
        };
        let expected = "removed n4 (n9, dead)\nin force on 2/2 nodes in 84 ms\nvoters: n1, n2\n";
        assert_eq!(removed("removed", &done), expected);
        let under_way = removed("removed", &RemoveNodeResponse { left_membership: false, ..done });
        assert!(under_way.ends_with("see: shoal status\n"), "{under_way}");
    }
}
