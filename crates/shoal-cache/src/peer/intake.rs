//! Taking in the copies that another owner sends.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use shoal_model::NodeId;
use shoal_model::site::Replicate;
use shoal_policy::cache::chunks::{CHUNK_BYTES, chunk};
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::purge::Subject;
use shoal_policy::cache::reuse::Freshened;
use shoal_policy::cache::stored_fields::StoredFields;
use tokio::time::timeout;

use super::intake_room::Held;
use super::replicas::{NOT_NOW, SEND_TIMEOUT};
use super::wire::{self, BEHIND_WAIT, InChunks, Meta};
use crate::body::CacheBody;
use crate::chunks::{Chunked, Copied, have_same_chunks, new_chunk};
use crate::clock::now_ms;
use crate::node::Cache;
use crate::object::{Object, OnDisk, Rare};
use crate::stored_body::StoredBody;

/// For how long a copy may have been on its way, in milliseconds.
const TRANSIT_MS: u64 = SEND_TIMEOUT.as_millis() as u64;

/// What a copy is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole object.
    Whole,
    /// An object that lies in chunks, or one of them.
    InChunks,
}

impl Kind {
    pub(super) fn of_path(path: &str) -> Option<Self> {
        match path {
            wire::REPLICA_PATH => Some(Self::Whole),
            wire::CHUNK_PATH => Some(Self::InChunks),
            _ => None,
        }
    }

    /// The largest body of one, bytes.
    fn most_bytes(self, cache: &Cache) -> u64 {
        match self {
            Self::Whole => cache.settings.ram_bytes / 2,
            Self::InChunks => CHUNK_BYTES,
        }
    }
}

/// A copy that was read.
struct Copy {
    object: Arc<Object>,
    /// A chunk of the object, and what it has.
    chunk: Option<(u64, Vec<Bytes>)>,
}

/// Takes a copy in. It is stored only if nothing this node knows of says otherwise. `Err` = it cannot be read.
pub(super) async fn receive(
    cache: &Arc<Cache>,
    peer: NodeId,
    kind: Kind,
    request: Request<Incoming>,
) -> Result<Response<CacheBody>, StatusCode> {
    if cache.is_retired() {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let (head, body) = request.into_parts();
    // What it holds here counts until the store has it.
    let mut held = cache.intake_room.enter();
    let reading = read_body(body, kind.most_bytes(cache), &mut held);
    let pieces = match timeout(SEND_TIMEOUT, reading).await {
        Ok(Ok(pieces)) => pieces,
        Ok(Err(status)) => {
            if status == NOT_NOW {
                cache.cells.replicas_refused.count();
            }
            return Err(status);
        }
        // Whoever sends it has given up as well.
        Err(_) => return Err(StatusCode::REQUEST_TIMEOUT),
    };
    let Some(copy) = read_copy(cache, peer, kind, &head.headers, pieces) else {
        tracing::debug!(%peer, ?kind, "a copy could not be read");
        return Err(StatusCode::BAD_REQUEST);
    };
    // What this node has may be purged by what its sender has heard of already: until then it goes with no chunk.
    if kind == Kind::InChunks && !cache.purges.reached(copy.object.fill_seq, BEHIND_WAIT).await {
        return Err(NOT_NOW);
    }
    // It may be newer than what the disk has, or older.
    cache.load(copy.object.key).await;
    let received_ms = wire::read_number(&head.headers, &wire::RECEIVED);
    let mut response = Response::new(CacheBody::empty());
    match take_in(cache, peer, &copy, received_ms) {
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
    Ok(response)
}

/// Reads the body of a copy, at most `most_bytes` of it. What there is no room for is read and dropped, so that its
/// connection can be used again.
async fn read_body(
    mut body: Incoming,
    most_bytes: u64,
    held: &mut Held<'_>,
) -> Result<Vec<Bytes>, StatusCode> {
    let mut bytes = body.size_hint().exact().unwrap_or(0);
    if bytes > most_bytes {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    // All of it at first: two that have a half of it each would both end with nothing.
    let mut has_room = held.grow_to(bytes);
    let (mut pieces, mut read_bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() else { continue };
        read_bytes += piece.len() as u64;
        if read_bytes > most_bytes {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        if has_room && read_bytes > bytes {
            bytes = read_bytes;
            has_room = held.grow_to(bytes);
        }
        match has_room {
            true => pieces.push(piece),
            false => pieces.clear(),
        }
    }
    if has_room { Ok(pieces) } else { Err(NOT_NOW) }
}

/// Stores a copy if it is newer than all that this node knows of its key; a chunk also if that is of the same version.
/// `received_ms`: when its response was received, at the earliest, by the clock of this node.
fn take_in(cache: &Cache, peer: NodeId, copy: &Copy, received_ms: Option<u64>) -> Order {
    let object = &copy.object;
    let Some(freshened) = cache.purges.check(object) else { return Order::Older };
    // What may have been purged gives no chunks to what is not.
    let has_chunk = copy.chunk.is_some() && freshened == Freshened::Untouched;
    // A duration grows on its way: what seems newer than a change may be older by as long as a copy may take.
    let earliest_ms = received_ms.unwrap_or(object.terms.response_ms.saturating_sub(TRANSIT_MS));
    let is_changed = || cache.changed_since(object.key, earliest_ms);
    let unless_told = if received_ms.is_some() { Order::Older } else { Order::Unknown };
    if is_changed() {
        return unless_told;
    }
    if has_chunk && take_chunk(cache, peer, copy) {
        return Order::Newer;
    }
    // The chunks that are here stay with what is newer of the same version.
    let known = known_like(cache, object);
    let object = &known.as_ref().map_or_else(|| object.clone(), |known| object.with_body(known.body.clone()));
    let mut order = Order::Newer;
    let is_in = cache.store.insert_if(object, |known| {
        if cache.purges.rank(known).is_valid && !cache.purges.rank(object).is_valid {
            order = Order::Older;
            return false;
        }
        if is_other_row(known, object) {
            return false;
        }
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
    if is_in {
        cache.write(object, is_changed);
    }
    if has_chunk && take_chunk(cache, peer, copy) {
        return Order::Newer;
    }
    // What is here of the same version will do.
    if known.is_some() { Order::Newer } else { order }
}

/// Both lie in chunks of the same version, but under other keys: another copy of it has come in meanwhile, and its chunks
/// would be lost.
fn is_other_row(known: &Object, object: &Object) -> bool {
    let first = |object: &Object| object.chunked().map(Chunked::first_key);
    have_same_chunks(known, object) && first(known) != first(object)
}

/// What is stored of the version of `object`, which lies in chunks, and may be used beside it: nothing, as long as this node
/// has not heard of every purge that `object` has.
fn known_like(cache: &Cache, object: &Object) -> Option<Arc<Object>> {
    if object.fill_seq > cache.purges.applied() {
        return None;
    }
    let known = cache.store.peek(object.key)?;
    let is_like = |known: &&Arc<Object>| {
        known.has_place_of(object)
            && have_same_chunks(known, object)
            && cache.purges.check(known) == Some(Freshened::Untouched)
    };
    known.objects().iter().find(is_like).cloned()
}

/// Stores a chunk with what is stored of the version that it is of; `false` = there is nothing of it.
fn take_chunk(cache: &Cache, peer: NodeId, copy: &Copy) -> bool {
    let Some((number, pieces)) = &copy.chunk else { return false };
    let Some(header) = known_like(cache, &copy.object) else { return false };
    let is_there = header.chunked().is_some_and(|chunked| chunked.find(*number).is_some());
    let copied = Copied { from: Some(peer), under: cache.placement.id() };
    if !is_there && let Some(chunk) = new_chunk(&header, *number, pieces, copied) {
        cache.keep_chunk(&chunk);
    }
    true
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

fn read_copy(
    cache: &Cache,
    peer: NodeId,
    kind: Kind,
    fields: &http::HeaderMap,
    pieces: Vec<Bytes>,
) -> Option<Copy> {
    let now_ms = now_ms();
    let meta = Meta::read(fields, now_ms)?;
    let text = wire::read_text(fields, &wire::URL)?;
    let key = ObjectKey::of_text(cache.settings.key_seed, text);
    let subject =
        Subject { key, text, tags: &meta.tags, fill_seq: meta.fill_seq, checked_seq: meta.checked_seq };
    cache.purges.check_subject(&subject)?;
    let status = StatusCode::from_bytes(wire::read_text(fields, &wire::STATUS)?.as_bytes()).ok()?;
    // Copies are whole and final: no node sends anything else, and what is a part must not become a whole.
    let is_stored = matches!(status.as_u16(), 200..=599)
        && !matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    if !is_stored {
        return None;
    }
    let (body, chunk) = match kind {
        Kind::Whole => (StoredBody::whole(&pieces), None),
        Kind::InChunks => {
            let InChunks { length, number } = InChunks::read(fields)?;
            let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
            let chunk = match number {
                Some(number) if chunk(number, length)?.bytes() == bytes => Some((number, pieces)),
                None if bytes == 0 => None,
                Some(_) | None => return None,
            };
            (StoredBody::Chunked(Chunked::begin(key, length, &cache.store).into()), chunk)
        }
    };
    let selecting = wire::read_selecting(fields)?;
    let mut kept = stored_fields(fields, &[]);
    wire::remove_own_fields(&mut kept);
    let object = Object {
        key,
        text: text.into(),
        status,
        fields: StoredFields::of(&kept),
        terms: meta.terms,
        rare: Rare::of(selecting, &meta.tags, None),
        body,
        body_bytes: 0,
        fill_seq: meta.fill_seq,
        checked_seq: AtomicU64::new(meta.checked_seq),
        replicate: Replicate::Auto,
        hits: AtomicU32::new(0),
        edition: AtomicU32::new(0),
        used_ms: AtomicU64::new(now_ms),
        heat: AtomicU64::new(0),
        copied_from: Some(peer),
        copied_under: AtomicU64::new(cache.placement.id()),
        disk: OnDisk::default(),
    };
    let object = object.seal();
    // Only by a strong validator do chunks belong to each other.
    let is_version = object.chunked().is_none() || have_same_chunks(&object, &object);
    is_version.then_some(Copy { object, chunk })
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
