//! Who is dead, by the word of several: each node says whom it misses, and what several miss is dead for all at once.
//!
//! One node's failure detector looks twice a second, and goes by the gaps that it has seen itself: the last of fifty comes to
//! it a second after the first. Nor is one's word worth much: it may be the one that nothing reaches. So nobody goes by its own
//! alone before it has waited as long again. Who misses a node says up to which sign of life it has heard of it. For who has
//! heard a later one that is no word against it, so that a node that goes on refutes what is said of it by being heard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use shoal_model::NodeId;
use tokio::time::Instant;

/// So many have to miss a node, of few the majority.
const WITNESSES: usize = 3;
/// Rounds without a sign of life before which nobody is missed, whatever the failure detector says: a machine may stand still
/// for a moment.
const PATIENCE_ROUNDS: u32 = 4;
/// Rounds after which a node that is missed is dead, though others do not say so.
const ALONE_ROUNDS: u32 = 4;
/// Rounds for which it is told who is missed. All know it by then.
const TOLD_ROUNDS: u32 = 60;
/// Missed ones that are told of, so that the value stays below 1 KB. Of others each goes by its own word.
const MAX_TOLD: usize = 24;

/// A node that is missed: no sign of life of this generation after `heartbeat` is known to who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    pub(super) id: NodeId,
    pub(super) generation: u64,
    pub(super) heartbeat: u64,
}

/// `missed`: `id.generation.heartbeat` in hexadecimal digits, by commas.
pub(super) fn encode(missed: &[Missed]) -> String {
    let mut text = String::new();
    for Missed { id, generation, heartbeat } in missed.iter().take(MAX_TOLD) {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{:x}.{generation:x}.{heartbeat:x}", id.0);
    }
    text
}

/// Reads `missed`; what makes no sense is left out.
pub(super) fn decode(text: &str) -> Vec<Missed> {
    let read = |part: &str| {
        let mut numbers = part.splitn(3, '.').map(|number| u64::from_str_radix(number, 16).ok());
        let mut number = || numbers.next().flatten();
        Some(Missed { id: NodeId(number()?), generation: number()?, heartbeat: number()? })
    };
    text.split(',').take(MAX_TOLD).filter_map(read).collect()
}

/// A peer, as this node hears it.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) id: NodeId,
    pub(super) generation: u64,
    /// The latest sign of life of it that is known here.
    pub(super) heartbeat: u64,
    /// The failure detector's word.
    pub(super) heard: bool,
    /// It has said goodbye: nobody need be told that it is gone.
    pub(super) left: bool,
    /// Whom it misses itself; `None` = it is of a version that does not say so.
    pub(super) misses: Option<Vec<Missed>>,
}

/// What is known of a peer from round to round.
#[derive(Debug)]
struct Pulse {
    generation: u64,
    heartbeat: u64,
    last: Instant,
    missed_since: Option<Instant>,
    alive: bool,
}

/// Who is there, as a round has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RollCall {
    /// The peers that are alive.
    pub(super) alive: BTreeSet<NodeId>,
    /// Whom this node misses.
    pub(super) missed: Vec<Missed>,
    /// Somebody is missed or dead that was not: the others should hear of it soon.
    pub(super) is_news: bool,
    /// How long ago that one of the living was heard of that was heard of longest ago.
    pub(super) silence: Duration,
}

/// Remembers who gave signs of life when.
#[derive(Debug)]
pub(super) struct Witness {
    round: Duration,
    pulses: BTreeMap<NodeId, Pulse>,
}

impl Witness {
    pub(super) fn new(round: Duration) -> Self {
        Self { round, pulses: BTreeMap::new() }
    }

    /// This process stood still itself: that nothing was heard meanwhile says nothing.
    pub(super) fn stalled(&mut self, now: Instant) {
        for pulse in self.pulses.values_mut() {
            (pulse.last, pulse.missed_since) = (now, None);
        }
    }

    /// One round: all peers, each once.
    pub(super) fn judge(&mut self, peers: &[Sight], now: Instant) -> RollCall {
        self.pulses.retain(|id, _| peers.iter().any(|peer| peer.id == *id));
        let mut begun = false;
        for peer in peers {
            begun |= self.take(peer, now);
        }
        // Who misses more than half of those that were there is the one that is missing.
        let were_there = || peers.iter().filter(|peer| !peer.left && self.was_alive(peer.id));
        let is_missed = |peer: &&Sight| self.missed_since(peer.id).is_some();
        let speaks =
            were_there().count() < 2 || were_there().filter(is_missed).count() * 2 <= were_there().count();
        let mut call = RollCall { is_news: begun && speaks, ..RollCall::default() };
        for peer in peers {
            let is_alive = self.lives(peer, peers, speaks, now);
            let Some(pulse) = self.pulses.get_mut(&peer.id) else { continue };
            call.is_news |= pulse.alive && !is_alive && !peer.left;
            pulse.alive = is_alive;
            if is_alive {
                call.alive.insert(peer.id);
            }
            if is_alive && !peer.left {
                call.silence = call.silence.max(now.duration_since(pulse.last));
            }
            let is_told = |since: &Instant| now.duration_since(*since) < TOLD_ROUNDS * self.round;
            if speaks && !peer.left && pulse.missed_since.as_ref().is_some_and(is_told) {
                let Sight { id, generation, heartbeat, .. } = *peer;
                call.missed.push(Missed { id, generation, heartbeat });
            }
        }
        call.missed.truncate(MAX_TOLD);
        call
    }

    /// Takes note of what is heard of a peer. Whether it is missed from now on.
    fn take(&mut self, peer: &Sight, now: Instant) -> bool {
        let Sight { generation, heartbeat, heard, .. } = *peer;
        let new = || Pulse { generation, heartbeat, last: now, missed_since: None, alive: heard };
        let pulse = self.pulses.entry(peer.id).or_insert_with(new);
        if pulse.generation != generation {
            *pulse = new();
        }
        if heartbeat > pulse.heartbeat {
            (pulse.heartbeat, pulse.last, pulse.missed_since) = (heartbeat, now, None);
        }
        let is_late = now.duration_since(pulse.last) >= PATIENCE_ROUNDS * self.round;
        let begins = !heard && pulse.alive && is_late && pulse.missed_since.is_none();
        if begins {
            pulse.missed_since = Some(now);
        }
        begins
    }

    fn was_alive(&self, id: NodeId) -> bool {
        self.pulses.get(&id).is_some_and(|pulse| pulse.alive)
    }

    fn missed_since(&self, id: NodeId) -> Option<Instant> {
        self.pulses.get(&id).and_then(|pulse| pulse.missed_since)
    }

    /// Whether a peer is alive, as this node and others say. `speaks`: this node's own word counts.
    fn lives(&self, peer: &Sight, peers: &[Sight], speaks: bool, now: Instant) -> bool {
        let Some(pulse) = self.pulses.get(&peer.id) else { return peer.heard };
        let is_against = |missed: &Missed| {
            missed.id == peer.id && missed.generation == peer.generation && missed.heartbeat >= peer.heartbeat
        };
        let witnesses = || peers.iter().filter(|other| other.heard && other.id != peer.id);
        let able = 1 + witnesses().filter(|other| other.misses.is_some()).count();
        let against = witnesses().filter(|other| other.misses.iter().flatten().any(is_against)).count()
            + usize::from(speaks && pulse.missed_since.is_some());
        if against >= WITNESSES.min(able / 2 + 1) {
            return false;
        }
        let waited =
            pulse.missed_since.is_some_and(|since| now.duration_since(since) >= ALONE_ROUNDS * self.round);
        // Who is dead is alive again when the failure detector says so.
        peer.heard || (pulse.alive && !waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(500);

    /// What peers said of `C`: who is heard and who is not as upper and lower case, whoever misses `C` with the sign of life
    /// up to which it has heard of it, `?` = it is of a version that does not say so, `bye` = it has said goodbye.
    fn sights(peers: &[(char, &str)], heartbeat: u64) -> Vec<Sight> {
        let sight = |(letter, misses): &(char, &str)| {
            let told = misses.parse().map(|heartbeat| vec![Missed { id: id('C'), generation: 7, heartbeat }]);
            Sight {
                id: id(*letter),
                generation: 7,
                heartbeat: if id(*letter) == id('C') { heartbeat } else { 1 },
                heard: letter.is_ascii_uppercase(),
                left: *misses == "bye",
                misses: if *misses == "?" { None } else { Some(told.unwrap_or_default()) },
            }
        };
        peers.iter().map(sight).collect()
    }

    fn id(letter: char) -> NodeId {
        NodeId(u64::from(letter.to_ascii_uppercase()))
    }

    /// At so many ms, with `C`'s signs of life as they are known here: whether it is alive, and missed.
    type Round<'a> = (u64, &'a [(char, &'a str)], u64, &'a str);

    fn check(rounds: &[Round<'_>]) {
        let (start, mut witness) = (Instant::now(), Witness::new(ROUND));
        for (at_ms, peers, heartbeat, expected) in rounds {
            let call = witness.judge(&sights(peers, *heartbeat), start + Duration::from_millis(*at_ms));
            let alive = if call.alive.contains(&id('C')) { "alive" } else { "dead" };
            let missed = call.missed.iter().find(|missed| missed.id == id('C'));
            let missed =
                missed.map_or(String::new(), |missed| format!(", missed since {}", missed.heartbeat));
            let news = if call.is_news { "!" } else { "" };
            assert_eq!(format!("{alive}{missed}{news}"), *expected, "at {at_ms} ms");
        }
    }

    #[test]
    fn several_who_miss_a_node_decide_at_once() {
        let of_five = |c, one, two, three| [('A', one), ('B', two), (c, ""), ('D', three)];
        check(&[
            (0, &of_five('C', "", "", ""), 5, "alive"),
            (1900, &of_five('C', "5", "5", ""), 5, "alive"),
            (1950, &of_five('C', "5", "5", "5"), 5, "dead!"),
            (2500, &of_five('c', "5", "5", "5"), 5, "dead"),
            (9000, &of_five('c', "", "", ""), 5, "dead"),
            (9500, &of_five('C', "", "", ""), 8, "alive"),
        ]);
        // This node's own word is one of three.
        check(&[
            (0, &of_five('C', "", "", ""), 5, "alive"),
            (2000, &of_five('c', "5", "", ""), 5, "alive, missed since 5!"),
            (2100, &of_five('c', "5", "5", ""), 5, "dead, missed since 5!"),
        ]);
        // Of three nodes both that are left.
        check(&[
            (0, &[('A', ""), ('C', "")], 5, "alive"),
            (2000, &[('A', "5"), ('C', "")], 5, "alive"),
            (2100, &[('A', "5"), ('c', "")], 5, "dead, missed since 5!"),
        ]);
        // Of two the other one.
        check(&[(0, &[('C', "")], 5, "alive"), (2000, &[('c', "")], 5, "dead, missed since 5!")]);
    }

    #[test]
    fn who_was_heard_later_is_not_dead_whatever_is_said() {
        let peers = |c, word| [('A', word), ('B', word), (c, ""), ('D', word)];
        check(&[
            (0, &peers('C', ""), 5, "alive"),
            (2000, &peers('C', "5"), 6, "alive"),
            (2500, &peers('C', "9"), 6, "dead!"),
            (2600, &peers('C', "9"), 10, "alive"),
        ]);
        // It stood still, and this node had missed it, too.
        check(&[
            (0, &peers('C', ""), 5, "alive"),
            (2000, &peers('c', ""), 5, "alive, missed since 5!"),
            (2100, &peers('c', "5"), 6, "alive"),
            (2600, &peers('c', ""), 7, "alive"),
            (4500, &peers('c', ""), 7, "alive"),
            (4600, &peers('c', ""), 7, "alive, missed since 7!"),
        ]);
    }

    #[test]
    fn nobody_is_missed_before_its_time_nor_for_ever_by_one_alone() {
        let peers = |c, word| [('A', word), ('B', word), (c, ""), ('D', word)];
        check(&[
            (0, &peers('C', ""), 5, "alive"),
            (1999, &peers('c', ""), 5, "alive"),
            (2000, &peers('c', ""), 5, "alive, missed since 5!"),
            (3999, &peers('c', ""), 5, "alive, missed since 5"),
            (4000, &peers('c', ""), 5, "dead, missed since 5!"),
            (31_999, &peers('c', ""), 5, "dead, missed since 5"),
            (32_000, &peers('c', ""), 5, "dead"),
        ]);
        // Those that cannot say whom they miss are not waited for.
        check(&[(0, &peers('C', "?"), 5, "alive"), (2000, &peers('c', "?"), 5, "dead, missed since 5!")]);
        // Who was never heard is not held to be alive.
        check(&[(0, &peers('c', ""), 5, "dead"), (9000, &peers('c', ""), 5, "dead")]);
    }

    #[test]
    fn who_misses_most_others_or_stood_still_says_nothing() {
        check(&[
            (0, &[('A', ""), ('B', ""), ('C', ""), ('D', "")], 5, "alive"),
            (2000, &[('a', ""), ('b', ""), ('c', ""), ('D', "")], 5, "alive"),
            (4000, &[('a', ""), ('b', ""), ('c', ""), ('D', "")], 5, "dead!"),
        ]);
        // Those that have said goodbye or were dead before are none of them.
        for (gone, before) in [("bye", 'B'), ("", 'b')] {
            check(&[
                (0, &[('A', ""), (before, ""), ('C', "")], 5, "alive"),
                (2000, &[('A', ""), ('b', gone), ('c', "")], 5, "alive, missed since 5!"),
                (2250, &[('A', "5"), ('b', gone), ('c', "")], 5, "dead, missed since 5!"),
            ]);
        }
        let (start, mut witness) = (Instant::now(), Witness::new(ROUND));
        let late = start + 20 * ROUND;
        witness.judge(&sights(&[('A', ""), ('C', "")], 5), start);
        witness.stalled(late);
        let call = witness.judge(&sights(&[('A', ""), ('c', "")], 5), late);
        assert_eq!((call.alive.len(), call.missed.len()), (2, 0));
    }

    #[test]
    fn the_longest_silence_is_that_of_somebody_alive() {
        let (start, mut witness) = (Instant::now(), Witness::new(ROUND));
        let mut check = |peers: &[(char, &str)], heartbeat: u64, round: u32, expected: u32| {
            let call = witness.judge(&sights(peers, heartbeat), start + round * ROUND);
            assert_eq!(call.silence, expected * ROUND, "{peers:?} in round {round}");
        };
        check(&[('A', ""), ('C', "")], 1, 0, 0);
        check(&[('A', ""), ('C', "")], 2, 3, 3);
        check(&[('A', "bye"), ('C', "")], 2, 4, 1);
        check(&[('a', ""), ('C', "")], 3, 9, 9);
        check(&[('a', ""), ('C', "")], 4, 13, 0); // it is dead
    }

    #[test]
    fn what_is_said_of_missed_ones_is_read_back() {
        let missed = |n: u64| Missed { id: NodeId(n), generation: u64::MAX - n, heartbeat: n << 40 };
        let many: Vec<_> = (0..100).map(missed).collect();
        let text = encode(&many);
        assert!(text.len() < 1024, "{}", text.len());
        assert_eq!(decode(&text), many[..MAX_TOLD]);
        assert_eq!(decode(&encode(&many[..1])), many[..1]);
        for garbage in ["", ",", "1", "1.2", "1.2.", "1.2.x", "1.2.3.4", "-1.2.3", "1.2.fffffffffffffffff"] {
            assert_eq!(decode(garbage), [], "{garbage:?}");
        }
    }
}
