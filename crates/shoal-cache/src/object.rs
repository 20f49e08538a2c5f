//! A stored response, and the others that share its key.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, Method, StatusCode};
use shoal_model::NodeId;
use shoal_model::site::Replicate;
use shoal_policy::cache::condition::is_not_modified;
use shoal_policy::cache::fields::lines_bytes;
use shoal_policy::cache::keeping::useless_at_ms;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::preference::Candidate;
use shoal_policy::cache::purge::Subject;
use shoal_policy::cache::range::{Extract, judge_part, judge_range};
use shoal_policy::cache::selecting::{Selecting, Selector};
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::stored_fields::StoredFields;
use shoal_policy::cache::validation::{has_validator, merged_fields};

use crate::chunks::{ChunkOf, Chunked, Cut};
use crate::disk::DiskBody;
use crate::hot::Share;
use crate::residents::PLACE_BYTES;
use crate::stored_body::StoredBody;

/// There may be millions of them: what is not in all of them lies elsewhere.
const _: () = assert!(size_of::<Object>() + COUNTS_BYTES <= 256);

/// In front of what an [`Arc`] leads to.
pub(crate) const COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// No second copy is known of.
pub(crate) const UNCOPIED: u64 = u64::MAX;

/// A stored response.
pub(crate) struct Object {
    pub(crate) key: ObjectKey,
    /// The text of the key: URL and route.
    pub(crate) text: Box<str>,
    pub(crate) status: StatusCode,
    pub(crate) fields: StoredFields,
    pub(crate) terms: Terms,
    pub(crate) rare: Rare,
    pub(crate) body: StoredBody,
    /// Bytes of the body that are here, those of its chunks left out.
    pub(crate) body_bytes: u64,
    /// The log index the filler had applied when it asked the origin.
    pub(crate) fill_seq: u64,
    /// The log index up to which this copy is known to be valid.
    pub(crate) checked_seq: AtomicU64,
    pub(crate) replicate: Replicate,
    pub(crate) hits: AtomicU32,
    /// Counts the times at which it was the only one of its key and then was not, or was gone.
    pub(crate) edition: AtomicU32,
    /// When it was last used, Unix milliseconds, roughly.
    pub(crate) used_ms: AtomicU64,
    /// How much peers ask for it: [`shoal_policy::cache::heat::Heat`].
    pub(crate) heat: AtomicU64,
    /// The node that put it here as a copy.
    pub(crate) copied_from: Option<NodeId>,
    /// The placement under which its second copy is known to be where it belongs, or [`UNCOPIED`].
    pub(crate) copied_under: AtomicU64,
    pub(crate) disk: OnDisk,
}

/// What few objects have: it takes up room only in those.
#[derive(Default)]
pub(crate) struct Rare(Option<Box<Extras>>);

#[derive(Default)]
struct Extras {
    selecting: Selecting,
    /// Scopes of its tags, sorted.
    tags: Box<[u64]>,
    /// It is not owned here, but in so much use that a copy is kept: its part of the memory for such copies.
    promoted: Option<Share>,
    /// It is a chunk of the body of an object.
    chunk_of: Option<ChunkOf>,
}

/// Of what fits every request.
static UNSELECTIVE: LazyLock<Selecting> = LazyLock::new(Selecting::default);

impl Rare {
    pub(crate) fn of(selecting: Selecting, tags: &[u64], promoted: Option<Share>) -> Self {
        let is_usual = selecting.is_empty() && tags.is_empty() && promoted.is_none();
        Self((!is_usual).then(|| Box::new(Extras { selecting, tags: tags.into(), promoted, chunk_of: None })))
    }

    /// Of a chunk of the body of an object with these tags.
    pub(crate) fn of_chunk(chunk_of: ChunkOf, tags: &[u64]) -> Self {
        let extras = Extras { tags: tags.into(), chunk_of: Some(chunk_of), ..Extras::default() };
        Self(Some(Box::new(extras)))
    }
}

/// How an object stands to the disk.
#[derive(Default)]
pub(crate) struct OnDisk {
    /// It was handed to the disk, or came from there, or never will.
    pub(crate) is_seen_to: AtomicBool,
    /// It was read from there, and no answer has said so yet.
    pub(crate) is_untold: AtomicBool,
}

impl OnDisk {
    /// Of an object with this body: one that is on disk stays where it is.
    pub(crate) fn of(body: &StoredBody) -> Self {
        let is_seen_to = matches!(body, StoredBody::OnDisk(_));
        Self { is_seen_to: AtomicBool::new(is_seen_to), is_untold: AtomicBool::new(false) }
    }
}

impl Object {
    /// Makes fields and body agree.
    pub(crate) fn seal(mut self) -> Arc<Self> {
        self.body_bytes = self.body.held_bytes();
        let length = self.body.length();
        self.fields = self.fields.with_length(length.filter(|_| self.status != StatusCode::NO_CONTENT));
        Arc::new(self)
    }

    /// What of a request chooses it.
    pub(crate) fn selecting(&self) -> &Selecting {
        self.rare.0.as_ref().map_or(&*UNSELECTIVE, |extras| &extras.selecting)
    }

    /// Whatever is among `selectors` has chosen it. What has not says nothing of which requests it answers.
    pub(crate) fn is_chosen_by(&self, selectors: &[Selector]) -> bool {
        let known = self.selecting().selectors();
        selectors.iter().all(|selector| known.contains(selector))
    }

    /// Scopes of its tags, sorted.
    pub(crate) fn tags(&self) -> &[u64] {
        self.rare.0.as_ref().map_or(&[], |extras| &extras.tags)
    }

    /// It is not owned here, but in so much use that a copy is kept.
    pub(crate) fn is_promoted(&self) -> bool {
        self.rare.0.as_ref().is_some_and(|extras| extras.promoted.is_some())
    }

    /// What a request gets of it. `None` = it asks for more than is here.
    pub(crate) fn cut(&self, method: &Method, request: &HeaderMap) -> Option<Cut> {
        match &self.body {
            // A range is for GET alone (RFC 9110 §14.2).
            StoredBody::Whole(_) | StoredBody::OnDisk(_) if method == Method::GET => {
                Some(judge_range(request, self.status, &self.fields, self.body_bytes).into())
            }
            StoredBody::Chunked(chunked) if method == Method::GET && !self.is_known_to(request) => {
                chunked.cut(judge_range(request, self.status, &self.fields, chunked.length()))
            }
            // The fields say it all.
            StoredBody::Whole(_) | StoredBody::OnDisk(_) | StoredBody::Chunked(_) => Some(Cut::whole()),
            StoredBody::Spans(spans) if method == Method::GET => {
                judge_part(request, &self.fields, spans.length(), &spans.held()).map(Cut::from)
            }
            StoredBody::Spans(_) => None,
        }
    }

    /// Bytes of its body, if that lies in chunks and a request gets none of them: the fields say it all.
    pub(crate) fn told_length(&self, method: &Method, request: &HeaderMap) -> Option<u64> {
        let length = self.chunked()?.length();
        let is_beyond = || judge_range(request, self.status, &self.fields, length) == Extract::Unsatisfiable;
        (*method != Method::GET || self.is_known_to(request) || is_beyond()).then_some(length)
    }

    /// Whoever asks has it already.
    fn is_known_to(&self, request: &HeaderMap) -> bool {
        is_not_modified(request, self.status, &self.fields, self.terms.date)
    }

    /// Where its chunks are, if it lies in chunks.
    pub(crate) fn chunked(&self) -> Option<&Chunked> {
        match &self.body {
            StoredBody::Chunked(chunked) => Some(&**chunked),
            StoredBody::Whole(_) | StoredBody::OnDisk(_) | StoredBody::Spans(_) => None,
        }
    }

    /// What it is a chunk of; `None` = it is an object.
    pub(crate) fn chunk_of(&self) -> Option<ChunkOf> {
        self.rare.0.as_ref().and_then(|extras| extras.chunk_of)
    }

    /// A copy of it is of use elsewhere: what is a part would be taken for the whole.
    pub(crate) fn is_copyable(&self) -> bool {
        self.body.is_whole() || self.chunked().is_some()
    }

    /// The key of what it is, or belongs to: who owns it and what it is purged by goes by this.
    pub(crate) fn home(&self) -> ObjectKey {
        self.chunk_of().map_or(self.key, |of| of.home)
    }

    /// It answers the same requests as `other`.
    pub(crate) fn has_place_of(&self, other: &Self) -> bool {
        self.text == other.text && self.selecting() == other.selecting()
    }

    /// What is looked at when one of several is chosen.
    pub(crate) fn candidate(&self) -> Candidate<'_, StoredFields> {
        let Terms { date, response_ms, .. } = self.terms;
        Candidate { selecting: self.selecting(), fields: &self.fields, date, response_ms }
    }

    /// It is `other`, wherever the body is.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.fill_seq == other.fill_seq && self.terms == other.terms && self.has_place_of(other))
    }

    /// Its body, if that is on disk and not in memory.
    pub(crate) const fn disk_body(&self) -> Option<&Arc<DiskBody>> {
        match &self.body {
            StoredBody::OnDisk(body) => Some(body),
            StoredBody::Whole(_) | StoredBody::Spans(_) | StoredBody::Chunked(_) => None,
        }
    }

    /// The next answer comes from the disk, not from memory.
    pub(crate) fn is_from_disk(&self) -> bool {
        let is_untold = &self.disk.is_untold;
        self.disk_body().is_some()
            || (is_untold.load(Ordering::Relaxed) && is_untold.swap(false, Ordering::Relaxed))
    }

    /// From when on it is of no use, Unix milliseconds.
    pub(crate) fn useless_at_ms(&self) -> u64 {
        useless_at_ms(&self.terms, has_validator(&self.fields))
    }

    /// What purges look at.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject {
            key: self.home(),
            text: &self.text,
            tags: self.tags(),
            fill_seq: self.fill_seq,
            checked_seq: self.checked_seq.load(Ordering::Relaxed),
        }
    }

    /// Bytes that it takes up in memory.
    pub(crate) fn weight(&self) -> u64 {
        let extras_bytes = self.rare.0.as_ref().map_or(0, |extras| {
            let Extras { selecting, tags, promoted: _, chunk_of: _ } = &**extras;
            allocated_bytes(size_of::<Extras>())
                + allocated_bytes(size_of_val::<[u64]>(tags))
                + selecting.parts().map(selector_bytes).sum::<u64>()
        });
        allocated_bytes(size_of::<Self>() + COUNTS_BYTES)
            + allocated_bytes(self.text.len())
            + allocated_bytes(self.fields.lines().len())
            + self.body.allocated_bytes()
            + extras_bytes
    }

    /// The object with what `part`, a newer response of the same version, has of it besides (RFC 9111 §3.4).
    pub(crate) fn completed(&self, part: &Self) -> Arc<Self> {
        let received = part.fields.to_map(0);
        let fields = StoredFields::of(&merged_fields(self.fields.to_map(received.len()), &received));
        let tags = if part.tags().is_empty() { self.tags() } else { part.tags() };
        let rare = Rare::of(part.selecting().clone(), tags, None);
        self.again(self.body.joined(&part.body), fields, part.terms, rare, part.fill_seq)
    }

    /// The object again with other fields and terms: what a 304 makes of it.
    pub(crate) fn refreshed(
        &self,
        selecting: Selecting,
        fields: StoredFields,
        terms: Terms,
        tags: Box<[u64]>,
        fill_seq: u64,
    ) -> Arc<Self> {
        self.again(self.body.clone(), fields, terms, Rare::of(selecting, &tags, None), fill_seq)
    }

    fn again(
        &self,
        body: StoredBody,
        fields: StoredFields,
        terms: Terms,
        rare: Rare,
        fill_seq: u64,
    ) -> Arc<Self> {
        Self {
            key: self.key,
            text: self.text.clone(),
            status: self.status,
            fields,
            terms,
            rare,
            disk: OnDisk::of(&body),
            body,
            body_bytes: 0,
            fill_seq,
            checked_seq: AtomicU64::new(fill_seq),
            replicate: self.replicate,
            hits: AtomicU32::new(self.hits.load(Ordering::Relaxed)),
            edition: AtomicU32::new(0),
            used_ms: AtomicU64::new(terms.response_ms),
            heat: AtomicU64::new(self.heat.load(Ordering::Relaxed)),
            copied_from: None,
            copied_under: AtomicU64::new(UNCOPIED),
        }
        .seal()
    }

    /// The object again, without its body in memory.
    pub(crate) fn with_body_on_disk(&self, body: Arc<DiskBody>) -> Arc<Self> {
        self.with_body(StoredBody::OnDisk(body))
    }

    /// The object again, with the same body in another place.
    pub(crate) fn with_body(&self, body: StoredBody) -> Arc<Self> {
        let read = |number: &AtomicU64| AtomicU64::new(number.load(Ordering::Relaxed));
        Arc::new(Self {
            key: self.key,
            text: self.text.clone(),
            status: self.status,
            fields: self.fields.clone(),
            terms: self.terms,
            rare: match self.chunk_of() {
                Some(of) => Rare::of_chunk(of, self.tags()),
                None => Rare::of(self.selecting().clone(), self.tags(), None),
            },
            disk: OnDisk::of(&body),
            body,
            body_bytes: self.body_bytes,
            fill_seq: self.fill_seq,
            checked_seq: read(&self.checked_seq),
            replicate: self.replicate,
            hits: AtomicU32::new(self.hits.load(Ordering::Relaxed)),
            edition: AtomicU32::new(0),
            used_ms: read(&self.used_ms),
            heat: read(&self.heat),
            copied_from: self.copied_from,
            copied_under: read(&self.copied_under),
        })
    }
}

/// What an object with so many bytes of body and these fields will take up in memory, roughly.
pub(crate) fn likely_weight(body_bytes: u64, fields: &HeaderMap) -> u64 {
    let lies_in = size_of::<Object>() + COUNTS_BYTES + lines_bytes(fields);
    body_bytes.saturating_add(allocated_bytes(lies_in) + PLACE_BYTES)
}

/// What a part of [`Extras::selecting`] takes up in memory.
fn selector_bytes((selector, value): (&Selector, Option<&[u8]>)) -> u64 {
    size_of_val(selector) as u64 + 16 + allocated_bytes(value.map_or(0, <[u8]>::len))
}

/// What the memory of so many bytes costs: it is given out in sizes of which every power of two has four.
pub(crate) const fn allocated_bytes(bytes: usize) -> u64 {
    let step = match bytes {
        0 => return 0,
        1..=64 => 16,
        _ => bytes.next_power_of_two() / 8,
    };
    bytes.next_multiple_of(step) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_costs_what_it_is_given_out_in() {
        for (bytes, expected) in [
            (0, 0),
            (1, 16),
            (17, 32),
            (64, 64),
            (65, 80),
            (81, 96),
            (128, 128),
            (129, 160),
            (1024, 1024),
            (1025, 1280),
            (100_000, 114_688),
        ] {
            assert_eq!(allocated_bytes(bytes), expected, "{bytes}");
        }
    }
}
