//! The client against nodes that answer by script: over the local socket, over mutual TLS, and when a node is lost.
#![allow(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use shoal_cluster::{Identity, tls};
use shoal_ctl::client::{IdentityFiles, Target};
use shoal_ctl::{Client, Exit};
use shoal_proto::admin::admin_service_server::{AdminService, AdminServiceServer};
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
    SaveSnapshotResponse, SetRolloutPolicyRequest, SetRolloutPolicyResponse, SetStandingRequest,
    SetUpgradeRequest, SetVoteRequest, SetVoteResponse, ShowRequest, ShowResponse, StageRequest,
    StandingProgress, StatusRequest, StatusResponse, StepRolloutRequest, TopRequest, TopResponse,
    TransferLeaderRequest, TransferLeaderResponse, UpgradeStatusRequest, UpgradeStatusResponse, WatchRequest,
    WatchResponse,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

const DEADLINE: Duration = Duration::from_secs(20);
const MAX_MESSAGE_BYTES: usize = 128 << 20;

/// Answers `Show` with a site of this many bytes, `Status` with its name, and refuses everything else.
#[derive(Clone)]
struct Scripted {
    name: &'static str,
    site_bytes: usize,
}

fn refused<T>() -> Result<Response<T>, Status> {
    let mut metadata = MetadataMap::new();
    metadata.insert("shoal-exit", "4".parse().unwrap());
    metadata.insert("shoal-node", "node1".parse().unwrap());
    metadata.insert("shoal-revision", "8".parse().unwrap());
    Err(Status::with_metadata(Code::Aborted, "the active revision is 8, not 7", metadata))
}

#[tonic::async_trait]
impl AdminService for Scripted {
    async fn show(&self, _: Request<ShowRequest>) -> Result<Response<ShowResponse>, Status> {
        let site_json = "x".repeat(self.site_bytes);
        Ok(Response::new(ShowResponse { revision: 8, site_json, quorum: true, ..ShowResponse::default() }))
    }
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse { node: self.name.to_owned(), ..StatusResponse::default() }))
    }
    async fn plan(&self, _: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        refused()
    }
    async fn apply(&self, _: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        refused()
    }
    async fn stage(&self, _: Request<StageRequest>) -> Result<Response<ApplyResponse>, Status> {
        refused()
    }
    async fn roll_out(&self, _: Request<RollOutRequest>) -> Result<Response<ApplyResponse>, Status> {
        refused()
    }
    async fn get_rollout(
        &self,
        _: Request<GetRolloutRequest>,
    ) -> Result<Response<GetRolloutResponse>, Status> {
        refused()
    }
    async fn step_rollout(
        &self,
        _: Request<StepRolloutRequest>,
    ) -> Result<Response<GetRolloutResponse>, Status> {
        refused()
    }
    async fn set_rollout_policy(
        &self,
        _: Request<SetRolloutPolicyRequest>,
    ) -> Result<Response<SetRolloutPolicyResponse>, Status> {
        refused()
    }
    async fn confirm(&self, _: Request<ConfirmRequest>) -> Result<Response<ConfirmResponse>, Status> {
        refused()
    }
    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<ApplyResponse>, Status> {
        refused()
    }
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;
    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        refused()
    }
    async fn diff(&self, _: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        refused()
    }
    async fn plan_edit(&self, _: Request<EditRequest>) -> Result<Response<PlanResponse>, Status> {
        refused()
    }
    async fn edit(&self, _: Request<EditRequest>) -> Result<Response<ApplyResponse>, Status> {
        refused()
    }
    async fn history(&self, _: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        refused()
    }
    async fn rollback(&self, _: Request<RollbackRequest>) -> Result<Response<ApplyResponse>, Status> {
        refused()
    }
    async fn health(&self, _: Request<HealthRequest>) -> Result<Response<HealthResponse>, Status> {
        refused()
    }
    async fn purge(&self, _: Request<PurgeRequest>) -> Result<Response<PurgeResponse>, Status> {
        refused()
    }
    async fn purge_status(
        &self,
        _: Request<PurgeStatusRequest>,
    ) -> Result<Response<PurgeStatusResponse>, Status> {
        refused()
    }
    async fn cache_stats(
        &self,
        _: Request<CacheStatsRequest>,
    ) -> Result<Response<CacheStatsResponse>, Status> {
        refused()
    }
    async fn top(&self, _: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        refused()
    }
    async fn cache_locate(
        &self,
        _: Request<CacheLocateRequest>,
    ) -> Result<Response<CacheLocateResponse>, Status> {
        refused()
    }
    async fn cache_get(&self, _: Request<CacheGetRequest>) -> Result<Response<CacheGetResponse>, Status> {
        refused()
    }
    async fn cache_top(&self, _: Request<CacheTopRequest>) -> Result<Response<CacheTopResponse>, Status> {
        refused()
    }
    type CacheWarmStream = ReceiverStream<Result<CacheWarmResponse, Status>>;
    async fn cache_warm(
        &self,
        _: Request<CacheWarmRequest>,
    ) -> Result<Response<Self::CacheWarmStream>, Status> {
        refused()
    }
    async fn remove_node(
        &self,
        _: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        refused()
    }
    async fn describe_node(
        &self,
        _: Request<DescribeNodeRequest>,
    ) -> Result<Response<DescribeNodeResponse>, Status> {
        refused()
    }
    type SetStandingStream = ReceiverStream<Result<StandingProgress, Status>>;
    async fn set_standing(
        &self,
        _: Request<SetStandingRequest>,
    ) -> Result<Response<Self::SetStandingStream>, Status> {
        refused()
    }
    async fn set_vote(&self, _: Request<SetVoteRequest>) -> Result<Response<SetVoteResponse>, Status> {
        refused()
    }
    async fn create_token(
        &self,
        _: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        refused()
    }
    async fn list_tokens(
        &self,
        _: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        refused()
    }
    async fn revoke_token(
        &self,
        _: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        refused()
    }
    async fn keys(&self, _: Request<KeysRequest>) -> Result<Response<KeysResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn keep_keys(&self, _: Request<KeepKeysRequest>) -> Result<Response<KeysResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        refused()
    }

    async fn list_operators(
        &self,
        _: Request<ListOperatorsRequest>,
    ) -> Result<Response<ListOperatorsResponse>, Status> {
        refused()
    }
    async fn revoke_operator(
        &self,
        _: Request<RevokeOperatorRequest>,
    ) -> Result<Response<RevokeOperatorResponse>, Status> {
        refused()
    }
    async fn revoke_node(
        &self,
        _: Request<RevokeNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        refused()
    }
    type SaveSnapshotStream = ReceiverStream<Result<SaveSnapshotResponse, Status>>;
    async fn save_snapshot(
        &self,
        _: Request<SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        refused()
    }
    async fn recover_plan(
        &self,
        _: Request<RecoverPlanRequest>,
    ) -> Result<Response<RecoverPlanResponse>, Status> {
        refused()
    }
    async fn change_setup(
        &self,
        _: Request<ChangeSetupRequest>,
    ) -> Result<Response<ChangeSetupResponse>, Status> {
        refused()
    }

    async fn upgrade_status(
        &self,
        _: Request<UpgradeStatusRequest>,
    ) -> Result<Response<UpgradeStatusResponse>, Status> {
        refused()
    }
    async fn set_upgrade(
        &self,
        _: Request<SetUpgradeRequest>,
    ) -> Result<Response<UpgradeStatusResponse>, Status> {
        refused()
    }
    async fn audit(&self, _: Request<AuditRequest>) -> Result<Response<AuditResponse>, Status> {
        refused()
    }
    async fn issue_operator(
        &self,
        _: Request<IssueOperatorRequest>,
    ) -> Result<Response<IssueOperatorResponse>, Status> {
        refused()
    }
}

fn service(node: Scripted) -> AdminServiceServer<Scripted> {
    AdminServiceServer::new(node)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// A node on the socket `dir/<name>.sock`.
fn serve_socket(dir: &Path, name: &'static str, site_bytes: usize) -> PathBuf {
    let path = dir.join(format!("{name}.sock"));
    let listener = UnixListener::bind(&path).unwrap();
    let node = Scripted { name, site_bytes };
    tokio::spawn(
        Server::builder().add_service(service(node)).serve_with_incoming(UnixListenerStream::new(listener)),
    );
    path
}

/// A node of `identity`'s cluster on a free port.
async fn serve_tls(identity: &Identity, name: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = TlsAcceptor::from(tls::admin_server_config(identity).unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let incoming = tokio_stream::once(Ok::<_, std::io::Error>(stream));
                _ = Server::builder()
                    .add_service(service(Scripted { name, site_bytes: 0 }))
                    .serve_with_incoming(incoming)
                    .await;
            });
        }
    });
    address
}

fn client(targets: Vec<Target>, identity: Option<IdentityFiles>, server_name: Option<&str>) -> Client {
    Client::new(targets, identity, server_name.map(str::to_owned), DEADLINE)
}

#[tokio::test]
async fn refusals_and_large_sites_pass_over_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = serve_socket(dir.path(), "node1", 20 << 20);
    let client = Client::local(socket, DEADLINE);
    let shown = client.show("get", ShowRequest::default()).await.unwrap();
    assert_eq!(shown.site_json.len(), 20 << 20);
    let refused =
        client.apply(ApplyRequest { site_json: "y".repeat(20 << 20), ..ApplyRequest::default() }).await;
    let refused = refused.unwrap_err();
    assert_eq!((refused.exit, refused.why.as_str()), (Exit::Conflict, "the active revision is 8, not 7"));
    let source = refused.source.unwrap();
    assert_eq!((source.node.as_str(), source.revision), ("node1", Some(8)));
}

#[tokio::test]
async fn a_node_that_is_gone_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone.sock");
    drop(UnixListener::bind(&gone).unwrap());
    // Accepts, and closes before any answer: a node that dies in the middle of a call.
    let dying = dir.path().join("dying.sock");
    let listener = UnixListener::bind(&dying).unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let alive = serve_socket(dir.path(), "node3", 0);
    let targets = [gone, dying, alive].map(Target::Socket).to_vec();
    assert_eq!(client(targets, None, None).status().await.unwrap().node, "node3");
}

#[tokio::test]
async fn both_sides_prove_themselves_over_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let (identity, authority) = Identity::bootstrap("node1").unwrap();
    let (stranger, foreign_authority) = Identity::bootstrap("node1").unwrap();
    let bundle = dir.path().join("operator.json");
    authority.issue_operator("ada").unwrap().save(&bundle).unwrap();
    let foreign_bundle = dir.path().join("foreign.json");
    foreign_authority.issue_operator("eve").unwrap().save(&foreign_bundle).unwrap();

    let address = Target::Address(serve_tls(&identity, "node1").await);
    let foreign = Target::Address(serve_tls(&stranger, "stranger").await);
    let ada = || Some(IdentityFiles::Bundle(bundle.clone()));

    let answered = client(vec![foreign.clone(), address.clone()], ada(), None).status().await.unwrap();
    assert_eq!(answered.node, "node1", "a node of another cluster is passed over");
    let named = tls::names::node(identity.node_id, identity.cluster_id);
    assert_eq!(client(vec![address.clone()], ada(), Some(&named)).status().await.unwrap().node, "node1");

    for (target, identity, server_name) in [
        (foreign, ada(), None),
        (address.clone(), ada(), Some("other.example.com")),
        (address, Some(IdentityFiles::Bundle(foreign_bundle)), None),
    ] {
        let failure = client(vec![target], identity, server_name).status().await.unwrap_err();
        assert_eq!(failure.exit, Exit::Remote, "{}", failure.to_text());
    }
}

#[tokio::test]
async fn an_identity_may_be_three_pem_files() {
    let dir = tempfile::tempdir().unwrap();
    let (identity, authority) = Identity::bootstrap("node1").unwrap();
    let operator = authority.issue_operator("ada").unwrap();
    let address = Target::Address(serve_tls(&identity, "node1").await);
    let pem = |kind: &str, der: &[u8]| {
        let path = dir.path().join(format!("{}.pem", kind.replace(' ', "-").to_lowercase()));
        let label = kind.trim_start_matches("CA ");
        std::fs::write(&path, pem_text(label, der)).unwrap();
        path
    };
    let files = IdentityFiles::Pem {
        ca: pem("CA CERTIFICATE", &operator.ca_der),
        cert: pem("CERTIFICATE", &operator.cert_der),
        key: pem("PRIVATE KEY", operator.key_der.secret_pkcs8_der()),
    };
    assert_eq!(client(vec![address], Some(files), None).status().await.unwrap().node, "node1");
}

/// RFC 7468.
fn pem_text(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
