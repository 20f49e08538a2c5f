//! The second copy: objects are put to the other owner in the background, and taken in from it.

use std::cmp::Ordering;
use std::sync::atomic::{self, AtomicU64};
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
use tokio::sync::mpsc;

use super::client::http1;
use super::server::refuse;
use super::wire::{self, Meta};
use crate::body::CacheBody;
use crate::clock::now_ms;
use crate::counters::Cells;
use crate::node::Cache;
use crate::object::{Object, UNCOPIED, compact};
use crate::seam::PeerLink;
use crate::store::Store;

/// Copies on their way at once. Each lane carries one after the other, and all copies of one key take the same lane: an
/// older one never overtakes a newer one.
const LANES: usize = 16;
/// Objects that wait to be copied in one lane; beyond that their next hit offers them again.
const MAX_WAITING: usize = 256;
/// Unused connections kept per peer.
const MAX_IDLE: usize = LANES;
/// For one copy, connecting included.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The same in milliseconds.
const TRANSIT_MS: u64 = SEND_TIMEOUT.as_millis() as u64;

type Sender = SendRequest<CacheBody>;

/// Objects on their way to the other owner.
pub(crate) struct Replicas {
    lanes: [mpsc::Sender<(Arc<Object>, NodeId)>; LANES],
}

/// What every sending task shares.
struct Courier {
    store: Arc<Store>,
    link: Arc<dyn PeerLink>,
    cells: Arc<Cells>,
    idle: Mutex<FxHashMap<NodeId, Vec<Sender>>>,
}

impl Replicas {
    /// Starts sending, on the runtime this is called on. It ends when the cache is dropped.
    pub(crate) fn start(link: Arc<dyn PeerLink>, store: Arc<Store>, cells: Arc<Cells>) -> Self {
        let courier = Arc::new(Courier { store, link, cells, idle: Mutex::default() });
        let lane = |_| {
            let (lane, mut waiting) = mpsc::channel::<(Arc<Object>, NodeId)>(MAX_WAITING);
            let courier = courier.clone();
            tokio::spawn(async move {
                while let Some((object, peer)) = waiting.recv().await {
                    courier.deliver(&object, peer).await;
                }
            });
            lane
        };
        Self { lanes: std::array::from_fn(lane) }
    }

    /// Queues a copy; false = its lane is full.
    pub(crate) fn offer(&self, object: Arc<Object>, peer: NodeId) -> bool {
        self.lanes[object.key.0 as usize % LANES].try_send((object, peer)).is_ok()
    }
}

impl Courier {
    async fn deliver(&self, object: &Arc<Object>, peer: NodeId) {
        // What was forgotten or replaced while it waited is not worth a copy any more.
        if !self.store.holds(object) {
            return;
        }
        match tokio::time::timeout(SEND_TIMEOUT, self.send(object, peer)).await {
            Ok(Ok(())) => self.cells.replicas_sent.count(),
            outcome => {
                tracing::debug!(%peer, ?outcome, key = %object.key, "a copy was not delivered");
                // Its next hit offers it again.
                object.copied_under.store(UNCOPIED, atomic::Ordering::Relaxed);
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
            object.copied_under.store(UNCOPIED, atomic::Ordering::Relaxed);
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
    let Some(object) = read_replica(cache, peer, &head.headers, body.to_bytes()) else {
        tracing::debug!(%peer, "a copy could not be read");
        return refuse(StatusCode::BAD_REQUEST);
    };
    let received_ms = wire::read_number(&head.headers, &wire::RECEIVED);
    let mut response = Response::new(CacheBody::empty());
    match take_in(cache, peer, &object, received_ms) {
        Order::Newer => {
            cache.cells.replicas_received.count();
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        Order::Older => *response.status_mut() = StatusCode::CONFLICT,
        Order::Unknown => {
            *response.status_mut() = StatusCode::CONFLICT;
            wire::insert(response.headers_mut(), &wire::CLOCK, now_ms().to_string());
        }
    }
    response
}

/// Stores a copy if it is newer than all that this node knows of its key. `received_ms`: when its response was received,
/// at the earliest, by the clock of this node.
fn take_in(cache: &Cache, peer: NodeId, object: &Arc<Object>, received_ms: Option<u64>) -> Order {
    if cache.purges.check(object).is_none() {
        return Order::Older;
    }
    // A duration grows on its way: what seems newer than a change may be older by as long as a copy may take.
    let earliest_ms = received_ms.unwrap_or(object.terms.response_ms.saturating_sub(TRANSIT_MS));
    let is_changed = || cache.changed_since(object.key, earliest_ms);
    let unless_told = if received_ms.is_some() { Order::Older } else { Order::Unknown };
    if is_changed() {
        return unless_told;
    }
    let mut order = Order::Newer;
    let is_in = cache.store.insert_if(object, |known| {
        let known =
            Known { date: known.terms.date, received_ms: known.terms.response_ms, from: known.copied_from };
        order = known.order(object.terms.date, peer, received_ms);
        order == Order::Newer
    });
    // A change between the two lines above has not seen it.
    if is_in && is_changed() {
        cache.store.remove(object);
        return unless_told;
    }
    order
}

/// How a copy stands to what this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Newer,
    Older,
    /// It depends on when its response was received, and that was not said yet.
    Unknown,
}

/// The object that a copy would take the place of.
struct Known {
    date: u64,
    received_ms: u64,
    from: Option<NodeId>,
}

impl Known {
    /// How a copy from `peer` stands to it. `Date` counts whole seconds: within one, copies of one node come in the order in
    /// which it stored them, and for others the time of receipt decides.
    fn order(&self, date: u64, peer: NodeId, received_ms: Option<u64>) -> Order {
        match date.cmp(&self.date) {
            Ordering::Greater => Order::Newer,
            Ordering::Less => Order::Older,
            Ordering::Equal if self.from == Some(peer) => Order::Newer,
            Ordering::Equal => match received_ms {
                None => Order::Unknown,
                Some(received_ms) if received_ms >= self.received_ms => Order::Newer,
                Some(_) => Order::Older,
            },
        }
    }
}

fn read_replica(cache: &Cache, peer: NodeId, fields: &http::HeaderMap, body: Bytes) -> Option<Arc<Object>> {
    let now_ms = now_ms();
    let meta = Meta::read(fields, now_ms)?;
    let text = wire::read_text(fields, &wire::URL)?;
    let key = ObjectKey::of_text(cache.settings.key_seed, text);
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
        copied_from: Some(peer),
        copied_under: AtomicU64::new(cache.placement.id()),
    };
    Some(object.seal())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_a_second_the_clock_of_the_receiver_decides_between_nodes() {
        let (one, other) = (NodeId(1), NodeId(2));
        let check = |from: Option<NodeId>, date, received_ms, expected| {
            let known = Known { date: 10, received_ms: 10_500, from };
            assert_eq!(known.order(date, one, received_ms), expected, "{from:?} {date} {received_ms:?}");
        };
        for from in [None, Some(one), Some(other)] {
            check(from, 11, None, Order::Newer);
            check(from, 9, None, Order::Older);
            check(from, 9, Some(10_900), Order::Older);
        }
        check(Some(one), 10, None, Order::Newer);
        for from in [None, Some(other)] {
            check(from, 10, None, Order::Unknown);
            check(from, 10, Some(10_499), Order::Older);
            check(from, 10, Some(10_500), Order::Newer);
        }
    }
}
