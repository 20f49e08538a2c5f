//! Sealed datagrams: who is not of the cluster can neither read, write nor repeat them, to their recipient or to others.
//!
//! ```text
//! 1 version | 1 part | 8 sender | 8 generation | 8 counter | 8 unix ms | 18 sender's address | AES-256-GCM(payload) + 16 tag
//! ```
//! Each generation of each sender has its own key, derived from one of the [`KeyRing`], so that the counter alone is a
//! nonce that never repeats. Which of them it is, the datagram does not say: there are two. The header, the recipient's
//! address and the ring's name are authenticated with the payload.
//!
//! The recipient is bound by the address it advertises, not by its id: whoever calls a seed knows no more of it than
//! that. It is what seeds, the log and the gossip all name a node by, and no translation lies between nodes. A socket
//! bound to a wildcard may send from another address than it advertises: hence every datagram says where its answer is to
//! go, and the source that UDP tells is never believed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustc_hash::FxHashMap;

use super::replay::ReplayWindow;
use crate::identity::KeyRing;

/// First byte of every datagram.
const VERSION: u8 = 2;
/// An IPv6 address, which may stand for an IPv4 one, and a port.
const ADDRESS_BYTES: usize = 18;
/// Bytes before the payload.
const HEADER_BYTES: usize = 34 + ADDRESS_BYTES;
/// Bytes after it.
const TAG_BYTES: usize = 16;
/// Largest UDP payload over IPv4.
pub(super) const MAX_DATAGRAM: usize = 65_507;
/// What fits into one datagram.
const MAX_PART: usize = MAX_DATAGRAM - HEADER_BYTES - TAG_BYTES;
/// Largest message: the gossip fills whole datagrams and leaves no room for our header, so that it may need two.
pub(super) const MAX_MESSAGE: usize = 2 * MAX_PART;
/// How far the clocks of two nodes may differ, milliseconds.
const MAX_SKEW_MS: u64 = 5 * 60 * 1000;
/// Generations of senders that are remembered at once; the one unheard for longest gives way.
const MAX_SENDERS: usize = 1024;

/// A message is too large to be sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a gossip message of {0} bytes exceeds {MAX_MESSAGE}")]
pub(super) struct Oversized(usize);

/// Why a datagram was dropped. Nothing is ever answered to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Not from this cluster, not to this node, or damaged.
    Unauthentic,
    /// Authentic, but its time is too far from ours.
    Skewed,
    /// Authentic, but seen before.
    Replayed,
    /// Our own, sent back to us.
    Reflected,
    /// The other half of the message is missing.
    Partial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Second,
}

struct Header {
    part: Part,
    sender: u64,
    generation: u64,
    counter: u64,
    at_ms: u64,
    /// Where the sender is reached.
    address: SocketAddr,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = VERSION;
        bytes[1] = match self.part {
            Part::Whole => 0,
            Part::First => 1,
            Part::Second => 2,
        };
        for (place, field) in [self.sender, self.generation, self.counter, self.at_ms].iter().enumerate() {
            bytes[2 + place * 8..10 + place * 8].copy_from_slice(&field.to_be_bytes());
        }
        bytes[34..].copy_from_slice(&encode_address(self.address));
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let part = match (bytes[0], bytes[1]) {
            (VERSION, 0) => Part::Whole,
            (VERSION, 1) => Part::First,
            (VERSION, 2) => Part::Second,
            _ => return None,
        };
        let field = |place: usize| {
            let field = bytes[2 + place * 8..].first_chunk::<8>();
            u64::from_be_bytes(*field.expect("the header has room for four fields"))
        };
        let address = decode_address(bytes.last_chunk().expect("the header ends with an address"));
        Some(Self {
            part,
            sender: field(0),
            generation: field(1),
            counter: field(2),
            at_ms: field(3),
            address,
        })
    }
}

fn encode_address(address: SocketAddr) -> [u8; ADDRESS_BYTES] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ADDRESS_BYTES];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

fn decode_address(bytes: &[u8; ADDRESS_BYTES]) -> SocketAddr {
    let (ip, port) = bytes.split_first_chunk::<16>().expect("an address has more than 16 bytes");
    let port = u16::from_be_bytes(*port.first_chunk().expect("18 bytes are 16 and 2"));
    SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), port)
}

/// What is authenticated beside the payload.
fn associated(header: &[u8], recipient: SocketAddr, ring: &str) -> Vec<u8> {
    [header, &encode_address(recipient), ring.as_bytes()].concat()
}

/// What one generation of a sender may have sealed with, the likeliest first.
fn generation_keys(ring: &KeyRing, sender: u64, generation: u64) -> impl Iterator<Item = LessSafeKey> {
    ring.derive(sender, generation).map(|key| {
        let key = UnboundKey::new(&AES_256_GCM, &key);
        LessSafeKey::new(key.expect("AES-256 takes 32 bytes"))
    })
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// A node as datagrams name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Party {
    /// Its id.
    pub(super) id: u64,
    /// The address it advertises.
    pub(super) address: SocketAddr,
}

/// Seals what one generation of this node sends.
pub(super) struct Sealer {
    ring: String,
    sender: Party,
    generation: u64,
    key: LessSafeKey,
    counter: u64,
}

impl Sealer {
    pub(super) fn new(keys: &KeyRing, ring: &str, sender: Party, generation: u64) -> Self {
        let key = Self::key_of(keys, sender, generation);
        Self { ring: ring.to_owned(), sender, generation, key, counter: 0 }
    }

    /// From now on with these keys. The counter goes on.
    pub(super) fn use_keys(&mut self, keys: &KeyRing) {
        self.key = Self::key_of(keys, self.sender, self.generation);
    }

    fn key_of(keys: &KeyRing, sender: Party, generation: u64) -> LessSafeKey {
        generation_keys(keys, sender.id, generation).next().expect("a ring has a key")
    }

    /// The datagrams that carry `message` to the node that is reached at `to`, and to no other: one, or two if it is large.
    pub(super) fn seal(
        &mut self,
        message: &[u8],
        to: SocketAddr,
        now_ms: u64,
    ) -> Result<Vec<Vec<u8>>, Oversized> {
        let mut part = |part, payload| self.seal_part(part, payload, to, now_ms);
        if message.len() <= MAX_PART {
            return Ok(vec![part(Part::Whole, message)]);
        }
        let (first, second) = message.split_at(MAX_PART);
        if second.len() > MAX_PART {
            return Err(Oversized(message.len()));
        }
        Ok(vec![part(Part::First, first), part(Part::Second, second)])
    }

    fn seal_part(&mut self, part: Part, payload: &[u8], to: SocketAddr, now_ms: u64) -> Vec<u8> {
        self.counter += 1;
        let (generation, counter) = (self.generation, self.counter);
        let Party { id: sender, address } = self.sender;
        let header = Header { part, sender, generation, counter, at_ms: now_ms, address }.encode();
        let mut datagram = Vec::with_capacity(HEADER_BYTES + payload.len() + TAG_BYTES);
        datagram.extend_from_slice(&header);
        datagram.extend_from_slice(payload);
        let associated = Aad::from(associated(&header, to, &self.ring));
        let sealed =
            self.key.seal_in_place_separate_tag(nonce(counter), associated, &mut datagram[HEADER_BYTES..]);
        let tag = sealed.expect("shorter than the 64 GiB AES-GCM can seal");
        datagram.extend_from_slice(tag.as_ref());
        datagram
    }
}

/// What another node has sealed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// Who, and where an answer is to go.
    pub(super) sender: Party,
    pub(super) message: Vec<u8>,
}

/// Opens what other nodes sealed.
pub(super) struct Opener {
    keys: KeyRing,
    ring: String,
    local: Party,
    senders: FxHashMap<(u64, u64), Sender>,
    /// Counts opened datagrams, to find the sender unheard for longest.
    opened: u64,
}

struct Sender {
    /// What it sealed with last; `None` = the keys have changed since.
    key: Option<LessSafeKey>,
    window: ReplayWindow,
    heard: u64,
    /// The first half of a large message, and its counter.
    first: Option<(u64, Vec<u8>)>,
}

impl Opener {
    pub(super) fn new(keys: &KeyRing, ring: &str, local: Party) -> Self {
        Self { keys: keys.clone(), ring: ring.to_owned(), local, senders: FxHashMap::default(), opened: 0 }
    }

    /// From now on these are believed, and no others. What was seen before is still known.
    pub(super) fn use_keys(&mut self, keys: &KeyRing) {
        self.keys = keys.clone();
        self.senders.values_mut().for_each(|sender| sender.key = None);
    }

    /// The message in `datagram`, which is used as working space.
    pub(super) fn open(&mut self, datagram: &mut [u8], now_ms: u64) -> Result<Opened, Dropped> {
        let Some((header_bytes, sealed)) = datagram.split_first_chunk_mut::<HEADER_BYTES>() else {
            return Err(Dropped::Unauthentic);
        };
        let header = Header::decode(header_bytes).ok_or(Dropped::Unauthentic)?;
        let associated = associated(header_bytes, self.local.address, &self.ring);
        let from = (header.sender, header.generation);
        let known = self.senders.get(&from).and_then(|sender| sender.key.as_ref());
        let mut found = None;
        let opened = known.and_then(|key| open_with(key, &header, &associated, sealed));
        // Nothing is remembered of a sender before it has proven itself.
        let payload = opened.or_else(|| {
            generation_keys(&self.keys, header.sender, header.generation).find_map(|key| {
                let payload = open_with(&key, &header, &associated, sealed)?;
                found = Some(key);
                Some(payload)
            })
        });
        let payload = payload.ok_or(Dropped::Unauthentic)?;
        if header.sender == self.local.id {
            return Err(Dropped::Reflected);
        }
        if header.at_ms.abs_diff(now_ms) > MAX_SKEW_MS {
            return Err(Dropped::Skewed);
        }
        if let Some(key) = found {
            self.remember(from, key);
        }
        self.opened += 1;
        let sender = self.senders.get_mut(&from).ok_or(Dropped::Unauthentic)?;
        sender.heard = self.opened;
        if !sender.window.admit(header.counter) {
            return Err(Dropped::Replayed);
        }
        let message = sender.assemble(header.part, header.counter, payload)?;
        Ok(Opened { sender: Party { id: header.sender, address: header.address }, message })
    }

    fn remember(&mut self, from: (u64, u64), key: LessSafeKey) {
        if let Some(known) = self.senders.get_mut(&from) {
            known.key = Some(key);
            return;
        }
        if self.senders.len() >= MAX_SENDERS {
            let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.heard).map(|(from, _)| *from);
            oldest.map(|oldest| self.senders.remove(&oldest));
        }
        self.senders
            .insert(from, Sender { key: Some(key), window: ReplayWindow::default(), heard: 0, first: None });
    }
}

/// What was sealed with `key`, if it was. A key that does not fit leaves `sealed` as it is.
fn open_with(key: &LessSafeKey, header: &Header, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut payload = sealed.to_vec();
    let opened = key.open_in_place(nonce(header.counter), Aad::from(associated), &mut payload);
    let length = opened.ok()?.len();
    payload.truncate(length);
    Some(payload)
}

impl Sender {
    fn assemble(&mut self, part: Part, counter: u64, payload: Vec<u8>) -> Result<Vec<u8>, Dropped> {
        match part {
            Part::Whole => Ok(payload),
            Part::First => {
                self.first = Some((counter, payload));
                Err(Dropped::Partial)
            }
            Part::Second => match self.first.take() {
                Some((first_counter, mut message)) if first_counter + 1 == counter => {
                    message.extend_from_slice(&payload);
                    Ok(message)
                }
                Some(_) | None => Err(Dropped::Partial),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    /// A ring of keys, the one that is used first.
    fn keys(bytes: &[u8]) -> KeyRing {
        let keys: Vec<_> = bytes.iter().map(|byte| [*byte; 32]).collect();
        KeyRing::of_keys(keys.iter().map(<[u8; 32]>::as_slice)).unwrap()
    }

    fn party(id: u64) -> Party {
        Party { id, address: SocketAddr::from(([10, 0, 0, id as u8], 7400)) }
    }

    fn sealer(generation: u64) -> Sealer {
        Sealer::new(&keys(&[1]), "ring", party(2), generation)
    }

    fn opener() -> Opener {
        Opener::new(&keys(&[1]), "ring", party(1))
    }

    fn seal(sealer: &mut Sealer, message: &[u8]) -> Vec<Vec<u8>> {
        sealer.seal(message, party(1).address, NOW).unwrap()
    }

    fn open(opener: &mut Opener, mut datagram: Vec<u8>) -> Result<Vec<u8>, Dropped> {
        opener.open(&mut datagram, NOW).map(|opened| opened.message)
    }

    #[test]
    fn only_the_same_secret_and_ring_open_it() {
        let check = |key: u8, ring: &str, local, now_ms, expected: Result<&[u8], Dropped>| {
            let mut datagram = sealer(7).seal(b"hello", party(local).address, NOW).unwrap().remove(0);
            let opened = Opener::new(&keys(&[key]), ring, party(local)).open(&mut datagram, now_ms);
            let expected = expected.map(|message| Opened { sender: party(2), message: message.to_vec() });
            assert_eq!(opened, expected);
        };
        check(1, "ring", 1, NOW, Ok(b"hello"));
        check(2, "ring", 1, NOW, Err(Dropped::Unauthentic));
        check(1, "other", 1, NOW, Err(Dropped::Unauthentic));
        check(1, "ring", 2, NOW, Err(Dropped::Reflected));
        check(1, "ring", 1, NOW + MAX_SKEW_MS, Ok(b"hello"));
        check(1, "ring", 1, NOW + MAX_SKEW_MS + 1, Err(Dropped::Skewed));
        check(1, "ring", 1, NOW - MAX_SKEW_MS - 1, Err(Dropped::Skewed));
    }

    #[test]
    fn keys_change_while_datagrams_come() {
        let (mut sealer, mut opener) = (sealer(7), opener());
        let check = |sealer: &mut Sealer, opener: &mut Opener, expected: Result<&[u8], Dropped>| {
            let datagram = seal(sealer, b"hello").remove(0);
            assert_eq!(open(opener, datagram.clone()), expected.map(<[u8]>::to_vec));
            if expected.is_ok() {
                assert_eq!(open(opener, datagram.clone()), Err(Dropped::Replayed));
            }
            datagram
        };
        let old = check(&mut sealer, &mut opener, Ok(b"hello"));
        opener.use_keys(&keys(&[1, 2]));
        check(&mut sealer, &mut opener, Ok(b"hello"));
        assert_eq!(open(&mut opener, old.clone()), Err(Dropped::Replayed), "it was seen under the old ring");
        sealer.use_keys(&keys(&[2, 1]));
        check(&mut sealer, &mut opener, Ok(b"hello"));
        opener.use_keys(&keys(&[2, 1]));
        check(&mut sealer, &mut opener, Ok(b"hello"));
        opener.use_keys(&keys(&[2]));
        check(&mut sealer, &mut opener, Ok(b"hello"));
        assert_eq!(open(&mut opener, old), Err(Dropped::Unauthentic));
        opener.use_keys(&keys(&[3, 4]));
        check(&mut sealer, &mut opener, Err(Dropped::Unauthentic));
        assert_eq!(KeyRing::of_keys([]), None);
        assert_eq!(KeyRing::of_keys([&[1; 31][..]]), None);
    }

    #[test]
    fn nobody_but_its_recipient_opens_it() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let check = |to: &str, local: &str, expected| {
            let mut datagram = sealer(7).seal(b"hello", address(to), NOW).unwrap().remove(0);
            let mut opener = Opener::new(&keys(&[1]), "ring", Party { id: 1, address: address(local) });
            let opened = opener.open(&mut datagram, NOW).map(|opened| opened.message);
            assert_eq!(opened, expected, "to {to}, at {local}");
        };
        let hello = || Ok(b"hello".to_vec());
        check("10.0.0.1:7400", "10.0.0.1:7400", hello());
        check("10.0.0.1:7400", "10.0.0.3:7400", Err(Dropped::Unauthentic));
        check("10.0.0.1:7400", "10.0.0.1:7401", Err(Dropped::Unauthentic));
        check("[::ffff:10.0.0.1]:7400", "10.0.0.1:7400", hello());
        check("[fd00::1]:7400", "[fd00::1]:7400", hello());
        check("[fd00::1]:7400", "[fd00::2]:7400", Err(Dropped::Unauthentic));
    }

    #[test]
    fn addresses_are_read_back() {
        for text in ["10.0.0.1:7400", "[fd00::1]:1", "127.0.0.1:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode_address(&encode_address(address)), address);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = seal(&mut sealer(7), b"hello").remove(0);
        let mut opener = opener();
        for place in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[place / 8] ^= 1 << (place % 8);
            assert_eq!(open(&mut opener, bad), Err(Dropped::Unauthentic), "bit {place}");
        }
        for length in 0..good.len() {
            let cut = good[..length].to_vec();
            assert_eq!(open(&mut opener, cut), Err(Dropped::Unauthentic), "length {length}");
        }
        assert!(opener.senders.is_empty(), "garbage was remembered");
        assert_eq!(open(&mut opener, good).as_deref(), Ok(&b"hello"[..]));
    }

    #[test]
    fn replays_are_dropped_and_new_generations_are_not() {
        let (mut opener, mut sealer_of_seven) = (opener(), sealer(7));
        let one = seal(&mut sealer_of_seven, b"one").remove(0);
        let two = seal(&mut sealer_of_seven, b"two").remove(0);
        let mut check = |datagram: &[u8], expected: Result<&[u8], Dropped>| {
            let opened = open(&mut opener, datagram.to_vec());
            assert_eq!(opened.as_deref(), expected.as_ref().map(|message| *message));
        };
        check(&two, Ok(b"two"));
        check(&one, Ok(b"one"));
        check(&one, Err(Dropped::Replayed));
        check(&two, Err(Dropped::Replayed));
        let restarted = seal(&mut sealer(8), b"again").remove(0);
        check(&restarted, Ok(b"again"));
        check(&restarted, Err(Dropped::Replayed));
    }

    #[test]
    fn large_messages_take_two_datagrams() {
        let check = |length: usize, parts: usize| {
            let message: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut datagrams = seal(&mut sealer(7), &message);
            assert_eq!(datagrams.len(), parts, "{length} bytes");
            assert!(datagrams.iter().all(|datagram| datagram.len() <= MAX_DATAGRAM));
            let mut opener = opener();
            let last = datagrams.remove(parts - 1);
            for datagram in datagrams {
                assert_eq!(open(&mut opener, datagram), Err(Dropped::Partial));
            }
            assert_eq!(open(&mut opener, last), Ok(message));
        };
        check(0, 1);
        check(MAX_PART, 1);
        check(MAX_PART + 1, 2);
        check(MAX_MESSAGE, 2);
        let refused = sealer(7).seal(&vec![0; MAX_MESSAGE + 1], party(1).address, NOW);
        assert_eq!(refused, Err(Oversized(MAX_MESSAGE + 1)));
    }

    #[test]
    fn halves_of_two_messages_do_not_make_one() {
        let (mut opener, mut sealer) = (opener(), sealer(7));
        let one = seal(&mut sealer, &[1; MAX_MESSAGE]);
        let two = seal(&mut sealer, &[2; MAX_MESSAGE]);
        for half in [&one[0], &two[1], &one[1]] {
            assert_eq!(open(&mut opener, half.clone()), Err(Dropped::Partial));
        }
    }

    #[test]
    fn remembered_senders_are_bounded() {
        let mut opener = opener();
        for generation in 0..MAX_SENDERS as u64 + 10 {
            assert!(open(&mut opener, seal(&mut sealer(generation), b"x").remove(0)).is_ok());
        }
        assert_eq!(opener.senders.len(), MAX_SENDERS);
        assert!(!opener.senders.contains_key(&(2, 0)));
    }
}
