//! What this node signs with the authority of the cluster, whose key the log keeps, sealed.

use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::identity::{Authority, IdentityError, validity, was_signed_by};
use shoal_cluster::join::{Token, admits_nodes, same_text};
use shoal_configlog::on_behalf_of;
use shoal_model::state::{Asker, AuditTrail, MemberRecord, Refusal, TokenRecord};
use shoal_model::{NodeId, Revision};
use shoal_policy::renewal::{GRACE, Life};
use shoal_proto::raft::{RenewRequest, RenewResponse};
use tonic::Status;

use crate::admin::failure;
use crate::asking::Who;
use crate::node::{Node, now_ms};

/// For this node to apply what a majority has agreed on.
const CATCH_UP: Duration = Duration::from_secs(5);
/// What late renewals are on the record as.
const RENEW: &str = "Renew";
/// The same one is on the record once within so long.
const ON_RECORD_EVERY: Duration = Duration::from_secs(3600);

impl Node {
    /// The authority of the cluster, while something is signed.
    pub(crate) fn authority(&self) -> Result<Authority, IdentityError> {
        let (certificate, key_sealed) =
            self.log.with_state(|state| (state.ca_certificate.clone(), state.ca_key_sealed.clone()));
        Authority::unseal(self.identity.cluster_id, &certificate, &key_sealed, &self.identity.secret)
    }

    /// How long certificates of nodes last.
    pub(crate) fn node_validity(&self) -> Duration {
        Duration::from_secs(self.log.with_state(|state| state.keys.node_seconds()).into())
    }

    /// What the log knows of a token that is good for something.
    pub(crate) fn record_of(&self, token: &Token) -> Option<TokenRecord> {
        let record = self.log.with_state(|state| state.tokens.get(&token.id).cloned())?;
        let is_good = token.is_of(&self.peers.credentials().identity())
            && record.expires_at_ms > now_ms()
            && same_text(&record.secret_sha256, &token.secret_sha256());
        is_good.then_some(record)
    }

    /// The member with this public key.
    fn member_with_key(&self, public_key_sha256: &str) -> Option<NodeId> {
        self.log.with_state(|state| {
            let has = |(_, member): &(&NodeId, &MemberRecord)| member.public_key_sha256 == public_key_sha256;
            state.nodes.iter().find(has).map(|(id, _)| *id)
        })
    }

    /// A certificate for the key of `csr`, if it is a member's as far as this node knows.
    pub(super) fn sign(&self, csr: &[u8]) -> Result<(NodeId, RenewResponse), Status> {
        let invalid = |error: IdentityError| Status::invalid_argument(error.to_string());
        let internal = |error: IdentityError| Status::internal(error.to_string());
        let key = Authority::request_key_sha256(csr).map_err(invalid)?;
        let Some(id) = self.member_with_key(&key) else {
            return Err(Status::permission_denied("no member of this cluster has this key"));
        };
        let authority = self.authority().map_err(internal)?;
        let certificate = authority.sign_node(csr, id, self.node_validity()).map_err(internal)?;
        let ca_certificate = authority.certificate().to_vec();
        Ok((id, RenewResponse { certificate: certificate.to_vec(), ca_certificate }))
    }
}

/// A new certificate for a member. `caller` is who has proven to be one; who has not, shows a certificate that has ended not
/// long ago, or a token for nodes: the answer is of use to nobody but the bearer of its key. It comes `from` there.
pub async fn renew(
    node: &Arc<Node>,
    request: &RenewRequest,
    caller: Option<NodeId>,
    from: String,
) -> Result<RenewResponse, Status> {
    // Before anybody else is asked for the sake of a stranger.
    let (id, _) = node.sign(&request.csr)?;
    match caller {
        Some(caller) if caller == id => {}
        Some(caller) => {
            return Err(Status::permission_denied(format!("{caller} asks for another node's key")));
        }
        None if request.token.is_empty() => check_late(node, request)?,
        None => {}
    }
    // A node that was removed, or is far behind, must not certify anybody.
    let index = node.log.read_index().await.map_err(failure::propose)?;
    if node.await_applied(index, Revision(0), CATCH_UP).await.applied_index < index {
        return Err(Status::unavailable("this node is behind"));
    }
    if !request.token.is_empty() {
        check_token(node, &request.token)?;
    }
    let (id, answer) = node.sign(&request.csr)?;
    if caller.is_none() {
        tokio::spawn(put_on_record(node.clone(), id, request.token.clone(), from));
    }
    tracing::info!(member = %id, late = caller.is_none(), "a node's certificate was renewed");
    Ok(answer)
}

/// Who had nothing to show any more is let in all the same, whatever becomes of the record: it does not wait for that.
async fn put_on_record(node: Arc<Node>, id: NodeId, token: String, from: String) {
    let member = node.log.with_state(|state| state.nodes.get(&id).map(|member| member.name.clone()));
    let name = member.unwrap_or_else(|| id.to_string());
    let (who, what) = match token.parse::<Token>() {
        Ok(token) => {
            (Who::with_token(&token.id, &token.role, from), format!("a certificate for {name}, by a token"))
        }
        Err(_) => (Who::member(&name, from), format!("a certificate for {name}, whose last one has ended")),
    };
    let writing = async {
        let _turn = node.late_renewals.lock().await;
        if node.log.with_state(|state| is_on_record(&state.audit.changes, &who.by, &what, now_ms())) {
            return Ok(());
        }
        match node.asker(who, RENEW) {
            Some(asker) => on_behalf_of(Some(asker), node.put_on_record(what)).await,
            None => Ok(()),
        }
    };
    let why = match tokio::time::timeout(CATCH_UP, writing).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(late) => late.to_string(),
    };
    tracing::warn!(member = %id, why, "that its certificate was renewed late is not on the record");
}

/// The same was put there a while ago at most: whoever has the key may ask as often as he likes.
fn is_on_record(changes: &AuditTrail, by: &str, what: &str, now_ms: u64) -> bool {
    // By the clocks of those that were asked, which may be wrong.
    let is_recent = |asker: &Asker| Duration::from_millis(asker.at_ms.abs_diff(now_ms)) < ON_RECORD_EVERY;
    let mut askers = changes.newest_first().map(|(_, record)| &record.asker);
    askers.any(|asker| asker.call == RENEW && asker.by == by && asker.what == what && is_recent(asker))
}

/// It says that an operator of now wants the member back. It loses no use by that: nobody is admitted.
fn check_token(node: &Node, token: &str) -> Result<(), Status> {
    let refuse = |why: String| Status::permission_denied(why);
    let token: Token = token.parse().map_err(|error| refuse(format!("{error}")))?;
    let record = node.record_of(&token).ok_or_else(|| refuse(Refusal::UnknownToken.to_string()))?;
    match admits_nodes(&token.role) && token.role == record.role {
        true => Ok(()),
        false => Err(refuse("the token is not for nodes".to_owned())),
    }
}

/// What ended not long ago is its bearer's: of the same key, and of the member that asks. Certificates are shown to everybody.
fn check_late(node: &Node, request: &RenewRequest) -> Result<(), Status> {
    let refuse = |why: &str| Err(Status::permission_denied(why));
    let certificate = &*request.certificate;
    let ends = validity(certificate).and_then(|(_, to)| u64::try_from(to).ok());
    let own = node.peers.credentials().identity();
    let is_ours = was_signed_by(own.authorities().filter(|authority| node.believes(authority)), certificate);
    let Some(to_ms) = ends.filter(|_| is_ours).map(|to| to * 1000) else {
        return refuse("that is no certificate of this cluster's authority");
    };
    if !Authority::is_request_of(&request.csr, certificate) {
        return refuse("that is the certificate of another key");
    }
    if !(Life { from_ms: 0, to_ms }).is_renewed_late(now_ms()) {
        let hours = GRACE.as_secs() / 3600;
        return refuse(&format!("the certificate has ended more than {hours} h ago"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shoal_model::state::{Command, ConfigState};

    use super::*;

    #[test]
    fn who_asks_again_and_again_is_on_the_record_once_in_a_while() {
        const NOW: u64 = 1_000_000_000;
        let hour = ON_RECORD_EVERY.as_millis() as u64;
        let check = |calls: &[(&str, &str, u64)], expected: bool| {
            let mut state = ConfigState::default();
            for (index, (call, by, ago)) in (1..).zip(calls) {
                let (call, by, what) = ((*call).to_owned(), (*by).to_owned(), "n3".to_owned());
                let asker = Asker { call, by, what, at_ms: NOW - ago, ..Asker::default() };
                state.apply(index, Command::CompareStates.asked_by(vec![asker]));
            }
            assert_eq!(is_on_record(&state.audit.changes, "node n3", "n3", NOW), expected, "{calls:?}");
        };
        check(&[], false);
        check(&[(RENEW, "node n3", 7)], true);
        check(&[(RENEW, "node n3", 7), ("Apply", "ada", 5)], true);
        check(&[(RENEW, "node n3", hour)], false);
        check(&[(RENEW, "node n2", 7), ("SaveSnapshot", "node n3", 5)], false);
        // Whatever others have asked of a node whose clock is wrong.
        check(&[(RENEW, "node n3", 7), ("Apply", "ada", 5 * hour)], true);
    }
}
