//! HTTP/1.1 for machines that watch, within limits: whoever reaches the ops address can neither fill nor block it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What a caller may take.
#[derive(Clone, Copy, Debug)]
pub struct OpsLimits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// For a whole head, and between two requests.
    pub head_timeout: Duration,
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Fields of a head.
    pub head_fields: usize,
    /// For a connection as a whole: one that does not read its answer gives its place back.
    pub lifetime: Duration,
}

impl Default for OpsLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            head_timeout: Duration::from_secs(5),
            head_bytes: 16 << 10,
            head_fields: 64,
            lifetime: Duration::from_secs(120),
        }
    }
}

/// Serves `router` until `stop`; what is being answered then is cut off.
pub async fn serve(
    socket: TcpListener,
    router: Router,
    limits: OpsLimits,
    stop: CancellationToken,
) -> Infallible {
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let place = places.clone().acquire_owned().await;
        let (Ok(place), Ok((stream, _))) = (place, socket.accept().await) else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors: do not spin
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            let answering = tokio::time::timeout(limits.lifetime, answer(stream, router, limits));
            stop.run_until_cancelled_owned(answering).await;
            drop(place);
        });
    }
}

async fn answer(stream: TcpStream, router: Router, limits: OpsLimits) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.head_fields)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the ops address ended badly");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn start(limits: OpsLimits) -> std::net::SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let router = Router::new().route("/livez", get(|| async { "alive\n" }));
        tokio::spawn(serve(socket, router, limits, CancellationToken::new()));
        address
    }

    /// Everything that comes back until the connection is closed.
    async fn exchange(address: std::net::SocketAddr, sent: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is an end as well.
        _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_head_is_whole_in_time_and_small() {
        let limits = OpsLimits { head_timeout: Duration::from_millis(200), ..OpsLimits::default() };
        let address = start(limits).await;
        let fields = |count: usize| {
            let fields: String = (0..count).map(|n| format!("x{n}: y\r\n")).collect();
            format!("GET /livez HTTP/1.1\r\nhost: a\r\n{fields}connection: close\r\n\r\n")
        };
        let check = async |sent: &str, expected: &str| {
            let answer = exchange(address, sent.as_bytes()).await;
            assert!(answer.starts_with(expected), "{} bytes: {answer:?}", sent.len());
        };
        check(&fields(0), "HTTP/1.1 200").await;
        check(&fields(62), "HTTP/1.1 200").await;
        check(&fields(63), "HTTP/1.1 431").await;
        check(&format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000)), "HTTP/1.1 431").await;
        // Closed by the server: the exchange would hang otherwise.
        assert!(!exchange(address, b"GET /livez HTTP/1.1\r\nhost:").await.contains("200"));
        assert!(exchange(address, b"").await.is_empty());
    }

    #[tokio::test]
    async fn connections_take_turns() {
        let limits = OpsLimits { connections: 1, ..OpsLimits::default() };
        let address = start(limits).await;
        let first = TcpStream::connect(address).await.unwrap();
        let request = b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let second = exchange(address, request);
        tokio::pin!(second);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
        assert!(early.is_err(), "a second connection was answered beside the first");
        drop(first);
        assert!(second.await.starts_with("HTTP/1.1 200"));
    }
}
