//! Taking in the copies that another owner sends.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use shoal_model::NodeId;
use shoal_model::site::Replicate;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::purge::Subject;
use shoal_policy::cache::stored_fields::StoredFields;

use super::replicas::SEND_TIMEOUT;
use super::wire::{self, Meta};
use crate::body::CacheBody;
use crate::clock::now_ms;
use crate::node::Cache;
use crate::object::{Object, OnDisk, Rare};
use crate::stored_body::StoredBody;

/// For how long a copy may have been on its way, in milliseconds.
const TRANSIT_MS: u64 = SEND_TIMEOUT.as_millis() as u64;

/// Takes a copy in. It is stored only if nothing this node knows of says otherwise. `Err` = it cannot be read.
pub(super) async fn receive(
    cache: &Arc<Cache>,
    peer: NodeId,
    request: Request<Incoming>,
) -> Result<Response<CacheBody>, StatusCode> {
    if cache.is_retired() {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let (head, body) = request.into_parts();
    let most = usize::try_from(cache.settings.ram_bytes / 2).unwrap_or(usize::MAX);
    let Ok(body) = Limited::new(body, most).collect().await else {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let Some(object) = read_replica(cache, peer, &head.headers, body.to_bytes()) else {
        tracing::debug!(%peer, "a copy could not be read");
        return Err(StatusCode::BAD_REQUEST);
    };
    // It may be newer than what the disk has, or older.
    cache.load(object.key).await;
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
    Ok(response)
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
        if cache.purges.rank(known).is_valid && !cache.purges.rank(object).is_valid {
            order = Order::Older;
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
    // Copies are whole and final: no node sends anything else, and what is a part must not become a whole.
    let is_stored = matches!(status.as_u16(), 200..=599)
        && !matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    if !is_stored {
        return None;
    }
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
        body: StoredBody::whole(&[body]),
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
