//! When this node last heard a leader, or was one, and who has taken part in an election since. openraft remembers who led, but
//! not whether it is still there, nor when this node last told one that it follows, nor, once it leads no longer, until when a
//! majority followed it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_model::NodeId;
use shoal_policy::cache::confirmed::{Confirmations, Mandate};
use tokio::time::Instant;

/// The time of the last message from a leader this node follows, or of a majority's while it led.
#[derive(Debug)]
pub struct Heard {
    base: Instant,
    /// Milliseconds after `base`, plus one; 0 = never.
    at: AtomicU64,
    /// Times are after `base`.
    confirmations: Mutex<Confirmations>,
    /// When each other node last asked for a vote, or answered who did.
    votes: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Default for Heard {
    fn default() -> Self {
        let (confirmations, votes) = (Mutex::default(), Mutex::default());
        Self { base: Instant::now(), at: AtomicU64::new(0), confirmations, votes }
    }
}

impl Heard {
    /// A leader was heard just now.
    pub fn note(&self) {
        self.note_led(Duration::ZERO);
    }

    /// This node leads, and a majority followed it so long ago. Noted by whoever looks at that, which somebody does all the time.
    pub fn note_led(&self, ago: Duration) {
        let ago_ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        self.at.fetch_max(self.now_ms().saturating_sub(ago_ms) + 1, Ordering::Relaxed);
    }

    /// For how long none was heard; `None` = there never was one.
    pub fn age(&self) -> Option<Duration> {
        let at = self.at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(self.now_ms().saturating_sub(at)))
    }

    /// One was heard not longer than `age` ago.
    pub fn is_recent(&self, age: Duration) -> bool {
        self.age().is_some_and(|silence| silence <= age)
    }

    /// `node` has asked for a vote, or has answered one that was asked for.
    pub fn note_vote(&self, node: NodeId) {
        self.votes().insert(node, Instant::now());
    }

    /// Whether `node` has done so, not longer than `age` ago.
    pub fn votes_since(&self, node: NodeId, age: Duration) -> bool {
        self.votes().get(&node).is_some_and(|at| at.elapsed() <= age)
    }

    /// The leader with `mandate` may get an answer now, or is this node and asked something. To be noted before it is.
    pub fn may_confirm(&self, mandate: Mandate) {
        self.confirmations().note(mandate, self.base.elapsed());
    }

    /// For how long none was confirmed of those before the one with `mandate`; `None` = another one leads since.
    pub fn confirmed_none_before(&self, mandate: Mandate) -> Option<Duration> {
        let before = self.confirmations().before(mandate)?;
        Some(self.base.elapsed().saturating_sub(before))
    }

    fn confirmations(&self) -> MutexGuard<'_, Confirmations> {
        self.confirmations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn votes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.votes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_not_recent() {
        let heard = Heard::default();
        assert!(!heard.is_recent(Duration::from_secs(9)));
        heard.note();
        assert!(heard.is_recent(Duration::from_secs(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_part_in_an_election_is_known_for_a_while() {
        let (heard, seconds) = (Heard::default(), Duration::from_secs);
        heard.note_vote(NodeId(2));
        tokio::time::advance(seconds(3)).await;
        let known = [(NodeId(2), 3), (NodeId(2), 2), (NodeId(3), 9)];
        assert_eq!(known.map(|(node, age)| heard.votes_since(node, seconds(age))), [true, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_led_is_not_long_without_a_leader() {
        let (heard, seconds) = (Heard::default(), Duration::from_secs);
        heard.note();
        tokio::time::advance(seconds(9)).await;
        assert_eq!(heard.age(), Some(seconds(9)));
        for (ago, expected) in [(2, 2), (5, 2), (1, 1)] {
            heard.note_led(seconds(ago));
            assert_eq!(heard.age(), Some(seconds(expected)), "{ago}");
        }
    }
}
