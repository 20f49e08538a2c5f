//! Short messages in one piece: a plain `send` costs the kernel less than `writev`, and copying a few hundred bytes
//! costs next to nothing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn every_byte_arrives_in_order() {
        let check = async |parts: &[&[u8]]| {
            let (mut near, mut far) = tokio::io::duplex(64 << 10);
            let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let wrote = poll_fn(|cx| poll_write_joined(Pin::new(&mut near), cx, &slices)).await.unwrap();
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
