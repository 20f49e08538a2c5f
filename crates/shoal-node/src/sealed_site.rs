//! Private keys on their way into the log and out of it: sealed with the cluster's secret, shown never.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shoal_cluster::identity::{ClusterSecret, Purpose, sha256_hex};
use shoal_model::Site;
use shoal_model::site::{Certificate, KeyForm, Problem, step};

/// A key of the log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the key of certificate {name:?} cannot be unsealed: {why}")]
pub struct UnsealError {
    name: String,
    why: String,
}

impl UnsealError {
    /// The same, for whoever wrote the site.
    pub fn problem(&self) -> Problem {
        Problem::at(
            format!("certificates.{}", step(&self.name)),
            format!("its key cannot be unsealed: {}", self.why),
        )
    }
}

/// `site` with every clear-text key sealed and fingerprinted: what may be put into the log.
pub fn seal(mut site: Site, secret: &ClusterSecret) -> Site {
    for (name, certificate) in &mut site.certificates {
        let Some(key) = certificate.key_pem.take() else { continue };
        certificate.key_sha256 = Some(sha256_hex(key.as_bytes()));
        certificate.key_sealed =
            Some(STANDARD.encode(secret.seal(Purpose::SiteKeys, name.as_bytes(), key.as_bytes())));
        certificate.chain_file = None;
        certificate.key_file = None;
    }
    site
}

/// `site` with every sealed key in clear text: what can be served.
pub fn unseal(mut site: Site, secret: &ClusterSecret) -> Result<Site, UnsealError> {
    for (name, certificate) in &mut site.certificates {
        if certificate.key_form() == KeyForm::Sealed {
            certificate.key_pem = Some(open_key(name, certificate, secret)?);
        }
    }
    Ok(site)
}

/// `site` as it may be shown.
pub fn redact(site: Site) -> Site {
    let mut site = site.with_own_blocks();
    for certificate in site.certificates.values_mut() {
        *certificate = certificate.redacted();
    }
    site
}

/// The sealed key of one certificate in clear text.
pub fn open_key(
    name: &str,
    certificate: &Certificate,
    secret: &ClusterSecret,
) -> Result<String, UnsealError> {
    open(name, certificate, secret).map_err(|why| UnsealError { name: name.to_owned(), why: why.to_owned() })
}

fn open(name: &str, certificate: &Certificate, secret: &ClusterSecret) -> Result<String, &'static str> {
    let sealed = certificate.key_sealed.as_deref().unwrap_or_default();
    let sealed = STANDARD.decode(sealed).map_err(|_| "it is not base64")?;
    let plain = secret
        .unseal(Purpose::SiteKeys, name.as_bytes(), &sealed)
        .map_err(|_| "it was sealed with another secret")?;
    String::from_utf8(plain).map_err(|_| "it is not text")
}
