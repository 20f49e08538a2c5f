//! What an endpoint says before its answer (1xx), and the body that waits for it (RFC 9110 §10.1.1).

use std::task::{Context, Poll};

use http::StatusCode;
use shoal_policy::forwarding::strip_interim;
use shoal_policy::http1::ResponseHead;

use super::connection::ExchangeError;
use crate::deadline::Deadline;
use crate::hints::Hints;

/// Interim answers to one request, and bytes of them all.
const MAX_COUNT: u32 = 10;
const MAX_BYTES: usize = 64 << 10;
/// Those that go on, and bytes of one.
const MAX_HINTS: u32 = 8;
const MAX_HINT_BYTES: usize = 8 << 10;

/// Interim answers so far, and what they lead to.
pub(in crate::upstream) struct Interim<'a> {
    count: u32,
    bytes: usize,
    /// How long the body is held back unless the endpoint asks for it; `None` = it is not.
    wait: Option<Deadline>,
    /// The endpoint was to ask for the body, and has not.
    is_unasked: bool,
    /// Where they go; `None` = nobody wants them.
    hints: Option<&'a Hints>,
}

impl<'a> Interim<'a> {
    pub(in crate::upstream) fn new(wait: Option<Deadline>, hints: Option<&'a Hints>) -> Self {
        Self { count: 0, bytes: 0, is_unasked: wait.is_some(), wait, hints }
    }

    /// There has been none.
    pub(super) fn is_none(&self) -> bool {
        self.count == 0
    }

    /// Takes in one of so many bytes; `true` = the body need not wait any longer.
    pub(super) fn take_in(&mut self, head: ResponseHead, bytes: usize) -> Result<bool, ExchangeError> {
        self.count += 1;
        self.bytes += bytes;
        if self.count > MAX_COUNT || self.bytes > MAX_BYTES {
            return Err(ExchangeError::Malformed);
        }
        // What asks for a body that is held back asks nobody else.
        if head.parts.status != StatusCode::CONTINUE
            && self.count <= MAX_HINTS
            && bytes <= MAX_HINT_BYTES
            && let Some(hints) = self.hints
        {
            let mut fields = head.parts.headers;
            strip_interim(&mut fields);
            hints.add(head.parts.status, fields);
        }
        if head.parts.status != StatusCode::CONTINUE {
            return Ok(false);
        }
        self.is_unasked = false;
        Ok(self.wait.take().is_some())
    }

    /// The endpoint was to ask for the body, and has not: if that was sent all the same, it may take it for a request.
    pub(in crate::upstream) fn is_unasked(&self) -> bool {
        self.is_unasked
    }

    /// The body is held back.
    pub(in crate::upstream) fn holds_body(&self) -> bool {
        self.wait.is_some()
    }

    /// Ready when the body may be sent.
    pub(super) fn poll_hold(&mut self, cx: &Context<'_>) -> Poll<()> {
        match &self.wait {
            Some(wait) if wait.poll_passed(cx).is_pending() => Poll::Pending,
            Some(_) | None => {
                self.wait = None;
                Poll::Ready(())
            }
        }
    }
}
