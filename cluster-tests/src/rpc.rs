//! Calls between nodes and of operators, as somebody makes them who has none of our programs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::client::{Answer, Connection, Speak};
use crate::load::grpc_message;

/// What a node or an operator has to show, taken from a disk.
pub struct Bearer {
    identity: Value,
}

impl Bearer {
    /// Of `identity/node.json`, or of what `shoal operator create` writes.
    pub fn from(file: &Path) -> Result<Self> {
        Ok(Self { identity: serde_json::from_str(&fs::read_to_string(file)?)? })
    }

    /// What stands there as `name`, decoded.
    pub fn part(&self, name: &str) -> Result<Vec<u8>> {
        let text = self.identity[name].as_str().with_context(|| format!("there is no {name}"))?;
        Ok(STANDARD.decode(text)?)
    }

    /// The same with another certificate (DER), for this key (PKCS#8).
    pub fn showing(&self, certificate: &[u8], key: &[u8]) -> Self {
        let mut identity = self.identity.clone();
        identity["certificate"] = STANDARD.encode(certificate).into();
        identity["key"] = STANDARD.encode(key).into();
        Self { identity }
    }

    /// The id of its cluster.
    pub fn cluster(&self) -> Result<&str> {
        self.identity["cluster_id"].as_str().context("there is no cluster id")
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.part("ca")?))?;
        Ok(roots)
    }

    fn tls(&self, mut config: ClientConfig, alpn: &[u8]) -> Result<Speak> {
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Speak::Tls(Arc::new(config), format!("node.{}.shoal.internal", self.cluster()?)))
    }

    /// Its side of TLS, with the protocol `alpn`.
    pub fn speak(&self, alpn: &[u8]) -> Result<Speak> {
        let chain = vec![CertificateDer::from(self.part("certificate")?)];
        let key = PrivatePkcs8KeyDer::from(self.part("key")?).into();
        let config = ClientConfig::builder().with_root_certificates(self.roots()?);
        self.tls(config.with_client_auth_cert(chain, key)?, alpn)
    }

    /// `RenewRequest`: its key is to be certified anew.
    pub fn renewal(&self) -> Result<Vec<u8>> {
        self.renewal_with(self)
    }

    /// The same with the certificate of another one.
    pub fn renewal_with(&self, other: &Self) -> Result<Vec<u8>> {
        Ok([field(1, self.certificate_request()?), field(2, other.part("certificate")?)].concat())
    }

    /// PKCS#10, DER.
    pub fn certificate_request(&self) -> Result<Vec<u8>> {
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(self.part("key")?))?;
        Ok(CertificateParams::default().serialize_request(&key)?.der().to_vec())
    }

    /// Ready for calls.
    pub async fn connect(&self, address: SocketAddr) -> Result<Connection> {
        Connection::open(address, self.speak(b"h2")?).await
    }

    /// The same without showing anything: as a stranger, who knows the cluster's authority.
    pub async fn connect_as_stranger(&self, address: SocketAddr) -> Result<Connection> {
        let config = ClientConfig::builder().with_root_certificates(self.roots()?).with_no_client_auth();
        Connection::open(address, self.tls(config, b"h2")?).await
    }
}

/// How a call has ended.
#[derive(Debug)]
pub struct Outcome {
    /// A number; 0 = well.
    pub status: String,
    /// Why not.
    pub message: String,
    /// What was answered.
    pub body: Bytes,
}

/// A call of `method` (`admin.v1.AdminService/Status`) with a message that is encoded already.
pub async fn call(connection: &mut Connection, method: &str, message: &[u8]) -> Result<Outcome> {
    let body = Full::new(grpc_message(message)).map_err(|never| match never {}).boxed();
    let request = Request::post(format!("https://shoal.internal/shoal.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)?;
    let Answer { headers, trailers, body, .. } = connection.send(request).await?;
    let said = |name| trailers.get(name).or(headers.get(name)).map(|value| percent_decoded(value.as_bytes()));
    let status = said("grpc-status").context("no status")?;
    Ok(Outcome { status, message: said("grpc-message").unwrap_or_default(), body })
}

fn percent_decoded(mut text: &[u8]) -> String {
    let mut decoded = Vec::new();
    while let [first, rest @ ..] = text {
        let digits =
            rest.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(byte.unwrap_or(*first));
        text = if byte.is_some() { &rest[2..] } else { rest };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A field of a message that is bytes or text.
pub fn field(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut encoded = vec![number << 3 | 2];
    let mut left = content.len();
    while left > 0x7f {
        encoded.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    encoded.push(left as u8);
    encoded.extend_from_slice(content);
    encoded
}
