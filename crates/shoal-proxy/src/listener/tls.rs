//! The server side of TLS: certificates chosen by name, ALPN, versions.

use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shoal_cluster::inspect_certificate;
use shoal_model::ConfigView;
use shoal_model::site::TlsVersion;
use shoal_model::view::{CertificateView, ListenerView};

use super::Tls;
use super::tickets::{TicketSeed, Tickets};

/// The certificates of a listener, found by name.
pub(crate) struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    /// Places in `keys`.
    exact: FxHashMap<Box<str>, usize>,
    /// `example.com` for `*.example.com`.
    wildcard: FxHashMap<Box<str>, usize>,
}

impl Certificates {
    /// The certificate for `name`; one label may stand for a wildcard (RFC 9525 §6.3). The first is the default.
    pub(crate) fn find(&self, name: Option<&str>) -> usize {
        let Some(name) = name else { return 0 };
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.find(Some(&name.to_ascii_lowercase()));
        }
        let by_wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(by_wildcard).copied().unwrap_or(0)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("count", &self.keys.len()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct BySni(Arc<Certificates>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = &self.0;
        certificates.keys.get(certificates.find(hello.server_name())).cloned()
    }
}

/// The TLS settings of `listener`. Errs with the reason.
pub(super) fn build(listener: &ListenerView, config: &ConfigView, seed: TicketSeed) -> Result<Tls, String> {
    let provider = Arc::new(default_provider());
    let mut certificates =
        Certificates { keys: Vec::new(), exact: FxHashMap::default(), wildcard: FxHashMap::default() };
    for place in &listener.certificates {
        let certificate =
            config.certificates.get(*place).ok_or("it names a certificate that does not exist")?;
        load(&mut certificates, certificate, &provider)
            .map_err(|error| format!("certificate {:?}: {error}", certificate.name))?;
    }
    if certificates.keys.is_empty() {
        return Err("it speaks https and has no certificate".to_owned());
    }
    let versions: &[_] = match listener.min_tls {
        TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
        TlsVersion::V1_3 => &[&version::TLS13],
    };
    let certificates = Arc::new(certificates);
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(BySni(certificates.clone())));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tls.ticketer = Arc::new(Tickets::new(seed, listener.name.clone()));
    Ok(Tls { config: Arc::new(tls), certificates })
}

fn load(
    certificates: &mut Certificates,
    certificate: &CertificateView,
    provider: &CryptoProvider,
) -> Result<(), String> {
    let facts = inspect_certificate(&certificate.chain_pem, &certificate.key_pem)?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
    let key =
        PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).map_err(|error| error.to_string())?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    let place = certificates.keys.len();
    certificates.keys.push(Arc::new(CertifiedKey::new(chain, key)));
    for name in facts.dns_names {
        match name.strip_prefix("*.") {
            Some(parent) => certificates.wildcard.entry(parent.into()).or_insert(place),
            None => certificates.exact.entry(name.as_str().into()).or_insert(place),
        };
    }
    Ok(())
}
