//! The cache of one node.

use std::rc::Rc;
use std::sync::Arc;

use shoal_model::NodeId;
use shoal_model::state::{PurgeKind, PurgeScope, PurgeTables};
use shoal_proto::cache::cache_service_server::CacheService;
use shoal_proto::cache::{InvalidateRequest, InvalidateResponse, LookupRequest, LookupResponse};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::seam::{CacheSettings, Fetch, PeerIo};
use crate::worker::{FillJob, WorkerCache};

/// The cache of one node: store, running fills, purge tables, placement.
pub struct Cache {
    pub(crate) settings: CacheSettings,
}

impl Cache {
    /// An empty cache.
    pub fn new(settings: CacheSettings) -> Arc<Self> {
        Arc::new(Self { settings })
    }

    /// The part of one worker thread; call it there, inside its `LocalSet`.
    pub fn worker(self: &Arc<Self>, fetch: Rc<dyn Fetch>) -> Rc<WorkerCache> {
        WorkerCache::new(self.clone(), fetch)
    }

    /// Takes on a worker for the fills that peers ask for. Its loop hands what it receives to [`WorkerCache::run_job`].
    pub fn register_worker(&self, _jobs: mpsc::Sender<FillJob>) {}

    /// A purge was applied from the log.
    pub fn record_purge(&self, _seq: u64, _scopes: &[PurgeScope], _kind: PurgeKind) {}

    /// A snapshot was installed: its purge tables, and the log index it stands for.
    pub fn replace_purges(&self, _tables: &PurgeTables, _applied: u64) {}

    /// The log is applied up to `seq`.
    pub fn set_applied(&self, _seq: u64) {}

    /// Serves one authenticated connection of `peer` that negotiated HTTP/1.1, until it ends.
    pub async fn serve_peer<IO: PeerIo>(self: Arc<Self>, _io: IO, _peer: NodeId) {}

    /// The gRPC half of the peer protocol.
    pub fn service(self: &Arc<Self>) -> impl CacheService + use<> {
        CacheIndex
    }

    /// Figures since the start.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// The scope of one URL (`http://host/path?query`); `None` = not a URL.
    pub fn purge_scope_url(&self, _url: &str) -> Option<PurgeScope> {
        None
    }

    /// The scope of everything below a path of a host (`host/path`); a host alone is all of the host.
    pub fn purge_scope_prefix(&self, _prefix: &str) -> Option<PurgeScope> {
        None
    }

    /// The scope of a tag.
    pub fn purge_scope_tag(&self, _tag: &str) -> PurgeScope {
        PurgeScope::Tag(0)
    }
}

/// Figures since the start of the node; `objects`, `bytes` and `purge_seq` are of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the operator's API, which documents them")]
pub struct Counters {
    pub objects: u64,
    pub bytes: u64,
    pub budget_bytes: u64,
    pub hits: u64,
    pub misses: u64,
    pub stale: u64,
    pub coalesced: u64,
    pub peer_hits: u64,
    pub peer_errors: u64,
    pub origin_fetches: u64,
    pub replicas_sent: u64,
    pub replicas_received: u64,
    pub evictions: u64,
    pub purge_seq: u64,
}

struct CacheIndex;

#[tonic::async_trait]
impl CacheService for CacheIndex {
    async fn lookup(&self, _: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        Ok(Response::new(LookupResponse::default()))
    }

    async fn invalidate(&self, _: Request<InvalidateRequest>) -> Result<Response<InvalidateResponse>, Status> {
        Ok(Response::new(InvalidateResponse::default()))
    }
}
