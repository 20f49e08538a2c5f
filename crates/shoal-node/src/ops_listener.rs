//! HTTP/1.1 for machines that watch, within limits: whoever reaches the ops address can neither fill nor block it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::accept::Accepting;

/// What a caller may take. Each connection has one answer.
#[derive(Clone, Copy, Debug)]
pub struct OpsLimits {
    /// Connections at once; the next one takes the place of one that is there.
    pub connections: usize,
    /// For a whole head.
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
            lifetime: Duration::from_secs(30),
        }
    }
}

/// Serves `router` until dropped; what is being answered then is cut off.
pub async fn serve(socket: TcpListener, router: Router, limits: OpsLimits) -> Infallible {
    let mut callers = Callers { most: limits.connections, ..Callers::default() };
    let socket = Accepting::on(socket, "the ops address");
    loop {
        let (stream, _) = socket.next().await;
        callers.admit(stream, router.clone(), limits);
    }
}

/// The connections there are. None of them can keep a new one out.
#[derive(Default)]
struct Callers {
    most: usize,
    tasks: JoinSet<()>,
    /// The oldest first.
    open: VecDeque<Caller>,
}

struct Caller {
    task: AbortHandle,
    /// A whole head has come.
    has_asked: Arc<AtomicBool>,
}

impl Callers {
    /// Answers on `stream`. When there are as many as there may be, the oldest that has not asked for anything gives way,
    /// or else the oldest.
    fn admit(&mut self, stream: TcpStream, router: Router, limits: OpsLimits) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|caller| !caller.task.is_finished());
        if self.open.len() >= self.most {
            let idle = self.open.iter().position(|caller| !caller.has_asked.load(Relaxed));
            if let Some(displaced) = self.open.remove(idle.unwrap_or(0)) {
                displaced.task.abort();
            }
        }
        let has_asked = Arc::<AtomicBool>::default();
        let answering = answer(stream, router, limits, has_asked.clone());
        let task = self.tasks.spawn(async move {
            // Its time is up: it is closed, whatever it was doing.
            _ = tokio::time::timeout(limits.lifetime, answering).await;
        });
        self.open.push_back(Caller { task, has_asked });
    }
}

async fn answer(stream: TcpStream, router: Router, limits: OpsLimits, has_asked: Arc<AtomicBool>) {
    let router = TowerToHyperService::new(router);
    let from = stream.peer_addr().ok();
    let noting = service_fn(move |mut request: hyper::Request<Incoming>| {
        has_asked.store(true, Relaxed);
        if let Some(from) = from {
            request.extensions_mut().insert(from);
        }
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.head_fields)
        .serve_connection(TokioIo::new(stream), noting)
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
        tokio::spawn(serve(socket, router, limits));
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
    async fn nobody_can_fill_it() {
        let limits = OpsLimits {
            connections: 8,
            head_timeout: Duration::from_secs(60),
            lifetime: Duration::from_secs(60),
            ..OpsLimits::default()
        };
        let address = start(limits).await;
        let request = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut idle = Vec::new();
        for _ in 0..8 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        // Not asked to close, and closed all the same.
        assert!(exchange(address, request).await.starts_with("HTTP/1.1 200"));
        let mut gone = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), idle[0].read_to_end(&mut gone)).await;
        assert!(closed.is_ok() && gone.is_empty(), "the oldest gives way");
        // The others are still there.
        idle[7].write_all(request).await.unwrap();
        idle[7].read_to_end(&mut gone).await.unwrap();
        assert!(gone.starts_with(b"HTTP/1.1 200"));
    }
}
