//! Short messages in one piece: a plain `send` costs the kernel less than `writev`, and copying a few hundred bytes
//! costs next to nothing.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Messages up to this size are joined, bytes.
const MAX_JOINED: usize = 4096;
/// Where they are joined, bytes from the beginning of a page. The kernel copies to the beginning of one; where both lie
/// alike in their pages, some processors copy at a fraction of their speed (AMD's `rep movsb`).
const START: usize = 3072;

#[repr(align(4096))]
struct Scratch([u8; START + MAX_JOINED]);

thread_local! {
    static SCRATCH: RefCell<Box<Scratch>> = RefCell::new(Box::new(Scratch([0; START + MAX_JOINED])));
}

/// Writes what `bufs` hold: as one slice when that is short, else as they are.
pub(crate) fn poll_write_joined<T: AsyncWrite>(
    stream: Pin<&mut T>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let total: usize = bufs.iter().map(|buf| buf.len()).sum();
    match bufs {
        [one] => stream.poll_write(cx, one),
        _ if total <= MAX_JOINED => SCRATCH.with_borrow_mut(|scratch| {
            let mut end = START;
            for buf in bufs {
                scratch.0[end..end + buf.len()].copy_from_slice(buf);
                end += buf.len();
            }
            stream.poll_write(cx, &scratch.0[START..end])
        }),
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
