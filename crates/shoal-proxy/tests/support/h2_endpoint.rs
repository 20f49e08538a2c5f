//! An endpoint with HTTP/2, by a codec that is not ours.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Barrier;

use super::serve_raw;

/// An endpoint with HTTP/2 that tells what it saw: version, target, host and body.
#[derive(Clone)]
pub struct Endpoint {
    pub connections: Arc<AtomicUsize>,
    /// Requests to `/together` wait for one another here.
    together: Arc<Barrier>,
    max_streams: u32,
}

impl Endpoint {
    pub fn new(together: usize, max_streams: u32) -> Self {
        Self { connections: Arc::default(), together: Arc::new(Barrier::new(together)), max_streams }
    }

    pub async fn start(&self) -> SocketAddr {
        let this = self.clone();
        serve_raw(self.connections.clone(), move |stream, _| {
            let this = this.clone();
            async move { this.serve_h2(stream).await }
        })
        .await
    }

    pub async fn serve_h2<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: T) {
        let this = self.clone();
        let service = service_fn(move |request| answer(this.clone(), request));
        let mut codec = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        codec.max_concurrent_streams(self.max_streams);
        let _ = codec.serve_connection(TokioIo::new(stream), service).await;
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn answer(endpoint: Endpoint, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/together" {
        endpoint.together.wait().await;
    }
    let (head, body) = request.into_parts();
    let fields = head.headers.get("host").is_some() || head.headers.get("transfer-encoding").is_some();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let text = format!("{:?} {} {} {body} {fields}", head.version, head.method, head.uri);
    Ok(Response::new(Full::from(text)))
}
