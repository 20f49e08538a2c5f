//! Certificates made for one story.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::HOST;
use crate::client::{Connection, Speak};
use crate::node::{NodeProcess, Ports};

/// Makes aws-lc-rs the one crypto provider of this process; harmless when repeated.
pub fn install_crypto() {
    // An error means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A self-signed certificate and its key, as files and in memory.
pub struct SelfSigned {
    /// PEM file of the certificate.
    pub chain_file: PathBuf,
    /// PEM file of the key.
    pub key_file: PathBuf,
    /// The certificate itself, to trust or to compare.
    pub der: CertificateDer<'static>,
}

impl SelfSigned {
    /// Makes one for `names` and writes it below `dir` as `<first name>.pem` and `.key`.
    pub fn create(dir: &Path, names: &[&str]) -> Result<Self> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = CertificateParams::new(names.clone())?.self_signed(&key)?;
        let stem = names[0].replace('*', "any");
        let (chain_file, key_file) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
        std::fs::write(&chain_file, certificate.pem())?;
        std::fs::write(&key_file, key.serialize_pem())?;
        Ok(Self { chain_file, key_file, der: certificate.der().clone() })
    }

    /// A TLS client that trusts this certificate and nothing else.
    pub fn trusting_client(&self, alpn: &[&str]) -> Result<Arc<ClientConfig>> {
        install_crypto();
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// `node` shows it to who asks for [`HOST`].
    pub async fn is_shown_by(&self, node: &NodeProcess) -> Result<()> {
        let speak = Speak::Tls(self.trusting_client(&["http/1.1"])?, HOST.to_owned());
        let shown = Connection::open(node.at(Ports::HTTPS), speak).await?.certificate;
        ensure!(shown.context("no certificate")? == self.der, "{} shows another certificate", node.name);
        Ok(())
    }
}
