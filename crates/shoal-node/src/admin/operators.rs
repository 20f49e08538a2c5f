//! Verbs about those who may call the cluster.

use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::identity::{Authority, LEAF_VALIDITY};
use shoal_model::state::check_member_name;
use shoal_model::{Role, UnknownRole};
use shoal_proto::admin::{IssueOperatorRequest, IssueOperatorResponse};
use tonic::{Code, Status};

use super::change::linearizable_base;
use super::failure::{Exit, with_exit};
use crate::node::Node;

/// Longest life of an operator's certificate.
const MAX_SECONDS: u32 = 366 * 86_400;

/// Certifies the key of an operator, who keeps it.
pub async fn issue(
    node: &Arc<Node>,
    request: &IssueOperatorRequest,
    caller: &str,
) -> Result<IssueOperatorResponse, Status> {
    let invalid = |why: String| with_exit(Code::InvalidArgument, Exit::Local, why);
    check_member_name(&request.name).map_err(|error| invalid(format!("the operator's name: {error}")))?;
    let role = match request.role.as_str() {
        // From a command of before there were roles, whose caller expects as much.
        "" => Role::Admin,
        name => name.parse().map_err(|error: UnknownRole| invalid(error.to_string()))?,
    };
    let validity = match request.ttl_seconds {
        0 => LEAF_VALIDITY,
        ttl if ttl <= MAX_SECONDS => Duration::from_secs(ttl.into()),
        ttl => {
            return Err(invalid(format!(
                "an operator's identity lives 1 to {MAX_SECONDS} seconds, not {ttl}"
            )));
        }
    };
    // A node that was removed must not certify anybody: it would not get an answer here.
    linearizable_base(node).await?;
    let identity = &node.identity;
    let (ca_certificate, ca_key_sealed) =
        node.log.with_state(|state| (state.ca_certificate.clone(), state.ca_key_sealed.clone()));
    let authority = Authority::unseal(identity.cluster_id, &ca_certificate, &ca_key_sealed, &identity.secret)
        .map_err(|error| with_exit(Code::Internal, Exit::Remote, error.to_string()))?;
    let certificate = authority
        .sign_operator(&request.certificate_request, &request.name, role, validity)
        .map_err(|error| invalid(error.to_string()))?;
    tracing::info!(operator = request.name, %role, by = caller, "an operator was given a certificate");
    Ok(IssueOperatorResponse {
        cluster_id: identity.cluster_id.to_string(),
        ca_certificate,
        certificate: certificate.to_vec(),
        role: role.to_string(),
    })
}
