//! Whether two nodes believe each other's certificates: in TLS 1.3 whoever connects is done before its own was looked at, and
//! learns only then that it is refused.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error};
use shoal_model::NodeId;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::{ConnectError, Peers};

/// For a refusal to arrive. Who has not said no until then waits for a request.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// What another node and this one make of each other's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// They talk to each other.
    Mutual,
    /// It shows one of an authority that is not believed here.
    NotHere,
    /// It does not believe the authority of ours.
    NotThere,
}

impl Peers {
    /// What `node` and this one make of each other, by a connection that is good for nothing else.
    ///
    /// # Errors
    /// It cannot be connected to, for another reason.
    pub async fn belief_between(&self, node: NodeId) -> Result<Belief, ConnectError> {
        let mut connection = match self.connect_http1(node).await {
            Ok(connection) => connection,
            Err(ConnectError::Prove { source, .. }) if is_of_unknown_authority(&source) => {
                return Ok(Belief::NotHere);
            }
            Err(error) => return Err(error),
        };
        match timeout(REFUSAL_PATIENCE, connection.read_u8()).await {
            Ok(Err(refusal)) if is_refusal_of_ours(&refusal) => Ok(Belief::NotThere),
            _ => Ok(Belief::Mutual),
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn is_of_unknown_authority(error: &io::Error) -> bool {
    matches!(tls_error(error), Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)))
}

fn is_refusal_of_ours(error: &io::Error) -> bool {
    matches!(tls_error(error), Some(Error::AlertReceived(AlertDescription::UnknownCA)))
}
