//! Enums that carry the same bytes in one way or another: what is asked of them is handed on.

/// Hands a call on to whatever carries the bytes.
macro_rules! carried {
    ($carrier:expr, $($variant:path)|+, $stream:ident => $call:expr) => {
        match $carrier.get_mut() {
            $($variant($stream) => $call,)+
        }
    };
}

/// Makes an enum of streams a stream.
macro_rules! carry_bytes {
    ($name:ident, $($variant:path)|+) => {
        impl tokio::io::AsyncRead for $name {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                crate::carried::carried!(self, $($variant)|+, stream => {
                    std::pin::Pin::new(stream).poll_read(cx, buf)
                })
            }
        }

        impl tokio::io::AsyncWrite for $name {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                crate::carried::carried!(self, $($variant)|+, stream => {
                    std::pin::Pin::new(stream).poll_write(cx, buf)
                })
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                crate::carried::carried!(self, $($variant)|+, stream => {
                    std::pin::Pin::new(stream).poll_write_vectored(cx, bufs)
                })
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $($variant(stream) => stream.is_write_vectored(),)+
                }
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                crate::carried::carried!(self, $($variant)|+, stream => std::pin::Pin::new(stream).poll_flush(cx))
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                crate::carried::carried!(self, $($variant)|+, stream => {
                    std::pin::Pin::new(stream).poll_shutdown(cx)
                })
            }
        }
    };
}

pub(crate) use {carried, carry_bytes};
