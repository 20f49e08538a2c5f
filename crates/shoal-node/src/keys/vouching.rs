//! Who a node is that the log here does not know, or not yet. The authority's key alone makes nobody a member: whoever has stolen it
//! could sign a certificate for an id that nobody has, which may be that of a member of whom this node, which is behind, has still
//! to hear.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shoal_model::{NodeId, Revision};
use shoal_proto::raft::{VouchRequest, VouchResponse};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Request;

use crate::everybody::ask_all;
use crate::node::Node;

/// For a leader to say how far the log is committed, and as long again to apply that.
const CATCH_UP_WAIT: Duration = Duration::from_millis(500);
/// For another node to do so, and to say what it knows. All together it takes less than who calls waits for a sign of life.
const ANSWER_WAIT: Duration = Duration::from_millis(1200);
/// Nodes that are looked up at once; more wait for as long as another one may take to answer.
const MAX_LOOK_UPS: usize = 64;
/// Between two looks at who is in doubt.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

/// Places for nodes that are looked up.
#[derive(Debug)]
pub struct LookUps(Semaphore);

impl Default for LookUps {
    fn default() -> Self {
        Self(Semaphore::new(MAX_LOOK_UPS))
    }
}

/// How one stands that has shown a certificate of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recognition {
    /// It is the member that it says it is, or was one and is told what has become of it.
    AsItSays,
    /// Nobody can say, as where a majority was lost and comes back: it may be the one that leads now.
    InDoubt,
    /// There is no such node, or it has another key.
    Forged,
    /// Too many are looked up.
    NotNow,
}

impl Node {
    /// How one stands that has shown a certificate of the node called `id`, for this key (SHA-256, hex).
    pub(crate) async fn recognition_of(self: &Arc<Self>, id: NodeId, shown: Option<&str>) -> Recognition {
        if let Some(key) = self.key_of_member(id) {
            return by_key(&key, shown);
        }
        if !self.is_member(id) {
            return Recognition::AsItSays;
        }
        // Who has only just joined knows nobody but by what it was given at the door.
        if self.log.with_state(|state| state.nodes.is_empty()) {
            return Recognition::InDoubt;
        }
        let Ok(Ok(_place)) = timeout(ANSWER_WAIT, self.look_ups.0.acquire()).await else {
            return Recognition::NotNow;
        };
        let own = self.vouch_for(id).await;
        let voters: BTreeSet<NodeId> = self.log.status().voters.into_iter().collect();
        if own.is_sure || own.is_member {
            return judge(&[(self.id(), own)], &voters, shown);
        }
        let others = self.members().into_iter().filter(|(other, _)| *other != self.id());
        let others = others.map(|(other, member)| (other, member.name));
        let node = self.clone();
        let asked = ask_all(others, move |other, _| {
            let node = node.clone();
            async move { node.ask_for_voucher(other, id).await }
        });
        let others = asked.await.into_iter().filter_map(|asked| Some((asked.id, asked.answer.ok()??)));
        let answers: Vec<_> = std::iter::once((self.id(), own)).chain(others).collect();
        judge(&answers, &voters, shown)
    }

    /// Resolves when it has come out that who was in doubt is not what it says.
    pub(crate) async fn exposure_of(self: Arc<Self>, id: NodeId, shown: Option<String>) {
        loop {
            tokio::time::sleep(DOUBT_INTERVAL).await;
            match Box::pin(self.recognition_of(id, shown.as_deref())).await {
                Recognition::InDoubt | Recognition::NotNow => {}
                Recognition::Forged => return,
                Recognition::AsItSays => std::future::pending().await,
            }
        }
    }

    /// Answers another member that asks who `id` is.
    pub(crate) async fn vouch_for(&self, id: NodeId) -> VouchResponse {
        let confirmed = match timeout(CATCH_UP_WAIT, self.log.try_read_index()).await {
            Ok(Ok(index)) => {
                let reached = self.await_applied(index, Revision(0), CATCH_UP_WAIT).await;
                Some(index).filter(|index| reached.applied_index >= *index)
            }
            Ok(Err(_)) | Err(_) => None,
        };
        // What is in the log and not applied may be its admission.
        let written = self.log.end().map(|end| end.last.index);
        let has_applied = *self.log.applied().borrow() >= id.0;
        let key = self.key_of_member(id);
        VouchResponse {
            is_member: key.is_some(),
            lacks: key.is_none() && written.is_some_and(|written| has_applied || written < id.0),
            public_key_sha256: key.unwrap_or_default(),
            confirmed: confirmed.unwrap_or_default(),
            is_sure: confirmed.is_some(),
        }
    }

    async fn ask_for_voucher(&self, other: NodeId, id: NodeId) -> Option<VouchResponse> {
        let mut client = self.peers.control(other).ok()?;
        let mut request = Request::new(VouchRequest { node_id: id.0 });
        request.set_timeout(ANSWER_WAIT);
        let answer = timeout(ANSWER_WAIT, client.vouch(request)).await.ok()?;
        Some(answer.ok()?.into_inner())
    }

    fn key_of_member(&self, id: NodeId) -> Option<String> {
        self.log.with_state(|state| state.nodes.get(&id).map(|node| node.public_key_sha256.clone()))
    }
}

fn by_key(key: &str, shown: Option<&str>) -> Recognition {
    match key.is_empty() || shown == Some(key) {
        true => Recognition::AsItSays,
        false => Recognition::Forged,
    }
}

/// What the members that answer make of a node that has shown this key. One that a majority has confirmed just now decides, or
/// else one that knows it. Who was admitted is in the logs of a majority of the voters: where it is in those of a minority at
/// most, it was not.
fn judge(answers: &[(NodeId, VouchResponse)], voters: &BTreeSet<NodeId>, shown: Option<&str>) -> Recognition {
    let sure = answers.iter().map(|(_, answer)| answer).filter(|answer| answer.is_sure);
    if let Some(newest) = sure.max_by_key(|answer| answer.confirmed) {
        return match newest.is_member {
            true => by_key(&newest.public_key_sha256, shown),
            false => Recognition::Forged,
        };
    }
    if let Some((_, knows)) = answers.iter().find(|(_, answer)| answer.is_member) {
        return by_key(&knows.public_key_sha256, shown);
    }
    let lacking = answers.iter().filter(|(id, answer)| answer.lacks && voters.contains(id)).count();
    match lacking * 2 > voters.len() {
        true => Recognition::Forged,
        false => Recognition::InDoubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of nodes 1, 2, …, of which the first three vote: `k` or `x` = it knows a member with that key, `-` = it lacks it, `?` = it
    /// has not applied all that it has; with the index that a majority has confirmed, if one has.
    fn check(answers: &str, expected: Recognition) {
        let answer = |text: &str| {
            let (word, confirmed) = text.split_at(1);
            VouchResponse {
                is_member: !"-?".contains(word),
                public_key_sha256: word.to_owned(),
                is_sure: !confirmed.is_empty(),
                confirmed: confirmed.parse().unwrap_or_default(),
                lacks: word == "-",
            }
        };
        let answers: Vec<_> = (1..).map(NodeId).zip(answers.split_whitespace().map(answer)).collect();
        let voters = [1, 2, 3].map(NodeId).into();
        assert_eq!(judge(&answers, &voters, Some("k")), expected, "{answers:?}");
    }

    #[test]
    fn who_is_sure_decides_and_then_who_knows_and_then_what_a_majority_lacks() {
        use Recognition::{AsItSays, Forged, InDoubt};
        check("-9", Forged);
        check("k9", AsItSays);
        check("x9", Forged);
        check("? k -9", Forged); // it was revoked since
        check("-8 k9", AsItSays); // it was admitted since
        check("? k", AsItSays);
        check("? x", Forged);
        check("-", InDoubt);
        check("- ?", InDoubt);
        check("- -", Forged);
        check("- ? -", Forged);
        check("? ? ?", InDoubt);
        check("- ? ? - - -", InDoubt); // the others do not vote
    }
}
