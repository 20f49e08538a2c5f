//! What comes of a request that was sent over a connection.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use shoal_policy::failure::Failure;
use shoal_policy::retry::Progress;

use crate::request_body::RequestBody;

/// The head of an answer has come.
pub(super) enum Answered {
    /// It lies on the connection of the request, and its body follows there. A head is large: it goes through no hands.
    OnLink(StatusCode),
    /// Its body is a stream by itself.
    Streamed(Box<Response<Incoming>>),
}

impl Answered {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::OnLink(status) => *status,
            Self::Streamed(response) => response.status(),
        }
    }
}

/// Why there is no answer.
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    pub(super) progress: Progress,
    /// The body, if nobody has read from it.
    pub(super) body: Option<RequestBody>,
}

impl Unanswered {
    pub(super) fn lost(failure: Failure, progress: Progress) -> Box<Self> {
        Box::new(Self { failure, progress, body: None })
    }
}
