//! A certificate chain with its private key, in the forms it takes on its way into the log.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Problem, Site, step};

/// A certificate chain and its private key.
///
/// As written: two files, read where `shoal apply` runs. On the way to a node: the texts inline. In the log and in
/// `shoal get`: the chain in clear, the key sealed or only its fingerprint.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Certificate {
    /// PEM file: the leaf first, then intermediates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_file: Option<PathBuf>,
    /// PEM file: PKCS#8, PKCS#1 or SEC1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The chain itself, instead of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_pem: Option<String>,
    /// The key itself, instead of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_pem: Option<String>,
    /// The key sealed with the cluster's secret, base64: written by nodes, never shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_sealed: Option<String>,
    /// SHA-256 of the key's PEM text, hex. A certificate that carries only this keeps the key the cluster has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_sha256: Option<String>,
    /// DER file: the authority's answer that the certificate is good (OCSP, RFC 6960), stapled to handshakes until it
    /// expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ocsp_file: Option<PathBuf>,
    /// The answer itself in base64, instead of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ocsp_base64: Option<String>,
}

/// Which form the private key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// A file that has yet to be read.
    File,
    /// In clear text.
    Pem,
    /// Sealed with the cluster's secret.
    Sealed,
    /// Only known by its fingerprint.
    Fingerprint,
    /// Missing altogether.
    Missing,
}

impl Certificate {
    /// The form of the key.
    pub fn key_form(&self) -> KeyForm {
        match self {
            Self { key_file: Some(_), .. } => KeyForm::File,
            Self { key_pem: Some(_), .. } => KeyForm::Pem,
            Self { key_sealed: Some(_), .. } => KeyForm::Sealed,
            Self { key_sha256: Some(_), .. } => KeyForm::Fingerprint,
            _ => KeyForm::Missing,
        }
    }

    /// The same certificate as it may be shown: no key in any form but its fingerprint.
    pub fn redacted(&self) -> Self {
        Self { key_pem: None, key_sealed: None, ..self.clone() }
    }

    /// The OCSP response; `None` = none is there, or it is no base64.
    pub fn staple(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.ocsp_base64.as_deref()?).ok()
    }
}

/// Never prints a key.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("chain_file", &self.chain_file)
            .field("key_form", &self.key_form())
            .field("key_sha256", &self.key_sha256)
            .finish_non_exhaustive()
    }
}

/// What an X.509 reader says about a chain and key that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// DNS names of the leaf, wildcards included, lower case.
    pub dns_names: Vec<String>,
    /// Unix seconds at which the leaf expires.
    pub not_after: i64,
}

/// What an OCSP response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StapleFacts {
    /// Unix seconds until which it is good; `None` = it does not say.
    pub next_update: Option<i64>,
}

/// Looks into every OCSP response. `inspect` reads a chain (PEM) and a response (DER), and says whether that is about the
/// leaf.
pub fn check_staples(
    site: &Site,
    inspect: impl Fn(&str, &[u8]) -> Result<StapleFacts, String>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, certificate) in &site.certificates {
        let (Some(chain), Some(_)) = (&certificate.chain_pem, &certificate.ocsp_base64) else { continue };
        let looked = certificate.staple().ok_or_else(|| "its OCSP response is no base64".to_owned());
        if let Err(message) = looked.and_then(|response| inspect(chain, &response)) {
            problems.push(Problem::at(format!("certificates.{}", step(name)), message));
        }
    }
    problems
}
