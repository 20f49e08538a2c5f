//! The second copy: objects are put to the other owner in the background, and taken in from it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustc_hash::FxHashMap;
use shoal_model::NodeId;
use shoal_model::site::Replicate;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::purge::Subject;
use tokio::sync::{Semaphore, mpsc};

use super::client::http1;
use super::server::refuse;
use super::wire::{self, Meta};
use crate::body::CacheBody;
use crate::clock::now_ms;
use crate::counters::Cells;
use crate::node::Cache;
use crate::object::{Object, UNCOPIED, compact};
use crate::seam::PeerLink;

/// Objects that wait to be copied; beyond that their next hit offers them again.
const MAX_WAITING: usize = 4096;
/// Copies on their way at once.
const MAX_SENDING: usize = 16;
/// Unused connections kept per peer.
const MAX_IDLE: usize = MAX_SENDING;
/// For one copy, connecting included.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The same in milliseconds.
const TRANSIT_MS: u64 = SEND_TIMEOUT.as_millis() as u64;

type Sender = SendRequest<CacheBody>;

/// Objects on their way to the other owner.
pub(crate) struct Replicas {
    queue: mpsc::Sender<(Arc<Object>, NodeId)>,
}

/// What every sending task shares.
struct Courier {
    link: Arc<dyn PeerLink>,
    cells: Arc<Cells>,
    idle: Mutex<FxHashMap<NodeId, Vec<Sender>>>,
}

impl Replicas {
    /// Starts sending, on the runtime this is called on. It ends when the cache is dropped.
    pub(crate) fn start(link: Arc<dyn PeerLink>, cells: Arc<Cells>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(Arc<Object>, NodeId)>(MAX_WAITING);
        let courier = Arc::new(Courier { link, cells, idle: Mutex::default() });
        let places = Arc::new(Semaphore::new(MAX_SENDING));
        tokio::spawn(async move {
            while let Some((object, peer)) = waiting.recv().await {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let courier = courier.clone();
                tokio::spawn(async move {
                    courier.deliver(&object, peer).await;
                    drop(place);
                });
            }
        });
        Self { queue }
    }

    /// Queues a copy; false = the queue is full.
    pub(crate) fn offer(&self, object: Arc<Object>, peer: NodeId) -> bool {
        self.queue.try_send((object, peer)).is_ok()
    }
}

impl Courier {
    async fn deliver(&self, object: &Object, peer: NodeId) {
        match tokio::time::timeout(SEND_TIMEOUT, self.send(object, peer)).await {
            Ok(Ok(())) => self.cells.replicas_sent.count(),
            outcome => {
                tracing::debug!(%peer, ?outcome, key = %object.key, "a copy was not delivered");
                // Its next hit offers it again.
                object.copied_under.store(UNCOPIED, Ordering::Relaxed);
            }
        }
    }

    async fn send(&self, object: &Object, peer: NodeId) -> Result<(), hyper::Error> {
        while let Some(sender) = self.take_idle(peer) {
            if self.send_over(sender, object, peer).await.is_ok() {
                return Ok(());
            }
        }
        let Ok(io) = self.link.connect(peer).await else {
            object.copied_under.store(UNCOPIED, Ordering::Relaxed);
            return Ok(());
        };
        let (sender, connection) = http1().handshake(TokioIo::new(io)).await?;
        tokio::spawn(connection);
        self.send_over(sender, object, peer).await
    }

    async fn send_over(&self, mut sender: Sender, object: &Object, peer: NodeId) -> Result<(), hyper::Error> {
        let mut refusal = put(&mut sender, replica_request(object)).await?;
        if let Some(received_ms) = refusal.as_ref().and_then(|refusal| received_by_clock_of(refusal, object))
        {
            let mut request = replica_request(object);
            wire::insert(request.headers_mut(), &wire::RECEIVED, received_ms.to_string());
            refusal = put(&mut sender, request).await?;
        }
        if let Some(refusal) = refusal {
            tracing::debug!(%peer, status = refusal.status.as_u16(), key = %object.key, "a copy was refused");
        }
        if !sender.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = idle.entry(peer).or_default();
            if idle.len() < MAX_IDLE {
                idle.push(sender);
            }
        }
        Ok(())
    }

    fn take_idle(&self, peer: NodeId) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = idle.get_mut(&peer)?;
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed() && sender.is_ready())
    }
}

/// Puts one copy; what comes back is the refusal, if it was refused.
async fn put(sender: &mut Sender, request: Request<CacheBody>) -> Result<Option<Parts>, hyper::Error> {
    let (head, body) = sender.send_request(request).await?.into_parts();
    // Empty; reading its end makes the connection usable again.
    body.collect().await?;
    sender.ready().await?;
    Ok((!head.status.is_success()).then_some(head))
}

/// When `object` was received, by the clock of the node that refused it: early by the time that its refusal took, but
/// never late. `None` = it did not ask.
fn received_by_clock_of(refusal: &Parts, object: &Object) -> Option<u64> {
    let resident_ms = now_ms().saturating_sub(object.terms.response_ms);
    Some(wire::read_number(&refusal.headers, &wire::CLOCK)?.saturating_sub(resident_ms))
}

fn replica_request(object: &Object) -> Request<CacheBody> {
    let mut request = Request::new(CacheBody::stored(object));
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = http::Uri::from_static(wire::REPLICA_PATH);
    let fields = request.headers_mut();
    *fields = object.fields.clone();
    wire::insert(fields, &wire::URL, object.text.to_string());
    wire::insert(fields, &wire::STATUS, object.status.as_str().to_owned());
    wire::write_selecting(&object.selecting, fields);
    Meta::of(object.terms, &object.tags, object.fill_seq, &object.checked_seq).write(fields, now_ms());
    request
}

/// Takes a copy in. It is stored only if nothing this node knows of says otherwise.
pub(super) async fn receive(
    cache: &Arc<Cache>,
    peer: NodeId,
    request: Request<Incoming>,
) -> Response<CacheBody> {
    let (head, body) = request.into_parts();
    let most = usize::try_from(cache.settings.ram_bytes / 2).unwrap_or(usize::MAX);
    let Ok(body) = Limited::new(body, most).collect().await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let Some(object) = read_replica(cache, &head.headers, body.to_bytes()) else {
        tracing::debug!(%peer, "a copy could not be read");
        return refuse(StatusCode::BAD_REQUEST);
    };
    let is_valid = cache.purges.check(&object).is_some();
    let is_newer = cache.store.find(object.key).is_none_or(|known| {
        let same = known.objects.iter().find(|known| known.selecting == object.selecting);
        same.is_none_or(|known| known.terms.date <= object.terms.date)
    });
    if !is_valid || !is_newer {
        return refuse(StatusCode::CONFLICT);
    }
    // A duration grows on its way: what seems newer than a change may be older by as long as a copy may take.
    let received_ms = wire::read_number(&head.headers, &wire::RECEIVED);
    let earliest_ms = received_ms.unwrap_or(object.terms.response_ms.saturating_sub(TRANSIT_MS));
    if cache.changed_since(object.key, earliest_ms) {
        let mut refusal = refuse(StatusCode::CONFLICT);
        if received_ms.is_none() {
            wire::insert(refusal.headers_mut(), &wire::CLOCK, now_ms().to_string());
        }
        return refusal;
    }
    cache.store.insert(object);
    cache.cells.replicas_received.count();
    let mut response = Response::new(CacheBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn read_replica(cache: &Cache, fields: &http::HeaderMap, body: Bytes) -> Option<Arc<Object>> {
    let now_ms = now_ms();
    let meta = Meta::read(fields, now_ms)?;
    let text = wire::read_text(fields, &wire::URL)?;
    let key = ObjectKey::of(cache.settings.key_seed, text.as_bytes());
    let subject =
        Subject { key, text, tags: &meta.tags, fill_seq: meta.fill_seq, checked_seq: meta.checked_seq };
    cache.purges.check_subject(&subject)?;
    let status = StatusCode::from_bytes(wire::read_text(fields, &wire::STATUS)?.as_bytes()).ok()?;
    let selecting = wire::read_selecting(fields)?;
    let mut kept = stored_fields(fields, &[]);
    wire::remove_own_fields(&mut kept);
    let object = Object {
        key,
        text: text.into(),
        selecting,
        status,
        fields: kept,
        terms: meta.terms,
        tags: meta.tags,
        body: compact(&[body]),
        body_bytes: 0,
        fill_seq: meta.fill_seq,
        checked_seq: AtomicU64::new(meta.checked_seq),
        replicate: Replicate::Auto,
        hits: AtomicU64::new(0),
        used_ms: AtomicU64::new(now_ms),
        copied_under: AtomicU64::new(cache.placement.id()),
    };
    Some(object.seal())
}
