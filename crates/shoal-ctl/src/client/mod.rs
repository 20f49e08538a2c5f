//! The admin API of any node: over mutual TLS by address, or over the local socket.
//!
//! Addresses are tried in turn, also when a node is lost in the middle of a call: every call may be repeated, since
//! writes carry a request id that is applied once.

mod connector;
mod node_args;
mod tls;
mod watch;

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use shoal_proto::admin::admin_service_client::AdminServiceClient;
use shoal_proto::admin::{
    AbortRequest, ApplyRequest, ApplyResponse, AuditRequest, AuditResponse, CacheGetRequest,
    CacheGetResponse, CacheLocateRequest, CacheLocateResponse, CacheStatsRequest, CacheStatsResponse,
    CacheTopRequest, CacheTopResponse, CacheWarmRequest, CacheWarmResponse, ConfirmRequest, ConfirmResponse,
    CreateTokenRequest, CreateTokenResponse, DescribeNodeRequest, DescribeNodeResponse, DiffRequest,
    DiffResponse, EditRequest, HealthRequest, HealthResponse, HistoryRequest, HistoryResponse,
    IssueOperatorRequest, IssueOperatorResponse, ListOperatorsRequest, ListOperatorsResponse,
    ListTokensRequest, ListTokensResponse, PlanRequest, PlanResponse, PurgeRequest, PurgeResponse,
    PurgeStatusRequest, PurgeStatusResponse, RecoverPlanRequest, RecoverPlanResponse, RemoveNodeRequest,
    RemoveNodeResponse, RevokeNodeRequest, RevokeOperatorRequest, RevokeOperatorResponse, RevokeTokenRequest,
    RevokeTokenResponse, RollbackRequest, SaveSnapshotRequest, SaveSnapshotResponse, SetStandingRequest,
    ShowRequest, ShowResponse, StageRequest, StandingProgress, StatusRequest, StatusResponse, TopRequest,
    TopResponse,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::failure::{Exit, Failure};
use connector::Connector;
pub use node_args::{NodeArgs, some_time};
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
/// Metadata in which a node sends the exit code, as ASCII digits.
const EXIT_METADATA: &str = "shoal-exit";

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

    /// Unix seconds at which the operator's own certificate expires; `None` = none is used.
    pub fn identity_not_after(&self) -> Option<i64> {
        self.identity.as_ref()?.not_after()
    }

    /// How long a call may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// `Plan`.
    pub async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        self.call("plan", request, async |mut node, request| node.plan(request).await).await
    }

    /// `Apply`.
    pub async fn apply(&self, request: ApplyRequest) -> Result<ApplyResponse, Failure> {
        self.call("apply", request, async |mut node, request| node.apply(request).await).await
    }

    /// `Stage`.
    pub async fn stage(&self, request: StageRequest) -> Result<ApplyResponse, Failure> {
        self.call("apply", request, async |mut node, request| node.stage(request).await).await
    }

    /// `Confirm`.
    pub async fn confirm(&self, request: ConfirmRequest) -> Result<ConfirmResponse, Failure> {
        self.call("confirm", request, async |mut node, request| node.confirm(request).await).await
    }

    /// `Abort`.
    pub async fn abort(&self, request: AbortRequest) -> Result<ApplyResponse, Failure> {
        self.call("abort", request, async |mut node, request| node.abort(request).await).await
    }

    /// `Show`.
    pub async fn show(&self, request: ShowRequest) -> Result<ShowResponse, Failure> {
        self.call("get", request, async |mut node, request| node.show(request).await).await
    }

    /// `History`.
    pub async fn history(&self, request: HistoryRequest) -> Result<HistoryResponse, Failure> {
        self.call("history", request, async |mut node, request| node.history(request).await).await
    }

    /// `Diff`.
    pub async fn diff(&self, request: DiffRequest) -> Result<DiffResponse, Failure> {
        self.call("diff", request, async |mut node, request| node.diff(request).await).await
    }

    /// `PlanEdit`, for `verb`.
    pub async fn plan_edit(&self, verb: &str, request: EditRequest) -> Result<PlanResponse, Failure> {
        self.call(verb, request, async |mut node, request| node.plan_edit(request).await).await
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
        self.call("status", StatusRequest {}, async |mut node, request| node.status(request).await).await
    }

    /// `Health`.
    pub async fn health(&self, request: HealthRequest) -> Result<HealthResponse, Failure> {
        self.call("health", request, async |mut node, request| node.health(request).await).await
    }

    /// `Purge`.
    pub async fn purge(&self, request: PurgeRequest) -> Result<PurgeResponse, Failure> {
        self.call("cache purge", request, async |mut node, request| node.purge(request).await).await
    }

    /// `PurgeStatus`.
    pub async fn purge_status(&self, request: PurgeStatusRequest) -> Result<PurgeStatusResponse, Failure> {
        self.call("cache purge-status", request, async |mut node, request| node.purge_status(request).await)
            .await
    }

    /// `CacheStats`.
    pub async fn cache_stats(&self, request: CacheStatsRequest) -> Result<CacheStatsResponse, Failure> {
        self.call("cache stats", request, async |mut node, request| node.cache_stats(request).await).await
    }

    /// `CacheGet`.
    pub async fn cache_get(&self, request: CacheGetRequest) -> Result<CacheGetResponse, Failure> {
        self.call("cache get", request, async |mut node, request| node.cache_get(request).await).await
    }

    /// `CacheTop`.
    pub async fn cache_top(&self, request: CacheTopRequest) -> Result<CacheTopResponse, Failure> {
        self.call("cache top", request, async |mut node, request| node.cache_top(request).await).await
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
        self.call("top", TopRequest {}, async |mut node, request| node.top(request).await).await
    }

    /// `CacheLocate`.
    pub async fn cache_locate(&self, request: CacheLocateRequest) -> Result<CacheLocateResponse, Failure> {
        self.call("cache locate", request, async |mut node, request| node.cache_locate(request).await).await
    }

    /// `CreateToken`.
    pub async fn create_token(&self, request: CreateTokenRequest) -> Result<CreateTokenResponse, Failure> {
        self.call("token create", request, async |mut node, request| node.create_token(request).await).await
    }

    /// `ListTokens`.
    pub async fn list_tokens(&self) -> Result<ListTokensResponse, Failure> {
        let request = ListTokensRequest {};
        self.call("token list", request, async |mut node, request| node.list_tokens(request).await).await
    }

    /// `RevokeToken`.
    pub async fn revoke_token(&self, request: RevokeTokenRequest) -> Result<RevokeTokenResponse, Failure> {
        self.call("token revoke", request, async |mut node, request| node.revoke_token(request).await).await
    }

    /// `IssueOperator`.
    pub async fn issue_operator(
        &self,
        request: IssueOperatorRequest,
    ) -> Result<IssueOperatorResponse, Failure> {
        self.call("operator", request, async |mut node, request| node.issue_operator(request).await).await
    }

    /// `ListOperators`.
    pub async fn list_operators(&self) -> Result<ListOperatorsResponse, Failure> {
        let request = ListOperatorsRequest {};
        self.call("operator list", request, async |mut node, request| node.list_operators(request).await)
            .await
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
        self.call("node remove", request, async |mut node, request| node.remove_node(request).await).await
    }

    /// `DescribeNode`.
    pub async fn describe_node(&self, request: DescribeNodeRequest) -> Result<DescribeNodeResponse, Failure> {
        self.call("node describe", request, async |mut node, request| node.describe_node(request).await).await
    }

    /// `RevokeNode`.
    pub async fn revoke_node(&self, request: RevokeNodeRequest) -> Result<RemoveNodeResponse, Failure> {
        self.call("node revoke", request, async |mut node, request| node.revoke_node(request).await).await
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

    /// `RecoverPlan`.
    pub async fn recover_plan(&self, request: RecoverPlanRequest) -> Result<RecoverPlanResponse, Failure> {
        self.call("recover plan", request, async |mut node, request| node.recover_plan(request).await).await
    }

    /// `Audit`.
    pub async fn audit(&self, request: AuditRequest) -> Result<AuditResponse, Failure> {
        self.call("audit", request, async |mut node, request| node.audit(request).await).await
    }

    /// Sends `request` to the first node that answers.
    async fn call<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let mut unreachable = String::new();
        for target in &self.targets {
            let why = match Box::pin(self.connect(target)).await {
                Err(Unconnected::Misconfigured(failure)) => return Err(failure),
                Err(Unconnected::Unreachable(why)) => why,
                Ok(node) => {
                    let mut request = Request::new(request.clone());
                    request.set_timeout(self.deadline + ANSWER_MARGIN);
                    let answer =
                        tokio::time::timeout(self.deadline + ANSWER_MARGIN, Box::pin(send(node, request)));
                    match answer.await {
                        Ok(Ok(response)) => return Ok(response.into_inner()),
                        Ok(Err(status)) if was_lost(&status) => deepest(&status),
                        Ok(Err(status)) => return Err(refusal(verb, &status)),
                        Err(_) => return Err(self.no_answer(verb, target)),
                    }
                }
            };
            let _ = write!(unreachable, "{}{target}: {why}", if unreachable.is_empty() { "" } else { ", " });
        }
        let hint = way_in(verb, self.targets.first(), &unreachable);
        Err(Failure::new(Exit::Remote, verb, format!("no node answers ({unreachable})")).try_command(hint))
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

enum Unconnected {
    /// No other address would help.
    Misconfigured(Failure),
    Unreachable(String),
}

fn no_identity() -> Failure {
    Failure::local("connect", "an address needs an operator's identity")
        .try_command("shoal --addr HOST:PORT --identity FILE status, or shoal --socket DIR/admin.sock status")
}

/// The connection broke before an answer, as opposed to a node that answered "unavailable".
fn was_lost(status: &Status) -> bool {
    let broken =
        matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
    broken && !status.metadata().contains_key(EXIT_METADATA) && status.source().is_some()
}

fn refusal(verb: &str, status: &Status) -> Failure {
    let sent = status.metadata().get(EXIT_METADATA).and_then(|value| value.to_str().ok()?.parse().ok());
    let exit = sent.and_then(Exit::from_code).filter(|exit| *exit != Exit::Done).unwrap_or(Exit::Remote);
    let why = match (status.code(), status.message()) {
        (Code::Unimplemented, _) => {
            "this node does not know the verb: it runs another version, or this is not its --admin-addr"
                .to_owned()
        }
        (code, "") => code.description().to_ascii_lowercase(),
        (_, message) => message.to_owned(),
    };
    let failure = Failure::new(exit, verb, why);
    match exit {
        // What is in the way is another change, not the state that this one was made for.
        Exit::Conflict if status.code() == Code::AlreadyExists => {
            failure.try_command("shoal confirm, or shoal abort")
        }
        Exit::Conflict if matches!(verb, "confirm" | "abort") => failure.try_command("shoal history"),
        Exit::Conflict if matches!(verb, "set" | "delete" | "edit") => {
            failure.try_command("shoal history, then shoal get KIND/NAME, and change that")
        }
        Exit::Conflict => failure.try_command("shoal history, then shoal plan -f FILE"),
        Exit::NoQuorum => failure.try_command("shoal status, and start the voters that are dead"),
        Exit::Local if status.code() == Code::FailedPrecondition && verb != "node remove" => {
            failure.try_command(format!("shoal {verb} --force, if that is meant"))
        }
        Exit::Local if status.code() == Code::NotFound => failure.try_command(overview(verb)),
        Exit::Local => failure.try_command(format!("shoal {verb} --help")),
        _ => failure.try_command("shoal status"),
    }
}

/// The verb that lists what was asked for and is not there.
fn overview(verb: &str) -> &'static str {
    match verb {
        "get" | "diff" | "rollback" | "confirm" | "abort" => "shoal history",
        "set" | "delete" | "edit" => "shoal get",
        "health" => "shoal health",
        "node remove" | "node revoke" | "node describe" | "node drain" | "node undrain" | "node cordon"
        | "node uncordon" => "shoal node list",
        "token revoke" => "shoal token list",
        _ => "shoal status",
    }
}

/// What to do when nobody could be reached, by what the system said.
fn way_in(verb: &str, first: Option<&Target>, why: &str) -> String {
    match first {
        _ if why.contains("Permission denied") => {
            format!("sudo shoal {verb}, or as the user who runs the node")
        }
        Some(Target::Address(_)) => {
            format!("shoal --addr HOST:7401 {verb}, with the --admin-addr of a node that runs")
        }
        Some(Target::Socket(_)) | None => {
            format!("shoal --socket DIR/admin.sock {verb}, with the --data-dir of a node that runs")
        }
    }
}

/// The cause at the bottom, where the operating system or TLS says what happened.
fn deepest(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;

    fn check(code: Code, exit: Option<&str>, expected: Exit) {
        let mut metadata = MetadataMap::new();
        if let Some(exit) = exit {
            metadata.insert(EXIT_METADATA, exit.parse().unwrap());
        }
        let status = Status::with_metadata(code, "because", metadata);
        let failure = refusal("apply", &status);
        assert_eq!((failure.exit, failure.why.as_str()), (expected, "because"), "{code:?} {exit:?}");
    }

    #[test]
    fn refusals_end_as_the_node_says() {
        check(Code::Aborted, Some("4"), Exit::Conflict);
        check(Code::Unavailable, Some("6"), Exit::NoQuorum);
        check(Code::InvalidArgument, Some("1"), Exit::Local);
        check(Code::Internal, None, Exit::Remote);
        check(Code::Internal, Some("0"), Exit::Remote);
        check(Code::Internal, Some("99"), Exit::Remote);
    }

    #[test]
    fn a_failure_says_what_to_do_next() {
        let check = |code, exit: Exit, verb, expected: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(EXIT_METADATA, (exit as u8).to_string().parse().unwrap());
            let failure = refusal(verb, &Status::with_metadata(code, "because", metadata));
            assert_eq!(failure.hint.as_deref(), Some(expected), "{verb}");
        };
        check(Code::NotFound, Exit::Local, "get", "shoal history");
        check(Code::NotFound, Exit::Local, "health", "shoal health");
        check(Code::NotFound, Exit::Local, "token revoke", "shoal token list");
        check(Code::InvalidArgument, Exit::Local, "cache purge", "shoal cache purge --help");
        check(Code::FailedPrecondition, Exit::Conflict, "apply", "shoal history, then shoal plan -f FILE");
        check(Code::AlreadyExists, Exit::Conflict, "apply", "shoal confirm, or shoal abort");
        check(Code::FailedPrecondition, Exit::Conflict, "confirm", "shoal history");
        check(Code::Unavailable, Exit::NoQuorum, "apply", "shoal status, and start the voters that are dead");
        let (socket, address) = (Target::Socket("/x".into()), Target::Address("a:1".into()));
        for (target, why, expected) in [
            (&socket, "/x: Permission denied (os error 13)", "sudo shoal status, "),
            (&address, "a:1: invalid socket address", "shoal --addr HOST:7401 status, "),
            (&socket, "/x: Connection refused (os error 111)", "shoal --socket DIR/admin.sock status, "),
        ] {
            assert!(way_in("status", Some(target), why).starts_with(expected), "{why}");
        }
    }

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
