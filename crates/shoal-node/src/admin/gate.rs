//! The gate of the operator's API: who may call what, decided in one place, before a call reaches its handler.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::http;
use shoal_cluster::tls::{Caller, ProvenOperator};
use shoal_configlog::on_behalf_of;
use shoal_model::Role;
use shoal_model::state::NotAdmitted;
use shoal_proto::NODE_METADATA;
use shoal_proto::calls::AdminCall;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};
use tower_service::Service;

use super::failure::{Exit, with_exit};
use super::message_body::MessageBody;
use crate::asking::Who;
use crate::incoming::Connection;
use crate::node::{Node, now_ms};
use crate::removed::ADVICE;

/// The least role that may make a call.
const fn least_role(call: AdminCall) -> Role {
    match call {
        AdminCall::Plan
        | AdminCall::Diff
        | AdminCall::Watch
        | AdminCall::GetRollout
        | AdminCall::PlanEdit
        | AdminCall::Show
        | AdminCall::History
        | AdminCall::Status
        | AdminCall::Health
        | AdminCall::PurgeStatus
        | AdminCall::CacheStats
        | AdminCall::Top
        | AdminCall::CacheLocate
        | AdminCall::CacheGet
        | AdminCall::CacheTop
        | AdminCall::ListTokens
        | AdminCall::DescribeNode
        | AdminCall::Audit
        | AdminCall::RecoverPlan
        | AdminCall::ListOperators
        | AdminCall::Keys
        | AdminCall::UpgradeStatus => Role::Viewer,
        AdminCall::Apply
        | AdminCall::Edit
        | AdminCall::Stage
        | AdminCall::RollOut
        | AdminCall::StepRollout
        | AdminCall::SetRolloutPolicy
        | AdminCall::Confirm
        | AdminCall::Abort
        | AdminCall::Rollback
        | AdminCall::Purge
        | AdminCall::CacheWarm
        | AdminCall::SetStanding
        | AdminCall::TransferLeader => Role::Operator,
        // Who lets others in could let in somebody who may do more: so only those do who may do everything.
        AdminCall::CreateToken
        | AdminCall::RevokeToken
        | AdminCall::IssueOperator
        | AdminCall::RevokeOperator
        | AdminCall::RemoveNode
        | AdminCall::SetVote
        | AdminCall::SaveSnapshot
        | AdminCall::ChangeSetup
        | AdminCall::RevokeNode
        | AdminCall::KeepKeys
        // There is no way back from it.
        | AdminCall::SetUpgrade => Role::Admin,
    }
}

/// Lets operators through who may make the call, as long as this node has a cluster to speak for. Who is refused is counted.
#[derive(Clone)]
pub struct Gate(pub Arc<Node>);

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(operator) = operator_of(&request) else {
            return Err(Status::unauthenticated("only operators of this cluster may call this"));
        };
        if self.0.removed.is_cancelled() {
            return Err(with_exit(Code::FailedPrecondition, Exit::Remote, ADVICE));
        }
        let refuse = |why: String| {
            self.0.refused_calls.fetch_add(1, Ordering::Relaxed);
            with_exit(Code::PermissionDenied, Exit::Remote, why)
        };
        self.0
            .admits(operator)
            .map_err(|refusal| refuse(format!("the identity of {:?} {refusal}", operator.name)))?;
        // What is no call of the service has no handler either.
        let Some(call) = request.extensions().get::<AdminCall>() else { return Ok(request) };
        may_call(operator, *call).map_err(|refusal| refuse(refusal.to_string()))?;
        // It begins with an empty list, and has not heard yet which it is.
        let knows_nobody = || self.0.log.with_state(|state| state.nodes.is_empty());
        if operator.serial.is_some() && least_role(*call) > Role::Viewer && knows_nobody() {
            let why = "this node does not know yet who may call; ask another one, or again in a moment";
            return Err(with_exit(Code::Unavailable, Exit::Remote, why));
        }
        Ok(request)
    }
}

impl Node {
    /// The list says that an operator has been given what it has shown; who is local has shown nothing.
    pub(crate) fn admits(&self, operator: &ProvenOperator) -> Result<(), NotAdmitted> {
        let ProvenOperator { name, role, serial, .. } = operator;
        let Some(serial) = serial else { return Ok(()) };
        self.log.with_state(|state| state.operators.admits(name, role.name(), serial, now_ms()))
    }
}

/// An operator may not make a call.
#[derive(Debug, thiserror::Error)]
#[error("{name:?} has the role {role}, and this takes the role {takes} (call {})", .call.name())]
struct Forbidden {
    name: String,
    role: Role,
    call: AdminCall,
    takes: Role,
}

fn may_call(operator: &ProvenOperator, call: AdminCall) -> Result<(), Forbidden> {
    let (takes, role) = (least_role(call), operator.role);
    if role >= takes {
        return Ok(());
    }
    Err(Forbidden { name: operator.name.clone(), role, call, takes })
}

fn operator_of<T>(request: &Request<T>) -> Option<&ProvenOperator> {
    match request.extensions().get::<Connection>()?.caller.as_ref()? {
        Caller::Operator(operator) => Some(operator),
        Caller::Node(_) => None,
    }
}

/// What whoever is at the other end may do: where it is no operator, who is let in nowhere, the least.
fn role_at(connection: &Connection) -> Role {
    match &connection.caller {
        Some(Caller::Operator(operator)) => operator.role,
        Some(Caller::Node(_)) | None => Role::Viewer,
    }
}

/// Who calls, as the audit trail names it.
pub fn caller_of<T>(request: &Request<T>) -> String {
    operator_of(request).map_or_else(String::new, |operator| operator.name.clone())
}

/// Where calls come in: the [`Gate`] behind it learns which they are, the log on whose behalf they are answered, and who reads
/// this node's log which changes were asked for in vain. Who is refused hears which node it was.
#[derive(Clone)]
pub struct Porch<S> {
    node: Arc<Node>,
    service: S,
}

impl<S> Porch<S> {
    /// Before `service` of `node`.
    pub fn of(node: Arc<Node>, service: S) -> Self {
        Self { node, service }
    }
}

impl<S: NamedService> NamedService for Porch<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, A> Service<http::Request<Body>> for Porch<S>
where
    S: Service<http::Request<Body>, Response = http::Response<A>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let call = AdminCall::of_path(request.uri().path());
        let connection = request.extensions().get::<Connection>();
        let who = connection.map(|connection| (Who::at(connection), role_at(connection)));
        let (Some(call), Some((who, role))) = (call, who) else {
            return Box::pin(self.service.call(request));
        };
        request.extensions_mut().insert(call);
        let held = Arc::new(Mutex::new(self.node.messages.none_yet(&who.by)));
        let request = request.map(|body| Body::new(MessageBody::of(call, role, body, held.clone())));
        let asker = self.node.asker(who.clone(), call.name());
        let answering = on_behalf_of(asker, self.service.call(request));
        let node = self.node.clone();
        Box::pin(async move {
            let mut response = answering.await?;
            drop(held);
            if let Some(status) = Status::from_header_map(response.headers())
                && status.code() != Code::Ok
            {
                if least_role(call) > Role::Viewer {
                    tell_refusal(&node, &who, call, status.message());
                }
                if let Ok(name) = http::HeaderValue::from_str(&node.identity.name) {
                    response.headers_mut().insert(NODE_METADATA, name);
                }
            }
            Ok(response)
        })
    }
}

fn tell_refusal(node: &Node, who: &Who, call: AdminCall, why: &str) {
    let Some(unsaid) = node.refused_changes.note(Instant::now()) else { return };
    let (Who { by, role, from }, call) = (who, call.name());
    tracing::warn!(by, role, from, call, why = ?why, unsaid, "an operator was refused");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls that take more than the least role, and which.
    const TAKEN: &str = "\
Apply operator
Stage operator
Confirm operator
Abort operator
RollOut operator
StepRollout operator
SetRolloutPolicy operator
Edit operator
Rollback operator
Purge operator
CacheWarm operator
CreateToken admin
RevokeToken admin
IssueOperator admin
RevokeOperator admin
RemoveNode admin
SetStanding operator
SetVote admin
RevokeNode admin
SaveSnapshot admin
SetUpgrade admin
ChangeSetup admin
KeepKeys admin
TransferLeader operator
";

    #[test]
    fn calls_take_roles() {
        let taken = AdminCall::ALL.iter().filter(|call| least_role(**call) > Role::Viewer);
        let taken: String = taken.map(|call| format!("{} {}\n", call.name(), least_role(*call))).collect();
        assert_eq!(taken, TAKEN);
    }

    #[test]
    fn a_role_may_what_those_below_it_may() {
        for call in AdminCall::ALL {
            for role in Role::ALL {
                let operator = ProvenOperator { name: "ada".to_owned(), role, serial: None, ends_at: None };
                assert_eq!(may_call(&operator, call).is_ok(), role >= least_role(call), "{call:?} {role}");
            }
        }
        let viewer =
            ProvenOperator { name: "a\u{1b}da".to_owned(), role: Role::Viewer, serial: None, ends_at: None };
        assert_eq!(
            may_call(&viewer, AdminCall::Apply).unwrap_err().to_string(),
            "\"a\\u{1b}da\" has the role viewer, and this takes the role operator (call Apply)"
        );
    }
}
