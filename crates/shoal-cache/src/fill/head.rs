//! The head of a response on its way in, and where it comes from.

use http::{HeaderMap, HeaderValue, StatusCode};
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::vary::Selecting;

/// The head of a response that several requests may share.
pub(crate) struct FillHead {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    /// For the request that began the fill: the fields that are not for others too.
    pub(crate) own_fields: Option<HeaderMap>,
    pub(crate) terms: Terms,
    pub(crate) selecting: Selecting,
    pub(crate) tags: Box<[u64]>,
    pub(crate) fill_seq: u64,
    pub(crate) checked_seq: u64,
    /// Body bytes, if known.
    pub(crate) length: Option<u64>,
    /// Requests that joined may have it, too.
    pub(crate) is_shareable: bool,
    pub(crate) is_stored: bool,
    pub(crate) source: FillSource,
}

/// Where a fill comes from.
#[derive(Clone, Debug)]
pub(crate) enum FillSource {
    Origin,
    Peer {
        /// The peer's own `Cache-Status` member.
        member: Option<HeaderValue>,
        /// It had the object.
        is_hit: bool,
    },
}
