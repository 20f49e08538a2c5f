//! The cluster's certificate authority: signs nodes and operators, and nothing else.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer, UnixTime};
use shoal_model::{ClusterId, NodeId, Role};

use super::bound_serial::new_bound_serial;
use super::{
    ClusterSecret, IdentityError, NodeKey, Operator, Purpose, hex, key_of, random_bytes, sha256_hex, validity,
};
use crate::tls::names;

/// How long the authority lasts.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long a node's certificate lasts, unless the cluster has agreed on something else: the node renews it by itself.
pub const NODE_VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an operator's lasts, unless something else is asked for: nobody renews it but its bearer.
pub const OPERATOR_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Certificates are valid from a little before they are made: clocks differ.
pub const CLOCK_SLACK: Duration = Duration::from_secs(300);
/// Largest certificate request that is read, bytes.
const MAX_REQUEST_BYTES: usize = 4096;

/// The authority with its private key. It exists while something is signed; at rest its key is sealed in the log.
pub struct Authority {
    cluster_id: ClusterId,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    /// A new authority for a new cluster.
    pub(super) fn found(cluster_id: ClusterId) -> Result<Self, IdentityError> {
        Self::found_as(cluster_id, &authority_params(&format!("shoal cluster {cluster_id}")))
    }

    fn found_as(cluster_id: ClusterId, params: &CertificateParams) -> Result<Self, IdentityError> {
        let failed = |error| IdentityError::certificate("found the cluster's authority", error);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self { cluster_id, certificate: certificate.der().clone(), key })
    }

    /// One to take the place of this one, and its certificate by this one: who knows only this one believes it for that.
    pub fn successor(&self) -> Result<(Self, CertificateDer<'static>), IdentityError> {
        // Two authorities of one name would be taken for each other.
        let name = format!("shoal cluster {} {}", self.cluster_id, hex(&random_bytes::<4>()));
        let params = authority_params(&name);
        let next = Self::found_as(self.cluster_id, &params)?;
        let bridge = self.sign(&params, &next.key)?;
        Ok((next, bridge))
    }

    /// The authority as the log keeps it.
    pub fn unseal(
        cluster_id: ClusterId,
        certificate_der: &[u8],
        key_sealed: &[u8],
        secret: &ClusterSecret,
    ) -> Result<Self, IdentityError> {
        let failed =
            |message: String| IdentityError::Certificate { what: "read the cluster's authority", message };
        let key = secret
            .unseal(Purpose::AuthorityKey, &cluster_id.0.to_be_bytes(), key_sealed)
            .map_err(|error| failed(error.to_string()))?;
        let key =
            KeyPair::try_from(&PrivatePkcs8KeyDer::from(key)).map_err(|error| failed(error.to_string()))?;
        Ok(Self { cluster_id, certificate: CertificateDer::from(certificate_der.to_vec()), key })
    }

    /// The private key, sealed for the log.
    pub fn seal_key(&self, secret: &ClusterSecret) -> Vec<u8> {
        secret.seal(Purpose::AuthorityKey, &self.cluster_id.0.to_be_bytes(), self.key.serialized_der())
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the public key a request asks to certify (SPKI, DER), hex, once its signature proves that the sender
    /// has the private one.
    pub fn request_key_sha256(request_der: &[u8]) -> Result<String, IdentityError> {
        read_request(request_der).map(|request| sha256_hex(&request.public_key.subject_public_key_info()))
    }

    /// Whether a request, whose sender has the private key, asks for the key that `certificate` is of.
    pub fn is_request_of(request_der: &[u8], certificate: &[u8]) -> bool {
        let shown = key_of(certificate);
        shown.is_some() && shown == Self::request_key_sha256(request_der).ok()
    }

    /// The certificate of node `node_id` for so long, for the public key of the request. Whatever else the request asks for is
    /// ignored: names and rights come from the log.
    pub fn sign_node(
        &self,
        request_der: &[u8],
        node_id: NodeId,
        validity: Duration,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let request = read_request(request_der)?;
        let names = [names::node(node_id, self.cluster_id), names::any_node(self.cluster_id)];
        let mut params = leaf_params(&names, &node_id.to_string(), validity)?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, &request.public_key)
    }

    /// A key and certificate with which an operator may do everything for [`OPERATOR_VALIDITY`]. `name` is what the audit shows.
    pub fn issue_operator(&self, name: &str) -> Result<Operator, IdentityError> {
        let key = NodeKey::generate()?;
        Ok(Operator {
            cluster_id: self.cluster_id,
            name: name.to_owned(),
            ca_der: self.certificate.clone(),
            other_authorities: Vec::new(),
            cert_der: self.sign_operator(&key.request()?, name, Role::Admin, OPERATOR_VALIDITY)?,
            key_der: key.key_der(),
        })
    }

    /// The certificate of the operator called `name`, who has `role`, for the public key of the request, to which its serial
    /// number is bound. Whatever else the request asks for is ignored.
    pub fn sign_operator(
        &self,
        request_der: &[u8],
        name: &str,
        role: Role,
        validity: Duration,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let request = read_request(request_der)?;
        let mut params = leaf_params(&[names::operator(role, self.cluster_id)], name, validity)?;
        let serial = new_bound_serial(&request.public_key.subject_public_key_info());
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        // Not a server's: an operator cannot pose as a node.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, &request.public_key)
    }

    fn sign(
        &self,
        params: &CertificateParams,
        public_key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let failed = |error| IdentityError::certificate("sign a certificate", error);
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(failed)?;
        let certificate = params.signed_by(public_key, &issuer).map_err(failed)?;
        Ok(certificate.der().clone())
    }
}

/// Whether one of these has signed the certificate of a node, which may have ended since.
pub fn was_signed_by<'a>(
    authorities: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    certificate_der: &[u8],
) -> bool {
    let certificate = CertificateDer::from(certificate_der);
    let (Ok(leaf), Some((from, _))) = (ParsedCertificate::try_from(&certificate), validity(certificate_der))
    else {
        return false;
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.into_iter().cloned());
    let given = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(from).unwrap_or_default()));
    let provider = aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], given, algorithms).is_ok()
}

/// The one of `authorities` in which the chain of a client ends, by when its certificate was given, as the signer's clock had it:
/// whether that has ended since is not asked. What stands between may have been made a moment later by another clock.
pub fn ends_in<'a>(
    chain: &[CertificateDer<'_>],
    authorities: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Option<&'a CertificateDer<'static>> {
    let (leaf, between) = chain.split_first()?;
    let (from, _) = validity(leaf)?;
    let from = Duration::from_secs(u64::try_from(from).unwrap_or_default());
    let given = UnixTime::since_unix_epoch(from + CLOCK_SLACK);
    authorities.into_iter().find(|authority| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates([(*authority).clone()]);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        verifier.is_ok_and(|verifier| verifier.verify_client_cert(leaf, between, given).is_ok())
    })
}

/// Never prints the key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_VALIDITY);
    params
}

fn read_request(request_der: &[u8]) -> Result<CertificateSigningRequestParams, IdentityError> {
    let what = "read the certificate request";
    if request_der.len() > MAX_REQUEST_BYTES {
        return Err(IdentityError::certificate(what, format_args!("it has {} bytes", request_der.len())));
    }
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request_der));
    request.map_err(|error| IdentityError::certificate(what, error))
}

fn leaf_params(
    names: &[String],
    subject: &str,
    validity: Duration,
) -> Result<CertificateParams, IdentityError> {
    let params = CertificateParams::new(names.to_vec());
    let mut params = params.map_err(|error| IdentityError::certificate("name a certificate", error))?;
    params.distinguished_name = common_name(subject);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial_number());
    set_validity(&mut params, validity);
    Ok(params)
}

/// Positive and never given twice (RFC 5280 §4.1.2.2): by default it would follow from the key, which may be signed again.
fn serial_number() -> SerialNumber {
    let mut bytes: [u8; 16] = random_bytes();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn common_name(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, validity: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + validity).into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn authority_survives_the_log() {
        let (identity, authority) = Identity::bootstrap("one").unwrap();
        let sealed = authority.seal_key(&identity.secret);
        let check = |cluster_id, sealed: &[u8], secret: &ClusterSecret, expected: bool| {
            let read = Authority::unseal(cluster_id, authority.certificate(), sealed, secret);
            assert_eq!(read.is_ok(), expected);
            if let Ok(read) = read {
                assert!(
                    read.sign_node(
                        &NodeKey::generate().unwrap().request().unwrap(),
                        NodeId(2),
                        NODE_VALIDITY
                    )
                    .is_ok()
                );
            }
        };
        check(identity.cluster_id, &sealed, &identity.secret, true);
        check(identity.cluster_id, &sealed, &ClusterSecret::generate(), false);
        check(ClusterId(identity.cluster_id.0 ^ 1), &sealed, &identity.secret, false);
        check(identity.cluster_id, &[], &identity.secret, false);
    }

    #[test]
    fn an_authority_knows_what_it_has_signed() {
        let (identity, authority) = Identity::bootstrap("one").unwrap();
        let (other, _) = Identity::bootstrap("other").unwrap();
        let request = NodeKey::generate().unwrap().request().unwrap();
        let ended = authority.sign_node(&request, NodeId(2), Duration::ZERO).unwrap();
        let own = authority.certificate();
        let check = |certificate: &[u8], expected| assert_eq!(was_signed_by([own], certificate), expected);
        check(&identity.cert_der, true);
        check(&ended, true);
        check(&other.cert_der, false);
        check(b"", false);
        let mut forged = identity.cert_der.to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        check(&forged, false);
        let (next, bridge) = authority.successor().unwrap();
        let by_next = next.sign_node(&request, NodeId(2), NODE_VALIDITY).unwrap();
        check(&by_next, false);
        assert!(was_signed_by([own, next.certificate()], &by_next) && !was_signed_by([], &by_next));
        assert_ne!(&bridge, next.certificate());
    }

    #[test]
    fn chains_end_in_one_authority() {
        let (identity, authority) = Identity::bootstrap("one").unwrap();
        let (_, other) = Identity::bootstrap("other").unwrap();
        let (next, bridge) = authority.successor().unwrap();
        let (old, new) = (authority.certificate(), next.certificate());
        let request = NodeKey::generate().unwrap().request().unwrap();
        let by_next = next.sign_node(&request, NodeId(2), NODE_VALIDITY).unwrap();
        let operator = authority.issue_operator("grace").unwrap().cert_der;
        let check =
            |chain: &[&CertificateDer<'static>], authorities: &[&CertificateDer<'static>], expected| {
                let chain: Vec<_> = chain.iter().map(|shown| (*shown).clone()).collect();
                assert_eq!(ends_in(&chain, authorities.iter().copied()), expected);
            };
        check(&[&identity.cert_der], &[new, old], Some(old));
        check(&[&operator], &[new, old], Some(old));
        check(&[&operator], &[new], None);
        check(&[&by_next], &[old, new], Some(new));
        check(&[&by_next], &[old], None);
        check(&[&by_next, &bridge], &[old], Some(old)); // by who has not heard of the next one
        let by_a_slower_clock = {
            let mut params = leaf_params(&[], "2", NODE_VALIDITY).unwrap();
            params.not_before -= Duration::from_secs(60);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            next.sign(&params, &read_request(&request).unwrap().public_key).unwrap()
        };
        check(&[&by_a_slower_clock, &bridge], &[old], Some(old));
        check(&[&identity.cert_der, &bridge], &[new], None);
        check(&[&identity.cert_der], &[other.certificate()], None);
        check(&[], &[old], None);
    }

    #[test]
    fn signing_again_makes_another_certificate() {
        let (_, authority) = Identity::bootstrap("one").unwrap();
        let request = NodeKey::generate().unwrap().request().unwrap();
        let serial = || {
            let certificate = authority.sign_node(&request, NodeId(2), NODE_VALIDITY).unwrap();
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
            parsed.raw_serial().to_vec()
        };
        assert_ne!(serial(), serial());
    }

    #[test]
    fn what_was_given_for_one_key_is_nothing_with_another() {
        let (_, authority) = Identity::bootstrap("one").unwrap();
        let [own, other] = [(); 2].map(|()| NodeKey::generate().unwrap().request().unwrap());
        let given = authority.sign_operator(&own, "ada", Role::Viewer, OPERATOR_VALIDITY).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&given).unwrap();
        let copied = |request: &[u8]| {
            let names = [names::operator(Role::Viewer, authority.cluster_id)];
            let mut params = leaf_params(&names, "ada", OPERATOR_VALIDITY).unwrap();
            params.serial_number = Some(SerialNumber::from_slice(parsed.raw_serial()));
            let certificate = authority.sign(&params, &read_request(request).unwrap().public_key).unwrap();
            crate::tls::caller(&[certificate]).is_some()
        };
        assert_eq!([copied(&own), copied(&other)], [true, false]);
    }

    #[test]
    fn bad_requests_are_refused() {
        let (_, authority) = Identity::bootstrap("one").unwrap();
        let check = |request: &[u8]| {
            assert!(authority.sign_node(request, NodeId(2), NODE_VALIDITY).is_err());
            assert!(authority.sign_operator(request, "ada", Role::Viewer, OPERATOR_VALIDITY).is_err());
            assert!(Authority::request_key_sha256(request).is_err());
        };
        check(b"");
        check(b"hello");
        check(&[0x30; 5000]);
        let mut forged = NodeKey::generate().unwrap().request().unwrap();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        check(&forged);
    }
}
