//! How the kernel finds out that the other side of a connection is gone.

use shoal_model::view::Liveness;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Questions without an answer after which a connection is given up.
const KEEPALIVE_RETRIES: u32 = 3;

/// Makes `stream` behave as `liveness` says. A socket that refuses is about to fail anyway.
pub(crate) fn set(stream: &TcpStream, liveness: &Liveness) {
    if liveness.is_default() {
        return;
    }
    let socket = SockRef::from(stream);
    if let Some(silence) = liveness.keepalive {
        let keepalive =
            TcpKeepalive::new().with_time(silence).with_interval(silence).with_retries(KEEPALIVE_RETRIES);
        let _ = socket.set_tcp_keepalive(&keepalive);
    }
    if liveness.user_timeout.is_some() {
        let _ = socket.set_tcp_user_timeout(liveness.user_timeout);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = SockRef::from(&stream);
        set(&stream, &Liveness::default());
        assert!(!socket.keepalive().unwrap());
        let (silence, unacknowledged) = (Duration::from_secs(20), Duration::from_secs(7));
        set(&stream, &Liveness { keepalive: Some(silence), user_timeout: Some(unacknowledged) });
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), silence);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), silence);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(unacknowledged));
    }
}
