//! The token with which a node joins: which cluster, in what role, and by what right.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use shoal_model::state::ROLE_LEARNER;

use crate::identity::{Identity, hex, random_bytes, sha256_hex};

/// Format and version.
const PREFIX: &str = "shj1";
/// The role of an ordinary node.
pub const ROLE_NODE: &str = "node";
/// The role of a program that may purge: no node joins with it.
pub const ROLE_PURGE: &str = "purge";
/// Bytes of the public part.
const ID_BYTES: usize = 6;
/// Bytes of the secret part.
const SECRET_BYTES: usize = 24;
/// Longest text that is read as a token.
const MAX_TEXT: usize = 256;

/// `shj1.<sha256 of the authority>.<role>.<id>.<secret>`. Whoever has it may join, or do what else its role says; it is never
/// printed but by [`Token::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the authority's certificate (DER), hex: a joining node believes no other.
    pub ca_sha256: String,
    /// What the node may become.
    pub role: String,
    /// Public part: the log knows the token by it.
    pub id: String,
    secret: String,
}

/// A text is not a token. It does not quote the text, which may be most of one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: {0}")]
pub struct TokenError(&'static str);

impl Token {
    /// A new one for the cluster of this authority.
    pub fn create(ca_der: &[u8], role: &str) -> Self {
        Self {
            ca_sha256: sha256_hex(ca_der),
            role: role.to_owned(),
            id: hex(&random_bytes::<ID_BYTES>()),
            secret: hex(&random_bytes::<SECRET_BYTES>()),
        }
    }

    /// The whole text, secret included: for the operator who asked for it, and for the node that is asked to admit.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}.{}.{}.{}.{}", self.ca_sha256, self.role, self.id, self.secret)
    }

    /// SHA-256 of the secret part, hex: all that the log keeps of it. Of any role but a node's the role is a part of it: a
    /// token whose role somebody has written over is another one.
    pub fn secret_sha256(&self) -> String {
        match self.role.as_str() {
            ROLE_NODE => sha256_hex(self.secret.as_bytes()),
            role => sha256_hex(format!("{role}.{}", self.secret).as_bytes()),
        }
    }

    /// Whether it is for the cluster of the node with this identity: it may name an authority that has retired.
    pub fn is_of(&self, identity: &Identity) -> bool {
        identity.authorities().any(|authority| self.is_for(authority))
            || identity.succession.former.iter().any(|former| same_text(&self.ca_sha256, former))
    }

    /// Whether it names the authority that takes the place of the one of this identity's certificate: somebody who has it may
    /// want the node back that has missed that.
    pub fn is_of_successor(&self, identity: &Identity) -> bool {
        let is_newer = identity.succession.bridge.is_some();
        !is_newer && identity.succession.others.iter().any(|other| self.is_for(other))
    }

    /// Whether it is for the cluster of this authority.
    pub fn is_for(&self, ca_der: &[u8]) -> bool {
        same_text(&self.ca_sha256, &sha256_hex(ca_der))
    }
}

/// Whether nodes join by tokens of this role.
pub fn admits_nodes(role: &str) -> bool {
    matches!(role, ROLE_NODE | ROLE_LEARNER)
}

/// Compares without telling by its duration where two texts differ.
pub fn same_text(left: &str, right: &str) -> bool {
    verify_slices_are_equal(left.as_bytes(), right.as_bytes()).is_ok()
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(TokenError("it is too long"));
        }
        let parts: Vec<_> = text.split('.').collect();
        let [prefix, ca_sha256, role, id, secret] = parts[..] else {
            return Err(TokenError("it should have five parts: shj1.<authority>.<role>.<id>.<secret>"));
        };
        if prefix != PREFIX {
            return Err(TokenError("it should start with shj1"));
        }
        if !is_hex(ca_sha256, 32) {
            return Err(TokenError("the hash of the authority should be 64 hex digits"));
        }
        if role.is_empty() || !role.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return Err(TokenError("the role should be a word"));
        }
        if !is_hex(id, ID_BYTES) {
            return Err(TokenError("the id should be 12 hex digits"));
        }
        if !is_hex(secret, SECRET_BYTES) {
            return Err(TokenError("the secret should be 48 hex digits: was its end cut off?"));
        }
        let [ca_sha256, role, id, secret] = [ca_sha256, role, id, secret].map(str::to_owned);
        Ok(Self { ca_sha256, role, id, secret })
    }
}

fn is_hex(text: &str, bytes: usize) -> bool {
    text.len() == bytes * 2 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Shows only the public parts.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}.{}.…", &self.ca_sha256, self.role, self.id)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::identity::Succession;

    #[test]
    fn tokens_are_read_back() {
        let token = Token::create(b"authority", ROLE_NODE);
        let read: Token = format!(" {}\n", token.reveal()).parse().unwrap();
        assert_eq!(read, token);
        assert_eq!(read.secret_sha256(), token.secret_sha256());
        assert!(read.is_for(b"authority"));
        assert!(!read.is_for(b"another"));
        assert_ne!(Token::create(b"authority", ROLE_NODE).reveal(), token.reveal());
    }

    #[test]
    fn the_token_of_a_successor_is_told_from_that_of_a_predecessor() {
        let (old, authority) = Identity::bootstrap("one").unwrap();
        let (next, bridge) = authority.successor().unwrap();
        let believing = |others: &[&[u8]], bridge| {
            let others = others.iter().map(|other| CertificateDer::from(other.to_vec())).collect();
            Identity { succession: Succession { others, bridge, ..Succession::default() }, ..old.clone() }
        };
        let [of_old, of_next] = [&old.ca_der, next.certificate()].map(|ca| Token::create(ca, ROLE_NODE));
        let check = |identity: &Identity, expected: [(bool, bool); 2]| {
            let seen =
                [&of_old, &of_next].map(|token| (token.is_of(identity), token.is_of_successor(identity)));
            assert_eq!(seen, expected);
        };
        check(&old, [(true, false), (false, false)]);
        check(&believing(&[next.certificate()], None), [(true, false), (true, true)]);
        let switched =
            Identity { ca_der: next.certificate().clone(), ..believing(&[&old.ca_der], Some(bridge)) };
        check(&switched, [(true, false), (true, false)]);
    }

    #[test]
    fn a_role_cannot_be_written_over() {
        let token = Token::create(b"authority", ROLE_PURGE);
        let other: Token = token.reveal().replace(".purge.", ".node.").parse().unwrap();
        assert_eq!((other.id.as_str(), other.role.as_str()), (token.id.as_str(), ROLE_NODE));
        assert_ne!(other.secret_sha256(), token.secret_sha256());
        let learner = Token::create(b"authority", ROLE_LEARNER);
        let node: Token = learner.reveal().replace(".learner.", ".node.").parse().unwrap();
        assert_ne!(node.secret_sha256(), learner.secret_sha256());
        let admitting = [ROLE_NODE, ROLE_LEARNER, ROLE_PURGE, "x"].map(admits_nodes);
        assert_eq!(admitting, [true, true, false, false]);
    }

    #[test]
    fn the_secret_is_not_printed() {
        let token = Token::create(b"authority", ROLE_NODE);
        assert!(token.reveal().ends_with(&token.secret));
        assert!(!format!("{token} {token:?}").contains(&token.secret));
    }

    #[test]
    fn broken_tokens_are_refused_with_the_reason() {
        let good = Token::create(b"authority", ROLE_NODE).reveal();
        let check = |text: &str, expected: &str| {
            let message = text.parse::<Token>().unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} does not say {expected:?}");
            assert!(text.is_empty() || !message.contains(text), "{message:?}");
        };
        check("", "five parts");
        check("hello", "five parts");
        check(&good.replace("shj1", "shj2"), "start with shj1");
        check(&good[..good.len() - 1], "was its end cut off");
        check(&good.to_uppercase().replace("SHJ1", "shj1"), "64 hex digits");
        check(&good.replace(".node.", ".."), "a word");
        check(&good.replace(".node.", ".node.x."), "five parts");
        check(&"x".repeat(300), "too long");
    }
}
