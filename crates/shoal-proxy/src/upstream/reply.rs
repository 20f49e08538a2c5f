//! The answer of an endpoint, in the making.

use http::response::Parts as ResponseHead;

use super::response::UpstreamBody;
use crate::hints::Hints;
use crate::trace::Trace;

/// Where the answer of an endpoint is put, and what is noted of how it was got. It is large: it goes through no hands.
pub(crate) struct Reply<'a> {
    pub(crate) head: &'a mut ResponseHead,
    pub(crate) body: &'a mut UpstreamBody,
    pub(crate) trace: &'a mut Trace,
    /// Where interim answers go; `None` = nobody wants them.
    pub(crate) hints: Option<&'a Hints>,
    /// The cache asks.
    pub(crate) is_fill: bool,
}
