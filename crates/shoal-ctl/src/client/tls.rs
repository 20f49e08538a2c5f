//! Mutual TLS from the files an operator has.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use shoal_cluster::identity::{Operator, not_after};
use shoal_cluster::{inspect_certificate, tls};

use crate::failure::Failure;

/// What makes an operator known to the nodes, and the nodes to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityFiles {
    /// One file, as the first node of a cluster writes it.
    Bundle(PathBuf),
    /// PEM files.
    Pem {
        /// The cluster's CA.
        ca: PathBuf,
        /// The operator's certificate.
        cert: PathBuf,
        /// Its key, PKCS#8.
        key: PathBuf,
    },
}

impl IdentityFiles {
    /// The TLS side of this operator, and the name that nodes must prove: `server_name`, or that of any node of the
    /// operator's cluster.
    pub(super) fn client_config(
        &self,
        server_name: Option<&str>,
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), Failure> {
        let operator = self.load()?;
        let config =
            tls::operator_client_config(&operator).map_err(|error| Failure::local("connect", error))?;
        let name = match server_name {
            None => tls::names::any_node_server_name(operator.cluster_id),
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| Failure::local("--server-name", format!("{name:?} is not a DNS name")))?,
        };
        Ok((config, name))
    }

    /// Unix seconds at which the operator's certificate expires, if less than a third of its life is left; `None` also if it
    /// cannot be read.
    pub(super) fn ends_soon(&self, now: u64) -> Option<i64> {
        let operator = self.load().ok()?;
        let (not_after, life) = (not_after(&operator.cert_der)?, operator.lifetime()?.as_secs());
        let left = u64::try_from(not_after).unwrap_or_default().saturating_sub(now);
        (left <= life / 3).then_some(not_after)
    }

    fn load(&self) -> Result<Operator, Failure> {
        match self {
            Self::Bundle(path) => Operator::load(path)
                .map_err(|error| Failure::local("--identity", error).try_command("shoal --help")),
            Self::Pem { ca, cert, key } => read_pem(ca, cert, key),
        }
    }
}

fn read_pem(ca: &Path, cert: &Path, key: &Path) -> Result<Operator, Failure> {
    let ca_der = CertificateDer::from_pem_file(ca).map_err(|error| unusable(ca, error))?;
    let cert_der = CertificateDer::from_pem_file(cert).map_err(|error| unusable(cert, error))?;
    let key_der = PrivatePkcs8KeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
    let text = |path: &Path| fs::read_to_string(path).map_err(|error| unusable(path, error));
    let facts = inspect_certificate(&text(cert)?, &text(key)?).map_err(|why| unusable(cert, why))?;
    let cluster_id = facts
        .dns_names
        .iter()
        .find_map(|name| tls::names::operator_cluster(name))
        .ok_or_else(|| unusable(cert, "it is not an operator's certificate of a shoal cluster"))?;
    Ok(Operator { cluster_id, name: String::new(), ca_der, other_authorities: Vec::new(), cert_der, key_der })
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::local(format!("read {}", path.display()), why).try_command("shoal --help")
}

#[cfg(test)]
mod tests {
    use shoal_cluster::identity::{Identity, OPERATOR_VALIDITY};

    use super::*;

    #[test]
    fn tells_when_the_identity_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (_, authority) = Identity::bootstrap("node1").unwrap();
        let path = dir.path().join("operator.json");
        authority.issue_operator("ada").unwrap().save(&path).unwrap();
        let expected = (std::time::UNIX_EPOCH.elapsed().unwrap() + OPERATOR_VALIDITY).as_secs() as i64;
        let seen = |path: &Path, in_days: u64| {
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + in_days * 86_400;
            IdentityFiles::Bundle(path.to_owned()).ends_soon(now)
        };
        assert_eq!(seen(&path, 1), None, "there is time");
        let late = seen(&path, OPERATOR_VALIDITY.as_secs() / 86_400 * 3 / 4).unwrap();
        assert!((expected - 60..=expected).contains(&late), "{late}, not {expected}");
        assert_eq!(seen(&path.with_extension("gone"), 1), None);
    }
}
