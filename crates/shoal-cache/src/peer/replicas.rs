//! The second copy: objects, and chunks of them, are put to the other owner in the background.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustc_hash::FxHashMap;
use shoal_model::NodeId;
use shoal_policy::cache::storage::Terms;
use tokio::sync::mpsc;

use super::client::http1;
use super::wire::{self, InChunks, Meta};
use crate::body::CacheBody;
use crate::clock::now_ms;
use crate::counters::Cells;
use crate::node::TOMBSTONE_LIFE;
use crate::object::{Object, UNCOPIED};
use crate::recent::Recent;
use crate::seam::PeerLink;
use crate::store::Store;

/// Copies on their way at once. Each lane carries one after the other, and all copies of one key take the same lane, its
/// chunks as well: an older one never overtakes a newer one.
const LANES: usize = 16;
/// Objects that wait to be copied in one lane; beyond that their next hit offers them again.
const MAX_WAITING: usize = 256;
/// What all that wait may hold of the memory for objects, one part of so many: what the store has let go of stays here until
/// it is sent.
const WAITING_PART: u64 = 8;
/// Unused connections kept per peer.
const MAX_IDLE: usize = LANES;
/// For one copy, connecting included.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer of a node that cannot take a copy now: it has no room, or has not heard of something yet.
pub(super) const NOT_NOW: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
/// For so long no copy is offered of what was refused: longer than other nodes remember what was to be forgotten.
const REFUSAL_MEMORY: Duration = TOMBSTONE_LIFE.saturating_add(Duration::from_secs(1));
/// Of so many keys.
const MAX_REFUSALS: usize = 10_000;

type Sender = SendRequest<CacheBody>;

/// Objects on their way to the other owner.
pub(crate) struct Replicas {
    lanes: [mpsc::Sender<Waiting>; LANES],
    courier: Arc<Courier>,
    waiting_bytes: Arc<AtomicU64>,
    most_waiting_bytes: u64,
}

/// A copy and where it goes.
pub(crate) struct Parcel {
    /// What it is a copy of, which may be a chunk.
    pub(crate) object: Arc<Object>,
    /// On which terms the other node may keep it; `None` = on its own.
    pub(crate) terms: Option<Terms>,
    pub(crate) peer: NodeId,
}

/// A copy that waits, and is counted until it is sent.
struct Waiting {
    parcel: Parcel,
    bytes: u64,
    waiting_bytes: Arc<AtomicU64>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What every sending task shares.
struct Courier {
    store: Arc<Store>,
    link: Arc<dyn PeerLink>,
    cells: Arc<Cells>,
    /// Whose copies were refused a moment ago.
    refused: Recent<()>,
    idle: Mutex<FxHashMap<NodeId, Vec<Sender>>>,
}

impl Replicas {
    /// Starts sending, on the runtime this is called on. It ends when the cache is dropped.
    /// `ram_bytes`: for objects.
    pub(crate) fn start(
        link: Arc<dyn PeerLink>,
        store: Arc<Store>,
        cells: Arc<Cells>,
        ram_bytes: u64,
    ) -> Self {
        let refused = Recent::new(REFUSAL_MEMORY, MAX_REFUSALS);
        let courier = Arc::new(Courier { store, link, cells, refused, idle: Mutex::default() });
        let lane = |_| {
            let (lane, mut waiting) = mpsc::channel::<Waiting>(MAX_WAITING);
            let courier = courier.clone();
            tokio::spawn(async move {
                while let Some(waiting) = waiting.recv().await {
                    courier.deliver(&waiting.parcel).await;
                }
            });
            lane
        };
        Self {
            lanes: std::array::from_fn(lane),
            courier: courier.clone(),
            waiting_bytes: Arc::default(),
            most_waiting_bytes: ram_bytes / WAITING_PART,
        }
    }

    /// Queues a copy; false = not now: its lane is full, too much waits already, or one like it was refused a moment ago. What
    /// is large goes when nothing else waits.
    pub(crate) fn offer(&self, parcel: Parcel) -> bool {
        let home = parcel.object.home();
        if self.courier.refused.of(home).is_some() {
            return false;
        }
        let bytes = parcel.object.body_bytes;
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Waiting { parcel, bytes, waiting_bytes: self.waiting_bytes.clone() };
        let has_room = before == 0 || before + bytes <= self.most_waiting_bytes;
        has_room && self.lanes[home.0 as usize % LANES].try_send(waiting).is_ok()
    }

    /// Sends a copy past the queue.
    pub(crate) fn deliver(&self, parcel: Parcel) -> impl Future<Output = ()> + Send + use<> {
        let courier = self.courier.clone();
        async move { courier.deliver(&parcel).await }
    }
}

impl Courier {
    async fn deliver(&self, parcel: &Parcel) {
        let Parcel { object, peer, .. } = parcel;
        // What was forgotten or replaced while it waited is not worth a copy any more.
        let Some(header) = self.store.object_of(object) else {
            object.copied_under.store(UNCOPIED, Ordering::Relaxed);
            return;
        };
        match tokio::time::timeout(SEND_TIMEOUT, self.send(parcel, &header)).await {
            Ok(Ok(())) => self.cells.replicas_sent.count(),
            outcome => {
                tracing::debug!(%peer, ?outcome, key = %object.key, "a copy was not delivered");
                // Its next hit offers it again.
                object.copied_under.store(UNCOPIED, Ordering::Relaxed);
            }
        }
    }

    /// `header`: the object, or the one that it is a chunk of.
    async fn send(&self, parcel: &Parcel, header: &Object) -> Result<(), hyper::Error> {
        let Parcel { object, peer, .. } = parcel;
        while let Some(sender) = self.take_idle(*peer) {
            if self.send_over(sender, parcel, header).await.is_ok() {
                return Ok(());
            }
        }
        let Ok(io) = self.link.connect(*peer).await else {
            object.copied_under.store(UNCOPIED, Ordering::Relaxed);
            return Ok(());
        };
        let (sender, connection) = http1().handshake(TokioIo::new(io)).await?;
        tokio::spawn(connection);
        self.send_over(sender, parcel, header).await
    }

    async fn send_over(
        &self,
        mut sender: Sender,
        parcel: &Parcel,
        header: &Object,
    ) -> Result<(), hyper::Error> {
        let Parcel { object, peer, .. } = parcel;
        let mut refusal = put(&mut sender, replica_request(parcel, header)).await?;
        if let Some(received_ms) = refusal.as_ref().and_then(|refusal| received_by_clock_of(refusal, header))
        {
            let mut request = replica_request(parcel, header);
            wire::insert(request.headers_mut(), &wire::RECEIVED, received_ms.to_string());
            refusal = put(&mut sender, request).await?;
        }
        if let Some(refusal) = refusal {
            // It may be newer all the same than what the other node was told to forget: one moment cannot be told from
            // another within a millisecond, nor within the time that a copy takes. Later nobody doubts it.
            // That it cannot be taken now says nothing of it.
            if refusal.status != NOT_NOW {
                self.refused.note(object.home(), ());
            }
            object.copied_under.store(UNCOPIED, Ordering::Relaxed);
            tracing::debug!(%peer, status = refusal.status.as_u16(), key = %object.key, "a copy was refused");
        }
        if !sender.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = idle.entry(*peer).or_default();
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

/// What is said of a chunk is said of its object: there it may be the first that is heard of that.
fn replica_request(parcel: &Parcel, header: &Object) -> Request<CacheBody> {
    let in_chunks = header.chunked().map(|chunked| {
        let number = parcel.object.chunk_of().map(|of| of.number);
        InChunks { length: chunked.length(), number }
    });
    let body = match in_chunks {
        Some(InChunks { number: None, .. }) => CacheBody::empty(),
        Some(InChunks { number: Some(_), .. }) | None => CacheBody::stored(&parcel.object),
    };
    let mut request = Request::new(body);
    *request.method_mut() = Method::PUT;
    let path = if in_chunks.is_some() { wire::CHUNK_PATH } else { wire::REPLICA_PATH };
    *request.uri_mut() = http::Uri::from_static(path);
    let fields = request.headers_mut();
    *fields = header.fields.to_map(wire::OWN_FIELDS);
    if let Some(in_chunks) = in_chunks {
        // That of the whole says nothing of the body of this request.
        fields.remove(CONTENT_LENGTH);
        in_chunks.write(fields);
    }
    wire::insert(fields, &wire::URL, header.text.to_string());
    wire::insert(fields, &wire::STATUS, header.status.as_str().to_owned());
    wire::write_selecting(header.selecting(), fields);
    let terms = parcel.terms.unwrap_or(header.terms);
    Meta::of(terms, header.tags(), header.fill_seq, &header.checked_seq).write(fields, now_ms());
    request
}
