//! The server side of TLS: certificates chosen by name, versions, ciphers, who must show a certificate, ALPN.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite as suites, default_provider};
use rustls::{ServerConfig, SupportedCipherSuite, version};
use shoal_cluster::identity::{WithoutCertificate, client_verifier};
use shoal_model::ConfigView;
use shoal_model::site::{CipherSuite, ClientAuthMode, TlsVersion};
use shoal_model::view::{ClientAuthView, ListenerView};

use super::Tls;
use super::certificates::{BySni, Certificates};
use super::tickets::{TicketSeed, Tickets};

/// The TLS settings of `listener`; what was read `before` is not read again. Errs with the reason.
pub(super) fn build(
    listener: &ListenerView,
    config: &ConfigView,
    seed: TicketSeed,
    before: Option<&Tls>,
) -> Result<Tls, String> {
    let provider = Arc::new(provider(&listener.ciphers));
    let views = listener.certificates.iter().map(|place| config.certificates.get(*place).cloned());
    let views: Option<Vec<_>> = views.collect();
    let views = views.ok_or("it names a certificate that does not exist")?;
    let before = before.map(|before| &*before.certificates);
    let certificates = Arc::new(Certificates::load(views.into_iter(), before, &provider)?);
    if certificates.is_empty() {
        return Err("it speaks https and has no certificate".to_owned());
    }
    let versions: &[_] = match listener.min_tls {
        TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
        TlsVersion::V1_3 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match &listener.client_auth {
        None => builder.with_no_client_auth(),
        Some(auth) => {
            let without = match auth.mode {
                ClientAuthMode::Require => WithoutCertificate::Refused,
                ClientAuthMode::Optional => WithoutCertificate::LetIn,
            };
            let verifier = client_verifier(&auth.ca_pem, auth.crl_pem.as_deref(), without)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut tls = builder.with_cert_resolver(Arc::new(BySni(certificates.clone())));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tls.ticketer = Arc::new(Tickets::new(seed, ticket_scope(listener)));
    Ok(Tls { config: Arc::new(tls), certificates })
}

/// Whose tickets can be opened. One carries the certificate that was shown, and it is not verified again: only where the
/// same authorities, revocations and mode are in force would it have been let in.
fn ticket_scope(listener: &ListenerView) -> Box<[u8]> {
    let mut scope = listener.name.as_bytes().to_vec();
    if let Some(ClientAuthView { ca_pem, crl_pem, mode, forward: _ }) = &listener.client_auth {
        let mode: &[u8] = match mode {
            ClientAuthMode::Require => b"require",
            ClientAuthMode::Optional => b"optional",
        };
        // Names have no zero bytes, and neither has PEM.
        for part in [mode, ca_pem.as_bytes(), crl_pem.as_deref().unwrap_or_default().as_bytes()] {
            scope.push(0);
            scope.extend_from_slice(part);
        }
    }
    scope.into()
}

/// Everything that is known to be safe, or of it what is in `ciphers`.
fn provider(ciphers: &[CipherSuite]) -> CryptoProvider {
    let mut provider = default_provider();
    if !ciphers.is_empty() {
        let wanted: Vec<_> = ciphers.iter().map(|suite| suite_of(*suite).suite()).collect();
        provider.cipher_suites.retain(|known| wanted.contains(&known.suite()));
    }
    provider
}

fn suite_of(suite: CipherSuite) -> SupportedCipherSuite {
    match suite {
        CipherSuite::Aes256Gcm => suites::TLS13_AES_256_GCM_SHA384,
        CipherSuite::Aes128Gcm => suites::TLS13_AES_128_GCM_SHA256,
        CipherSuite::Chacha20 => suites::TLS13_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheEcdsaAes256Gcm => suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheEcdsaAes128Gcm => suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheEcdsaChacha20 => suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheRsaAes256Gcm => suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheRsaAes128Gcm => suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheRsaChacha20 => suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}
