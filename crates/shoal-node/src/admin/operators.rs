//! Verbs about those who may call the cluster.

use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::identity::{CLOCK_SLACK, OPERATOR_VALIDITY, not_after, serial, validity};
use shoal_cluster::tls::LOCAL;
use shoal_model::state::{
    Command, ConfigState, MAX_OPERATOR_SECONDS, OperatorRecord, REVOKING, check_member_name,
};
use shoal_model::{Role, UnknownRole};
use shoal_proto::admin::{
    IssueOperatorRequest, IssueOperatorResponse, ListOperatorsResponse, OperatorStatus,
    RevokeOperatorRequest, RevokeOperatorResponse,
};
use tonic::{Code, Status};

use super::base::{linearizable_base, newest_base, put, staleness_ms};
use super::failure::{Exit, with_exit};
use crate::node::{Node, now_ms};

/// Certifies the key of an operator, who keeps it.
pub async fn issue(
    node: &Arc<Node>,
    request: &IssueOperatorRequest,
    caller: &str,
) -> Result<IssueOperatorResponse, Status> {
    let invalid = |why: String| with_exit(Code::InvalidArgument, Exit::Local, why);
    check_member_name(&request.name).map_err(|error| invalid(format!("the operator's name: {error}")))?;
    if request.name == LOCAL {
        return Err(invalid(format!("{LOCAL:?} is whoever calls over the socket; choose another name")));
    }
    let role = match request.role.as_str() {
        // From a command of before there were roles, whose caller expects as much.
        "" => Role::Admin,
        name => name.parse().map_err(|error: UnknownRole| invalid(error.to_string()))?,
    };
    let validity = match request.ttl_seconds {
        0 => OPERATOR_VALIDITY,
        ttl if ttl <= MAX_OPERATOR_SECONDS => Duration::from_secs(ttl.into()),
        ttl => {
            let why = format!("an operator's identity lives 1 to {MAX_OPERATOR_SECONDS} seconds, not {ttl}");
            return Err(invalid(why));
        }
    };
    // A node that was removed must not certify anybody: it would not get an answer here.
    linearizable_base(node).await?;
    let authority =
        node.authority().map_err(|error| with_exit(Code::Internal, Exit::Remote, error.to_string()))?;
    let certificate = authority
        .sign_operator(&request.certificate_request, &request.name, role, validity)
        .map_err(|error| invalid(error.to_string()))?;
    remember(node, &request.name, role, &certificate).await?;
    tracing::info!(operator = request.name, %role, by = caller, "an operator was given a certificate");
    Ok(IssueOperatorResponse {
        cluster_id: node.identity.cluster_id.to_string(),
        ca_certificate: authority.certificate().to_vec(),
        other_authorities: node
            .succession_with(authority.certificate())
            .unwrap_or_default()
            .others
            .iter()
            .map(|other| other.to_vec())
            .collect(),
        certificate: certificate.to_vec(),
        role: role.to_string(),
    })
}

/// Puts a certificate on the list, unless an older member could not read that.
pub async fn remember(
    node: &Arc<Node>,
    name: &str,
    role: Role,
    certificate_der: &[u8],
) -> Result<(), Status> {
    let unreadable = || Status::internal("the certificate cannot be read");
    let serial = serial(certificate_der).ok_or_else(unreadable)?;
    let ends_at = not_after(certificate_der).ok_or_else(unreadable)?;
    if !node.keeps_operators() {
        return Ok(());
    }
    let record = OperatorRecord {
        name: name.to_owned(),
        role: role.to_string(),
        given_at_ms: now_ms(),
        ends_at_ms: u64::try_from(ends_at).unwrap_or_default() * 1000,
    };
    put(node, Command::GiveCertificate { serial, record }).await
}

/// The oldest authority that is believed, if one before it has retired.
fn oldest_after_retired(state: &ConfigState) -> Option<&[u8]> {
    let oldest = match &state.keys.succession {
        Some(succession) if succession.has_switched => &succession.other,
        Some(_) | None => &state.ca_certificate,
    };
    (!state.keys.retired.is_empty()).then_some(oldest.as_slice())
}

/// When an authority was made, Unix milliseconds: what was given before that is by another one.
fn made_at_ms(certificate: &[u8]) -> u64 {
    let from = validity(certificate).map_or(0, |(from, _)| u64::try_from(from).unwrap_or_default());
    (from + CLOCK_SLACK.as_secs()) * 1000
}

/// The certificates that are good, by serial number: what was given before the authorities that are believed is not.
pub(super) fn believed(state: &ConfigState) -> impl Iterator<Item = (&String, &OperatorRecord)> {
    let since_ms = oldest_after_retired(state).map_or(0, made_at_ms);
    state.operators.given(now_ms()).filter(move |(_, record)| record.given_at_ms >= since_ms)
}

/// Who has which certificates, but for what was given before the authorities that are believed, and which names were revoked.
pub async fn list(node: &Arc<Node>) -> Result<ListOperatorsResponse, Status> {
    let (_, quorum) = newest_base(node).await?;
    let mut operators: Vec<OperatorStatus> = node.log.with_state(|state| {
        let given = believed(state).map(|(serial, record)| OperatorStatus {
            name: record.name.clone(),
            role: record.role.clone(),
            serial: serial.clone(),
            at_ms: record.given_at_ms,
            ends_at_ms: record.ends_at_ms,
        });
        let revoked = state.operators.revoked().map(|(name, at_ms)| OperatorStatus {
            name: name.clone(),
            role: "revoked".to_owned(),
            at_ms,
            ..OperatorStatus::default()
        });
        given.chain(revoked).collect()
    });
    operators.sort_by(|a, b| (&a.name, a.at_ms).cmp(&(&b.name, b.at_ms)));
    Ok(ListOperatorsResponse { operators, quorum, staleness_ms: staleness_ms(node) })
}

/// Revoked names beyond which only the local socket adds one: the log remembers 1,000, and whoever has filled that must not be
/// safe from being revoked himself.
const MAX_REVOKED_FROM_AFAR: usize = 900;

/// Lets nobody call with what an operator has. By force also of a name that is not on the list: there are certificates of before.
pub async fn revoke(
    node: &Arc<Node>,
    request: &RevokeOperatorRequest,
    caller: &str,
) -> Result<RevokeOperatorResponse, Status> {
    let invalid = |why: String| with_exit(Code::InvalidArgument, Exit::Local, why);
    check_member_name(&request.name).map_err(|error| invalid(format!("the operator's name: {error}")))?;
    linearizable_base(node).await?;
    if !node.keeps_operators() {
        let why = "a member has not said that it can refuse operators: upgrade all of them, or wait until it is heard";
        return Err(with_exit(Code::FailedPrecondition, Exit::Remote, why));
    }
    let has = |(_, record): &(&String, &OperatorRecord)| record.name == request.name;
    let (certificates, revoked, was_revoked) = node.log.with_state(|state| {
        let mut revoked = state.operators.revoked();
        let was_revoked = revoked.any(|(name, _)| *name == request.name);
        (state.operators.given(now_ms()).filter(has).count(), state.operators.revoked().count(), was_revoked)
    });
    if certificates == 0 && !was_revoked && !request.force {
        let why =
            format!("no operator {:?} is on the list; --force revokes the name all the same", request.name);
        return Err(with_exit(Code::NotFound, Exit::Local, why));
    }
    if revoked >= MAX_REVOKED_FROM_AFAR && !was_revoked && caller != LOCAL {
        let why = format!("{revoked} names are revoked already; only the socket of a node adds another one");
        return Err(with_exit(Code::ResourceExhausted, Exit::Remote, why));
    }
    put(node, Command::RevokeOperator { name: request.name.clone(), at_ms: now_ms() }).await?;
    tracing::info!(operator = request.name, certificates, by = caller, "an operator was revoked");
    Ok(RevokeOperatorResponse { certificates: u32::try_from(certificates).unwrap_or(u32::MAX) })
}

impl Node {
    /// The log remembers who may call: since it began to, and before that once every member has said that it can read it.
    fn keeps_operators(&self) -> bool {
        self.log.with_state(|state| state.operators.has_begun()) || self.members_without(REVOKING).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::state::Succession;

    use super::*;

    #[test]
    fn what_is_before_the_oldest_that_is_believed_is_gone() {
        // Another one beside the one that signs, if it has switched; whether one has retired.
        let check = |other: Option<bool>, has_retired: bool, expected: Option<&[u8]>| {
            let mut state = ConfigState::default();
            let retired = has_retired.then(|| "old".to_owned()).into_iter().collect();
            (state.ca_certificate, state.keys.retired) = (vec![1], retired);
            state.keys.succession = other.map(|has_switched| {
                let mut succession = Succession::default();
                (succession.other, succession.has_switched) = (vec![2], has_switched);
                succession
            });
            assert_eq!(oldest_after_retired(&state), expected, "{other:?} {has_retired}");
        };
        check(None, false, None);
        check(Some(true), false, None);
        check(None, true, Some(&[1]));
        check(Some(false), true, Some(&[1]));
        check(Some(true), true, Some(&[2]));
    }
}
