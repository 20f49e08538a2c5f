//! The head of a response on its way in, and where it comes from.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::selecting::Selecting;
use shoal_policy::cache::span::Span;
use shoal_policy::cache::status::Detail;
use shoal_policy::cache::storage::Terms;

use crate::object::Object;

/// The head of a response that several requests may share.
pub(crate) struct FillHead {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    /// For the request that began the fill: the fields that are not for others too.
    pub(crate) own_fields: Option<HeaderMap>,
    pub(crate) terms: Terms,
    /// The key under which it is stored and the text of that, if that is not what the fill is for.
    pub(crate) home: Option<(ObjectKey, Box<str>)>,
    /// It is stored for want of an owner, who could use it on these terms.
    pub(crate) orphan_of: Option<Terms>,
    pub(crate) selecting: Selecting,
    pub(crate) tags: Box<[u64]>,
    pub(crate) fill_seq: u64,
    pub(crate) checked_seq: u64,
    /// Bytes to come, if known.
    pub(crate) length: Option<u64>,
    /// They are this part of the body of a 200; `None` = they are all of it.
    pub(crate) part: Option<ContentRange>,
    /// What the origin answered, which is not `status` where it was asked for what is missing.
    pub(crate) answered: StatusCode,
    /// Requests that joined may have it, too.
    pub(crate) is_shareable: bool,
    pub(crate) is_stored: bool,
    pub(crate) source: FillSource,
    /// It passes on chunks of this object, at the pace of the one request that began it: everybody else does for himself.
    pub(crate) chunked: Option<Arc<Object>>,
}

/// Where a fill comes from.
#[derive(Clone, Debug)]
pub(crate) enum FillSource {
    Origin,
    /// It was all here: there.
    Store(Detail),
    Peer {
        /// The peer's own `Cache-Status` member.
        member: Option<HeaderValue>,
        /// It had the object.
        is_hit: bool,
    },
}

impl FillHead {
    /// Bytes of the whole body, if known.
    pub(crate) const fn whole_length(&self) -> Option<u64> {
        match self.part {
            Some(part) => part.length,
            None => self.length,
        }
    }

    /// The part that begins where this does and has come so far. `None` = nothing has, or nobody knows how long the whole is.
    pub(crate) fn received(&self, bytes: u64) -> Option<ContentRange> {
        let first = self.part.map_or(0, |part| part.span.first);
        let length = self.whole_length()?;
        let span = Span::of(first, bytes)?;
        (span.last < length).then_some(ContentRange { span, length: Some(length) })
    }
}
