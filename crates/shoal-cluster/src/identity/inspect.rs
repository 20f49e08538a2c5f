//! A look into the certificates of a site before they are used.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shoal_model::site::CertificateFacts;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authorities::Authorities;
use super::hex;

/// Most certificates in one chain.
const MAX_CHAIN: usize = 10;

/// What the leaf of a chain says, once it is clear that it can be served with this key. The error is one line for
/// whoever wrote the site.
pub fn inspect_certificate(chain_pem: &str, key_pem: &str) -> Result<CertificateFacts, String> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("the certificate chain is not PEM: {error}"))?;
    let Some(leaf) = chain.first() else {
        return Err("there is no certificate in the chain".to_owned());
    };
    if chain.len() > MAX_CHAIN {
        return Err(format!("the chain has {} certificates, at most {MAX_CHAIN} are allowed", chain.len()));
    }
    for (place, certificate) in chain.iter().enumerate() {
        if X509Certificate::from_der(certificate).is_err() {
            return Err(format!("certificate {} of the chain is not X.509", place + 1));
        }
    }
    let facts = read_facts(leaf)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound if key_pem.contains("ENCRYPTED") => {
            "the private key is encrypted; `openssl pkey -in KEY -out CLEAR` writes it in clear".to_owned()
        }
        rustls_pki_types::pem::Error::NoItemsFound => "there is no private key in the key file".to_owned(),
        error => format!("the private key is not PEM: {error}"),
    })?;
    match CertifiedKey::from_der(chain, key, &default_provider()) {
        Ok(_) => Ok(facts),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err("the key does not match the certificate".to_owned())
        }
        Err(error) => Err(format!("the key cannot be used: {error}")),
    }
}

/// Whether `pem` is a list of authorities, and perhaps of certificates that are believed by themselves.
///
/// # Errors
/// What is wrong, in one line.
pub fn inspect_authorities(pem: &str) -> Result<(), String> {
    Authorities::read(pem).map(|_| ())
}

/// Unix seconds at which a certificate expires.
pub fn not_after(certificate_der: &[u8]) -> Option<i64> {
    validity(certificate_der).map(|(_, not_after)| not_after)
}

/// Unix seconds from and to which a certificate is good; `None` = it is none.
pub fn validity(certificate_der: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// The serial number of a certificate, hex; `None` = it is none.
pub fn serial(certificate_der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    Some(hex(certificate.raw_serial()))
}

/// SHA-256 of the public key of a certificate (SubjectPublicKeyInfo); `None` = it is none.
pub fn public_key_sha256(certificate_der: &[u8]) -> Option<[u8; 32]> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    let digest = digest(&SHA256, certificate.public_key().raw);
    digest.as_ref().try_into().ok()
}

/// The same, hex, as the log knows the keys of nodes.
pub fn key_of(certificate_der: &[u8]) -> Option<String> {
    public_key_sha256(certificate_der).map(|sha256| hex(&sha256))
}

fn read_facts(leaf: &CertificateDer<'_>) -> Result<CertificateFacts, String> {
    let parsed = X509Certificate::from_der(leaf);
    let (_, certificate) = parsed.map_err(|_| "certificate 1 of the chain is not X.509".to_owned())?;
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|_| "the certificate has malformed subject alternative names".to_owned())?;
    let dns_names = names.map_or_else(Vec::new, |names| {
        let dns_name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        names.value.general_names.iter().filter_map(dns_name).collect()
    });
    Ok(CertificateFacts { dns_names, not_after: certificate.validity().not_after.timestamp() })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn tells_what_is_wrong_in_one_line() {
        let (chain, key) = pair(&["Shop.example.com", "*.shop.example.com", "10.0.0.1"]);
        let (other_chain, other_key) = pair(&["other.example.com"]);
        let check = |chain: &str, key: &str, expected: Result<&[&str], &str>| match (
            inspect_certificate(chain, key),
            expected,
        ) {
            (Ok(facts), Ok(names)) => assert_eq!(facts.dns_names, names),
            (Err(message), Err(part)) => {
                assert!(message.contains(part), "{message:?} does not say {part:?}");
                assert!(!message.contains('\n'), "{message:?}");
            }
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        };
        check(&chain, &key, Ok(&["shop.example.com", "*.shop.example.com"]));
        check(&format!("{chain}{other_chain}"), &key, Ok(&["shop.example.com", "*.shop.example.com"]));
        check(&chain, &other_key, Err("the key does not match the certificate"));
        check(&format!("{other_chain}{chain}"), &key, Err("the key does not match the certificate"));
        check("", &key, Err("there is no certificate in the chain"));
        check(&key, &key, Err("there is no certificate in the chain"));
        check(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            Err("certificate 1 of the chain is not X.509"),
        );
        check("-----BEGIN CERTIFICATE-----\nAA", &key, Err("is not PEM"));
        check(&chain, "", Err("there is no private key"));
        check(&chain, &chain, Err("there is no private key"));
        check(
            &chain,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            Err("the key cannot be used"),
        );
        check(&chain.repeat(11), &key, Err("at most 10"));
    }
}
