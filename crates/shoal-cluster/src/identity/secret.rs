//! The cluster's secret: one key per purpose derives from it, and what is sealed with it can be read by nodes only.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use super::random_bytes;

/// Bytes of the secret.
const SECRET_BYTES: usize = 32;

/// 256 random bits that every node of a cluster has and nobody else. It travels only inside TLS to a node that was just
/// admitted.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; SECRET_BYTES]);

/// What a derived key is for. Keys of two purposes have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Datagrams of the gossip.
    Gossip,
    /// Keys of the gossip in the log.
    GossipKeys,
    /// The authority's private key in the log.
    AuthorityKey,
    /// Private keys of the site's certificates in the log.
    SiteKeys,
    /// The seed of object keys: strangers cannot choose URLs that collide.
    CacheKeys,
    /// What the keys of TLS session tickets follow from.
    SessionTickets,
    /// What the keys of session cookies follow from.
    SessionCookies,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Gossip => b"shoal gossip v1",
            Self::GossipKeys => b"shoal gossip keys v1",
            Self::AuthorityKey => b"shoal authority key v1",
            Self::SiteKeys => b"shoal site keys v1",
            Self::CacheKeys => b"shoal cache keys v1",
            Self::SessionTickets => b"shoal session tickets v1",
            Self::SessionCookies => b"shoal session cookies v1",
        }
    }
}

/// What was sealed cannot be opened: another secret, purpose or place, or damage. Which of them is not told.
#[derive(Debug, thiserror::Error)]
#[error("cannot be unsealed with this cluster's secret")]
pub struct UnsealError;

impl ClusterSecret {
    /// A new one.
    pub fn generate() -> Self {
        Self(random_bytes())
    }

    /// One that was kept; `None` = not 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// For keeping it, and for handing it to a node that was just admitted.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The key for a purpose (HKDF-SHA-256, RFC 5869); `context` tells keys of one purpose apart.
    pub fn derive(&self, purpose: Purpose, context: &[u8]) -> [u8; 32] {
        let root = Salt::new(HKDF_SHA256, b"shoal cluster secret").extract(&self.0);
        let mut key = [0; 32];
        let info = [purpose.label(), context];
        let filled = root.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
        filled.expect("32 bytes are one block of SHA-256");
        key
    }

    /// Seals `plain` (AES-256-GCM, random nonce in front). It opens only with the same `purpose` and `place`, so that a
    /// sealed value cannot be moved to where another belongs.
    pub fn seal(&self, purpose: Purpose, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random_bytes();
        let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key(purpose)
            .seal_in_place_separate_tag(nonce, Aad::from(place), &mut sealed[NONCE_LEN..])
            .expect("shorter than the 64 GiB AES-GCM can seal");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what [`ClusterSecret::seal`] sealed.
    pub fn unseal(&self, purpose: Purpose, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(UnsealError)?;
        let mut plain = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key(purpose).open_in_place(nonce, Aad::from(place), &mut plain);
        let length = opened.map_err(|_| UnsealError)?.len();
        plain.truncate(length);
        Ok(plain)
    }

    fn key(&self, purpose: Purpose) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.derive(purpose, b""));
        LessSafeKey::new(key.expect("AES-256 takes 32 bytes"))
    }
}

/// Never prints the secret.
impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret")
    }
}

/// SHA-256, as hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let written = write!(text, "{byte:02x}");
        written.expect("writing to a string does not fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_what_was_sealed_for_this() {
        let secret = ClusterSecret::from_bytes(&[7; 32]).unwrap();
        let sealed = secret.seal(Purpose::SiteKeys, b"shop", b"key");
        let check =
            |secret: &ClusterSecret, purpose, place: &[u8], sealed: &[u8], expected: Option<&[u8]>| {
                assert_eq!(secret.unseal(purpose, place, sealed).ok().as_deref(), expected);
            };
        check(&secret, Purpose::SiteKeys, b"shop", &sealed, Some(b"key"));
        check(&secret, Purpose::SiteKeys, b"other", &sealed, None);
        check(&secret, Purpose::AuthorityKey, b"shop", &sealed, None);
        check(&ClusterSecret::generate(), Purpose::SiteKeys, b"shop", &sealed, None);
        for length in 0..sealed.len() {
            check(&secret, Purpose::SiteKeys, b"shop", &sealed[..length], None);
        }
        for place in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[place] ^= 1;
            check(&secret, Purpose::SiteKeys, b"shop", &flipped, None);
        }
    }

    #[test]
    fn two_seals_of_one_text_differ() {
        let secret = ClusterSecret::generate();
        assert_ne!(secret.seal(Purpose::SiteKeys, b"", b"x"), secret.seal(Purpose::SiteKeys, b"", b"x"));
    }

    #[test]
    fn derivation_is_fixed() {
        let secret = ClusterSecret::from_bytes(&[7; 32]).unwrap();
        assert_eq!(secret.derive(Purpose::Gossip, b"a"), secret.derive(Purpose::Gossip, b"a"));
        assert_ne!(secret.derive(Purpose::Gossip, b"a"), secret.derive(Purpose::Gossip, b"b"));
        assert_ne!(secret.derive(Purpose::Gossip, b""), secret.derive(Purpose::SiteKeys, b""));
        assert_eq!(ClusterSecret::from_bytes(&[7; 31]), None);
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
