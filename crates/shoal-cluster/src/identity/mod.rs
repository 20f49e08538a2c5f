//! Who this node is: the cluster's authority, the node's certificate, the cluster's secret.

mod authorities;
mod authority;
mod bound_serial;
mod client_auth;
mod files;
mod inspect;
mod key_ring;
mod operator;
mod sealed_file;
mod secret;
mod staple;

use std::fmt;

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use shoal_model::{ClusterId, NodeId};

pub use authorities::Authorities;
pub use authority::{Authority, CLOCK_SLACK, NODE_VALIDITY, OPERATOR_VALIDITY, ends_in, was_signed_by};
pub(crate) use bound_serial::serial_fits;
pub use client_auth::{ClientCertificate, WithoutCertificate, client_verifier, inspect_client_auth};
pub use files::{is_in_data_dir, write_private};
pub use inspect::{
    inspect_authorities, inspect_certificate, key_of, not_after, public_key_sha256, serial, validity,
};
pub use key_ring::KeyRing;
pub use operator::Operator;
pub use sealed_file::{BadPassphrase, Passphrase, SealedFile, SealedFileError, seal_file};
pub(crate) use secret::hex;
pub use secret::{ClusterSecret, Purpose, sha256_hex};
pub use staple::inspect_staple;

/// What a node keeps to prove who it is. Everything in it but the certificates is secret.
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster_id: ClusterId,
    /// Raised by recovery: what carries a lower one is refused.
    pub cluster_epoch: u64,
    /// Its id, given out by the log.
    pub node_id: NodeId,
    /// Its `--name`.
    pub name: String,
    /// The cluster's authority.
    pub ca_der: CertificateDer<'static>,
    /// While one authority succeeds another: the other one.
    pub succession: Succession,
    /// Its own certificate, signed by the authority.
    pub cert_der: CertificateDer<'static>,
    /// The private key of [`Identity::cert_der`], PKCS#8.
    pub key_der: PrivatePkcs8KeyDer<'static>,
    /// Shared by the nodes of the cluster.
    pub secret: ClusterSecret,
    /// What sealed the gossip when this node joined, if that did not follow from the secret: its log tells of those since.
    pub gossip_keys: Option<KeyRing>,
}

/// Whom a node believes beside the authority of its own certificate, and what it shows to those who do not know that one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Succession {
    /// Authorities.
    pub others: Vec<CertificateDer<'static>>,
    /// The newer authority, certified by the older one.
    pub bridge: Option<CertificateDer<'static>>,
    /// SHA-256 of the certificates of those that have retired, hex: there are tokens that name them.
    pub former: Vec<String>,
}

/// An identity cannot be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot {what} {path:?}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read what must stay secret.
    #[error(
        "{path:?} can be read by others (mode {mode:03o}): run `chmod 600` on it, and replace what it holds if others may have seen it"
    )]
    Permissions {
        /// Which.
        path: std::path::PathBuf,
        /// As it is.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("{path:?} is damaged: {message}")]
    Damaged {
        /// Which.
        path: std::path::PathBuf,
        /// How.
        message: String,
    },
    /// A certificate, key or request is not what it should be.
    #[error("cannot {what}: {message}")]
    Certificate {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        message: String,
    },
}

impl IdentityError {
    fn certificate(what: &'static str, error: impl fmt::Display) -> Self {
        Self::Certificate { what, message: error.to_string() }
    }
}

impl Identity {
    /// The first node of a new cluster, and the authority it founds. The authority's key is sealed into the log (see
    /// [`Authority::seal_key`]) and kept nowhere else.
    pub fn bootstrap(name: &str) -> Result<(Self, Authority), IdentityError> {
        let cluster_id = ClusterId(random_number());
        let node_id = NodeId(1);
        let authority = Authority::found(cluster_id)?;
        let key = NodeKey::generate()?;
        let cert_der = authority.sign_node(&key.request()?, node_id, NODE_VALIDITY)?;
        let identity = Self {
            cluster_id,
            cluster_epoch: 0,
            node_id,
            name: name.to_owned(),
            ca_der: authority.certificate().clone(),
            succession: Succession::default(),
            cert_der,
            key_der: key.key_der(),
            secret: ClusterSecret::generate(),
            gossip_keys: None,
        };
        Ok((identity, authority))
    }

    /// Every authority that it believes, that of its own certificate first.
    pub fn authorities(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.ca_der).chain(&self.succession.others)
    }

    /// The private key, for TLS.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key_der.clone_key())
    }

    /// A certificate signing request (PKCS#10, DER) for its key.
    pub fn certificate_request(&self) -> Result<Vec<u8>, IdentityError> {
        NodeKey::from_der(&self.key_der)?.request()
    }

    /// SHA-256 of the public key (SPKI, DER), hex: what the log knows this node by.
    pub fn public_key_sha256(&self) -> Result<String, IdentityError> {
        Ok(NodeKey::from_der(&self.key_der)?.public_key_sha256())
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            cluster_id: self.cluster_id,
            cluster_epoch: self.cluster_epoch,
            node_id: self.node_id,
            name: self.name.clone(),
            ca_der: self.ca_der.clone(),
            succession: self.succession.clone(),
            cert_der: self.cert_der.clone(),
            key_der: self.key_der.clone_key(),
            secret: self.secret.clone(),
            gossip_keys: self.gossip_keys.clone(),
        }
    }
}

/// Never prints secrets.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster_id", &self.cluster_id)
            .field("node_id", &self.node_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A node's key pair before it has a certificate: kept while joining, so that a second attempt is the same node.
pub struct NodeKey {
    pair: KeyPair,
}

impl NodeKey {
    /// A new one, ECDSA P-256.
    pub fn generate() -> Result<Self, IdentityError> {
        let pair = KeyPair::generate().map_err(|error| IdentityError::certificate("make a key", error))?;
        Ok(Self { pair })
    }

    /// One made before.
    pub fn from_der(key_der: &PrivatePkcs8KeyDer<'_>) -> Result<Self, IdentityError> {
        let pair = KeyPair::try_from(key_der)
            .map_err(|error| IdentityError::certificate("read the node's key", error))?;
        Ok(Self { pair })
    }

    /// The private part.
    pub fn key_der(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der())
    }

    /// A certificate signing request (PKCS#10, DER): proves that its sender has the key, and asks for nothing else.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        let request = rcgen::CertificateParams::default().serialize_request(&self.pair);
        request
            .map(|request| request.der().to_vec())
            .map_err(|error| IdentityError::certificate("make a certificate request", error))
    }

    /// SHA-256 of the public key (SPKI, DER), hex.
    pub fn public_key_sha256(&self) -> String {
        sha256_hex(&self.pair.subject_public_key_info())
    }
}

/// Never prints the key.
impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKey")
            .field("public_key_sha256", &self.public_key_sha256())
            .finish_non_exhaustive()
    }
}

/// A name that nobody else gives to anything: 64 random bits, hex.
pub fn random_id() -> String {
    format!("{:016x}", random_number())
}

/// Random bits from the system.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random source does not fail once it is up");
    bytes
}

/// Any number.
pub fn random_number() -> u64 {
    u64::from_be_bytes(random_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_no_secret() {
        let (identity, authority) = Identity::bootstrap("one").unwrap();
        let key = NodeKey::from_der(&identity.key_der).unwrap();
        let text = format!("{identity:?} {authority:?} {key:?} {:?}", identity.secret);
        assert!(text.contains("node_id: NodeId(1)"), "{text}");
        assert!(!text.contains("secret: ["), "{text}");
        assert!(text.len() < 600, "something large was printed: {text}");
    }

    #[test]
    fn request_and_key_have_one_fingerprint() {
        let key = NodeKey::generate().unwrap();
        let again = NodeKey::from_der(&key.key_der()).unwrap();
        assert_eq!(key.public_key_sha256(), again.public_key_sha256());
        assert_eq!(Authority::request_key_sha256(&key.request().unwrap()).unwrap(), key.public_key_sha256());
        assert_ne!(NodeKey::generate().unwrap().public_key_sha256(), key.public_key_sha256());
    }
}
