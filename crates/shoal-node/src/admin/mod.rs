//! The operator's API on this node: any node takes any verb.

mod audit;
mod base;
mod cache;
mod cache_get;
mod cache_top;
mod cache_warm;
mod caller;
mod change;
mod describe;
mod differences;
mod draft;
pub(crate) mod failure;
mod first_site;
mod gate;
mod given;
mod keys;
mod listener;
mod look;
mod manner;
mod members;
mod message_body;
mod next_site;
mod operators;
mod plan;
mod purge_scopes;
mod purge_status;
mod relapse;
mod request_key;
mod rollout;
mod setup;
mod standing;
mod status;
mod step;
mod stored_size;
mod tokens;
mod top;
mod transfer;
mod upgrade;
mod votes;
mod watch;
mod waves;

use std::sync::Arc;

use shoal_proto::admin::admin_service_server::AdminService;
use shoal_proto::admin::{
    AbortRequest, ApplyRequest, ApplyResponse, AuditRequest, AuditResponse, CacheGetRequest,
    CacheGetResponse, CacheLocateRequest, CacheLocateResponse, CacheStatsRequest, CacheStatsResponse,
    CacheTopRequest, CacheTopResponse, CacheWarmRequest, ChangeSetupRequest, ChangeSetupResponse,
    ConfirmRequest, ConfirmResponse, CreateTokenRequest, CreateTokenResponse, DescribeNodeRequest,
    DescribeNodeResponse, DiffRequest, DiffResponse, EditRequest, GetRolloutRequest, GetRolloutResponse,
    HealthRequest, HealthResponse, HistoryRequest, HistoryResponse, IssueOperatorRequest,
    IssueOperatorResponse, KeepKeysRequest, KeysRequest, KeysResponse, ListOperatorsRequest,
    ListOperatorsResponse, ListTokensRequest, ListTokensResponse, PlanRequest, PlanResponse, PurgeRequest,
    PurgeResponse, PurgeStatusRequest, PurgeStatusResponse, RecoverPlanRequest, RecoverPlanResponse,
    RemoveNodeRequest, RemoveNodeResponse, RevokeNodeRequest, RevokeOperatorRequest, RevokeOperatorResponse,
    RevokeTokenRequest, RevokeTokenResponse, RollOutRequest, RollbackRequest, SaveSnapshotRequest,
    SetRolloutPolicyRequest, SetRolloutPolicyResponse, SetStandingRequest, SetUpgradeRequest, SetVoteRequest,
    SetVoteResponse, ShowRequest, ShowResponse, StageRequest, StatusRequest, StatusResponse,
    StepRolloutRequest, TopRequest, TopResponse, TransferLeaderRequest, TransferLeaderResponse,
    UpgradeStatusRequest, UpgradeStatusResponse, WatchRequest,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub use base::{CATCH_UP_WAIT, newest_base};
pub use cache::order as purge_order;
pub use cache_warm::MAX_CALLS as MAX_WARM_CALLS;
pub use first_site::{apply_file, check_first_site, read_first_site};
pub use listener::{AdminListeners, serve};
pub use look::{is_ejected_here, is_in_panic};
pub use message_body::MESSAGE_BYTES;
pub use operators::remember as remember_operator;
pub use plan::MAX_PLANS;
pub use purge_status::status as purge_status;
pub use standing::WATCHERS;
pub use watch::WATCHES;

use crate::backup;
use manner::Manner;

use crate::node::Node;
use crate::recovery;

/// Answers operators.
pub struct AdminRpc {
    node: Arc<Node>,
    stop: CancellationToken,
}

impl AdminRpc {
    /// On behalf of `node`, until `stop`.
    pub fn new(node: Arc<Node>, stop: CancellationToken) -> Self {
        Self { node, stop }
    }
}

#[tonic::async_trait]
impl AdminService for AdminRpc {
    async fn plan(&self, request: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        plan::plan(&self.node, request.into_inner()).await.map(Response::new)
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let caller = gate::caller_of(&request);
        let manner = Manner::usual(&self.node);
        change::apply(&self.node, request.into_inner(), &caller, manner).await.map(Response::new)
    }

    async fn plan_edit(&self, request: Request<EditRequest>) -> Result<Response<PlanResponse>, Status> {
        plan::plan_edit(&self.node, request.into_inner()).await.map(Response::new)
    }

    async fn edit(&self, request: Request<EditRequest>) -> Result<Response<ApplyResponse>, Status> {
        let caller = gate::caller_of(&request);
        let manner = Manner::usual(&self.node);
        change::edit(&self.node, request.into_inner(), &caller, manner).await.map(Response::new)
    }

    async fn rollback(&self, request: Request<RollbackRequest>) -> Result<Response<ApplyResponse>, Status> {
        let caller = gate::caller_of(&request);
        change::rollback(&self.node, request.into_inner(), &caller, Manner::AT_ONCE).await.map(Response::new)
    }

    async fn stage(&self, request: Request<StageRequest>) -> Result<Response<ApplyResponse>, Status> {
        let caller = gate::caller_of(&request);
        rollout::stage(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn roll_out(&self, request: Request<RollOutRequest>) -> Result<Response<ApplyResponse>, Status> {
        let caller = gate::caller_of(&request);
        rollout::roll_out(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn get_rollout(
        &self,
        _: Request<GetRolloutRequest>,
    ) -> Result<Response<GetRolloutResponse>, Status> {
        waves::look(&self.node).await.map(Response::new)
    }

    async fn step_rollout(
        &self,
        request: Request<StepRolloutRequest>,
    ) -> Result<Response<GetRolloutResponse>, Status> {
        let caller = gate::caller_of(&request);
        waves::step(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn set_rollout_policy(
        &self,
        request: Request<SetRolloutPolicyRequest>,
    ) -> Result<Response<SetRolloutPolicyResponse>, Status> {
        waves::set_policy(&self.node, request.get_ref()).await.map(Response::new)
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Result<Response<ConfirmResponse>, Status> {
        let caller = gate::caller_of(&request);
        rollout::confirm(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<ApplyResponse>, Status> {
        let caller = gate::caller_of(&request);
        rollout::abort(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn show(&self, request: Request<ShowRequest>) -> Result<Response<ShowResponse>, Status> {
        look::show(&self.node, &request.into_inner()).await.map(Response::new)
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        look::history(&self.node, &request.into_inner()).map(Response::new)
    }

    type WatchStream = watch::Watched;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = gate::caller_of(&request);
        watch::watch(&self.node, request.get_ref(), &caller, self.stop.clone()).map(Response::new)
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        differences::differences(&self.node, request.get_ref()).await.map(Response::new)
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(status::status(&self.node).await))
    }

    async fn health(&self, request: Request<HealthRequest>) -> Result<Response<HealthResponse>, Status> {
        let (node, request) = (self.node.clone(), request.into_inner());
        base::blocking(move || look::health(&node, &request)).await.map(Response::new)
    }

    async fn purge(&self, request: Request<PurgeRequest>) -> Result<Response<PurgeResponse>, Status> {
        let caller = gate::caller_of(&request);
        cache::purge(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn purge_status(
        &self,
        request: Request<PurgeStatusRequest>,
    ) -> Result<Response<PurgeStatusResponse>, Status> {
        purge_status::status(&self.node, request.get_ref()).await.map(Response::new)
    }

    async fn cache_stats(
        &self,
        request: Request<CacheStatsRequest>,
    ) -> Result<Response<CacheStatsResponse>, Status> {
        cache::stats(&self.node, request.get_ref()).await.map(Response::new)
    }

    async fn top(&self, _: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        Ok(Response::new(top::top(&self.node).await))
    }

    async fn cache_locate(
        &self,
        request: Request<CacheLocateRequest>,
    ) -> Result<Response<CacheLocateResponse>, Status> {
        cache::locate(&self.node, &request.into_inner()).await.map(Response::new)
    }

    async fn cache_get(
        &self,
        request: Request<CacheGetRequest>,
    ) -> Result<Response<CacheGetResponse>, Status> {
        cache_get::get(&self.node, request.get_ref()).await.map(Response::new)
    }

    async fn cache_top(
        &self,
        request: Request<CacheTopRequest>,
    ) -> Result<Response<CacheTopResponse>, Status> {
        cache_top::top(&self.node, request.get_ref()).await.map(Response::new)
    }

    type CacheWarmStream = cache_warm::Warmed;

    async fn cache_warm(
        &self,
        request: Request<CacheWarmRequest>,
    ) -> Result<Response<Self::CacheWarmStream>, Status> {
        let caller = gate::caller_of(&request);
        cache_warm::warm(&self.node, request.into_inner(), &caller).map(Response::new)
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let caller = gate::caller_of(&request);
        tokens::create(&self.node, &request.into_inner(), &caller).await.map(Response::new)
    }

    async fn list_tokens(
        &self,
        _: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        tokens::list(&self.node).await.map(Response::new)
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let caller = gate::caller_of(&request);
        tokens::revoke(&self.node, &request.into_inner(), &caller).await.map(Response::new)
    }

    async fn issue_operator(
        &self,
        request: Request<IssueOperatorRequest>,
    ) -> Result<Response<IssueOperatorResponse>, Status> {
        let caller = gate::caller_of(&request);
        operators::issue(&self.node, &request.into_inner(), &caller).await.map(Response::new)
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let caller = gate::caller_of(&request);
        members::remove(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn describe_node(
        &self,
        request: Request<DescribeNodeRequest>,
    ) -> Result<Response<DescribeNodeResponse>, Status> {
        describe::describe(&self.node, request.get_ref()).await.map(Response::new)
    }

    type SetStandingStream = standing::Telling;

    async fn set_standing(
        &self,
        request: Request<SetStandingRequest>,
    ) -> Result<Response<Self::SetStandingStream>, Status> {
        let caller = gate::caller_of(&request);
        standing::set(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn set_vote(&self, request: Request<SetVoteRequest>) -> Result<Response<SetVoteResponse>, Status> {
        let caller = gate::caller_of(&request);
        votes::set(&self.node, &request.into_inner(), &caller).await.map(Response::new)
    }

    async fn list_operators(
        &self,
        _: Request<ListOperatorsRequest>,
    ) -> Result<Response<ListOperatorsResponse>, Status> {
        operators::list(&self.node).await.map(Response::new)
    }

    async fn revoke_operator(
        &self,
        request: Request<RevokeOperatorRequest>,
    ) -> Result<Response<RevokeOperatorResponse>, Status> {
        let caller = gate::caller_of(&request);
        operators::revoke(&self.node, request.get_ref(), &caller).await.map(Response::new)
    }

    async fn revoke_node(
        &self,
        request: Request<RevokeNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let caller = gate::caller_of(&request);
        members::revoke(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn upgrade_status(
        &self,
        _: Request<UpgradeStatusRequest>,
    ) -> Result<Response<UpgradeStatusResponse>, Status> {
        upgrade::status(&self.node).await.map(Response::new)
    }

    async fn set_upgrade(
        &self,
        request: Request<SetUpgradeRequest>,
    ) -> Result<Response<UpgradeStatusResponse>, Status> {
        let caller = gate::caller_of(&request);
        upgrade::set(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn audit(&self, request: Request<AuditRequest>) -> Result<Response<AuditResponse>, Status> {
        audit::audit(&self.node, request.get_ref()).await.map(Response::new)
    }

    type SaveSnapshotStream = backup::Saved;

    async fn save_snapshot(
        &self,
        request: Request<SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        let caller = gate::caller_of(&request);
        backup::save(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn recover_plan(
        &self,
        request: Request<RecoverPlanRequest>,
    ) -> Result<Response<RecoverPlanResponse>, Status> {
        recovery::plan(&self.node, request.get_ref()).await.map(Response::new)
    }

    async fn change_setup(
        &self,
        request: Request<ChangeSetupRequest>,
    ) -> Result<Response<ChangeSetupResponse>, Status> {
        let caller = gate::caller_of(&request);
        setup::change(&self.node, request.get_ref(), &caller).await.map(Response::new)
    }

    async fn keys(&self, _: Request<KeysRequest>) -> Result<Response<KeysResponse>, Status> {
        Ok(Response::new(keys::look(&self.node).await))
    }

    async fn keep_keys(&self, request: Request<KeepKeysRequest>) -> Result<Response<KeysResponse>, Status> {
        let caller = gate::caller_of(&request);
        keys::keep(&self.node, request.get_ref(), &caller).await.map(Response::new)
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let caller = gate::caller_of(&request);
        transfer::transfer(&self.node, request.into_inner(), &caller).await.map(Response::new)
    }
}
