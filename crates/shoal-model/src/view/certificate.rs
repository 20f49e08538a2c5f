//! A certificate as it is served.

use std::sync::Arc;

use crate::site::{Certificate, Problem, Problems, Site};

/// A certificate with its key, as PEM text.
#[derive(PartialEq, Eq)]
pub struct CertificateView {
    /// Its name in the site.
    pub name: Arc<str>,
    /// The leaf first.
    pub chain_pem: Arc<str>,
    /// The private key: never printed.
    pub key_pem: Arc<str>,
    /// An OCSP response about the leaf, DER.
    pub staple: Option<Arc<[u8]>>,
}

/// Never prints the key.
impl std::fmt::Debug for CertificateView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateView").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(super) fn compile_all(site: &Site) -> Result<Vec<Arc<CertificateView>>, Problems> {
    let compile = |(name, certificate): (&String, &Certificate)| {
        let (Some(chain_pem), Some(key_pem)) = (&certificate.chain_pem, &certificate.key_pem) else {
            let message = "its chain and key were not read in before it was compiled";
            return Err(Problems(vec![Problem::at(format!("certificates.{name}"), message)]));
        };
        Ok(Arc::new(CertificateView {
            name: name.as_str().into(),
            chain_pem: chain_pem.as_str().into(),
            key_pem: key_pem.as_str().into(),
            staple: certificate.staple().map(Into::into),
        }))
    };
    site.certificates.iter().map(compile).collect()
}
