//! A new certificate for a node that has one, or had: for the same key, under the same id.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use shoal_model::NodeId;
use shoal_proto::raft::peer_service_client::PeerServiceClient;
use shoal_proto::raft::{RenewRequest, RenewResponse};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::channel::{Connector, Peers, UnknownPeer, endpoint};
use crate::identity::{Identity, IdentityError, not_after, public_key_sha256};
use crate::tls::{Caller, TlsError, caller, cause_of, deepest, peer_server_config};

/// Longest wait for a certificate: whoever signs it asks a majority first.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// A certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// It is not known where the node is.
    #[error(transparent)]
    Unknown(#[from] UnknownPeer),
    /// The node did not answer, or said no.
    #[error("{}", cause_of(.0))]
    Refused(#[from] Status),
    /// It cannot be connected to.
    #[error("cannot be reached: {}", deepest(.0))]
    Unreachable(#[from] tonic::transport::Error),
    /// What it sent cannot be used.
    #[error("its answer cannot be used: {0}")]
    BadAnswer(&'static str),
    /// The key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be set up with it.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Asks `node` to certify this node's key anew. One whose certificate has ended asks at the door, where that may be late.
pub async fn renew(peers: &Peers, node: NodeId) -> Result<Identity, RenewError> {
    let identity = peers.credentials().identity();
    let request = RenewRequest {
        csr: identity.certificate_request()?,
        certificate: identity.cert_der.to_vec(),
        ..RenewRequest::default()
    };
    let mut request = Request::new(request);
    request.set_timeout(RENEW_DEADLINE);
    let answer = if has_ended(&identity) {
        let connector = Connector::to(peers.door_of(node)?, CancellationToken::new());
        let channel = endpoint(RENEW_DEADLINE).connect_with_connector(connector).await?;
        PeerServiceClient::new(channel).renew(request).await?
    } else {
        peers.control(node)?.renew(request).await?
    };
    renewed(&identity, answer.into_inner())
}

/// `identity` with a certificate that was signed for it.
pub fn renewed(identity: &Identity, answer: RenewResponse) -> Result<Identity, RenewError> {
    let bad = |why| Err(RenewError::BadAnswer(why));
    let cert_der = CertificateDer::from(answer.certificate);
    if caller(std::slice::from_ref(&cert_der)) != Some(Caller::Node(identity.node_id)) {
        return bad("the certificate is not for this node");
    }
    if public_key_sha256(&cert_der) != public_key_sha256(&identity.cert_der) {
        return bad("the certificate is for another key");
    }
    let Some(ca_der) = identity.authorities().find(|known| ***known == *answer.ca_certificate).cloned()
    else {
        return bad("its authority is none that this node believes");
    };
    // Who has succeeded believes the one before for as long as others do.
    let mut succession = identity.succession.clone();
    if ca_der != identity.ca_der {
        succession.others.retain(|other| *other != ca_der);
        succession.others.push(identity.ca_der.clone());
    }
    let renewed = Identity { cert_der, ca_der, succession, ..identity.clone() };
    if has_ended(&renewed) {
        return bad("the certificate has ended already: do the clocks differ?");
    }
    peer_server_config(&renewed)?;
    Ok(renewed)
}

fn has_ended(identity: &Identity) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    not_after(&identity.cert_der).is_none_or(|end| end <= i64::try_from(now).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Authority, NodeKey, OPERATOR_VALIDITY};

    #[test]
    fn only_ones_own_certificate_is_taken() {
        let (identity, authority) = Identity::bootstrap("one").unwrap();
        let (_, other) = Identity::bootstrap("other").unwrap();
        let signed = |authority: &Authority, csr: &[u8], id, life| RenewResponse {
            certificate: authority.sign_node(csr, NodeId(id), life).unwrap().to_vec(),
            ca_certificate: authority.certificate().to_vec(),
        };
        let hour = Duration::from_secs(3600);
        let own = identity.certificate_request().unwrap();
        let foreign = NodeKey::generate().unwrap().request().unwrap();
        let check =
            |answer: RenewResponse, expected: Option<&str>| match (renewed(&identity, answer), expected) {
                (Ok(new), None) => assert_ne!(new.cert_der, identity.cert_der),
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, expected) => panic!("{got:?} instead of {expected:?}"),
            };
        check(signed(&authority, &own, 1, hour), None);
        check(signed(&authority, &own, 2, hour), Some("not for this node"));
        check(signed(&authority, &foreign, 1, hour), Some("for another key"));
        check(signed(&other, &own, 1, hour), Some("is none that this node believes"));
        check(signed(&authority, &own, 1, Duration::ZERO), Some("has ended already"));
        let operator =
            authority.sign_operator(&own, "eve", shoal_model::Role::Admin, OPERATOR_VALIDITY).unwrap();
        let posing = RenewResponse {
            certificate: operator.to_vec(),
            ca_certificate: authority.certificate().to_vec(),
        };
        check(posing, Some("not for this node"));
        check(RenewResponse::default(), Some("not for this node"));
    }
}
