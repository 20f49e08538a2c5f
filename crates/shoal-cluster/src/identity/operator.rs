//! What an operator needs to call the cluster from afar: one file.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use shoal_model::ClusterId;

use super::authority::CLOCK_SLACK;
use super::files::{Base64, read_secret_file, write_secret_file};
use super::{IdentityError, validity};

/// An operator's certificate and key, with the authority by which it knows the cluster's nodes.
pub struct Operator {
    /// The cluster it may call.
    pub cluster_id: ClusterId,
    /// What the audit shows.
    pub name: String,
    /// The cluster's authority.
    pub ca_der: CertificateDer<'static>,
    /// Another one that is believed, while one succeeds the other.
    pub other_authorities: Vec<CertificateDer<'static>>,
    /// Its certificate.
    pub cert_der: CertificateDer<'static>,
    /// Its private key, PKCS#8.
    pub key_der: PrivatePkcs8KeyDer<'static>,
}

#[derive(Serialize, Deserialize)]
struct OperatorFile {
    cluster_id: ClusterId,
    name: String,
    ca: Base64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    other_authorities: Vec<Base64>,
    certificate: Base64,
    key: Base64,
}

impl Operator {
    /// Reads it from `path`, which nobody else may be able to read.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let file: OperatorFile = read_secret_file(path)?;
        Ok(Self {
            cluster_id: file.cluster_id,
            name: file.name,
            ca_der: CertificateDer::from(file.ca.0),
            other_authorities: file
                .other_authorities
                .into_iter()
                .map(|other| CertificateDer::from(other.0))
                .collect(),
            cert_der: CertificateDer::from(file.certificate.0),
            key_der: PrivatePkcs8KeyDer::from(file.key.0),
        })
    }

    /// For how long it was given; `None` = its certificate cannot be read.
    pub fn lifetime(&self) -> Option<Duration> {
        let (from, to) = validity(&self.cert_der)?;
        let given = Duration::from_secs(u64::try_from(to - from).ok()?);
        Some(given.saturating_sub(CLOCK_SLACK))
    }

    /// Writes it to `path`, mode 0600, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let file = OperatorFile {
            cluster_id: self.cluster_id,
            name: self.name.clone(),
            ca: Base64(self.ca_der.to_vec()),
            other_authorities: self.other_authorities.iter().map(|other| Base64(other.to_vec())).collect(),
            certificate: Base64(self.cert_der.to_vec()),
            key: Base64(self.key_der.secret_pkcs8_der().to_vec()),
        };
        write_secret_file(path, &file)
    }
}

/// Never prints the key.
impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").field("name", &self.name).finish_non_exhaustive()
    }
}
