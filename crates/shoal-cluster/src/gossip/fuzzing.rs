//! What arrives at the gossip's socket, for fuzzing: whatever it is, nothing may break, and no forgery is believed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable, spawn_chitchat};
use shoal_model::{ClusterId, NodeId};
use shoal_policy::health::{MAX_FACTS_PER_SHARD, SHARDS, Shard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::fold::{Folder, Report};
use super::hear::say_and_hear;
use super::keys::{self, HealthView};
use super::run::{chitchat_config, ended};
use super::seal::{MAX_MESSAGE, Opened, Opener, Party, Sealer};
use super::twin::TwinWatch;
use super::witness;
use super::{GossipSettings, GossipTiming, own_keys};
use crate::identity::KeyRing;
use crate::join::Token;
use crate::view::NodeState;

const NOW_MS: u64 = 1_700_000_000_000;
const RING: &str = "ring";
/// Of the node that hears.
const GENERATION: u64 = 5;

fn keys_of_ring() -> KeyRing {
    KeyRing::of_keys([[7; 32].as_slice()]).expect("a key has 32 bytes")
}

/// A datagram of a stranger, and the same bytes as the message of a peer whose datagram is damaged on its way.
pub fn datagram(bytes: &[u8]) {
    let keys = keys_of_ring();
    let local = Party { id: 1, address: SocketAddr::from(([10, 0, 0, 1], 7400)) };
    let peer = Party { id: 2, address: SocketAddr::from(([10, 0, 0, 2], 7400)) };
    let mut opener = Opener::new(&keys, RING, local);
    assert!(opener.open(&mut bytes.to_vec(), NOW_MS).is_err(), "who lacks the secret is not believed");

    let mut sealer = Sealer::new(&keys, RING, peer, 1);
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
    let Some(Opened { sender, message }) = opened else { return };
    assert_eq!((sender, &*message), (peer, bytes), "it is what was sent, by whom it says");
    for mut datagram in datagrams {
        assert!(opener.open(&mut datagram, NOW_MS).is_err(), "once");
    }
}

/// Messages of peers, one behind the other, or what one says of itself.
///
/// The gossip library panics over some that only who has the secret can make. That ends its task, and no more: the caller has
/// to let such panics pass.
pub fn gossip(bytes: &[u8]) {
    let (mut messages, mut rest) = (Vec::new(), bytes);
    while let Ok(message) = ChitchatMessage::deserialize(&mut rest) {
        messages.push(message);
    }
    if messages.is_empty() { said(bytes) } else { heard(messages) }
}

/// One generation of the gossip hears `messages` as it would from its socket.
fn heard(messages: Vec<ChitchatMessage>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without sockets").block_on(async {
        let settings = settings();
        let config = chitchat_config(&settings, GENERATION, settings.listen);
        let all_heard = Arc::new(Notify::new());
        let mouth = Mouth { messages: Mutex::new(messages), all_heard: all_heard.clone() };
        let handle = spawn_chitchat(config, Vec::new(), &mouth).await.expect("it needs no socket");
        tokio::select! {
            // It is started again.
            _ = ended(&handle) => return,
            () = all_heard.notified() => {}
        }
        let own = own_keys(&settings);
        let local = settings.node_id;
        if let Ok(heard) = handle.with_chitchat(|chitchat| say_and_hear(chitchat, &own, local)).await {
            TwinWatch::default().look(GENERATION, &heard.selves, settings.timing.interval, Instant::now());
            fold(heard.reports, &settings);
        }
    });
}

/// Others say what they like of themselves, and nothing of this node.
fn fold(reports: Vec<Report>, settings: &GossipSettings) {
    let mut folder = Folder::new(settings.node_id, settings.timing.interval);
    let view = folder.fold(reports, None, Instant::now(), NOW_MS / 1000).view;
    assert!(view.nodes.is_sorted_by(|one, other| one.id < other.id), "each is there once");
    let longest = view.nodes.iter().map(|node| node.name.len().max(node.region.len())).max();
    assert!(longest.is_some_and(|longest| longest <= 256), "what is long is cut");
    let own = view.node(settings.node_id).expect("this node is always there");
    assert_eq!((&*own.name, own.alive, own.state), ("local", true, NodeState::Joining));
    assert_eq!((own.cluster_addr, &*own.region), (settings.listen, "here"));
}

fn settings() -> GossipSettings {
    GossipSettings {
        cluster_id: ClusterId(1),
        cluster_epoch: 0,
        keys: keys_of_ring(),
        node_id: NodeId(1),
        name: "local".to_owned(),
        listen: SocketAddr::from(([10, 0, 0, 1], 7400)),
        advertise: None,
        admin_addr: String::new(),
        region: "here".to_owned(),
        zone: String::new(),
        version: String::new(),
        public: Vec::new(),
        seeds: Vec::new(),
        timing: GossipTiming::default(),
    }
}

/// A socket at which `messages` arrive, and nothing after them.
struct Mouth {
    messages: Mutex<Vec<ChitchatMessage>>,
    all_heard: Arc<Notify>,
}

#[async_trait]
impl Transport for Mouth {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let messages = std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Box::new(Words { messages: messages.into_iter(), all_heard: self.all_heard.clone() }))
    }
}

struct Words {
    messages: std::vec::IntoIter<ChitchatMessage>,
    all_heard: Arc<Notify>,
}

#[async_trait]
impl Socket for Words {
    async fn send(&mut self, _: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let mut plain = Vec::with_capacity(message.serialized_len());
        message.serialize(&mut plain);
        assert_eq!(plain.len(), message.serialized_len(), "a message knows its length");
        let again = ChitchatMessage::deserialize(&mut &*plain);
        assert!(again.is_ok(), "what is written can be read");
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        let Some(message) = self.messages.next() else {
            self.all_heard.notify_one();
            return std::future::pending().await;
        };
        Ok((SocketAddr::from(([10, 0, 0, 2], 7400)), message))
    }
}

/// The value of a key, as a node says it of itself.
fn said(bytes: &[u8]) {
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
    let missed = witness::decode(text);
    assert_eq!(witness::decode(&witness::encode(&missed)), missed, "who is missed is read as it is written");
    let load: u32 = keys::number(Some(text));
    assert!(keys::coarse(load) <= load && keys::coarse(keys::coarse(load)) == keys::coarse(load));
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.reveal(), text.trim(), "a token is read as it is written");
    }
}
