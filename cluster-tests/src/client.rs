//! The downstream side of the stories: HTTP/1.1 and HTTP/2, in clear text and over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// No exchange of a story takes longer.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(30);

/// How to talk to a listener.
#[derive(Clone)]
pub enum Speak {
    /// HTTP/1.1 in clear text.
    Http1,
    /// HTTP/2 with prior knowledge in clear text.
    Http2,
    /// TLS, for this server name; ALPN decides.
    Tls(Arc<ClientConfig>, String),
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub version: http::Version,
    /// Header section.
    pub headers: HeaderMap,
    /// Content.
    pub body: Bytes,
    /// Trailer section, empty when there was none.
    pub trailers: HeaderMap,
}

impl Answer {
    /// The first value of a field; empty when absent.
    pub fn field(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Every `Cache-Status` value in one line.
    pub fn cache_status(&self) -> String {
        let values = self.headers.get_all("cache-status").iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect::<Vec<_>>().join(", ")
    }

    /// Was it a hit, by its own word?
    pub fn is_hit(&self) -> bool {
        self.cache_status().contains("; hit") || self.cache_status().contains(";hit")
    }
}

/// One `GET` in clear text on a connection of its own.
pub async fn fetch(address: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    let request = Request::get(path).header("host", host).body(empty())?;
    send(address, Speak::Http1, request).await
}

/// One request on a connection of its own.
pub async fn send(
    address: SocketAddr,
    speak: Speak,
    request: Request<BoxBody<Bytes, anyhow::Error>>,
) -> Result<Answer> {
    Connection::open(address, speak).await?.send(request).await
}

/// No content.
pub fn empty() -> BoxBody<Bytes, anyhow::Error> {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A connection that is kept.
pub struct Connection {
    sender: Sender,
    /// The server's certificate, over TLS.
    pub certificate: Option<CertificateDer<'static>>,
}

enum Sender {
    Http1(http1::SendRequest<BoxBody<Bytes, anyhow::Error>>),
    Http2(http2::SendRequest<BoxBody<Bytes, anyhow::Error>>),
}

impl Connection {
    /// Connects and shakes hands.
    pub async fn open(address: SocketAddr, speak: Speak) -> Result<Self> {
        let opening = async {
            let stream =
                TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
            stream.set_nodelay(true)?;
            match speak {
                Speak::Http1 => Self::over(stream, false, None).await,
                Speak::Http2 => Self::over(stream, true, None).await,
                Speak::Tls(config, name) => {
                    let stream =
                        TlsConnector::from(config).connect(ServerName::try_from(name)?, stream).await?;
                    let session = stream.get_ref().1;
                    let http2 = session.alpn_protocol() == Some(b"h2");
                    let certificate = session.peer_certificates().map(|chain| chain[0].clone().into_owned());
                    Self::over(stream, http2, certificate).await
                }
            }
        };
        tokio::time::timeout(EXCHANGE_DEADLINE, opening)
            .await
            .with_context(|| format!("{address}: no handshake"))?
    }

    async fn over<IO>(stream: IO, http2: bool, certificate: Option<CertificateDer<'static>>) -> Result<Self>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let sender = if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection.with_upgrades());
            Sender::Http1(sender)
        };
        Ok(Self { sender, certificate })
    }

    /// Another sender on the same connection; `None` = HTTP/1.1 has one at a time.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => {
                Some(Self { sender: Sender::Http2(sender.clone()), certificate: self.certificate.clone() })
            }
        }
    }

    /// Can another request be sent? False when the server has ended the connection.
    pub async fn is_usable(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, request: Request<BoxBody<Bytes, anyhow::Error>>) -> Result<Answer> {
        let exchange = async {
            let response = self.begin(request).await?;
            read(response).await
        };
        tokio::time::timeout(EXCHANGE_DEADLINE, exchange)
            .await
            .map_err(|_| anyhow!("no whole answer in time"))?
    }

    /// Sends a request and returns as soon as the head of the answer is there.
    pub async fn begin(
        &mut self,
        request: Request<BoxBody<Bytes, anyhow::Error>>,
    ) -> Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer> {
    let (head, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Ok(Answer {
        status: head.status.as_u16(),
        version: head.version,
        headers: head.headers,
        body: collected.to_bytes(),
        trailers,
    })
}
