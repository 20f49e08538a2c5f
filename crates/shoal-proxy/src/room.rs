//! Room in the windows of a stream of HTTP/2, for what goes out.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;

/// Asks for some room, for bytes that are at hand: what is asked for in advance would be missing elsewhere.
pub(crate) fn ask(stream: &mut SendStream<Bytes>) {
    stream.reserve_capacity(1);
}

/// Ready when there is some of what was asked for; `false` = the stream takes nothing any more.
pub(crate) fn poll_given(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<bool> {
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(0)) => {}
            Some(Ok(_)) => break,
            Some(Err(_)) | None => return Poll::Ready(false),
        }
    }
    Poll::Ready(true)
}
