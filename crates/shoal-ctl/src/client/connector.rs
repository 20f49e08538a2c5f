//! Opens the byte stream under a gRPC channel: a Unix socket, or TCP with TLS of our own making.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// Either kind of stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to one node; the URI that gRPC names is ignored.
#[derive(Clone)]
pub(super) enum Connector {
    Socket(PathBuf),
    Tls { address: String, config: Arc<ClientConfig>, name: ServerName<'static> },
}

impl Connector {
    pub(super) fn socket(path: PathBuf) -> Self {
        Self::Socket(path)
    }

    pub(super) fn tls(address: String, config: Arc<ClientConfig>, name: ServerName<'static>) -> Self {
        Self::Tls { address, config, name }
    }

    async fn open(self) -> io::Result<TokioIo<Box<dyn Stream>>> {
        let stream: Box<dyn Stream> = match self {
            Self::Socket(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tls { address, config, name } => {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                Box::new(TlsConnector::from(config).connect(name, tcp).await.map_err(in_words)?)
            }
        };
        Ok(TokioIo::new(stream))
    }
}

/// The authority of a node is none that the operator's identity knows.
pub(super) const OTHER_AUTHORITY: &str =
    "this node is of another cluster than the operator's identity, or their authority was replaced since";

/// What an operator can do about a handshake that failed.
fn in_words(error: io::Error) -> io::Error {
    use rustls::{CertificateError, Error};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    let words = match cause {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            OTHER_AUTHORITY
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "this node is of another cluster, or does not have the name of --server-name",
        Some(Error::InvalidMessage(_)) => "there is no shoal admin port: what answers speaks no TLS",
        _ => return error,
    };
    io::Error::new(error.kind(), words)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().open())
    }
}
