//! Certificates of those who vouch for others, and who of them may.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// What a file of authorities says.
#[derive(Debug)]
pub struct Authorities {
    /// Those of the certificates that may vouch for others.
    pub roots: RootCertStore,
    /// All of them.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Reads PEM.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn read(pem: &str) -> Result<Self, String> {
        let mut read = Self { roots: RootCertStore::empty(), certificates: Vec::new() };
        for (place, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
            let certificate = certificate.map_err(|error| format!("the authorities are not PEM: {error}"))?;
            let cannot = |why: &str| format!("authority {} cannot be used: {why}", place + 1);
            if may_vouch(&certificate).ok_or_else(|| cannot("it is not X.509"))? {
                read.roots.add(certificate.clone()).map_err(|error| cannot(&error.to_string()))?;
            }
            read.certificates.push(certificate);
        }
        match read.certificates.is_empty() {
            true => Err("there is no certificate among the authorities".to_owned()),
            false => Ok(read),
        }
    }

    /// The same where all that counts is for whom they vouch.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn read_roots(pem: &str) -> Result<RootCertStore, String> {
        let read = Self::read(pem)?;
        match read.certificates.iter().position(|certificate| may_vouch(certificate) != Some(true)) {
            None => Ok(read.roots),
            Some(place) => Err(format!(
                "authority {} is none: it may not vouch for others (basicConstraints is not CA:TRUE)",
                place + 1
            )),
        }
    }
}

/// Whether a certificate may vouch for others: it says so (RFC 5280 §4.2.1.9), or is of a time when none did, and does not
/// say that its key is for something else (§4.2.1.3). `None` = it is no certificate.
fn may_vouch(certificate: &CertificateDer<'_>) -> Option<bool> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let is_authority = match certificate.basic_constraints().ok()? {
        Some(constraints) => constraints.value.ca,
        None => certificate.version() != X509Version::V3,
    };
    let usage = certificate.key_usage().ok()?;
    Some(is_authority && usage.is_none_or(|usage| usage.value.key_cert_sign()))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};

    use super::*;

    fn pem(is_ca: IsCa, usages: &[KeyUsagePurpose]) -> String {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.is_ca, params.key_usages) = (is_ca, usages.to_vec());
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn who_may_vouch_for_others_says_so() {
        let ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = pem(ca, &[KeyUsagePurpose::KeyCertSign]);
        assert_eq!(Authorities::read_roots(&pem(ca, &[])).unwrap().len(), 1);
        let others =
            [(IsCa::NoCa, &[][..]), (IsCa::ExplicitNoCa, &[]), (ca, &[KeyUsagePurpose::DigitalSignature])];
        for (is_ca, usages) in others {
            let other = pem(is_ca, usages);
            let read = Authorities::read(&format!("{authority}{other}")).unwrap();
            assert_eq!((read.roots.len(), read.certificates.len()), (1, 2));
            assert_eq!(Authorities::read(&other).unwrap().roots.len(), 0);
            let refused = Authorities::read_roots(&format!("{authority}{other}")).unwrap_err();
            assert!(refused.contains("authority 2 is none"), "{refused}");
        }
        assert_eq!(Authorities::read_roots(&authority).unwrap().len(), 1);
    }

    #[test]
    fn tells_what_is_wrong_in_one_line() {
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, part) in [
            ("", "there is no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAA", "are not PEM"),
            (garbage, "authority 1 cannot be used: it is not X.509"),
        ] {
            let refused = Authorities::read(text).unwrap_err();
            assert!(refused.contains(part) && !refused.contains('\n'), "{text:?}: {refused}");
        }
    }
}
