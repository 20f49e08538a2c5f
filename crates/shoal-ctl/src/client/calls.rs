//! The calls of the admin service, one by one: under which verb each is told of, and whether it may be asked for twice.

use shoal_proto::admin::{
    AbortRequest, ApplyRequest, ApplyResponse, AuditRequest, AuditResponse, CacheGetRequest,
    CacheGetResponse, CacheLocateRequest, CacheLocateResponse, CacheStatsRequest, CacheStatsResponse,
    CacheTopRequest, CacheTopResponse, CacheWarmRequest, CacheWarmResponse, ChangeSetupRequest,
    ChangeSetupResponse, ConfirmRequest, ConfirmResponse, CreateTokenRequest, CreateTokenResponse,
    DescribeNodeRequest, DescribeNodeResponse, DiffRequest, DiffResponse, EditRequest, GetRolloutRequest,
    GetRolloutResponse, HealthRequest, HealthResponse, HistoryRequest, HistoryResponse, IssueOperatorRequest,
    IssueOperatorResponse, KeepKeysRequest, KeysRequest, KeysResponse, ListOperatorsRequest,
    ListOperatorsResponse, ListTokensRequest, ListTokensResponse, PlanRequest, PlanResponse, PurgeRequest,
    PurgeResponse, PurgeStatusRequest, PurgeStatusResponse, RecoverPlanRequest, RecoverPlanResponse,
    RemoveNodeRequest, RemoveNodeResponse, RevokeNodeRequest, RevokeOperatorRequest, RevokeOperatorResponse,
    RevokeTokenRequest, RevokeTokenResponse, RollOutRequest, RollbackRequest, RolloutAction,
    SaveSnapshotRequest, SaveSnapshotResponse, SetRolloutPolicyRequest, SetStandingRequest,
    SetUpgradeRequest, SetVoteRequest, SetVoteResponse, ShowRequest, ShowResponse, StandingProgress,
    StatusRequest, StatusResponse, StepRolloutRequest, TopRequest, TopResponse, TransferLeaderRequest,
    TransferLeaderResponse, UpgradeAction, UpgradeStatusRequest, UpgradeStatusResponse,
};

use super::Client;
use crate::failure::Failure;

impl Client {
    /// `Plan`.
    pub async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        self.look("plan", request, async |mut node, request| node.plan(request).await).await
    }

    /// `Apply`.
    pub async fn apply(&self, request: ApplyRequest) -> Result<ApplyResponse, Failure> {
        self.call("apply", request, async |mut node, request| node.apply(request).await).await
    }

    /// `RollOut`, for `verb`.
    pub async fn roll_out(&self, verb: &str, request: RollOutRequest) -> Result<ApplyResponse, Failure> {
        self.call(verb, request, async |mut node, request| node.roll_out(request).await).await
    }

    /// `GetRollout`.
    pub async fn rollout(&self) -> Result<GetRolloutResponse, Failure> {
        let request = GetRolloutRequest {};
        self.look("rollout status", request, async |mut node, request| node.get_rollout(request).await).await
    }

    /// `StepRollout`.
    pub async fn step_rollout(&self, request: StepRolloutRequest) -> Result<GetRolloutResponse, Failure> {
        let verb = match request.action() {
            RolloutAction::Pause => "rollout pause",
            RolloutAction::Resume => "rollout resume",
            RolloutAction::Promote => "rollout promote",
            RolloutAction::Unspecified => "rollout",
        };
        self.call(verb, request, async |mut node, request| node.step_rollout(request).await).await
    }

    /// `SetRolloutPolicy`.
    pub async fn set_rollout_policy(&self, request: SetRolloutPolicyRequest) -> Result<(), Failure> {
        let verb = "rollout policy";
        self.call(verb, request, async |mut node, request| node.set_rollout_policy(request).await)
            .await
            .map(drop)
    }

    /// `Confirm`, for `verb`.
    pub async fn confirm(&self, verb: &str, request: ConfirmRequest) -> Result<ConfirmResponse, Failure> {
        self.call(verb, request, async |mut node, request| node.confirm(request).await).await
    }

    /// `Abort`, for `verb`.
    pub async fn abort(&self, verb: &str, request: AbortRequest) -> Result<ApplyResponse, Failure> {
        self.call(verb, request, async |mut node, request| node.abort(request).await).await
    }

    /// `Show`, for `verb`.
    pub async fn show(&self, verb: &str, request: ShowRequest) -> Result<ShowResponse, Failure> {
        self.look(verb, request, async |mut node, request| node.show(request).await).await
    }

    /// `History`.
    pub async fn history(&self, request: HistoryRequest) -> Result<HistoryResponse, Failure> {
        self.look("history", request, async |mut node, request| node.history(request).await).await
    }

    /// `Diff`.
    pub async fn diff(&self, request: DiffRequest) -> Result<DiffResponse, Failure> {
        self.look("diff", request, async |mut node, request| node.diff(request).await).await
    }

    /// `PlanEdit`, for `verb`.
    pub async fn plan_edit(&self, verb: &str, request: EditRequest) -> Result<PlanResponse, Failure> {
        self.look(verb, request, async |mut node, request| node.plan_edit(request).await).await
    }

    /// `Edit`, for `verb`.
    pub async fn edit(&self, verb: &str, request: EditRequest) -> Result<ApplyResponse, Failure> {
        self.call(verb, request, async |mut node, request| node.edit(request).await).await
    }

    /// `Rollback`.
    pub async fn rollback(&self, request: RollbackRequest) -> Result<ApplyResponse, Failure> {
        self.call("rollback", request, async |mut node, request| node.rollback(request).await).await
    }

    /// `Status`.
    pub async fn status(&self) -> Result<StatusResponse, Failure> {
        self.status_for("status").await
    }

    /// `Status`, for `verb`.
    pub async fn status_for(&self, verb: &str) -> Result<StatusResponse, Failure> {
        self.look(verb, StatusRequest {}, async |mut node, request| node.status(request).await).await
    }

    /// `Health`.
    pub async fn health(&self, request: HealthRequest) -> Result<HealthResponse, Failure> {
        self.look("health", request, async |mut node, request| node.health(request).await).await
    }

    /// `Purge`.
    pub async fn purge(&self, request: PurgeRequest) -> Result<PurgeResponse, Failure> {
        self.call("cache purge", request, async |mut node, request| node.purge(request).await).await
    }

    /// `PurgeStatus`.
    pub async fn purge_status(&self, request: PurgeStatusRequest) -> Result<PurgeStatusResponse, Failure> {
        self.look("cache purge-status", request, async |mut node, request| node.purge_status(request).await)
            .await
    }

    /// `CacheStats`.
    pub async fn cache_stats(&self, request: CacheStatsRequest) -> Result<CacheStatsResponse, Failure> {
        self.look("cache stats", request, async |mut node, request| node.cache_stats(request).await).await
    }

    /// `CacheGet`.
    pub async fn cache_get(&self, request: CacheGetRequest) -> Result<CacheGetResponse, Failure> {
        self.look("cache get", request, async |mut node, request| node.cache_get(request).await).await
    }

    /// `CacheTop`.
    pub async fn cache_top(&self, request: CacheTopRequest) -> Result<CacheTopResponse, Failure> {
        self.look("cache top", request, async |mut node, request| node.cache_top(request).await).await
    }

    /// `CacheWarm`: `told` is called for each URL, as it is done.
    pub async fn cache_warm(
        &self,
        request: CacheWarmRequest,
        told: impl FnMut(CacheWarmResponse) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let verb = "cache warm";
        let telling =
            self.call(verb, request, async |mut node, request| node.cache_warm(request).await).await?;
        self.hear(verb, telling, told).await
    }

    /// `SetStanding`: `told` is called with how far the node is, until it is done or nobody knows.
    pub async fn set_standing(
        &self,
        verb: &str,
        request: SetStandingRequest,
        told: impl FnMut(StandingProgress) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let telling =
            self.call(verb, request, async |mut node, request| node.set_standing(request).await).await?;
        self.hear(verb, telling, told).await
    }

    /// `SetVote`, for `verb`.
    pub async fn set_vote(&self, verb: &str, request: SetVoteRequest) -> Result<SetVoteResponse, Failure> {
        self.call(verb, request, async |mut node, request| node.set_vote(request).await).await
    }

    /// `Top`.
    pub async fn top(&self) -> Result<TopResponse, Failure> {
        self.look("top", TopRequest {}, async |mut node, request| node.top(request).await).await
    }

    /// `CacheLocate`.
    pub async fn cache_locate(&self, request: CacheLocateRequest) -> Result<CacheLocateResponse, Failure> {
        self.look("cache locate", request, async |mut node, request| node.cache_locate(request).await).await
    }

    /// `CreateToken`.
    pub async fn create_token(&self, request: CreateTokenRequest) -> Result<CreateTokenResponse, Failure> {
        self.call_once("token create", request, async |mut node, request| node.create_token(request).await)
            .await
    }

    /// `ListTokens`.
    pub async fn list_tokens(&self) -> Result<ListTokensResponse, Failure> {
        let request = ListTokensRequest {};
        self.look("token list", request, async |mut node, request| node.list_tokens(request).await).await
    }

    /// `RevokeToken`.
    pub async fn revoke_token(&self, request: RevokeTokenRequest) -> Result<RevokeTokenResponse, Failure> {
        self.call_once("token revoke", request, async |mut node, request| node.revoke_token(request).await)
            .await
    }

    /// `IssueOperator`, for `verb`.
    pub async fn issue_operator(
        &self,
        verb: &str,
        request: IssueOperatorRequest,
    ) -> Result<IssueOperatorResponse, Failure> {
        self.call_once(verb, request, async |mut node, request| node.issue_operator(request).await).await
    }

    /// `ListOperators`.
    pub async fn list_operators(&self) -> Result<ListOperatorsResponse, Failure> {
        let request = ListOperatorsRequest {};
        self.look("operator list", request, async |mut node, request| node.list_operators(request).await)
            .await
    }

    /// `Keys`.
    pub async fn keys(&self) -> Result<KeysResponse, Failure> {
        self.call("cluster keys", KeysRequest {}, async |mut node, request| node.keys(request).await).await
    }

    /// `KeepKeys`.
    pub async fn keep_keys(&self, verb: &str, request: KeepKeysRequest) -> Result<KeysResponse, Failure> {
        self.call(verb, request, async |mut node, request| node.keep_keys(request).await).await
    }

    /// `RevokeOperator`.
    pub async fn revoke_operator(
        &self,
        request: RevokeOperatorRequest,
    ) -> Result<RevokeOperatorResponse, Failure> {
        self.call("operator revoke", request, async |mut node, request| node.revoke_operator(request).await)
            .await
    }

    /// `RemoveNode`.
    pub async fn remove_node(&self, request: RemoveNodeRequest) -> Result<RemoveNodeResponse, Failure> {
        self.call_once("node remove", request, async |mut node, request| node.remove_node(request).await)
            .await
    }

    /// `DescribeNode`.
    pub async fn describe_node(&self, request: DescribeNodeRequest) -> Result<DescribeNodeResponse, Failure> {
        self.look("node describe", request, async |mut node, request| node.describe_node(request).await).await
    }

    /// `RevokeNode`.
    pub async fn revoke_node(&self, request: RevokeNodeRequest) -> Result<RemoveNodeResponse, Failure> {
        self.call_once("node revoke", request, async |mut node, request| node.revoke_node(request).await)
            .await
    }

    /// `SaveSnapshot`: `told` is called with each part of the file.
    pub async fn save_snapshot(
        &self,
        request: SaveSnapshotRequest,
        told: impl FnMut(SaveSnapshotResponse) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let verb = "snapshot save";
        let sending =
            self.call(verb, request, async |mut node, request| node.save_snapshot(request).await).await?;
        self.hear(verb, sending, told).await
    }

    /// `TransferLeader`.
    pub async fn transfer_leader(
        &self,
        request: TransferLeaderRequest,
    ) -> Result<TransferLeaderResponse, Failure> {
        let verb = "raft transfer-leader";
        self.call_once(verb, request, async |mut node, request| node.transfer_leader(request).await).await
    }

    /// `UpgradeStatus`.
    pub async fn upgrade_status(&self) -> Result<UpgradeStatusResponse, Failure> {
        let request = UpgradeStatusRequest {};
        self.look("upgrade status", request, async |mut node, request| node.upgrade_status(request).await)
            .await
    }

    /// `SetUpgrade`.
    pub async fn set_upgrade(&self, request: SetUpgradeRequest) -> Result<UpgradeStatusResponse, Failure> {
        let verb = match request.action() {
            UpgradeAction::Finalize => "upgrade finalize",
            UpgradeAction::Hold | UpgradeAction::Release => "upgrade hold",
            UpgradeAction::Unspecified => "upgrade",
        };
        self.call(verb, request, async |mut node, request| node.set_upgrade(request).await).await
    }

    /// `RecoverPlan`.
    pub async fn recover_plan(&self, request: RecoverPlanRequest) -> Result<RecoverPlanResponse, Failure> {
        self.look("recover plan", request, async |mut node, request| node.recover_plan(request).await).await
    }

    /// `Audit`.
    pub async fn audit(&self, request: AuditRequest) -> Result<AuditResponse, Failure> {
        self.look("audit", request, async |mut node, request| node.audit(request).await).await
    }

    /// `ChangeSetup`.
    pub async fn change_setup(&self, request: ChangeSetupRequest) -> Result<ChangeSetupResponse, Failure> {
        self.call("cluster setup", request, async |mut node, request| node.change_setup(request).await).await
    }
}
