//! What comes of a request that was sent over a connection.

use http::response::Parts as ResponseHead;
use hyper::body::Incoming;
use shoal_policy::failure::Failure;
use shoal_policy::retry::Progress;

use crate::request_body::RequestBody;

/// The head of an answer. Its body follows on the carrier, or is a stream by itself.
pub(super) struct Answered {
    pub(super) head: ResponseHead,
    pub(super) stream: Option<Incoming>,
}

/// Why there is no answer.
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    pub(super) progress: Progress,
    /// The body, if nobody has read from it.
    pub(super) body: Option<RequestBody>,
}

impl Unanswered {
    pub(super) fn lost(failure: Failure, progress: Progress) -> Self {
        Self { failure, progress, body: None }
    }
}
