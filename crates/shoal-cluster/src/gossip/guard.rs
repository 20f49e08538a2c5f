//! When not to believe the failure detector: many deaths at once, or our own stall, say more about us than about others.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_model::NodeId;
use tokio::time::Instant;

/// Fewer peers than this cannot die "in mass".
const MIN_PEERS: usize = 2;
/// For how long a mass death is not believed. Bounded: if it is real, its owners must be replaced.
const MASS_DEATH_HOLD: Duration = Duration::from_secs(30);

/// Remembers which peers are held to be alive.
#[derive(Debug, Default)]
pub(super) struct Guard {
    alive: BTreeSet<NodeId>,
    mass_death_since: Option<Instant>,
    stalled_until: Option<Instant>,
}

/// What the guard thinks of a round.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// The peers to be held alive.
    pub(super) alive: BTreeSet<NodeId>,
    /// More than half of the peers died at once, and this round is the first to see it.
    pub(super) mass_death: bool,
}

impl Guard {
    /// This process was late itself: no death is believed before `until`.
    pub(super) fn stalled(&mut self, until: Instant) {
        self.stalled_until = Some(until);
    }

    /// `peers`: every peer that has not left on purpose, and whether it is heard.
    pub(super) fn judge(&mut self, peers: &[(NodeId, bool)], now: Instant) -> Judgement {
        let known: BTreeSet<_> = peers.iter().map(|(id, _)| *id).collect();
        let heard: BTreeSet<_> = peers.iter().filter(|(_, heard)| *heard).map(|(id, _)| *id).collect();
        self.alive.retain(|id| known.contains(id));
        let died = self.alive.difference(&heard).count();
        let in_mass = self.alive.len() >= MIN_PEERS && died * 2 > self.alive.len();
        let mass_death = in_mass && self.mass_death_since.is_none();
        if !in_mass {
            self.mass_death_since = None;
        } else if mass_death {
            self.mass_death_since = Some(now);
        }
        let held = self.mass_death_since.is_some_and(|since| now.duration_since(since) < MASS_DEATH_HOLD);
        let stalled = self.stalled_until.is_some_and(|until| now < until);
        if held || stalled {
            self.alive.extend(heard);
        } else {
            self.alive = heard;
            self.mass_death_since = None;
        }
        Judgement { alive: self.alive.clone(), mass_death }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each round: second, peers heard (upper case) or not (lower case), who is held alive. `!` stalls until 5 s later,
    /// a `*` behind the answer says that the round saw a mass death begin.
    fn check(rounds: &[(u64, &str, &str)]) {
        let start = Instant::now();
        let mut guard = Guard::default();
        for (second, peers, expected) in rounds {
            let now = start + Duration::from_secs(*second);
            if peers.starts_with('!') {
                guard.stalled(now + Duration::from_secs(5));
            }
            let id = |letter: char| NodeId(u64::from(letter.to_ascii_uppercase() as u32));
            let peers: Vec<_> = peers
                .chars()
                .filter(char::is_ascii_alphabetic)
                .map(|letter| (id(letter), letter.is_ascii_uppercase()))
                .collect();
            let judged = guard.judge(&peers, now);
            let mut seen: String = judged.alive.iter().map(|id| char::from(id.0 as u8)).collect();
            if judged.mass_death {
                seen.push('*');
            }
            assert_eq!(seen, *expected, "at {second} s");
        }
    }

    #[test]
    fn single_deaths_are_believed() {
        check(&[(0, "AB", "AB"), (1, "Ab", "A"), (2, "ab", ""), (3, "AB", "AB")]);
        check(&[(0, "A", "A"), (1, "a", "")]);
        check(&[(0, "ABCD", "ABCD"), (1, "ABcd", "AB")]);
    }

    #[test]
    fn mass_deaths_are_not_believed_for_a_while() {
        check(&[
            (0, "ABCD", "ABCD"),
            (1, "Abcd", "ABCD*"),
            (2, "Abcd", "ABCD"),
            (30, "Abcd", "ABCD"),
            (31, "Abcd", "A"),
        ]);
        check(&[(0, "AB", "AB"), (1, "ab", "AB*"), (2, "aB", "B"), (3, "AB", "AB"), (4, "ab", "AB*")]);
    }

    #[test]
    fn leaving_on_purpose_is_no_death() {
        check(&[(0, "ABC", "ABC"), (1, "C", "C"), (2, "c", "")]);
    }

    #[test]
    fn nobody_dies_while_we_stall() {
        check(&[(0, "ABC", "ABC"), (1, "!ABc", "ABC"), (5, "ABc", "ABC"), (6, "ABc", "AB")]);
    }
}
