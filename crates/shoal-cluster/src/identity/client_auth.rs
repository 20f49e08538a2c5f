//! Certificates that downstreams show: whose are believed, and what they say.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authorities::Authorities;
use super::sha256_hex;

/// Names of one certificate that are kept.
const MAX_NAMES: usize = 32;

/// Whether a downstream may go without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutCertificate {
    /// It may not.
    Refused,
    /// It may.
    LetIn,
}

/// Believes what the authorities of `ca_pem` vouch for, and the lists of `crl_pem` do not revoke.
///
/// # Errors
/// What is wrong, in one line.
pub fn client_verifier(
    ca_pem: &str,
    crl_pem: Option<&str>,
    without: WithoutCertificate,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let roots = Authorities::read_roots(ca_pem)?;
    let lists = crl_pem.map(|pem| CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()).collect());
    let lists: Vec<_> =
        lists.unwrap_or_else(|| Ok(Vec::new())).map_err(|error: rustls_pki_types::pem::Error| {
            format!("the revocation lists are not PEM: {error}")
        })?;
    if lists.is_empty() && crl_pem.is_some() {
        return Err("there is no list among the revocation lists".to_owned());
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    let builder = builder.with_crls(lists);
    let builder = match without {
        WithoutCertificate::Refused => builder,
        WithoutCertificate::LetIn => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| format!("the revocation lists cannot be used: {error}"))
}

/// Whether [`client_verifier`] can be made of these texts.
///
/// # Errors
/// What is wrong, in one line.
pub fn inspect_client_auth(ca_pem: &str, crl_pem: Option<&str>) -> Result<(), String> {
    client_verifier(ca_pem, crl_pem, WithoutCertificate::Refused).map(|_| ())
}

/// Who called, by a certificate that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its distinguished name, as text.
    pub subject: String,
    /// DNS names, addresses of e-mail and URIs, as far as they are text.
    pub names: Vec<String>,
    /// SHA-256 of the certificate, hex.
    pub sha256: String,
    /// Unix seconds at which it expires.
    pub not_after: i64,
}

impl ClientCertificate {
    /// Reads what a certificate (DER) says; `None` = it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok()?;
        let text = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
                Some((*text).to_owned())
            }
            _ => None,
        };
        let names = names.map_or_else(Vec::new, |names| {
            names.value.general_names.iter().filter_map(text).take(MAX_NAMES).collect()
        });
        Some(Self {
            subject: certificate.subject().to_string(),
            names,
            sha256: sha256_hex(der),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};

    use super::*;

    #[test]
    fn says_what_the_certificate_says() {
        let mut params = CertificateParams::new(vec!["app.example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://x/y".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "app");
        params.distinguished_name.push(DnType::OrganizationName, "Shop");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = ClientCertificate::read(certificate.der()).unwrap();
        assert!(read.subject.contains("CN=app") && read.subject.contains("O=Shop"), "{}", read.subject);
        assert_eq!(read.names, ["app.example", "spiffe://x/y"]);
        assert_eq!(read.sha256, sha256_hex(certificate.der()));
        assert_eq!(ClientCertificate::read(b"nothing"), None);
    }

    #[test]
    fn tells_what_is_wrong_in_one_line() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let check =
            |ca: &str, crl: Option<&str>, wrong: Option<&str>| match (inspect_client_auth(ca, crl), wrong) {
                (Ok(()), None) => {}
                (Err(message), Some(part)) => assert!(message.contains(part), "{message:?} and {part:?}"),
                (seen, wrong) => panic!("{seen:?} instead of {wrong:?}"),
            };
        check(&ca, None, None);
        check("", None, Some("no certificate among"));
        check(&ca, Some(""), Some("no list among"));
        check(&ca, Some("-----BEGIN X509 CRL-----\nAA"), Some("not PEM"));
        let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
        check(&ca, Some(broken), Some("cannot be used"));
    }
}
