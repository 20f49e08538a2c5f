//! What a request gets of an object, and where that lies.

use std::collections::VecDeque;
use std::sync::Arc;

use shoal_policy::cache::chunks::{CHUNK_BYTES, Run};
use shoal_policy::cache::range::Extract;
use shoal_policy::cache::span::Span;

use crate::body::CacheBody;
use crate::object::Object;

/// What a request gets of an object, and the chunks that have it, if the object lies in chunks.
#[derive(Clone)]
pub(crate) struct Cut {
    pub(crate) extract: Extract,
    chunks: Box<[(u64, Arc<Object>)]>,
}

impl Cut {
    /// All of it, or its fields alone.
    pub(crate) fn whole() -> Self {
        Extract::Whole.into()
    }

    pub(super) fn of_chunks(extract: Extract, chunks: Vec<(u64, Arc<Object>)>) -> Self {
        Self { extract, chunks: chunks.into() }
    }

    /// The chunks that it lies in.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.chunks.iter().map(|(_, chunk)| chunk)
    }

    /// Some of it is on disk.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.chunks().any(|chunk| chunk.is_from_disk())
    }

    /// The body of an answer with all of `object`.
    pub(crate) fn whole_body(&self, object: &Object) -> CacheBody {
        match object.chunked() {
            Some(chunked) => Span::all(chunked.length()).map_or(CacheBody::empty(), |all| self.row(all)),
            None => CacheBody::stored(object),
        }
    }

    /// The body of an answer with `span` of `object`.
    pub(crate) fn part_body(&self, object: &Object, span: Span) -> CacheBody {
        match object.chunked() {
            Some(_) => self.row(span),
            None => CacheBody::part(object, span),
        }
    }

    fn row(&self, span: Span) -> CacheBody {
        let parts: VecDeque<CacheBody> =
            self.parts(span).map(|(chunk, span)| CacheBody::part(chunk, span)).collect();
        CacheBody::row(parts, span.bytes())
    }

    /// The chunks that `span` lies in, and what of each of them lies in it.
    fn parts(&self, span: Span) -> impl Iterator<Item = (&Arc<Object>, Span)> {
        let Run { first, last } = Run::around(span);
        (first..=last).filter_map(move |number| {
            let (_, chunk) = self.chunks.iter().find(|(known, _)| *known == number)?;
            Some((chunk, within_chunk(number, span)?))
        })
    }
}

impl From<Extract> for Cut {
    fn from(extract: Extract) -> Self {
        Self { extract, chunks: Box::default() }
    }
}

/// What of chunk `number` lies in `span` of the whole, counted from the beginning of the chunk.
pub(crate) fn within_chunk(number: u64, span: Span) -> Option<Span> {
    let begin = number * CHUNK_BYTES;
    let common = span.common(Span::of(begin, CHUNK_BYTES)?)?;
    Some(Span { first: common.first - begin, last: common.last - begin })
}
