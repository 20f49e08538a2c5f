//! One worker: a thread with its own runtime, and what everything that runs there shares.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, cache::Cache as Cached};
use http::HeaderValue;
use shoal_cluster::ClusterView;
use shoal_model::ConfigView;
use shoal_policy::forwarding::OwnName;
use tokio::sync::mpsc;

use crate::access_log::{AccessLog, LogLine};
use crate::clock::Clock;
use crate::date::HttpDate;
use crate::deadline::Deadlines;
use crate::entropy::{Entropy, random_seed};
use crate::metrics::{RouteCells, WorkerMetrics};
use crate::names::Names;
use crate::purge::AskedPurge;
use crate::request_id::RequestIds;
use crate::spans::RequestSpan;

/// What a worker starts from.
#[derive(Clone)]
pub(crate) struct WorkerSeed {
    pub(crate) node_name: Arc<str>,
    pub(crate) workers: usize,
    pub(crate) clock: Arc<Clock>,
    pub(crate) config: Arc<ArcSwap<ConfigView>>,
    pub(crate) cluster: Arc<ArcSwap<ClusterView>>,
    pub(crate) names: Arc<Names>,
    pub(crate) access_log: AccessLog,
    /// Also where the site does not ask for it.
    pub(crate) logs_all: bool,
    pub(crate) spans: mpsc::Sender<Box<RequestSpan>>,
    pub(crate) purges: mpsc::Sender<AskedPurge>,
}

/// What all tasks of one worker share.
pub(crate) struct Worker {
    /// How many share the limits of a node.
    pub(crate) workers: usize,
    pub(crate) node_name: Arc<str>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) routes: RouteCells,
    pub(crate) own: OwnName,
    pub(crate) date: HttpDate,
    /// Where the names of endpoints lead.
    pub(crate) names: Arc<Names>,
    config: RefCell<Cached<Arc<ArcSwap<ConfigView>>, Arc<ConfigView>>>,
    cluster: RefCell<Cached<Arc<ArcSwap<ClusterView>>, Arc<ClusterView>>>,
    /// Who carries out purges.
    pub(crate) purges: mpsc::Sender<AskedPurge>,
    access_log: AccessLog,
    logs_all: bool,
    spans: mpsc::Sender<Box<RequestSpan>>,
    request_ids: RequestIds,
    entropy: Entropy,
}

impl Worker {
    pub(crate) fn new(seed: WorkerSeed, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        Rc::new(Self {
            workers: seed.workers,
            deadlines: Deadlines::new(seed.clock.clone()),
            own: OwnName::new(&seed.node_name),
            date: HttpDate::default(),
            names: seed.names,
            config: RefCell::new(Cached::new(seed.config)),
            cluster: RefCell::new(Cached::new(seed.cluster)),
            access_log: seed.access_log,
            logs_all: seed.logs_all,
            spans: seed.spans,
            purges: seed.purges,
            request_ids: RequestIds::new(random_seed()),
            entropy: Entropy::new(random_seed()),
            node_name: seed.node_name,
            clock: seed.clock,
            routes: RouteCells::new(metrics.clone()),
            metrics,
        })
    }

    /// Reads the site as it is now. Its count of references is left alone: all workers would fight for it.
    pub(crate) fn with_config<R>(&self, read: impl FnOnce(&ConfigView) -> R) -> R {
        read(self.config.borrow_mut().load())
    }

    /// Reads the cluster as it is now, likewise.
    pub(crate) fn with_cluster<R>(&self, read: impl FnOnce(&ClusterView) -> R) -> R {
        read(self.cluster.borrow_mut().load())
    }

    /// A number that is no secret.
    pub(crate) fn entropy(&self) -> u64 {
        self.entropy.next()
    }

    pub(crate) fn next_request_id(&self) -> HeaderValue {
        self.request_ids.next()
    }

    /// Everything is logged that no listener has settings for.
    pub(crate) fn logs_access(&self) -> bool {
        self.logs_all
    }

    pub(crate) fn write_log(&self, line: LogLine) {
        self.access_log.write(line);
    }

    pub(crate) fn send_span(&self, span: Box<RequestSpan>) {
        if self.spans.try_send(span).is_err() {
            self.metrics.spans_dropped.add(1);
        }
    }
}
