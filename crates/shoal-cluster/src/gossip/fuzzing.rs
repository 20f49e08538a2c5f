//! What arrives at the gossip's socket, for fuzzing: whatever it is, nothing may break, and no forgery is believed.

use std::net::SocketAddr;

use chitchat::{ChitchatMessage, Deserializable, Serializable};
use shoal_policy::health::{MAX_FACTS_PER_SHARD, SHARDS, Shard};

use super::keys::{self, HealthView};
use super::seal::{MAX_MESSAGE, Opener, Party, Sealer};
use crate::identity::ClusterSecret;
use crate::join::Token;

const NOW_MS: u64 = 1_700_000_000_000;
const RING: &str = "ring";

/// A datagram of a stranger, and the same bytes as the message of a peer whose datagram is damaged on its way.
pub fn datagram(bytes: &[u8]) {
    let secret = ClusterSecret::from_bytes(&[7; 32]).expect("a secret has 32 bytes");
    let local = Party { id: 1, address: SocketAddr::from(([10, 0, 0, 1], 7400)) };
    let peer = Party { id: 2, address: SocketAddr::from(([10, 0, 0, 2], 7400)) };
    let mut opener = Opener::new(&secret, RING, local);
    assert!(opener.open(&mut bytes.to_vec(), NOW_MS).is_err(), "who lacks the secret is not believed");

    let mut sealer = Sealer::new(&secret, RING, peer, 1);
    let Ok(mut datagrams) = sealer.seal(bytes, local.address, NOW_MS) else {
        assert!(bytes.len() > MAX_MESSAGE, "what fits is sent");
        return;
    };
    let (Some(&[place, change, ..]), Some(first)) = (bytes.first_chunk::<2>(), datagrams.first_mut()) else {
        return;
    };
    let place = usize::from(place) % first.len();
    first[place] ^= change;
    let mut opened = None;
    for mut datagram in datagrams.clone() {
        opened = opener.open(&mut datagram, NOW_MS).ok();
    }
    assert_eq!(opened.is_some(), change == 0, "only what is as it was sent is believed");
    let Some((from, message)) = opened else { return };
    assert_eq!((from, &*message), (peer.address, bytes), "it is what was sent, by whom it says");
    for mut datagram in datagrams {
        assert!(opener.open(&mut datagram, NOW_MS).is_err(), "once");
    }
}

/// The message of a peer, and what it says of itself.
pub fn gossip(bytes: &[u8]) {
    if let Ok(message) = ChitchatMessage::deserialize(&mut &*bytes) {
        let mut written = Vec::new();
        message.serialize(&mut written);
        assert_eq!(written.len(), message.serialized_len(), "a message knows its length");
        let again = ChitchatMessage::deserialize(&mut &*written);
        assert!(again.is_ok(), "what is written can be read");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(shard) = Shard::decode(text) {
        assert!(shard.facts.len() <= MAX_FACTS_PER_SHARD);
        assert!(shard.facts.iter().all(|fact| shard.fact(fact.endpoint) == Some(fact)));
        assert_eq!(Shard::decode(&shard.encode()), Some(shard));
    }
    assert_eq!(keys::shards(|_| Some(text)).len(), SHARDS);
    if let Some(view) = HealthView::decode(text) {
        assert_eq!(HealthView::decode(&view.encode()), Some(view));
    }
    assert!(text.starts_with(keys::text(Some(text))));
    let state = keys::state(Some(text));
    assert_eq!(keys::state(Some(keys::state_name(state))), state);
    let offers = keys::offers(Some(text));
    let told = keys::offers(Some(&keys::encode_offers(offers.iter().copied())));
    assert!(told.len() <= offers.len());
    let load: u32 = keys::number(Some(text));
    assert!(keys::coarse(load) <= load && keys::coarse(keys::coarse(load)) == keys::coarse(load));
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.reveal(), text.trim(), "a token is read as it is written");
    }
}
