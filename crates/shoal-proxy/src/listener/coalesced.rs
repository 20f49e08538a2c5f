//! The many small writes of an HTTP/2 connection, as few large ones.
//!
//! The codec flushes after every DATA frame, though a batch of responses is ready: over TLS each would be a record and a
//! system call of its own. Here a flush is put off until the codec has nothing more to do; then the connection's task
//! writes all of it.

use std::cell::{RefCell, RefMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::last_words;

/// What is held back at most, bytes.
const MAX_PENDING: usize = 64 << 10;
/// What is read in one turn at most, bytes: others have theirs then.
const MAX_TURN: usize = 64 << 10;
/// Empty buffers that a worker keeps for its connections.
const MAX_SPARE: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Sees what goes out, and knows better than the codec why it gives up.
pub(super) trait Witness {
    /// The codec has written `bytes`.
    fn sees(&mut self, bytes: &[u8]);

    /// The code to tell the downstream instead of `code`, which is no success.
    fn code_of_end(&mut self, code: u32) -> u32;
}

/// A stream whose writes are held back until [`Coalesced::poll_written`]. Clones are the same stream.
pub(super) struct Coalesced<T>(Rc<RefCell<Inner<T>>>);

struct Inner<T> {
    stream: T,
    pending: Vec<u8>,
    /// Bytes of `pending` that are written.
    written: usize,
    /// All that the codec wanted to write was taken: it ends with a frame.
    is_whole: bool,
    /// The codec was sent away with what it wanted to write last: that may belong to the frame before it.
    is_put_off: bool,
    /// The codec has said its last words.
    is_ending: bool,
    /// There was nothing to read in this turn of the connection's task.
    is_dry: bool,
    /// Bytes read in this turn.
    read: usize,
}

impl<T> Clone for Coalesced<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: AsyncWrite + Unpin> Coalesced<T> {
    pub(super) fn new(stream: T) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            stream,
            pending: Vec::new(),
            written: 0,
            is_whole: true,
            is_put_off: false,
            is_ending: false,
            is_dry: false,
            read: 0,
        })))
    }

    /// A turn of the connection's task begins. The codec looks for bytes once for every request that it has; within a turn
    /// it finds none where there were none before.
    pub(super) fn begin_turn(&self) {
        let mut inner = self.0.borrow_mut();
        (inner.is_dry, inner.read) = (false, 0);
    }

    /// Writes what is held back; ready when nothing is.
    pub(super) fn poll_written(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.pending.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.stream).poll_flush(cx)
    }

    /// Holds back one more frame, if the last one is whole. The codec must not write any more.
    pub(super) fn add(&self, frame: &[u8]) {
        let mut inner = self.0.borrow_mut();
        if inner.is_whole {
            inner.hold(frame);
        }
    }

    /// Holds back one more frame between two of the codec, which knows nothing of it; `false` = it is in the middle of
    /// something, and goes on with that first, or has said its last words.
    pub(super) fn interject(&self, frame: &[u8]) -> bool {
        let mut inner = self.0.borrow_mut();
        let is_between = inner.is_whole && !inner.is_put_off && !inner.is_ending;
        if is_between {
            inner.hold(frame);
        }
        is_between
    }

    /// The stream, and whether `bytes` more fit beside what is held back.
    fn poll_room(
        &self,
        cx: &mut Context<'_>,
        bytes: usize,
    ) -> Poll<io::Result<(RefMut<'_, Inner<T>>, bool)>> {
        let mut inner = self.0.borrow_mut();
        if inner.pending.len() + bytes > MAX_PENDING {
            ready!(inner.poll_drain(cx))?;
        }
        Poll::Ready(Ok((inner, bytes <= MAX_PENDING)))
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let rest = &self.pending[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        let mut pending = std::mem::take(&mut self.pending);
        self.written = 0;
        SPARE.with_borrow_mut(|spare| {
            if pending.capacity() > 0 && spare.len() < MAX_SPARE {
                pending.clear();
                spare.push(pending);
            }
        });
        Poll::Ready(Ok(()))
    }

    /// The codec is about to end the connection.
    fn correct_last_words(&mut self)
    where
        T: Witness,
    {
        if let Some(code) = last_words::code_at_end(&mut self.pending[self.written..])
            && *code != [0; 4]
        {
            *code = self.stream.code_of_end(u32::from_be_bytes(*code)).to_be_bytes();
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.pending.capacity() == 0 {
            let spare = SPARE.with_borrow_mut(Vec::pop);
            self.pending = spare.unwrap_or_else(|| Vec::with_capacity(MAX_PENDING));
        }
        self.pending.extend_from_slice(bytes);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesced<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.is_dry {
            return Poll::Pending;
        }
        if inner.read >= MAX_TURN {
            inner.is_dry = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut inner.stream).poll_read(cx, buf);
        inner.is_dry = polled.is_pending();
        inner.read += buf.filled().len() - before;
        polled
    }
}

impl<T: AsyncWrite + Witness + Unpin> AsyncWrite for Coalesced<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.poll_take(cx, bufs);
        self.0.borrow_mut().is_put_off = polled.is_pending();
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Put off: see [`Coalesced::poll_written`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut inner = self.0.borrow_mut();
            inner.is_ending = true;
            inner.correct_last_words();
        }
        ready!(self.poll_written(cx))?;
        Pin::new(&mut self.0.borrow_mut().stream).poll_shutdown(cx)
    }
}

impl<T: AsyncWrite + Witness + Unpin> Coalesced<T> {
    /// Takes what the codec writes: it is held back where there is room for it.
    fn poll_take(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        let (mut inner, fits) = ready!(self.poll_room(cx, bytes))?;
        if !fits {
            let written = ready!(Pin::new(&mut inner.stream).poll_write_vectored(cx, bufs))?;
            let mut left = written;
            for buf in bufs {
                let of_this = left.min(buf.len());
                inner.stream.sees(&buf[..of_this]);
                left -= of_this;
            }
            inner.is_whole = written == bytes;
            return Poll::Ready(Ok(written));
        }
        for buf in bufs {
            inner.stream.sees(buf);
            inner.hold(buf);
        }
        inner.is_whole = true;
        Poll::Ready(Ok(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    impl Witness for tokio::io::DuplexStream {
        fn sees(&mut self, _: &[u8]) {}

        fn code_of_end(&mut self, code: u32) -> u32 {
            code + 8
        }
    }

    #[tokio::test]
    async fn nobody_reads_for_ever() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut coalesced = Coalesced::new(near);
        far.write_all(&vec![0; 3 * MAX_TURN]).await.unwrap();
        for _ in 0..3 {
            coalesced.begin_turn();
            let (mut read, mut buf) = (0, vec![0; MAX_TURN / 4]);
            let turn = poll_fn(|cx| {
                loop {
                    let mut buf = ReadBuf::new(&mut buf);
                    if Pin::new(&mut coalesced).poll_read(cx, &mut buf).is_pending() {
                        return Poll::Ready(());
                    }
                    read += buf.filled().len();
                }
            });
            turn.await;
            assert_eq!(read, MAX_TURN);
        }
    }

    #[tokio::test]
    async fn the_last_words_are_corrected() {
        let check = async |code: u32, expected: u32| {
            let (near, mut far) = tokio::io::duplex(1 << 10);
            let mut stream = Coalesced::new(near);
            stream.write_all(b"a response").await.unwrap();
            stream.write_all(&last_words::goaway(7, code)).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, [&b"a response"[..], &last_words::goaway(7, expected)].concat());
        };
        check(1, 9).await;
        check(0, 0).await;
    }

    #[tokio::test]
    async fn what_is_written_arrives_whole_and_in_order() {
        let check = async |sizes: &[usize]| {
            let (near, mut far) = tokio::io::duplex(1 << 10);
            let mut stream = Coalesced::new(near);
            let sent: Vec<u8> = (0..sizes.iter().sum()).map(|n| n as u8).collect();
            let expected = sent.clone();
            let sizes = sizes.to_vec();
            let writing = async move {
                let mut rest = &sent[..];
                for size in sizes {
                    let (now, later) = rest.split_at(size);
                    stream.write_all(now).await.unwrap();
                    stream.flush().await.unwrap();
                    rest = later;
                }
                poll_fn(|cx| stream.poll_written(cx)).await.unwrap();
                stream.shutdown().await.unwrap();
            };
            let mut read = Vec::new();
            let (_, read_all) = tokio::join!(writing, far.read_to_end(&mut read));
            read_all.unwrap();
            assert!(read == expected, "{} bytes of {}", read.len(), expected.len());
        };
        check(&[1, 2, 3]).await;
        check(&[MAX_PENDING, 1]).await;
        check(&[1, MAX_PENDING, 10]).await;
        check(&[5, MAX_PENDING + 1, 5]).await;
        check(&[60_000, 60_000, 3 * MAX_PENDING]).await;
    }

    #[tokio::test]
    async fn nothing_is_written_before_it_is_asked_for() {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let mut stream = Coalesced::new(near);
        stream.write_all(b"held").await.unwrap();
        stream.flush().await.unwrap();
        let mut read = [0; 4];
        let mut reading = poll_once(far.read(&mut read));
        assert!(reading.is_pending());
        poll_fn(|cx| stream.poll_written(cx)).await.unwrap();
        reading = poll_once(far.read(&mut read));
        assert!(matches!(reading, Poll::Ready(Ok(4))));
    }

    #[tokio::test]
    async fn nothing_comes_into_the_middle_of_a_frame() {
        let (near, mut far) = tokio::io::duplex(MAX_PENDING);
        let mut stream = Coalesced::new(near);
        stream.write_all(b"frame").await.unwrap();
        assert!(stream.interject(b"between"));
        stream.write_all(&[1; MAX_PENDING - 12]).await.unwrap();
        poll_fn(|cx| stream.poll_written(cx)).await.unwrap();
        stream.write_all(&[2; MAX_PENDING]).await.unwrap();
        assert!(poll_once(stream.write(b"more")).is_pending());
        assert!(!stream.interject(b"between"));
        let mut read = vec![0; MAX_PENDING];
        far.read_exact(&mut read).await.unwrap();
        assert!(read.starts_with(b"framebetween"));
        stream.write_all(b"more").await.unwrap();
        assert!(stream.interject(b"between"));
        far.read_exact(&mut read).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(!stream.interject(b"between"));
    }

    #[tokio::test]
    async fn what_comes_within_a_turn_is_read_in_the_next_one() {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let mut stream = Coalesced::new(near);
        let mut read = [0; 4];
        assert!(poll_once(stream.read(&mut read)).is_pending());
        far.write_all(b"late").await.unwrap();
        assert!(poll_once(stream.read(&mut read)).is_pending());
        stream.begin_turn();
        assert!(matches!(poll_once(stream.read(&mut read)), Poll::Ready(Ok(4))));
    }

    fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
        std::pin::pin!(future).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }
}
