//! What has come in of a response, and how far each of its readers is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use shoal_policy::failure::Failure;

use super::{FillHead, WINDOW_BYTES};
use crate::object::Object;

/// How long, in all, a fill lets readers that have everything wait for those that lag as far behind as they may. Then it
/// goes on without the latter.
pub(super) const LAGGARD_PATIENCE: Duration = Duration::from_secs(5);

/// What all that read a fill and what fills it share, under one lock.
pub(super) struct Shared {
    pub(super) head: Head,
    /// What of the body is still held, in order.
    pub(super) chunks: VecDeque<Bytes>,
    /// Chunks that were let go, all of them before `chunks`.
    pub(super) dropped: usize,
    pub(super) received_bytes: u64,
    pub(super) held_bytes: u64,
    /// Bytes that may be held; beyond them the fill turns into a pipe.
    pub(super) keep_bytes: u64,
    /// Bytes that may be held while there are several readers, for those that lag.
    pub(super) share_bytes: u64,
    /// All fills together hold no more than they may.
    pub(super) has_room: bool,
    /// What is left of [`LAGGARD_PATIENCE`].
    pub(super) patience: Duration,
    pub(super) is_pipe: bool,
    /// It is a pipe because other fills hold so much.
    pub(super) is_crowded: bool,
    pub(super) end: End,
    pub(super) readers: FxHashMap<u64, Place>,
    pub(super) next_reader: u64,
    pub(super) joined: u64,
    /// Who waits for room, or for somebody to join.
    pub(super) producer: Option<Waker>,
}

/// How far the head has come.
pub(super) enum Head {
    Awaited,
    Arrived(Arc<FillHead>),
    /// The answer is an object of the store, validated or stale but good enough.
    Object(Arc<Object>),
    Released,
    Failed(Failure),
}

/// How the body has ended.
pub(super) enum End {
    Open,
    Complete,
    Failed(Failure),
}

/// How far a reader has come.
pub(super) struct Place {
    pub(super) next: usize,
    pub(super) waker: Option<Waker>,
}

impl Shared {
    pub(super) fn wake_readers(&mut self) {
        for place in self.readers.values_mut() {
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        }
    }

    /// Lets go of what every reader has, and says how many bytes that were.
    pub(super) fn trim(&mut self) -> u64 {
        let held_before = self.held_bytes;
        let slowest = self.readers.values().map(|place| place.next).min().unwrap_or(usize::MAX);
        while self.dropped < slowest
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.held_bytes -= chunk.len() as u64;
            self.dropped += 1;
        }
        held_before - self.held_bytes
    }

    /// How far readers of a pipe may lag behind each other.
    pub(super) fn lag_bytes(&self) -> u64 {
        if self.readers.len() > 1 && self.has_room { self.share_bytes } else { WINDOW_BYTES }
    }

    /// Some reader has all that has come.
    pub(super) fn is_anyone_waiting(&self) -> bool {
        let end = self.dropped + self.chunks.len();
        self.readers.values().any(|place| place.next == end)
    }

    /// Goes on without the readers that keep others waiting, the slowest first, and says how many bytes that set free.
    /// Where everybody is slow, nobody is in anybody's way.
    pub(super) fn leave_laggards(&mut self) -> u64 {
        let held_before = self.held_bytes;
        self.patience = LAGGARD_PATIENCE;
        while self.is_anyone_waiting() && self.held_bytes > self.lag_bytes() {
            let Some(slowest) = self.readers.values().map(|place| place.next).min() else { break };
            self.readers.retain(|_, place| {
                let stays = place.next > slowest;
                if let Some(waker) = place.waker.take_if(|_| !stays) {
                    waker.wake();
                }
                stays
            });
            self.trim();
        }
        held_before - self.held_bytes
    }

    pub(super) fn wake_producer(&mut self) {
        if let Some(waker) = self.producer.take() {
            waker.wake();
        }
    }
}
