//! HTTP/1 or HTTP/2 on a clear-text connection: told by its first bytes (RFC 9113 §3.4).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncRead;

use super::reading::poll_read_some;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Reads into `first` until it is clear what is spoken. The bytes belong to the connection still.
pub(super) fn poll_version(
    mut stream: Pin<&mut impl AsyncRead>,
    first: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Version>> {
    loop {
        let count = ready!(poll_read_some(stream.as_mut(), cx, first))?;
        let compared = first.len().min(PREFACE.len());
        if first[..compared] != PREFACE[..compared] || count == 0 {
            return Poll::Ready(Ok(Version::Http1));
        }
        if compared == PREFACE.len() {
            return Poll::Ready(Ok(Version::Http2));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn tells_by_the_first_bytes() {
        let check = async |pieces: &[&[u8]], expected: Version| {
            let mut stream = tokio_test_stream(pieces);
            let mut first = BytesMut::new();
            let version = poll_fn(|cx| poll_version(Pin::new(&mut stream), &mut first, cx)).await.unwrap();
            assert_eq!(version, expected, "{pieces:?}");
            assert!(pieces.concat().starts_with(&first));
        };
        check(&[b"GET / HTTP/1.1\r\n"], Version::Http1).await;
        check(&[b"P", b"OST / HTTP/1.1\r\n"], Version::Http1).await;
        check(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"], Version::Http2).await;
        check(&[b"PR", b"I * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n"], Version::Http2).await;
        check(&[b"PRI * HTTP/2.0\r\n"], Version::Http1).await;
        check(&[], Version::Http1).await;
    }

    /// A stream that delivers `pieces` one read at a time.
    fn tokio_test_stream(pieces: &[&[u8]]) -> impl AsyncRead + Unpin {
        let empty: Box<dyn AsyncRead + Unpin> = Box::new(tokio::io::empty());
        pieces.iter().rev().fold(empty, |rest, piece| {
            Box::new(AsyncReadExt::chain(io::Cursor::new(piece.to_vec()), rest)) as Box<dyn AsyncRead + Unpin>
        })
    }
}
