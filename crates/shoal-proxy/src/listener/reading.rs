//! Reading what there is without a buffer that waits for it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes read at a time.
const SCRATCH: usize = 16 << 10;

thread_local! {
    static SCRATCH_OF_WORKER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// Appends what is there to `arrived`, which has memory for no more than that: heads are short, and connections that
/// wait for one are many.
pub(super) fn poll_read_some(
    stream: Pin<&mut impl AsyncRead>,
    cx: &mut Context<'_>,
    arrived: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    SCRATCH_OF_WORKER.with_borrow_mut(|scratch| {
        let mut read = ReadBuf::new(scratch);
        ready!(stream.poll_read(cx, &mut read))?;
        arrived.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
}
