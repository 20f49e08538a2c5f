//! TCP and TLS to one node, within a deadline.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, Error as TlsFailure};
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::{CONNECT_TIMEOUT, Cuttable, UnknownPeer};
use crate::identity::key_of;
use crate::tls::{ClientSide, deepest};

/// Where to connect, and who must answer there.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) name: ServerName<'static>,
    pub(crate) tls: ClientSide,
    /// The key that it is to show (SHA-256 of the public one, hex); `None` = whichever a believed authority has certified.
    pub(crate) key: Option<String>,
}

/// A node could not be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It is not known where.
    #[error(transparent)]
    Unknown(#[from] UnknownPeer),
    /// Nobody answers there, or not in time.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers, but not the node that should, or it does not accept our certificate.
    #[error("{address} did not prove to be {}: {}", name.to_str(), deepest(source))]
    Prove {
        /// Where.
        address: SocketAddr,
        /// Who should have answered.
        name: ServerName<'static>,
        /// Why.
        source: io::Error,
    },
}

/// Connects, and verifies who answers.
pub(crate) async fn connect_tls(target: &Target) -> Result<TlsStream<TcpStream>, ConnectError> {
    let address = target.address;
    let refused = |source| ConnectError::Connect { address, source };
    let connect = async {
        let tcp = TcpStream::connect(address).await.map_err(refused)?;
        tcp.set_nodelay(true).map_err(refused)?;
        let connector = TlsConnector::from(target.tls.now());
        let unproven = |source| ConnectError::Prove { address, name: target.name.clone(), source };
        let stream = connector.connect(target.name.clone(), tcp).await.map_err(unproven)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        if target.key.is_some() && certificate.and_then(|leaf| key_of(leaf)) != target.key {
            return Err(unproven(io::Error::other("it has another key than the cluster knows it by")));
        }
        Ok(stream)
    };
    match timeout(CONNECT_TIMEOUT, connect).await {
        Ok(connected) => connected,
        Err(_) => Err(refused(io::ErrorKind::TimedOut.into())),
    }
}

/// Whether who answers there refuses whoever shows no certificate, as the admin address of a node does.
pub(crate) async fn wants_certificate(target: &Target) -> bool {
    let Ok(mut connection) = connect_tls(target).await else { return false };
    // A refusal arrives only with the first read.
    let Ok(Err(error)) = timeout(CONNECT_TIMEOUT, connection.read_u8()).await else { return false };
    let failure = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsFailure>());
    matches!(failure, Some(TlsFailure::AlertReceived(AlertDescription::CertificateRequired)))
}

/// [`connect_tls`] as gRPC channels want it.
#[derive(Clone)]
pub(crate) struct Connector {
    target: Arc<Target>,
    cut: CancellationToken,
}

impl Connector {
    /// Connects until it is `cut`, and its connections end then.
    pub(crate) fn to(target: Target, cut: CancellationToken) -> Self {
        Self { target: Arc::new(target), cut }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Cuttable<TlsStream<TcpStream>>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (target, cut) = (self.target.clone(), self.cut.clone());
        Box::pin(async move {
            let stream = connect_tls(&target).await?;
            Ok(TokioIo::new(Cuttable::until(stream, cut.cancelled_owned())))
        })
    }
}
