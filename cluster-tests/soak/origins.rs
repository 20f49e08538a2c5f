//! What stands behind the cluster: plain HTTP, a WebSocket echo, and a gRPC echo over HTTP/2 in clear text.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use cluster_tests::{LoopbackBlock, Origin, Reply, pattern};
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

/// Bytes of a small answer.
pub const SMALL: usize = 2_000;
/// Bytes of a large one.
pub const LARGE: usize = 1 << 20;

/// They run as long as the value lives.
pub struct Origins {
    /// `/large…` answers with [`LARGE`] bytes, a `POST` with the length of what it got, everything else with [`SMALL`]
    /// bytes: each path with its own. `/cached…` may be kept.
    pub plain: Origin,
    pub chat: SocketAddr,
    pub grpc: SocketAddr,
    tasks: [JoinHandle<()>; 2],
    /// Holds the address.
    _block: LoopbackBlock,
}

impl Origins {
    pub async fn start() -> Result<Self> {
        let block = LoopbackBlock::claim()?;
        let plain = Origin::start(|seen| {
            if seen.method == http::Method::POST {
                return Reply::ok(seen.body.len().to_string());
            }
            let size = if seen.path.starts_with("/large") { LARGE } else { SMALL };
            let lifetime = if seen.path.starts_with("/cached") { "max-age=60" } else { "no-store" };
            Reply::ok(pattern(&seen.path, size)).field("cache-control", lifetime)
        });
        let chat = TcpListener::bind(block.socket(201, 0)).await?;
        let grpc = TcpListener::bind(block.socket(202, 0)).await?;
        let (chat_at, grpc_at) = (chat.local_addr()?, grpc.local_addr()?);
        let tasks = [tokio::spawn(serve(chat, echo_messages)), tokio::spawn(serve(grpc, echo_calls))];
        Ok(Self { plain: plain.await?, chat: chat_at, grpc: grpc_at, tasks, _block: block })
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve<F: Future<Output = Result<()>> + Send + 'static>(
    listener: TcpListener,
    connection: impl Fn(TcpStream) -> F,
) {
    while let Ok((stream, _)) = listener.accept().await {
        // How a connection ends is for the clients to judge.
        tokio::spawn(connection(stream));
    }
}

async fn echo_messages(stream: TcpStream) -> Result<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Close(_) => break,
            message => socket.send(message).await?,
        }
    }
    Ok(socket.close(None).await?)
}

async fn echo_calls(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    Ok(connection.serve_connection(TokioIo::new(stream), service_fn(echo_call)).await?)
}

async fn echo_call(
    request: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = anyhow::Error>>> {
    let message = request.into_body().collect().await?.to_bytes();
    let trailers = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from_static("0"))]);
    let frames = [Ok::<_, anyhow::Error>(Frame::data(message)), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(stream::iter(frames));
    Ok(Response::builder().header("content-type", "application/grpc").body(body)?)
}
