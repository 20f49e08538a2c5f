//! Asking a peer for an object.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustc_hash::FxHashMap;
use shoal_cluster::ClusterView;
use shoal_model::NodeId;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::patience::{AnswerTimes, LEAST_PATIENCE, is_above_bound};
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::selecting::Selecting;
use shoal_policy::cache::sources::{Hop, Role};
use shoal_policy::failure::Failure;

use super::wire::{self, AnswerKind, InChunks, Meta};
use crate::body::OriginBody;
use crate::clock::now_ms;
use crate::conditions::Conditions;
use crate::relay::relay;
use crate::seam::PeerLink;
use crate::task::Unshared;

/// Unused connections kept per peer and worker.
const MAX_IDLE: usize = 64;
/// For connecting and the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After a failed connect, a peer is not tried again for this long.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a silent peer is looked up in the cluster's view: whoever is dead does not answer any more.
const ALIVE_CHECK: Duration = Duration::from_millis(250);
/// What a peer may take beyond the route's own limits for the origin.
const ALLOWANCE: Duration = Duration::from_secs(1);
/// For the answer of a peer that only looks into its store.
const PEEK_PATIENCE: Duration = Duration::from_millis(250);

/// Fields a peer may send beside those of an object.
pub(super) const MAX_PEER_FIELDS: usize = 256;

/// How nodes speak HTTP to each other.
pub(super) fn http1() -> Builder {
    let mut builder = Builder::new();
    builder.max_headers(MAX_PEER_FIELDS);
    builder
}

type Sender = SendRequest<Empty<Bytes>>;

/// One worker's connections to the peers.
pub(crate) struct PeerPool {
    link: Arc<dyn PeerLink>,
    cluster: Arc<ArcSwap<ClusterView>>,
    peers: RefCell<FxHashMap<NodeId, PeerState>>,
}

#[derive(Default)]
struct PeerState {
    idle: Vec<Sender>,
    paused_until: Option<Instant>,
    times: AnswerTimes,
    /// Requests under way.
    visits: usize,
}

/// A request under way to a peer, until its answer was read.
struct Visit {
    pool: Rc<PeerPool>,
    peer: NodeId,
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(state) = self.pool.peers.borrow_mut().get_mut(&self.peer) {
            state.visits = state.visits.saturating_sub(1);
        }
    }
}

/// What is asked of a peer.
pub(crate) struct PeerQuestion<'a> {
    pub(crate) head: &'a Parts,
    /// Fields alone, or several parts, will do where they answer a request with these; `None` = just what `head` says is wanted.
    pub(crate) conditions: Option<&'a Conditions>,
    pub(crate) text: &'a str,
    pub(crate) route: &'a str,
    pub(crate) min_seq: u64,
    pub(crate) placement_id: u64,
    pub(crate) role: Role,
    pub(crate) hop: Hop,
    /// For the origin to answer, on the way through the peer.
    pub(crate) first_byte_timeout: Duration,
    /// For the next part of a body, likewise.
    pub(crate) idle_timeout: Duration,
}

/// What a peer says.
pub(crate) enum PeerAnswer {
    /// An object, stored or on its way in.
    Object(Box<PeerObject>),
    /// The origin's response, for the request that began the fill alone.
    Own(Unshared),
    /// It is not cacheable, and why, if it says so.
    Direct(Option<Refusal>),
    /// This one is not to be shared.
    Alone,
    /// It has nothing, or nothing that can be trusted.
    Miss,
    Failed(Failure),
    /// It cannot be reached, or speaks in tongues.
    Unreachable,
}

/// An object as a peer sends it.
pub(crate) struct PeerObject {
    pub(crate) response: Response<Incoming>,
    pub(crate) meta: Meta,
    /// What chose it.
    pub(crate) selecting: Selecting,
    pub(crate) is_hit: bool,
    /// It lies in chunks, and these are its fields: they answer, and there is no body.
    pub(crate) is_told: bool,
    /// Keep it for so long, says the peer, milliseconds.
    pub(crate) hot_ms: Option<u64>,
    pub(crate) member: Option<HeaderValue>,
    /// When the peer had it, at the earliest, Unix milliseconds of this node: its own word, less the time it took.
    pub(crate) received_ms: u64,
    connection: Lease,
}

/// A connection in use.
struct Lease {
    pool: Rc<PeerPool>,
    peer: NodeId,
    sender: Sender,
    /// For the next part of a body.
    patience: Duration,
    _visit: Visit,
}

/// Why a peer is not waited for any longer.
enum Silence {
    /// The cluster has lost it.
    Dead,
    /// It has had its time.
    Slow,
}

impl PeerObject {
    /// The next piece of the body; an error when the peer broke off, fell silent, or is dead.
    pub(crate) async fn piece(&mut self) -> Option<Result<Bytes, Failure>> {
        loop {
            match self.connection.part(self.response.body_mut()).await? {
                Ok(part) => match part.into_data() {
                    Ok(piece) => return Some(Ok(piece)),
                    Err(_) => continue,
                },
                Err(failure) => return Some(Err(failure)),
            }
        }
    }

    /// The body, for somebody else to read.
    pub(crate) fn into_body(self) -> OriginBody {
        self.connection.pass_on(self.response.into_body())
    }

    /// The body was read to its end: the connection may be used again.
    pub(crate) fn finish(self) {
        self.connection.give_back();
    }
}

impl Lease {
    /// The next part of a body that comes over this connection.
    async fn part(&self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, Failure>> {
        match self.pool.while_alive(self.peer, self.patience, body.frame()).await {
            Ok(Some(Ok(part))) => Some(Ok(part)),
            Ok(None) => None,
            Ok(Some(Err(_))) | Err(Silence::Dead) => Some(Err(Failure::UpstreamReset)),
            Err(Silence::Slow) => Some(Err(Failure::UpstreamResponseTimeout)),
        }
    }

    fn give_back(self) {
        let Self { pool, peer, sender, _visit, .. } = self;
        if sender.is_closed() {
            return;
        }
        let mut peers = pool.peers.borrow_mut();
        let idle = &mut peers.entry(peer).or_default().idle;
        if idle.len() < MAX_IDLE {
            idle.push(sender);
        }
    }
}

impl PeerPool {
    pub(crate) fn new(link: Arc<dyn PeerLink>, cluster: Arc<ArcSwap<ClusterView>>) -> Rc<Self> {
        Rc::new(Self { link, cluster, peers: RefCell::default() })
    }

    /// Asks `peer`. A kept connection that turns out to be gone is replaced by a new one, once.
    pub(crate) async fn ask(self: &Rc<Self>, peer: NodeId, question: &PeerQuestion<'_>) -> PeerAnswer {
        while let Some(sender) = self.take_idle(peer) {
            if let Some(answer) = self.ask_over(sender, peer, question).await {
                return answer;
            }
        }
        let Some(sender) = self.connect(peer).await else { return PeerAnswer::Unreachable };
        self.ask_over(sender, peer, question).await.unwrap_or(PeerAnswer::Unreachable)
    }

    /// How long `peer` is waited for alone: longer than nearly all of its answers took.
    pub(crate) fn patience(&self, peer: NodeId) -> Duration {
        self.peers.borrow().get(&peer).map_or(LEAST_PATIENCE, |state| state.times.patience())
    }

    /// `peer`, which is not the only one, has more to do for this worker than others.
    pub(crate) fn is_above_bound(&self, peer: NodeId) -> bool {
        let peers = self.peers.borrow();
        let under_way = peers.get(&peer).map_or(0, |state| state.visits);
        is_above_bound(under_way, peers.values().map(|state| state.visits).sum(), peers.len().max(2))
    }

    fn visit(self: &Rc<Self>, peer: NodeId) -> Visit {
        self.peers.borrow_mut().entry(peer).or_default().visits += 1;
        Visit { pool: self.clone(), peer }
    }

    /// Waits for `peer`, but not for a dead one, and not for ever.
    async fn while_alive<T>(
        &self,
        peer: NodeId,
        patience: Duration,
        waiting: impl Future<Output = T>,
    ) -> Result<T, Silence> {
        let mut waiting = std::pin::pin!(waiting);
        let mut waited = Duration::ZERO;
        while waited < patience {
            let step = ALIVE_CHECK.min(patience - waited);
            if let Ok(done) = tokio::time::timeout(step, &mut waiting).await {
                return Ok(done);
            }
            if !self.cluster.load().node(peer).is_some_and(|node| node.alive) {
                return Err(Silence::Dead);
            }
            waited += step;
        }
        Err(Silence::Slow)
    }

    fn take_idle(&self, peer: NodeId) -> Option<Sender> {
        let mut peers = self.peers.borrow_mut();
        let idle = &mut peers.get_mut(&peer)?.idle;
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed() && sender.is_ready())
    }

    async fn connect(&self, peer: NodeId) -> Option<Sender> {
        let paused_until = self.peers.borrow().get(&peer).and_then(|state| state.paused_until);
        if paused_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let connecting = async {
            let io = self.link.connect(peer).await?;
            http1().handshake(TokioIo::new(io)).await.map_err(std::io::Error::other)
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let outcome = match connected {
            Ok(Ok((sender, connection))) => {
                tokio::task::spawn_local(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%peer, %error, "a connection to a peer broke");
                    }
                });
                Some(sender)
            }
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "a peer cannot be connected to");
                None
            }
            Err(_) => None,
        };
        let paused_until = if outcome.is_some() { None } else { Some(Instant::now() + PAUSE) };
        self.peers.borrow_mut().entry(peer).or_default().paused_until = paused_until;
        outcome
    }

    /// `None` = the connection was of no use.
    async fn ask_over(
        self: &Rc<Self>,
        mut sender: Sender,
        peer: NodeId,
        question: &PeerQuestion<'_>,
    ) -> Option<PeerAnswer> {
        let patience = match question.role {
            Role::Holder => PEEK_PATIENCE,
            Role::Primary | Role::Deputy => question.first_byte_timeout + ALLOWANCE,
        };
        let (asked, asked_ms) = (Instant::now(), now_ms());
        let visit = self.visit(peer);
        let sending = sender.send_request(question.request());
        let response = match self.while_alive(peer, patience, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => return None,
            // It is there, and it is asking the origin: that time is up.
            Err(Silence::Slow) if question.role != Role::Holder => {
                return Some(PeerAnswer::Failed(Failure::UpstreamResponseTimeout));
            }
            Err(Silence::Slow | Silence::Dead) => return Some(PeerAnswer::Unreachable),
        };
        if AnswerKind::read(response.headers()).is_some_and(AnswerKind::is_of_its_own) {
            self.peers.borrow_mut().entry(peer).or_default().times.observe(asked.elapsed());
        }
        let patience = question.idle_timeout + ALLOWANCE;
        let lease = Lease { pool: self.clone(), peer, sender, patience, _visit: visit };
        Some(lease.interpret(response, question, asked_ms).await)
    }
}

impl Lease {
    async fn interpret(
        self,
        mut response: Response<Incoming>,
        question: &PeerQuestion<'_>,
        asked_ms: u64,
    ) -> PeerAnswer {
        let Some(kind) = AnswerKind::read(response.headers()) else { return PeerAnswer::Unreachable };
        match kind {
            AnswerKind::Hit | AnswerKind::Filling => {
                let now_ms = now_ms();
                let fields = response.headers();
                let (Some(meta), Some(selecting)) =
                    (Meta::read(fields, now_ms), wire::read_selecting(fields))
                else {
                    return PeerAnswer::Unreachable;
                };
                let received_ms = meta.terms.response_ms.saturating_sub(now_ms.saturating_sub(asked_ms));
                let member = response.headers().get(&wire::MEMBER).cloned();
                let hot_ms = wire::read_number(response.headers(), &wire::HOT);
                let told = InChunks::read(fields);
                if told.is_some_and(|told| told.number.is_some() || question.conditions.is_none()) {
                    return PeerAnswer::Unreachable;
                }
                wire::remove_own_fields(response.headers_mut());
                if let Some(InChunks { length, .. }) = told {
                    response.headers_mut().insert(CONTENT_LENGTH, length.into());
                }
                let is_hit = kind == AnswerKind::Hit;
                PeerAnswer::Object(Box::new(PeerObject {
                    response,
                    meta,
                    selecting,
                    is_hit,
                    is_told: told.is_some(),
                    hot_ms,
                    member,
                    received_ms,
                    connection: self,
                }))
            }
            AnswerKind::Own => {
                let member = response.headers().get(&wire::MEMBER).cloned();
                let why = wire::read_refusal(response.headers());
                *response.headers_mut() = stored_fields(response.headers(), &[]);
                wire::remove_own_fields(response.headers_mut());
                if let Some(member) = member {
                    response.headers_mut().append(crate::respond::CACHE_STATUS.clone(), member);
                }
                PeerAnswer::Own(Unshared { response: response.map(|body| self.pass_on(body)), why })
            }
            AnswerKind::Direct
            | AnswerKind::Alone
            | AnswerKind::Miss
            | AnswerKind::Behind
            | AnswerKind::Failed => {
                let failure = wire::read_failure(response.headers());
                let why = wire::read_refusal(response.headers());
                // These have no body; reading its end makes the connection usable again.
                if response.into_body().collect().await.is_ok() {
                    self.give_back();
                }
                match kind {
                    AnswerKind::Direct => PeerAnswer::Direct(why),
                    AnswerKind::Alone => PeerAnswer::Alone,
                    AnswerKind::Failed => PeerAnswer::Failed(failure),
                    AnswerKind::Hit
                    | AnswerKind::Filling
                    | AnswerKind::Own
                    | AnswerKind::Miss
                    | AnswerKind::Behind => PeerAnswer::Miss,
                }
            }
        }
    }
}

impl Lease {
    /// A body for somebody else to read; the connection may be used again when it was read to its end.
    fn pass_on(self, mut body: Incoming) -> OriginBody {
        let (parts, relayed) = relay(body.size_hint());
        tokio::task::spawn_local(async move {
            loop {
                let part = tokio::select! {
                    part = self.part(&mut body) => part,
                    () = parts.closed() => return,
                };
                let is_whole = part.is_none();
                if !parts.send(part).await {
                    if is_whole {
                        self.give_back();
                    }
                    return;
                }
            }
        });
        relayed
    }
}

impl PeerQuestion<'_> {
    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = origin_form(&self.head.uri);
        *request.version_mut() = Version::HTTP_11;
        let fields = request.headers_mut();
        *fields = self.head.headers.clone();
        wire::remove_own_fields(fields);
        self.write(fields);
        self.conditions.into_iter().for_each(|conditions| wire::write_conditions(conditions, fields));
        request
    }

    fn write(&self, fields: &mut HeaderMap) {
        fields.insert(wire::HOP.clone(), HeaderValue::from(self.hop.number()));
        wire::insert(fields, &wire::URL, self.text.to_owned());
        wire::insert(fields, &wire::ROUTE, self.route.to_owned());
        fields.insert(wire::MIN_SEQ.clone(), HeaderValue::from(self.min_seq));
        fields.insert(wire::VIEW.clone(), HeaderValue::from(self.placement_id));
        match self.role {
            Role::Primary => {}
            Role::Deputy => _ = fields.insert(wire::PRIMARY_DOWN.clone(), HeaderValue::from_static("1")),
            Role::Holder => _ = fields.insert(wire::PEEK.clone(), HeaderValue::from_static("1")),
        }
    }
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    path.parse().unwrap_or(Uri::from_static("/"))
}
