//! Short messages in one piece: a plain `send` costs the kernel less than `writev`, and copying a few hundred bytes
//! costs next to nothing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Messages up to this size are joined, bytes.
const MAX_JOINED: usize = 4096;

/// Writes what `bufs` hold: as one slice when that is short, else as they are.
pub(crate) fn poll_write_joined<T: AsyncWrite>(
    stream: Pin<&mut T>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let total: usize = bufs.iter().map(|buf| buf.len()).sum();
    match bufs {
        [one] => stream.poll_write(cx, one),
        _ if total <= MAX_JOINED => {
            let mut joined = [0; MAX_JOINED];
            let mut end = 0;
            for buf in bufs {
                joined[end..end + buf.len()].copy_from_slice(buf);
                end += buf.len();
            }
            stream.poll_write(cx, &joined[..end])
        }
        _ => stream.poll_write_vectored(cx, bufs),
    }
}

/// A stream whose short vectored writes are joined.
pub(crate) struct Joined<T>(pub(crate) T);

impl<T: AsyncRead + Unpin> AsyncRead for Joined<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Joined<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write_joined(Pin::new(&mut self.0), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn every_byte_arrives_in_order() {
        let check = async |parts: &[&[u8]]| {
            let (near, mut far) = tokio::io::duplex(64 << 10);
            let mut near = Joined(near);
            let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let wrote = poll_fn(|cx| Pin::new(&mut near).poll_write_vectored(cx, &slices)).await.unwrap();
            drop(near);
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, parts.concat()[..wrote]);
            assert!(wrote > 0);
        };
        check(&[b"head"]).await;
        check(&[b"head", b"", b"body"]).await;
        check(&[&[1; 3000], &[2; 1096]]).await;
        check(&[&[1; 3000], &[2; 1097]]).await;
    }
}
