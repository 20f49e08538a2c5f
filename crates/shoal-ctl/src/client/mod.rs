//! The admin API of any node: over mutual TLS by address, or over the local socket.
//!
//! Addresses are tried in turn, also when a node is lost in the middle of a call, where it may be repeated: because it
//! changes nothing, or carries a request id that is applied once.

mod connector;
mod node_args;
mod refusal;
mod tls;
mod watch;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use shoal_proto::admin::admin_service_client::AdminServiceClient;
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
    RevokeTokenRequest, RevokeTokenResponse, RollOutRequest, RollbackRequest, SaveSnapshotRequest,
    SaveSnapshotResponse, SetRolloutPolicyRequest, SetStandingRequest, SetUpgradeRequest, ShowRequest,
    ShowResponse, StandingProgress, StatusRequest, StatusResponse, StepRolloutRequest, TopRequest,
    TopResponse, UpgradeStatusRequest, UpgradeStatusResponse,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use crate::failure::{Exit, Failure};
use connector::Connector;
pub use node_args::{NodeArgs, some_time};
use refusal::{deepest, may_be_done, refusal, was_lost, way_in};
pub use tls::IdentityFiles;

/// Longest wait for a connection, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How much longer than the node's own deadline the answer is waited for.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);
/// Silence after which the connection is tested, and then given up.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Largest message in both directions: the largest site file as JSON, with room to spare.
const MAX_MESSAGE_BYTES: usize = 128 << 20;
/// Most addresses that are tried.
const MAX_TARGETS: usize = 64;

/// Where a node listens for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `DIR/admin.sock` of a node on this machine.
    Socket(PathBuf),
    /// `host:port`, mutual TLS.
    Address(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Address(address) => f.write_str(address),
        }
    }
}

/// A way to the cluster: nothing is connected before the first call.
#[derive(Clone, Debug)]
pub struct Client {
    targets: Vec<Target>,
    identity: Option<IdentityFiles>,
    server_name: Option<String>,
    deadline: Duration,
}

impl Client {
    /// A client of the nodes at `targets`, which must prove `server_name` (absent = any node of the operator's
    /// cluster); every call ends within about `deadline`.
    pub fn new(
        mut targets: Vec<Target>,
        identity: Option<IdentityFiles>,
        server_name: Option<String>,
        deadline: Duration,
    ) -> Self {
        targets.truncate(MAX_TARGETS);
        Self { targets, identity, server_name, deadline }
    }

    /// A client of the node whose local socket is `path`.
    pub fn local(path: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self::new(vec![Target::Socket(path.into())], None, None, deadline)
    }

    /// Unix seconds at which the operator's own certificate expires, if less than a third of its life is left.
    pub fn identity_ends_soon(&self, now: u64) -> Option<i64> {
        self.identity.as_ref()?.ends_soon(now)
    }

    /// How long a call may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

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
        self.look("rollout", request, async |mut node, request| node.get_rollout(request).await).await
    }

    /// `StepRollout`.
    pub async fn step_rollout(&self, request: StepRolloutRequest) -> Result<GetRolloutResponse, Failure> {
        self.call("rollout", request, async |mut node, request| node.step_rollout(request).await).await
    }

    /// `SetRolloutPolicy`.
    pub async fn set_rollout_policy(&self, request: SetRolloutPolicyRequest) -> Result<(), Failure> {
        let verb = "rollout policy";
        self.call(verb, request, async |mut node, request| node.set_rollout_policy(request).await)
            .await
            .map(drop)
    }

    /// `Confirm`.
    pub async fn confirm(&self, request: ConfirmRequest) -> Result<ConfirmResponse, Failure> {
        self.call("confirm", request, async |mut node, request| node.confirm(request).await).await
    }

    /// `Abort`.
    pub async fn abort(&self, request: AbortRequest) -> Result<ApplyResponse, Failure> {
        self.call("abort", request, async |mut node, request| node.abort(request).await).await
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
        self.look("status", StatusRequest {}, async |mut node, request| node.status(request).await).await
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

    /// Every message of an answer, as it comes, for as long as none takes longer than a call may.
    async fn hear<T>(
        &self,
        verb: &str,
        mut telling: Streaming<T>,
        mut told: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let next = tokio::time::timeout(self.deadline + ANSWER_MARGIN, telling.message()).await;
            let silent = || format!("nothing was heard for {} s; it may go on", self.deadline.as_secs());
            match next.map_err(|_| Failure::new(Exit::Remote, verb, silent()))? {
                Ok(Some(message)) => told(message)?,
                Ok(None) => return Ok(()),
                Err(status) => return Err(refusal(verb, &status)),
            }
        }
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

    /// `IssueOperator`.
    pub async fn issue_operator(
        &self,
        request: IssueOperatorRequest,
    ) -> Result<IssueOperatorResponse, Failure> {
        self.call_once("operator create", request, async |mut node, request| {
            node.issue_operator(request).await
        })
        .await
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
    pub async fn keep_keys(&self, request: KeepKeysRequest) -> Result<KeysResponse, Failure> {
        self.call("cluster", request, async |mut node, request| node.keep_keys(request).await).await
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

    /// `UpgradeStatus`.
    pub async fn upgrade_status(&self) -> Result<UpgradeStatusResponse, Failure> {
        let request = UpgradeStatusRequest {};
        self.look("upgrade status", request, async |mut node, request| node.upgrade_status(request).await)
            .await
    }

    /// `SetUpgrade`.
    pub async fn set_upgrade(&self, request: SetUpgradeRequest) -> Result<UpgradeStatusResponse, Failure> {
        self.call("upgrade", request, async |mut node, request| node.set_upgrade(request).await).await
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

    /// Sends what changes nothing to the first node that answers.
    async fn look<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        self.try_all(verb, request, Again::AtOthers, send).await.map_err(|(failure, _)| failure)
    }

    /// Sends what may change something, and is done once whoever is asked for it how often, to the first node that answers.
    /// Where one was lost that had been asked, nothing that another one says means that it was not done.
    async fn call<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        self.change(verb, request, Again::AtOthers, send).await
    }

    /// The same of what would be done twice if two nodes were asked.
    async fn call_once<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        self.change(verb, request, Again::Never, send).await
    }

    async fn change<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        again: Again,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        self.try_all(verb, request, again, send).await.map_err(|(failure, lost)| match lost {
            None => failure,
            Some(lost) => may_be_done(verb, &lost, &failure),
        })
    }

    /// Sends `request` to the first node that answers; else why none did what it asks for, and who was lost after it had been
    /// asked.
    async fn try_all<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        again: Again,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, (Failure, Option<String>)> {
        let (mut unreachable, mut lost) = (String::new(), None);
        for target in &self.targets {
            let why = match Box::pin(self.connect(target)).await {
                Err(Unconnected::Misconfigured(failure)) => return Err((failure, lost)),
                Err(Unconnected::Unreachable(why)) => why,
                Ok(node) => {
                    let mut request = Request::new(request.clone());
                    request.set_timeout(self.deadline + ANSWER_MARGIN);
                    let answer =
                        tokio::time::timeout(self.deadline + ANSWER_MARGIN, Box::pin(send(node, request)));
                    match answer.await {
                        Ok(Ok(response)) => return Ok(response.into_inner()),
                        Ok(Err(status)) if was_lost(&status) => {
                            let why = deepest(&status);
                            lost = Some(format!("{target} was lost after it had been asked ({why})"));
                            why
                        }
                        Ok(Err(status)) => return Err((refusal(verb, &status), lost)),
                        Err(_) => return Err((self.no_answer(verb, target), lost)),
                    }
                }
            };
            let _ = write!(unreachable, "{}{target}: {why}", if unreachable.is_empty() { "" } else { ", " });
            if lost.is_some() && again == Again::Never {
                break;
            }
        }
        let hint = way_in(verb, self.targets.first(), &unreachable);
        let nobody = Failure::new(Exit::Remote, verb, format!("no node answers ({unreachable})"));
        Err((nobody.try_command(hint), lost))
    }

    async fn connect(&self, target: &Target) -> Result<AdminServiceClient<Channel>, Unconnected> {
        let connector = match target {
            Target::Socket(path) => Connector::socket(path.clone()),
            Target::Address(address) => {
                let identity =
                    self.identity.as_ref().ok_or_else(|| Unconnected::Misconfigured(no_identity()))?;
                let name = self.server_name.as_deref();
                let (config, name) = identity.client_config(name).map_err(Unconnected::Misconfigured)?;
                Connector::tls(address.clone(), config, name)
            }
        };
        let endpoint = Endpoint::from_static("http://shoal.internal")
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let connecting =
            tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector)).await;
        let channel = match connecting {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(Unconnected::Unreachable(deepest(&error))),
            Err(_) => {
                let why = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
                return Err(Unconnected::Unreachable(why));
            }
        };
        Ok(AdminServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    fn no_answer(&self, verb: &str, target: &Target) -> Failure {
        let why =
            format!("{target} did not answer within {} s; it may still be done", self.deadline.as_secs());
        Failure::new(Exit::Remote, verb, why).try_command("shoal status")
    }
}

/// Whether somebody else is asked for what somebody was asked for who is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    AtOthers,
    Never,
}

enum Unconnected {
    /// No other address would help.
    Misconfigured(Failure),
    Unreachable(String),
}

fn no_identity() -> Failure {
    Failure::local("connect", "an address needs an operator's identity")
        .try_command("shoal --addr HOST:PORT --identity FILE status, or shoal --socket DIR/admin.sock status")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_target_is_tried_and_named() {
        let dir = std::env::temp_dir();
        let targets =
            vec![Target::Socket(dir.join("no-shoal-a.sock")), Target::Socket(dir.join("no-shoal-b.sock"))];
        let failure = Client::new(targets, None, None, Duration::from_secs(1)).status().await.unwrap_err();
        assert_eq!(failure.exit, Exit::Remote);
        assert!(
            failure.why.contains("no-shoal-a.sock: ") && failure.why.contains("no-shoal-b.sock: "),
            "{}",
            failure.why
        );
    }

    #[tokio::test]
    async fn an_address_needs_an_identity() {
        let client =
            Client::new(vec![Target::Address("127.0.0.1:1".into())], None, None, Duration::from_secs(1));
        assert_eq!(client.status().await.unwrap_err().exit, Exit::Local);
    }
}
