//! The gate of the operator's API: who may call what, decided in one place, before a call reaches its handler.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::http;
use shoal_cluster::tls::{Caller, ProvenOperator};
use shoal_model::Role;
use shoal_proto::calls::AdminCall;
use tonic::server::NamedService;
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};
use tower_service::Service;

use super::failure::{Exit, with_exit};
use crate::incoming::Connection;
use crate::node::Node;
use crate::removed::ADVICE;

/// The least role that may make a call.
const fn least_role(call: AdminCall) -> Role {
    match call {
        AdminCall::Plan
        | AdminCall::Diff
        | AdminCall::Watch
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
        | AdminCall::DescribeNode => Role::Viewer,
        AdminCall::Apply
        | AdminCall::Edit
        | AdminCall::Stage
        | AdminCall::Confirm
        | AdminCall::Abort
        | AdminCall::Rollback
        | AdminCall::Purge
        | AdminCall::CacheWarm
        | AdminCall::SetStanding => Role::Operator,
        // Who lets others in could let in somebody who may do more: so only those do who may do everything.
        AdminCall::CreateToken
        | AdminCall::RevokeToken
        | AdminCall::IssueOperator
        | AdminCall::RemoveNode => Role::Admin,
    }
}

/// Lets operators through who may make the call, as long as this node has a cluster to speak for. Who is refused is counted
/// and told.
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
        // What is no call of the service has no handler either.
        let Some(call) = request.extensions().get::<AdminCall>() else { return Ok(request) };
        match may_call(operator, *call) {
            Ok(()) => Ok(request),
            Err(refusal) => {
                self.note_refusal(&request, &refusal);
                Err(with_exit(Code::PermissionDenied, Exit::Remote, refusal.to_string()))
            }
        }
    }
}

impl Gate {
    fn note_refusal(&self, request: &Request<()>, refusal: &Refusal) {
        let Some(unsaid) = self.0.refused_calls.note(Instant::now()) else { return };
        let connection = request.extensions().get::<Connection>();
        let from = connection.and_then(|connection| connection.from).map(|from| from.to_string());
        let Refusal { name, role, call, takes } = refusal;
        tracing::warn!(by = name, %role, from, call = call.name(), %takes, unsaid, "an operator was refused");
    }
}

/// An operator may not make a call.
#[derive(Debug, thiserror::Error)]
#[error("{name:?} has the role {role}, and {} takes the role {takes}", .call.name())]
struct Refusal {
    name: String,
    role: Role,
    call: AdminCall,
    takes: Role,
}

fn may_call(operator: &ProvenOperator, call: AdminCall) -> Result<(), Refusal> {
    let (takes, role) = (least_role(call), operator.role);
    if role >= takes {
        return Ok(());
    }
    Err(Refusal { name: operator.name.clone(), role, call, takes })
}

fn operator_of<T>(request: &Request<T>) -> Option<&ProvenOperator> {
    match request.extensions().get::<Connection>()?.caller.as_ref()? {
        Caller::Operator(operator) => Some(operator),
        Caller::Node(_) => None,
    }
}

/// Who calls, as the audit trail names it.
pub fn caller_of<T>(request: &Request<T>) -> String {
    operator_of(request).map_or_else(String::new, |operator| operator.name.clone())
}

/// A service whose requests tell the [`Gate`] within which call they are.
#[derive(Clone)]
pub struct Named<S>(pub S);

impl<S: NamedService> NamedService for Named<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<B>>, B> Service<http::Request<B>> for Named<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        if let Some(call) = AdminCall::of_path(request.uri().path()) {
            request.extensions_mut().insert(call);
        }
        self.0.call(request)
    }
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
Edit operator
Rollback operator
Purge operator
CacheWarm operator
CreateToken admin
RevokeToken admin
IssueOperator admin
RemoveNode admin
SetStanding operator
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
                let operator = ProvenOperator { name: "ada".to_owned(), role };
                assert_eq!(may_call(&operator, call).is_ok(), role >= least_role(call), "{call:?} {role}");
            }
        }
        let viewer = ProvenOperator { name: "a\u{1b}da".to_owned(), role: Role::Viewer };
        assert_eq!(
            may_call(&viewer, AdminCall::Apply).unwrap_err().to_string(),
            "\"a\\u{1b}da\" has the role viewer, and Apply takes the role operator"
        );
    }
}
