//! What a downstream sends as the body of its request: counted, limited, and given up when it stalls.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http_body::{Frame, SizeHint};
use shoal_policy::failure::Failure;

use crate::deadline::{Deadline, Deadlines};
use crate::incoming::Incoming;
use crate::pace::{MinRate, Pace};
use crate::trailers::admit_trailers;

/// How far the body of a request has come: the side that sends the request looks at it.
#[derive(Default)]
pub(crate) struct BodyProgress {
    /// The downstream waits for a 100 (Continue): reading from the body makes the node say it.
    pub(crate) expects_continue: bool,
    /// Its end was handed on.
    pub(crate) done: Cell<bool>,
    /// Why it broke off.
    pub(crate) failure: Cell<Option<Failure>>,
    /// Bytes handed on.
    pub(crate) bytes: Cell<u64>,
    /// The downstream has the next part, and has not sent it yet.
    pub(crate) awaited: Cell<bool>,
    /// The downstream was waited for, however long.
    pub(crate) has_waited: Cell<bool>,
}

/// What the body of a request may cost.
#[derive(Clone)]
pub(crate) struct BodyLimits {
    pub(crate) max_bytes: u64,
    pub(crate) idle_timeout: Duration,
    pub(crate) min_rate: MinRate,
    pub(crate) keep_trailers: bool,
    /// A field that says who called, and so is no trailer.
    pub(crate) reserved_header: Option<HeaderName>,
    /// It comes in chunks of HTTP/1, which cost as much when they are empty as when they are full.
    pub(crate) is_chunked: bool,
    /// It comes when the downstream has been told to go on.
    pub(crate) expects_continue: bool,
}

/// Chunks that a body may have in any case, one more for each so many bytes of it, and one for so many
/// milliseconds that it takes.
const FREE_CHUNKS: u64 = 1024;
const BYTES_PER_CHUNK: u64 = 16;
const MS_PER_CHUNK: u64 = 10;

/// Whether so many chunks are worth their work: one of few bytes takes as long as one of many.
fn is_worth_it(chunks: u64, bytes: u64, lasted_ms: u64) -> bool {
    chunks <= FREE_CHUNKS + bytes / BYTES_PER_CHUNK + lasted_ms / MS_PER_CHUNK
}

/// What a downstream sends.
pub(crate) struct DownstreamBody {
    incoming: Incoming,
    progress: Rc<BodyProgress>,
    limits: BodyLimits,
    deadlines: Rc<Deadlines>,
    /// Armed at the first wait.
    deadline: Option<Deadline>,
    pace: Pace,
    began_ms: u64,
}

impl DownstreamBody {
    pub(crate) fn new(incoming: Incoming, limits: BodyLimits, deadlines: &Rc<Deadlines>) -> Self {
        Self {
            incoming,
            progress: Rc::new(BodyProgress {
                expects_continue: limits.expects_continue,
                ..BodyProgress::default()
            }),
            limits,
            deadlines: deadlines.clone(),
            deadline: None,
            pace: Pace::default(),
            began_ms: deadlines.now_ms(),
        }
    }

    pub(crate) fn progress(&self) -> &Rc<BodyProgress> {
        &self.progress
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            let Poll::Ready(frame) = self.incoming.poll_frame(cx) else {
                self.progress.has_waited.set(true);
                self.pace.wait(self.deadlines.now_ms());
                let (deadlines, timeout) = (&self.deadlines, self.limits.idle_timeout);
                let deadline = self.deadline.get_or_insert_with(|| deadlines.arm(timeout));
                return deadline.poll_passed(cx).map(|()| Some(Err(Failure::DownstreamTimeout)));
            };
            if let Some(deadline) = &self.deadline {
                deadline.reset(self.limits.idle_timeout);
            }
            match frame {
                None => return Poll::Ready(None),
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                Some(Ok(frame)) => match self.admit(frame) {
                    Ok(None) => {}
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Err(failure) => return Poll::Ready(Some(Err(failure))),
                },
            }
        }
    }

    fn admit(&mut self, frame: Frame<Bytes>) -> Result<Option<Frame<Bytes>>, Failure> {
        if let Some(data) = frame.data_ref() {
            let bytes = self.progress.bytes.get() + data.len() as u64;
            self.progress.bytes.set(bytes);
            let is_fast = self.pace.moved(data.len() as u64, self.deadlines.now_ms(), self.limits.min_rate);
            let lasted_ms = self.deadlines.now_ms().saturating_sub(self.began_ms);
            if self.limits.is_chunked && !is_worth_it(self.incoming.chunks(), bytes, lasted_ms) {
                return Err(Failure::BadRequest("chunk"));
            }
            // What has come whole has come in time.
            if !is_fast && !self.incoming.is_end_stream() {
                return Err(Failure::DownstreamTimeout);
            }
            return if bytes > self.limits.max_bytes { Err(Failure::BodyTooLarge) } else { Ok(Some(frame)) };
        }
        Ok(admit_trailers(frame, self.limits.keep_trailers, self.limits.reserved_header.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_without_content_are_few() {
        let check = |chunks, bytes, lasted_ms, expected| {
            assert_eq!(is_worth_it(chunks, bytes, lasted_ms), expected, "{chunks} {bytes} {lasted_ms}");
        };
        check(1024, 1024, 0, true);
        check(2000, 2000, 0, false);
        check(2000, 16_000, 0, true);
        check(2000, 2000, 10_000, true);
        check(1_000_000, 4_096_000_000, 1, true);
        check(1_000_000, 1_000_000, 60_000, false);
    }
}
