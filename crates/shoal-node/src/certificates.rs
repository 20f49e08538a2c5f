//! What the certificates of the site say, read once for each revision and not at each look.

use std::sync::{Arc, Mutex, PoisonError};

use shoal_cluster::identity::inspect_certificate;
use shoal_model::{ConfigView, Revision};

/// One certificate of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCertificate {
    /// Its name in the site.
    pub name: String,
    /// What it is for.
    pub dns_names: Vec<String>,
    /// Unix seconds at which it expires; 0 = it cannot be read.
    pub not_after: i64,
}

/// The certificates of the revision that was looked at last.
#[derive(Debug, Default)]
pub struct Certificates {
    known: Mutex<Option<(Revision, Arc<[KnownCertificate]>)>>,
}

impl Certificates {
    /// Those of `config`.
    pub fn of(&self, config: &ConfigView) -> Arc<[KnownCertificate]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((revision, certificates)) if *revision == config.revision => certificates.clone(),
            Some(_) | None => {
                let certificates = read(config);
                *known = Some((config.revision, certificates.clone()));
                certificates
            }
        }
    }
}

fn read(config: &ConfigView) -> Arc<[KnownCertificate]> {
    let certificates = config.certificates.iter().map(|certificate| {
        let facts = inspect_certificate(&certificate.chain_pem, &certificate.key_pem);
        let (dns_names, not_after) =
            facts.map_or_else(|_| (Vec::new(), 0), |facts| (facts.dns_names, facts.not_after));
        KnownCertificate { name: certificate.name.to_string(), dns_names, not_after }
    });
    certificates.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_once() {
        let certificates = Certificates::default();
        let config = |revision| ConfigView { revision: Revision(revision), ..ConfigView::default() };
        let first = certificates.of(&config(1));
        assert!(Arc::ptr_eq(&first, &certificates.of(&config(1))));
        assert!(!Arc::ptr_eq(&first, &certificates.of(&config(2))));
    }
}
