//! The wire under the gossip: UDP, sealed. It survives everything that can arrive.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use shoal_model::NodeId;
use tokio::net::UdpSocket;

use super::members::Members;
use super::seal::{Dropped, MAX_DATAGRAM, Opened, Opener, Party, Sealer};
use crate::identity::KeyRing;

/// Larger messages are worth a warning: three fifths of what the gossip library can carry.
const ALARM_BYTES: u64 = 40_000;
/// Pause after the socket failed, so that a persistent failure does not spin.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);

/// What the gossip has seen since the start.
#[derive(Debug, Default)]
pub struct GossipCounters {
    /// Messages received and believed.
    pub received: AtomicU64,
    /// Datagrams that no node of this cluster made, or that were made for another one.
    pub unauthentic: AtomicU64,
    /// Datagrams of a node whose clock differs too much.
    pub skewed: AtomicU64,
    /// Datagrams seen before, or our own.
    pub replayed: AtomicU64,
    /// Messages of nodes that were removed.
    pub removed: AtomicU64,
    /// Messages of a node of this cluster that cannot be read: it may be of a later version.
    pub malformed: AtomicU64,
    /// Bytes of datagrams sent, without the headers of the network.
    pub sent_bytes: AtomicU64,
    /// Bytes of the largest message sent: what every node says of itself grows with the cluster.
    pub largest_sent: AtomicU64,
    /// Messages too large to be sent: the state has grown past what the gossip can carry.
    pub oversized: AtomicU64,
    /// Errors of the socket.
    pub errors: AtomicU64,
    /// Times the gossip ended by itself and was started again.
    pub restarts: AtomicU64,
    /// How long ago, in the last round, that one of the living members was heard of that was heard of longest ago.
    pub silence_ms: AtomicU64,
}

impl GossipCounters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn note_size(&self, bytes: usize) {
        let before = self.largest_sent.fetch_max(bytes as u64, Ordering::Relaxed);
        if before <= ALARM_BYTES && bytes as u64 > ALARM_BYTES {
            tracing::warn!(
                bytes,
                "gossip messages have grown large: there are too many nodes, or they say too much"
            );
        }
    }

    fn count_dropped(&self, dropped: Dropped) {
        match dropped {
            Dropped::Unauthentic => Self::count(&self.unauthentic),
            Dropped::Replayed | Dropped::Reflected => Self::count(&self.replayed),
            Dropped::Skewed => {
                if self.skewed.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!("the clock of another node differs from ours by more than five minutes");
                }
            }
            Dropped::Partial => {}
        }
    }
}

/// Opens one generation's view of a socket that outlives generations.
pub(super) struct SealedTransport {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) keys: Arc<ArcSwap<KeyRing>>,
    pub(super) ring: String,
    pub(super) local: Party,
    pub(super) generation: u64,
    pub(super) counters: Arc<GossipCounters>,
    pub(super) members: Arc<Mutex<Members>>,
}

#[async_trait]
impl Transport for SealedTransport {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let now = self.keys.load_full();
        Ok(Box::new(SealedSocket {
            socket: self.socket.clone(),
            sealer: Sealer::new(&now, &self.ring, self.local, self.generation),
            opener: Opener::new(&now, &self.ring, self.local),
            keys: self.keys.clone(),
            followed: now,
            buffer: vec![0; MAX_DATAGRAM].into_boxed_slice(),
            counters: self.counters.clone(),
            members: self.members.clone(),
        }))
    }
}

struct SealedSocket {
    socket: Arc<UdpSocket>,
    sealer: Sealer,
    opener: Opener,
    keys: Arc<ArcSwap<KeyRing>>,
    /// What of `keys` the two have got.
    followed: Arc<KeyRing>,
    buffer: Box<[u8]>,
    counters: Arc<GossipCounters>,
    members: Arc<Mutex<Members>>,
}

impl SealedSocket {
    fn follow_keys(&mut self) {
        let now = self.keys.load();
        if !Arc::ptr_eq(&now, &self.followed) {
            self.followed = Arc::clone(&now);
            self.sealer.use_keys(&self.followed);
            self.opener.use_keys(&self.followed);
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Socket for SealedSocket {
    /// Never fails: a datagram that cannot be sent is a datagram lost, and the next round sends another.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        if !self.members().may_be_told(to) {
            return Ok(());
        }
        self.follow_keys();
        let mut plain = Vec::with_capacity(message.serialized_len());
        message.serialize(&mut plain);
        self.counters.note_size(plain.len());
        let datagrams = match self.sealer.seal(&plain, to, unix_ms()) {
            Ok(datagrams) => datagrams,
            Err(error) => {
                GossipCounters::count(&self.counters.oversized);
                tracing::error!(%error, "the gossiped state has grown too large to be exchanged");
                return Ok(());
            }
        };
        for datagram in datagrams {
            match self.socket.send_to(&datagram, to).await {
                Ok(bytes) => _ = self.counters.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed),
                Err(error) => {
                    GossipCounters::count(&self.counters.errors);
                    tracing::debug!(%to, %error, "a gossip datagram was not sent");
                }
            }
        }
        Ok(())
    }

    /// Never fails, because an error would end the gossip for good. Dropping it between two polls loses nothing: the only
    /// waits are for a datagram and after an error.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (length, _) = match self.socket.recv_from(&mut self.buffer).await {
                Ok(received) => received,
                Err(error) => {
                    GossipCounters::count(&self.counters.errors);
                    tracing::debug!(%error, "receiving gossip failed");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            };
            self.follow_keys();
            let opened = self.opener.open(&mut self.buffer[..length], unix_ms());
            let Opened { sender: Party { id, address }, message } = match opened {
                Ok(opened) => opened,
                Err(dropped) => {
                    self.counters.count_dropped(dropped);
                    continue;
                }
            };
            if !self.members().hears(NodeId(id), address) {
                GossipCounters::count(&self.counters.removed);
                continue;
            }
            match ChitchatMessage::deserialize(&mut message.as_slice()) {
                Ok(message) => {
                    GossipCounters::count(&self.counters.received);
                    return Ok((address, message));
                }
                Err(_) => GossipCounters::count(&self.counters.malformed),
            }
        }
    }
}

pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
