//! An answer to a peer until its last byte is out: a node that leaves waits for that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use shoal_policy::failure::Failure;

use crate::body::CacheBody;
use crate::node::Cache;

/// One request of a peer that is being answered, until it is dropped.
pub(super) struct UnderWay(Arc<Cache>);

impl UnderWay {
    pub(super) fn new(cache: &Arc<Cache>) -> Self {
        cache.peers_under_way.send_modify(|under_way| *under_way += 1);
        Self(cache.clone())
    }

    /// The body of its answer.
    pub(super) const fn body(self, body: CacheBody) -> AnswerBody {
        AnswerBody { body, _under_way: self }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.peers_under_way.send_modify(|under_way| *under_way -= 1);
    }
}

/// The body of an answer to a peer.
pub(super) struct AnswerBody {
    body: CacheBody,
    _under_way: UnderWay,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
