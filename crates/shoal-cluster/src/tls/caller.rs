//! Who is calling, by the certificate that TLS has verified.

use std::fmt;

use rustls_pki_types::CertificateDer;
use shoal_model::NodeId;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names;

/// Longest operator name that is believed.
const MAX_OPERATOR_NAME: usize = 128;

/// A proven caller. Whether a node is still a member is for the log to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Another node of this cluster.
    Node(NodeId),
    /// An operator of this cluster.
    Operator(String),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "{id}"),
            Self::Operator(name) => write!(f, "{name}"),
        }
    }
}

/// Who is at the other end of a connection; `None` = a caller without a certificate, or with one that names nobody.
pub fn peer_identity(connection: &rustls::ServerConnection) -> Option<Caller> {
    caller(connection.peer_certificates()?)
}

/// Whom a verified certificate chain stands for.
pub fn caller(chain: &[CertificateDer<'_>]) -> Option<Caller> {
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut found = None;
    for name in &names.value.general_names {
        let GeneralName::DNSName(name) = name else { continue };
        // The authority signs for one cluster only: which one need not be checked again.
        match names::split(name)? {
            ("node", _) => {}
            ("operator", _) => {
                let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
                found = (name.len() <= MAX_OPERATOR_NAME).then(|| Caller::Operator(name.to_owned()));
            }
            (who, _) => found = who.parse().ok().map(Caller::Node),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, NodeKey};

    #[test]
    fn certificates_name_their_owners() {
        let (identity, authority) = Identity::bootstrap("one").unwrap();
        let check = |certificate: &CertificateDer<'static>, expected: Option<Caller>| {
            assert_eq!(caller(std::slice::from_ref(certificate)), expected);
        };
        check(&identity.cert_der, Some(Caller::Node(NodeId(1))));
        let request = NodeKey::generate().unwrap().request().unwrap();
        check(&authority.sign_node(&request, NodeId(42)).unwrap(), Some(Caller::Node(NodeId(42))));
        let operator = authority.issue_operator("grace").unwrap();
        check(&operator.cert_der, Some(Caller::Operator("grace".to_owned())));
        check(authority.certificate(), None);
        check(&CertificateDer::from(vec![1, 2, 3]), None);
        assert_eq!(caller(&[]), None);
    }
}
