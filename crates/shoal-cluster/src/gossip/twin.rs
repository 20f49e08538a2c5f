//! Another process with this node's identity: its data directory was copied, or its disk was cloned.
//!
//! Earlier generations of this node are known for a while, too, and a few late signs of life of them arrive after a restart.
//! One that goes on giving signs of life is none of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Signs of life that late ones do not come to.
const MIN_BEATS: u32 = 10;
/// Rounds over which they have to come.
const MIN_ROUNDS: u32 = 10;
/// Rounds after its last sign of life for which it is still told of.
const REMEMBERED_ROUNDS: u32 = 60;
/// Generations of this node that are looked at, the latest ones.
const MAX_LOOKED_AT: usize = 64;

/// The other process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twin {
    /// The address it advertises.
    pub address: SocketAddr,
    /// It was there before this process was.
    pub was_first: bool,
}

/// Another generation of this node, as the gossip has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OtherSelf {
    pub(super) generation: u64,
    pub(super) address: SocketAddr,
    pub(super) heartbeat: u64,
}

/// Watches the other generations of this node.
#[derive(Debug, Default)]
pub(super) struct TwinWatch {
    seen: BTreeMap<(u64, SocketAddr), Pulse>,
}

#[derive(Debug)]
struct Pulse {
    heartbeat: u64,
    beats: u32,
    first: Instant,
    last: Instant,
}

impl TwinWatch {
    /// One round: who of `others` lives beside generation `own`; the one that was first, if there are several.
    pub(super) fn look(
        &mut self,
        own: u64,
        others: &[OtherSelf],
        round: Duration,
        now: Instant,
    ) -> Option<Twin> {
        self.seen.retain(|key, _| others.iter().any(|other| (other.generation, other.address) == *key));
        for other in others.iter().rev().take(MAX_LOOKED_AT) {
            let new = Pulse { heartbeat: other.heartbeat, beats: 0, first: now, last: now };
            let pulse = self.seen.entry((other.generation, other.address)).or_insert(new);
            if other.heartbeat > pulse.heartbeat {
                pulse.beats = pulse.beats.saturating_add(1);
                (pulse.heartbeat, pulse.last) = (other.heartbeat, now);
            }
        }
        let lives = |pulse: &Pulse| {
            pulse.beats >= MIN_BEATS
                && pulse.last.duration_since(pulse.first) >= MIN_ROUNDS * round
                && now.duration_since(pulse.last) < REMEMBERED_ROUNDS * round
        };
        let mut twins = self.seen.iter().filter(|(_, pulse)| lives(pulse));
        twins
            .next()
            .map(|((generation, address), _)| Twin { address: *address, was_first: *generation < own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(500);
    const OWN: u64 = 5;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7400))
    }

    #[test]
    fn only_one_that_goes_on_living_is_a_twin() {
        // What its heartbeat is in each round.
        let check = |generation: u64, beats: &dyn Fn(u64) -> u64, rounds: u64, expected: Option<bool>| {
            let (mut watch, start) = (TwinWatch::default(), Instant::now());
            let mut twin = None;
            for round in 0..rounds {
                let other = OtherSelf { generation, address: at(2), heartbeat: beats(round) };
                twin = watch.look(OWN, &[other], ROUND, start + u32::try_from(round).unwrap() * ROUND);
            }
            assert_eq!(twin, expected.map(|was_first| Twin { address: at(2), was_first }), "{rounds} rounds");
        };
        check(4, &|_| 1_000, 500, None);
        check(4, &|round| 1_000 + round.min(9), 500, None); // late signs of life
        check(4, &|round| if round > 30 { 5_000 } else { 1_000 }, 500, None); // from behind a partition
        check(4, &|round| round, 10, None);
        check(4, &|round| round, 11, Some(true));
        check(6, &|round| round, 11, Some(false));
        check(4, &|round| round.min(20), 75, Some(true));
        check(4, &|round| round.min(20), 85, None); // it has ended
    }

    #[test]
    fn what_is_forgotten_is_not_kept() {
        let (mut watch, now) = (TwinWatch::default(), Instant::now());
        let others: Vec<_> =
            (0..100).map(|generation| OtherSelf { generation, address: at(2), heartbeat: 1 }).collect();
        watch.look(OWN, &others, ROUND, now);
        assert_eq!(watch.seen.len(), MAX_LOOKED_AT);
        watch.look(OWN, &[], ROUND, now);
        assert!(watch.seen.is_empty());
    }
}
