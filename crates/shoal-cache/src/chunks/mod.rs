//! Objects whose bodies lie in chunks: the object has the fields and says where the chunks are, and each of them is stored, in
//! memory and on disk, as an object of its own.
//!
//! The keys of the chunks are drawn when the object is first stored, by each node for itself. So nobody finds them but by
//! that object: whatever becomes of it, a purge, a write, another version, becomes of its chunks. Who owns them is decided
//! by the key of the object, too: all of a body lies on the same two nodes.

mod cut;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use shoal_model::NodeId;
use shoal_model::view::CacheRuleView;
use shoal_policy::cache::chunks::{CHUNK_BYTES, Run, chunk};
use shoal_policy::cache::fields::Fields;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::range::Extract;
use shoal_policy::cache::span::Span;
use shoal_policy::cache::stored_fields::StoredFields;
use shoal_policy::cache::validation::{is_same_version, strong_validator};

pub(crate) use cut::{Cut, within_chunk};

use crate::object::{Object, OnDisk, Rare};
use crate::store::Store;
use crate::stored_body::StoredBody;
use crate::variants::Variants;

/// An answer of more chunks than these finds them one by one, as it comes to them.
const MAX_AT_HAND: u64 = 64;
/// Keys of chunks are so far from each other, which is odd: all bits of them differ.
const APART: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;

/// The body of an object that lies in chunks.
#[derive(Clone)]
pub(crate) struct Chunked {
    /// The key of the object.
    home: ObjectKey,
    /// The key of its first chunk; it says those of the others.
    first: ObjectKey,
    /// Of the whole body, bytes.
    length: u64,
    store: Weak<Store>,
}

/// What a chunk is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkOf {
    /// The key of the object.
    pub(crate) home: ObjectKey,
    /// Its number.
    pub(crate) number: u64,
}

/// Where a copy of what comes in is known to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    /// The node that put it here.
    pub(crate) from: Option<NodeId>,
    /// As [`Object::copied_under`] has it.
    pub(crate) under: u64,
}

impl Chunked {
    /// The body of an object that was not stored before.
    pub(crate) fn begin(home: ObjectKey, length: u64, store: &Arc<Store>) -> Self {
        let draw = |n: u64| u128::from(RandomState::new().hash_one(n));
        Self::new(home, ObjectKey(draw(0) << 64 | draw(1)), length, store)
    }

    /// `first`: a key that nothing else has.
    pub(crate) fn new(home: ObjectKey, first: ObjectKey, length: u64, store: &Arc<Store>) -> Self {
        Self { home, first, length, store: Arc::downgrade(store) }
    }

    /// Bytes of the whole body.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// The key of its first chunk.
    pub(crate) const fn first_key(&self) -> ObjectKey {
        self.first
    }

    /// The key of chunk `number`.
    pub(crate) const fn key(&self, number: u64) -> ObjectKey {
        ObjectKey(self.first.0.wrapping_add((number as u128).wrapping_mul(APART)))
    }

    /// The bytes of chunk `number`.
    pub(crate) fn span(&self, number: u64) -> Option<Span> {
        chunk(number, self.length)
    }

    /// Chunk `number`, if the store has it.
    pub(crate) fn find(&self, number: u64) -> Option<Arc<Object>> {
        self.among(number, &self.store.upgrade()?.find(self.key(number))?).cloned()
    }

    /// The same, which does not count as a use.
    pub(crate) fn peek(&self, number: u64) -> Option<Arc<Object>> {
        self.among(number, &self.store.upgrade()?.peek(self.key(number))?).cloned()
    }

    fn among<'a>(&self, number: u64, found: &'a Variants) -> Option<&'a Arc<Object>> {
        let bytes = self.span(number)?.bytes();
        let of = ChunkOf { home: self.home, number };
        let is_it = |chunk: &&Arc<Object>| chunk.chunk_of() == Some(of) && chunk.body_bytes == bytes;
        found.objects().iter().find(is_it)
    }

    /// `chunk` is one of its chunks.
    pub(crate) fn leads_to(&self, chunk: &Object) -> bool {
        chunk.chunk_of().is_some_and(|of| of.home == self.home && self.key(of.number) == chunk.key)
    }

    /// What `extract` means, if the store has all the chunks that it lies in, and they are not too many.
    pub(crate) fn cut(&self, extract: Extract) -> Option<Cut> {
        let spans = match &extract {
            Extract::Whole => Vec::from_iter(Span::all(self.length)),
            Extract::Part(span) => vec![*span],
            Extract::Parts(spans) => spans.clone(),
            Extract::Unsatisfiable => Vec::new(),
        };
        let mut chunks: Vec<(u64, Arc<Object>)> = Vec::new();
        for run in spans.into_iter().map(Run::around) {
            // So many are not even looked for: each of them would count as used.
            if run.last - run.first >= MAX_AT_HAND {
                return None;
            }
            for number in run.first..=run.last {
                if chunks.iter().rev().any(|(known, _)| *known == number) {
                    continue;
                }
                if chunks.len() as u64 >= MAX_AT_HAND {
                    return None;
                }
                chunks.push((number, self.find(number)?));
            }
        }
        Some(Cut::of_chunks(extract, chunks))
    }
}

/// A response with these fields and a body of `length` bytes is kept in chunks, where `rule` holds.
pub(crate) fn is_kept_in_chunks(
    rule: &CacheRuleView,
    status: StatusCode,
    fields: &HeaderMap,
    length: u64,
) -> bool {
    rule.chunked_from_bytes.is_some_and(|least| length >= least)
        && status == StatusCode::OK
        && strong_validator(fields).is_some()
}

/// Both lie in chunks of one and the same body.
pub(crate) fn have_same_chunks(one: &Object, other: &Object) -> bool {
    let length = |object: &Object| object.chunked().map(Chunked::length);
    length(one).is_some() && length(one) == length(other) && is_same_version(&one.fields, &other.fields)
}

/// Chunk `number` of the body of `header`, which is what `pieces` have. `None` = that is not what such a chunk has.
pub(crate) fn new_chunk(
    header: &Object,
    number: u64,
    pieces: &[Bytes],
    copied: Copied,
) -> Option<Arc<Object>> {
    let chunked = header.chunked()?;
    let bytes = chunked.span(number)?.bytes();
    if pieces.iter().map(|piece| piece.len() as u64).sum::<u64>() != bytes {
        return None;
    }
    let chunk = Object {
        key: chunked.key(number),
        text: header.text.clone(),
        rare: Rare::of_chunk(ChunkOf { home: header.key, number }, header.tags()),
        status: header.status,
        fields: chunk_fields(&header.fields),
        terms: header.terms,
        body: StoredBody::whole(pieces),
        body_bytes: 0,
        fill_seq: header.fill_seq,
        checked_seq: AtomicU64::new(header.fill_seq),
        replicate: header.replicate,
        hits: AtomicU32::new(0),
        edition: AtomicU32::new(0),
        used_ms: AtomicU64::new(header.terms.response_ms),
        heat: AtomicU64::new(0),
        copied_from: copied.from,
        copied_under: AtomicU64::new(copied.under),
        disk: OnDisk::default(),
    };
    Some(chunk.seal())
}

/// The fields of a chunk: what says of which version it is.
fn chunk_fields(fields: &StoredFields) -> StoredFields {
    let kept = |name: HeaderName| {
        let value = HeaderValue::from_bytes(fields.line(&name)?).ok()?;
        Some((name, value))
    };
    [ETAG, LAST_MODIFIED].into_iter().filter_map(kept).collect()
}

/// Bytes of a chunk, which is what a fill holds for readers of whatever speed.
const _: () = assert!(CHUNK_BYTES == crate::fill::WINDOW_BYTES);
