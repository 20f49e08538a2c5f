//! What shoal-proxy and shoal-cache say to each other: a request in, an answer out, and the origin as a trait.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{HeaderMap, HeaderValue};
use http::request::Parts;
use shoal_cluster::ClusterView;
use shoal_model::view::{CacheRuleView, RouteView};
use shoal_model::{ConfigView, NodeId};
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::failure::Failure;
use shoal_proto::cache::InvalidateRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::body::{CacheBody, OriginBody};
use crate::disk::DiskSettings;
use crate::fetch_trace::FetchTrace;
use crate::lookup::Probe;

/// What a [`crate::Cache`] is built from.
pub struct CacheSettings {
    /// This node.
    pub node: NodeId,
    /// Its `--name`, as `Cache-Status` shows it.
    pub name: Arc<str>,
    /// Bytes of memory for stored objects, one of which has half of it at most. Beside them running fills hold up to half as
    /// much.
    pub ram_bytes: u64,
    /// Bytes of copies that other nodes send and that are read at once; one alone may be larger.
    pub intake_bytes: u64,
    /// Where they go to outlive the process; `None` = nowhere.
    pub disk: Option<DiskSettings>,
    /// Seed of object keys and purge scopes, drawn from the cluster secret: equal on every node of a cluster.
    pub key_seed: u64,
    /// Who the other nodes are.
    pub cluster: Arc<ArcSwap<ClusterView>>,
    /// The site: what a route named by a peer means here.
    pub config: Arc<ArcSwap<ConfigView>>,
    /// How to reach the other nodes.
    pub peers: Arc<dyn PeerLink>,
    /// Takes what has to be purged, for want of a node's word. Where nobody does, that node is reminded.
    pub unconfirmed: mpsc::Sender<UnconfirmedChange>,
}

/// What has changed, and not every node has confirmed to have forgotten.
#[derive(Debug)]
pub struct UnconfirmedChange {
    /// What is to be purged.
    pub keys: Vec<ObjectKey>,
    /// To be told when no node serves it any more; dropped if that is not to be had.
    pub done: oneshot::Sender<()>,
}

/// The way to the other nodes: mutually authenticated, encrypted, and knowing their addresses.
pub trait PeerLink: Send + Sync + 'static {
    /// Opens a connection to the cluster address of `node` that speaks HTTP/1.1.
    fn connect(&self, node: NodeId) -> LinkFuture<Box<dyn PeerIo>>;

    /// Tells `node` to forget what has changed (`CacheService.Invalidate`); ends when it has, or cannot.
    fn invalidate(&self, node: NodeId, changed: Changed) -> LinkFuture<()>;
}

/// What a node is to forget, since the origin has changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// This.
    Some(Vec<Change>),
    /// All there is.
    Everything,
}

/// A resource that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key of its objects.
    pub key: ObjectKey,
    /// The URL of that key, if it has a query: whoever hears of it may know what it is equal to.
    pub url: Option<Arc<str>>,
}

impl Changed {
    /// As it travels.
    pub fn into_request(self) -> InvalidateRequest {
        let Self::Some(changes) = self else {
            return InvalidateRequest { everything: true, ..InvalidateRequest::default() };
        };
        InvalidateRequest {
            keys: changes.iter().map(|change| change.key.to_bytes().to_vec()).collect(),
            everything: false,
            urls: changes.iter().filter_map(|change| change.url.as_deref()).map(str::to_owned).collect(),
        }
    }
}

/// What a [`PeerLink`] promises.
pub type LinkFuture<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// A connection to a peer.
pub trait PeerIo: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin + 'static> PeerIo for IO {}

/// A request after the gate and routing, as it would be sent to the origin.
#[derive(Clone, Copy)]
pub struct CacheRequest<'a> {
    /// Method, path and query, fields (`Host` among them); hop-by-hop fields are gone, forwarding fields are set.
    pub head: &'a Parts,
    /// It came over TLS.
    pub https: bool,
    /// Lower case, the scheme's default port left out.
    pub host: &'a str,
    /// Where it goes.
    pub route: &'a Arc<RouteView>,
    /// The route's cache rule.
    pub rule: &'a CacheRuleView,
    /// A body follows.
    pub has_body: bool,
    /// Where to note what the origin was asked on behalf of this request, and what it says before its answer; `None` = nobody
    /// wants to know.
    pub trace: Option<&'a FetchTrace>,
}

/// What the store says, without waiting for anything.
pub enum Lookup {
    /// Here is the answer: `Age` and `Cache-Status` are set, conditions, ranges and HEAD are seen to.
    Fresh(http::Response<CacheBody>),
    /// There is an object, but it may not be used just like that: [`crate::WorkerCache::answer`] sorts it out.
    Stale(Box<Probe>),
    /// There is none: [`crate::WorkerCache::answer`] fetches it.
    Miss(Box<Probe>),
    /// Not a matter for the cache: forward it.
    Bypass(Bypass),
}

/// Why a request passes by the cache (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// Its method is not cached.
    Method,
    /// Its fields ask for what only the origin can say (`If-Match`, a body on GET …).
    Request,
}

/// What the cache made of a request.
pub enum Answer {
    /// The whole answer: `Age` and `Cache-Status` are set, conditions and HEAD are seen to.
    Response(http::Response<CacheBody>),
    /// Forward it yourself, body included, and add this `Cache-Status` to the response.
    Direct {
        /// The member of this node, without `fwd-status`: that is still to come (RFC 9211 §2.3).
        cache_status: HeaderValue,
    },
    /// There is no answer: the failure says who is to blame, and which status that is.
    Failed(Failure),
}

/// Marks a response, as one of its extensions, whose body ends where its connection does (RFC 9112 §8): nobody can tell
/// whether it is whole, so it is passed on and never stored.
#[derive(Clone, Copy, Debug)]
pub struct UntilClose;

/// What [`Fetch::fetch`] promises.
pub type FetchFuture = Pin<Box<dyn Future<Output = Result<http::Response<OriginBody>, Failure>>>>;

/// The origin as the cache sees it. The proxy implements it, once per worker: it picks an endpoint, retries, applies the
/// timeouts and takes hop-by-hop fields off the response, and marks it with [`UntilClose`] where that is so.
pub trait Fetch {
    /// Sends `head` (which has no body) to the upstream of `route`, and notes in `trace` what that took, and what came before
    /// the answer. Any status is an answer; a failure is that there is none.
    fn fetch(&self, route: Arc<RouteView>, head: Parts, trace: Option<FetchTrace>) -> FetchFuture;

    /// Writes into a response what every response of this node carries: done once for many answers of
    /// [`crate::WorkerCache::ready`].
    fn sign(&self, fields: &mut HeaderMap);
}
