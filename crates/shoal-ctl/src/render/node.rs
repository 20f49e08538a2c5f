//! A node that was taken out of the cluster, or should be, or may vote or not.

use shoal_proto::admin::{RemoveNodeResponse, SetVoteResponse};

use super::changes::acknowledged;
use crate::failure::one_line;

/// Who was removed, or however else it was `done`, who knows of it, and who votes now.
pub fn removed(done: &str, response: &RemoveNodeResponse) -> String {
    let RemoveNodeResponse { node, node_id, state, acks, absent, elapsed_ms, .. } = response;
    let mut text = format!("{done} {} (n{node_id}, {})\n", one_line(node), one_line(state));
    text.push_str(&acknowledged("in force on", acks, absent, *elapsed_ms));
    text.push_str(&voters(&response.voters));
    if !response.left_membership {
        text.push_str("it is not yet out of the log's membership; the leader goes on, see: shoal status\n");
    }
    text
}

/// What to do about a member that is not heard: it stays one until somebody says that it is gone.
pub(super) fn way_out(node: &str) -> String {
    format!("if it will not come back: shoal node remove {}", one_line(node))
}

/// Whether a node may vote from now on, which part it has at the moment, and who votes now.
pub fn vote(response: &SetVoteResponse) -> String {
    let SetVoteResponse { node, node_id, may_vote, role, votes, unchanged, voters: names } = response;
    let may = if *may_vote { "may vote" } else { "may not vote" };
    let since = if *unchanged { "as before" } else { "from now on" };
    let mut text = format!("{} (n{node_id}) {may} {since}; its role: {}\n", one_line(node), one_line(role));
    text.push_str(&voters(names));
    if *votes && !may_vote {
        text.push_str("it has its vote still; the leader goes on, see: shoal status\n");
    }
    text
}

fn voters(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| one_line(name)).collect();
    format!("voters: {}\n", names.join(", "))
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

    #[test]
    fn who_may_vote_is_told_apart_from_who_does() {
        let check = |(may_vote, votes, unchanged): (bool, bool, bool), role: &str, expected: &str| {
            let response = SetVoteResponse {
                node_id: 9,
                node: "n4".to_owned(),
                may_vote,
                role: role.to_owned(),
                votes,
                unchanged,
                voters: vec!["n1".to_owned(), "n2".to_owned()],
            };
            assert_eq!(vote(&response), expected);
        };
        let promoted = "n4 (n9) may vote from now on; its role: learner\nvoters: n1, n2\n";
        check((true, false, false), "learner", promoted);
        let demoted = "n4 (n9) may not vote as before; its role: learner\nvoters: n1, n2\n";
        check((false, false, true), "learner", demoted);
        let pending = "n4 (n9) may not vote from now on; its role: voter\nvoters: n1, n2\nit has its vote still; \
                       the leader goes on, see: shoal status\n";
        check((false, true, false), "voter", pending);
    }
}
