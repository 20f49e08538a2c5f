//! Who a node is that the log here does not know, or not yet. The authority's key alone makes nobody a member: whoever has stolen it
//! could sign a certificate for an id that nobody has, which may be that of a member of whom this node, which is behind, has still
//! to hear.

use std::sync::Arc;
use std::time::Duration;

use shoal_model::{NodeId, Revision};
use shoal_proto::raft::{VouchRequest, VouchResponse};
use tokio::sync::Semaphore;
use tonic::Request;

use crate::everybody::ask_all;
use crate::node::Node;

/// For this node to apply what is committed.
const CATCH_UP_WAIT: Duration = Duration::from_secs(2);
/// For another one to do so, and to say what it knows.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Nodes that are looked up at once; more wait for as long as another one may take to answer.
const MAX_LOOK_UPS: usize = 64;

/// Places for nodes that are looked up.
#[derive(Debug)]
pub struct LookUps(Semaphore);

impl Default for LookUps {
    fn default() -> Self {
        Self(Semaphore::new(MAX_LOOK_UPS))
    }
}

/// What a log says of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// A member, with this key (SHA-256, hex; empty = it was admitted before keys were kept).
    Member(String),
    /// No member, as of a moment ago.
    Nobody,
    /// No member so far, of a log that may be behind.
    Unsure,
}

impl Node {
    /// Whether the node called `id` has shown (`shown`: SHA-256 of its public key, hex) what the cluster knows it by. Of one that was
    /// removed nothing is said: it is told what has become of it.
    pub(crate) async fn is_known_by(self: &Arc<Self>, id: NodeId, shown: Option<&str>) -> bool {
        if let Some(key) = self.key_of_member(id) {
            return fits(&key, shown);
        }
        // Who has only just joined knows nobody but by what it was given at the door.
        let knows_nobody = self.log.with_state(|state| state.nodes.is_empty());
        if knows_nobody || !self.is_member(id) {
            return true;
        }
        let Ok(Ok(_place)) = tokio::time::timeout(ANSWER_WAIT, self.look_ups.0.acquire()).await else {
            return false;
        };
        match self.look_up(id).await {
            Known::Member(key) => fits(&key, shown),
            Known::Nobody => false,
            Known::Unsure => {
                let node = self.clone();
                let others = self.members().into_iter().filter(|(other, _)| ![id, self.id()].contains(other));
                let others = others.map(|(other, member)| (other, member.name));
                let answers = ask_all(others, move |other, _| {
                    let node = node.clone();
                    async move { node.ask_for_voucher(other, id).await }
                });
                let answers = answers.await.into_iter().filter_map(|asked| asked.answer.ok().flatten());
                is_vouched_for(&answers.collect::<Vec<_>>(), shown)
            }
        }
    }

    /// Answers another member that asks who `id` is.
    pub(crate) async fn vouch_for(&self, id: NodeId) -> VouchResponse {
        match self.look_up(id).await {
            Known::Member(public_key_sha256) => {
                VouchResponse { is_member: true, public_key_sha256, ..VouchResponse::default() }
            }
            Known::Nobody => VouchResponse { is_sure: true, ..VouchResponse::default() },
            Known::Unsure => VouchResponse::default(),
        }
    }

    async fn ask_for_voucher(&self, other: NodeId, id: NodeId) -> Option<VouchResponse> {
        let mut client = self.peers.control(other).ok()?;
        let mut request = Request::new(VouchRequest { node_id: id.0 });
        request.set_timeout(ANSWER_WAIT);
        let answer = tokio::time::timeout(ANSWER_WAIT, client.vouch(request)).await.ok()?;
        Some(answer.ok()?.into_inner())
    }

    async fn look_up(&self, id: NodeId) -> Known {
        if let Some(key) = self.key_of_member(id) {
            return Known::Member(key);
        }
        let Ok(index) = self.log.try_read_index().await else { return Known::Unsure };
        let reached = self.await_applied(index, Revision(0), CATCH_UP_WAIT).await;
        match self.key_of_member(id) {
            Some(key) => Known::Member(key),
            None if reached.applied_index >= index => Known::Nobody,
            None => Known::Unsure,
        }
    }

    fn key_of_member(&self, id: NodeId) -> Option<String> {
        self.log.with_state(|state| state.nodes.get(&id).map(|node| node.public_key_sha256.clone()))
    }
}

fn fits(key: &str, shown: Option<&str>) -> bool {
    key.is_empty() || shown == Some(key)
}

/// What the members that answer make of a node that has shown this key: one that knows it is enough, and so is one that is sure that
/// there is no such node. Where nobody can say, as after a majority was lost and came back, it may be the one that leads now.
fn is_vouched_for(answers: &[VouchResponse], shown: Option<&str>) -> bool {
    let knows = |answer: &&VouchResponse| answer.is_member;
    match answers.iter().find(knows) {
        Some(answer) => fits(&answer.public_key_sha256, shown),
        None => !answers.iter().any(|answer| answer.is_sure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_knows_is_enough_and_so_is_one_that_is_sure() {
        let member = |key: &str| VouchResponse {
            is_member: true,
            public_key_sha256: key.to_owned(),
            ..VouchResponse::default()
        };
        let nobody = VouchResponse { is_sure: true, ..VouchResponse::default() };
        let unsure = VouchResponse::default();
        let shown = Some("k");
        for (answers, shown, expected) in [
            (vec![], shown, true),
            (vec![unsure.clone()], shown, true),
            (vec![unsure.clone(), nobody.clone()], shown, false),
            (vec![unsure.clone(), member("k")], shown, true),
            (vec![nobody, member("k")], shown, true), // it was admitted in between
            (vec![member("k")], Some("other"), false),
            (vec![member("k")], None, false),
            (vec![member("")], shown, true),
            (vec![unsure], None, true),
        ] {
            assert_eq!(is_vouched_for(&answers, shown), expected, "{answers:?} {shown:?}");
        }
    }
}
