//! Who is calling, by the certificate that TLS has verified.

use std::fmt;

use rustls_pki_types::CertificateDer;
use shoal_model::{NodeId, Role};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names;
use crate::identity::{hex, serial_fits};

/// Longest operator name that is believed.
const MAX_OPERATOR_NAME: usize = 128;
/// Who calls over the socket of a node. No certificate is given to anybody of this name, and none of it is believed.
pub const LOCAL: &str = "local";

/// A proven caller. Whether a node is still a member is for the log to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Another node of this cluster.
    Node(NodeId),
    /// An operator of this cluster.
    Operator(ProvenOperator),
}

/// An operator who has proven to be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProvenOperator {
    /// What logs and the history call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The serial number of its certificate, hex; `None` = it has shown none, and is local.
    pub serial: Option<String>,
    /// Unix seconds at which it ends.
    pub ends_at: Option<i64>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "{id}"),
            Self::Operator(operator) => f.write_str(&operator.name),
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
        let (who, _) = names::split(name)?;
        found = match (who, names::role(who)) {
            ("node", _) => continue,
            (_, Some(role)) => {
                let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
                // What was copied from somebody's certificate into one for another key.
                if !serial_fits(certificate.raw_serial(), certificate.public_key().raw) {
                    return None;
                }
                let serial = Some(hex(certificate.raw_serial()));
                let ends_at = Some(certificate.validity().not_after.timestamp());
                let operator = ProvenOperator { name: name.to_owned(), role, serial, ends_at };
                (name.len() <= MAX_OPERATOR_NAME && name != LOCAL).then_some(Caller::Operator(operator))
            }
            (_, None) => who.parse().ok().map(Caller::Node),
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, NODE_VALIDITY, NodeKey, OPERATOR_VALIDITY, not_after, serial};

    #[test]
    fn certificates_name_their_owners() {
        let (identity, authority) = Identity::bootstrap("one").unwrap();
        let check = |certificate: &CertificateDer<'static>, expected: Option<Caller>| {
            assert_eq!(caller(std::slice::from_ref(certificate)), expected);
        };
        check(&identity.cert_der, Some(Caller::Node(NodeId(1))));
        let request = NodeKey::generate().unwrap().request().unwrap();
        check(
            &authority.sign_node(&request, NodeId(42), NODE_VALIDITY).unwrap(),
            Some(Caller::Node(NodeId(42))),
        );
        let operator = |certificate: &CertificateDer<'static>, role| {
            let (name, serial, ends_at) = ("grace".to_owned(), serial(certificate), not_after(certificate));
            assert_eq!(serial.as_ref().map(String::len), Some(40));
            Some(Caller::Operator(ProvenOperator { name, role, serial, ends_at }))
        };
        let first = authority.issue_operator("grace").unwrap().cert_der;
        check(&first, operator(&first, Role::Admin));
        for role in Role::ALL {
            let certificate = authority.sign_operator(&request, "grace", role, OPERATOR_VALIDITY).unwrap();
            check(&certificate, operator(&certificate, role));
        }
        check(&authority.issue_operator(LOCAL).unwrap().cert_der, None);
        check(authority.certificate(), None);
        check(&CertificateDer::from(vec![1, 2, 3]), None);
        assert_eq!(caller(&[]), None);
    }
}
