//! Session tickets that every node of the cluster can open: their keys follow from a shared seed and the time, so that
//! nodes agree on them without a word.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use rustls::server::ProducesTickets;

/// How long new tickets are sealed with the same key, seconds.
const EPOCH_SECONDS: u64 = 12 * 3600;
/// Epochs before the present one whose tickets are still opened.
const KEPT_EPOCHS: u64 = 2;
/// Tickets say which epoch they are from.
const EPOCH_BYTES: usize = 8;

/// What the keys of session tickets follow from: the same on every node, and known to nobody else.
#[derive(Clone, Copy)]
pub struct TicketSeed(pub [u8; 32]);

/// Never prints the seed.
impl fmt::Debug for TicketSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSeed")
    }
}

/// Seals and opens the tickets of one listener. Those of another listener are no use here: it may ask for more.
pub(super) struct Tickets {
    seed: TicketSeed,
    /// Only tickets that were sealed for the same are opened.
    scope: Box<[u8]>,
    keys: ArcSwap<Keys>,
}

/// The keys of an epoch, of those before it whose tickets are still good, and of the next one: the clocks of other nodes
/// may be ahead.
struct Keys {
    epoch: u64,
    /// From the oldest to the next.
    keys: Vec<(u64, LessSafeKey)>,
}

impl Keys {
    fn of(seed: &TicketSeed, epoch: u64) -> Self {
        let epochs = epoch.saturating_sub(KEPT_EPOCHS)..=epoch.saturating_add(1);
        Self { epoch, keys: epochs.map(|epoch| (epoch, key_of(seed, epoch))).collect() }
    }

    fn find(&self, epoch: u64) -> Option<&LessSafeKey> {
        self.keys.iter().find(|(known, _)| *known == epoch).map(|(_, key)| key)
    }
}

impl Tickets {
    pub(super) fn new(seed: TicketSeed, scope: Box<[u8]>) -> Self {
        let keys = Keys::of(&seed, epoch_now());
        Self { seed, scope, keys: ArcSwap::from_pointee(keys) }
    }

    /// The keys of `epoch`; derived anew when it has just begun.
    fn keys(&self, epoch: u64) -> Arc<Keys> {
        let keys = self.keys.load_full();
        if keys.epoch == epoch {
            return keys;
        }
        let keys = Arc::new(Keys::of(&self.seed, epoch));
        self.keys.store(keys.clone());
        keys
    }

    /// Epoch, nonce, sealed state, tag.
    fn seal(&self, epoch: u64, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys(epoch);
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let front = EPOCH_BYTES + NONCE_LEN;
        let mut ticket = Vec::with_capacity(front + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&epoch.to_be_bytes());
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let place = Aad::from(&*self.scope);
        let tag =
            keys.find(epoch)?.seal_in_place_separate_tag(nonce, place, ticket.get_mut(front..)?).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, epoch: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (sealed_in, rest) = ticket.split_first_chunk::<EPOCH_BYTES>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys(epoch);
        let key = keys.find(u64::from_be_bytes(*sealed_in))?;
        let mut plain = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, Aad::from(&*self.scope), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

fn key_of(seed: &TicketSeed, epoch: u64) -> LessSafeKey {
    let root = Salt::new(HKDF_SHA256, b"shoal session tickets").extract(&seed.0);
    let epoch = epoch.to_be_bytes();
    let info = [&epoch[..]];
    let key = root.expand(&info, &AES_256_GCM).expect("32 bytes are one block of SHA-256");
    LessSafeKey::new(UnboundKey::from(key))
}

/// A clock that is off costs full handshakes and nothing else.
fn epoch_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / EPOCH_SECONDS)
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        (EPOCH_SECONDS * KEPT_EPOCHS) as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(epoch_now(), plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(epoch_now(), cipher)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(seed: u8, listener: &str) -> Tickets {
        Tickets::new(TicketSeed([seed; 32]), listener.as_bytes().into())
    }

    #[test]
    fn open_on_every_node_for_a_while() {
        let sealed = tickets(1, "web").seal(100, b"state").unwrap();
        let check = |node: &Tickets, epoch: u64, good: bool| {
            let opened = node.open(epoch, &sealed);
            assert_eq!(opened.as_deref(), good.then_some(&b"state"[..]), "{epoch} {node:?}");
        };
        for (epoch, good) in [(98, false), (99, true), (100, true), (101, true), (102, true), (103, false)] {
            check(&tickets(1, "web"), epoch, good);
        }
        check(&tickets(2, "web"), 100, false);
        check(&tickets(1, "other"), 100, false);
    }

    #[test]
    fn what_was_not_sealed_here_is_no_ticket() {
        let node = tickets(1, "web");
        let sealed = node.seal(7, b"state").unwrap();
        for place in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[place] ^= 1;
            assert_eq!(node.open(7, &altered), None, "byte {place}");
            assert_eq!(node.open(7, &sealed[..place]), None, "cut at {place}");
        }
        assert_ne!(node.seal(7, b"state"), Some(sealed), "a nonce is used once");
    }
}
