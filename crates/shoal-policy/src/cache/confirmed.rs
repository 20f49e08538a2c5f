//! Until when leaders of before can have told anybody how far the log is committed, as the leader of now finds out.
//!
//! A leader tells it only once a majority of the voters has confirmed that it still leads, by answers to what it sent after
//! it was asked. So each voter notes, before it answers, that it hears a leader, and a leader that it is asked
//! ([`Confirmations`]). The leader of now asks the voters when they last did so for one of before, and concludes
//! [`last_confirmed`]. Why that holds:
//!
//! * A voter answers the question only once it is bound, on its disk, to the leader that asks: from then on it confirms
//!   nothing to leaders of before, not even after a restart. What it had not answered by then it had noted already, or will
//!   refuse. Hence it confirms nothing of before that was asked later than it says.
//! * Take any majority of which each voter has said so, and the latest time that was said. Whatever a leader of before was
//!   asked later than that, none of these voters confirms; and every other majority has one of them in it. That leader
//!   itself may be the one: it has noted, too, what it was asked.
//! * Of all such majorities the one that says the earliest time will do. Voters that have not said anything confirm for all
//!   that is known until now; but the leader of now began to lead by the votes of a majority, so nothing later than that
//!   counts.
//! * Where voters are changed, a majority is one of each of the two sets of them. Two sets that follow each other have no
//!   majorities without a common voter, and before there is a third, the second is in force by the word of a leader that was
//!   elected later than all that leaders of before it confirmed, and whom a voter of any majority has heard since. That is
//!   so unless the leader of now has changed them itself, since it is not asked for its own word: then nothing is concluded.
//!
//! Each voter looks at a steady clock of its own, which may stand still while its machine sleeps, and says how long ago it
//! was, rounded down: both make it later than it was. The leader counts back from when the answer came, which is later than
//! it was given, and by 1 % less, since clocks may differ in pace by that. A voter that has been restarted has forgotten:
//! it says when it started. One that does not know the question, being of an older program, has not said anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use shoal_model::NodeId;

/// The right to lead, which one node has once. Those that were won later are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mandate {
    /// The term it is for.
    pub term: u64,
    /// Whose it is.
    pub leader: NodeId,
}

impl fmt::Display for Mandate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in term {}", self.leader, self.term)
    }
}

/// When this voter has last heard leaders, or been asked as one. Times are of its own clock, counted from its start.
#[derive(Debug, Default)]
pub struct Confirmations {
    newest: Mandate,
    /// For the newest.
    last: Duration,
    /// For any of before.
    before: Duration,
}

impl Confirmations {
    /// The leader with `mandate` may be answered now, or is asked now and is this node. To be noted before it is.
    pub fn note(&mut self, mandate: Mandate, now: Duration) {
        if mandate > self.newest {
            (self.newest, self.before) = (mandate, self.last.max(self.before));
        }
        if mandate == self.newest {
            self.last = now;
        } else {
            // It will be refused; to say so here would take another look at the log.
            self.before = now;
        }
    }

    /// The last time for any leader before the one with `mandate`; `None` = another one leads since.
    pub fn before(&self, mandate: Mandate) -> Option<Duration> {
        match mandate.cmp(&self.newest) {
            std::cmp::Ordering::Greater => Some(self.last.max(self.before)),
            std::cmp::Ordering::Equal => Some(self.before),
            std::cmp::Ordering::Less => None,
        }
    }
}

/// When it was, by the clock of who hears `now` that it was at least `ago` by the clock of another node.
pub fn time_of(ago: Duration, now: Duration) -> Duration {
    now.saturating_sub(ago.saturating_sub(ago / 100))
}

/// No leader before the one that leads since `leads_since` has told anybody anything that it was asked later than this.
/// `voters` are the set of voters, or both while they change; `said` is what each has answered, as [`time_of`] has it.
pub fn last_confirmed(
    voters: &[BTreeSet<NodeId>],
    said: &BTreeMap<NodeId, Duration>,
    leads_since: Duration,
) -> Duration {
    let by_majority = |voters: &BTreeSet<NodeId>| {
        let mut times: Vec<Duration> = voters.iter().filter_map(|voter| said.get(voter).copied()).collect();
        times.sort_unstable();
        times.get(voters.len() / 2).copied()
    };
    let times: Option<Vec<Duration>> = voters.iter().map(by_majority).collect();
    times.and_then(|times| times.into_iter().max()).map_or(leads_since, |latest| latest.min(leads_since))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const fn mandate(term: u64, leader: u64) -> Mandate {
        Mandate { term, leader: NodeId(leader) }
    }

    #[test]
    fn the_earliest_majority_decides() {
        let check = |voters: &[&[u64]], said: &[(u64, u64)], expected| {
            let voters: Vec<BTreeSet<NodeId>> =
                voters.iter().map(|set| set.iter().copied().map(NodeId).collect()).collect();
            let said = said.iter().map(|(node, at)| (NodeId(*node), ms(*at))).collect();
            assert_eq!(last_confirmed(&voters, &said, ms(9000)), ms(expected), "{voters:?} {said:?}");
        };
        // The one that is missing may be the leader of before.
        check(&[&[1, 2, 3]], &[(2, 7900), (3, 7950)], 7950);
        check(&[&[1, 2, 3]], &[(1, 100), (2, 7900), (3, 7950)], 7900);
        check(&[&[1, 2, 3]], &[(3, 7950)], 9000);
        check(&[&[1, 2, 3]], &[], 9000);
        check(&[&[1, 2, 3]], &[(2, 7900), (3, 9500)], 9000);
        check(&[&[1, 2, 3]], &[(3, 7950), (4, 100), (5, 100)], 9000);
        check(&[&[1, 2, 3, 4, 5]], &[(2, 7800), (3, 7950), (4, 7850), (5, 7900)], 7900);
        check(&[&[1, 2, 3, 4, 5]], &[(2, 7800), (3, 7950)], 9000);
        // Of four voters three are a majority, and two are in every other one.
        check(&[&[1, 2, 3, 4]], &[(2, 7800), (3, 7950), (4, 7850)], 7950);
        check(&[&[1, 2, 3, 4]], &[(2, 7800), (3, 7950)], 9000);
        check(&[&[1, 2]], &[(1, 7800), (2, 7950)], 7950);
        check(&[&[1]], &[(1, 0)], 0);
        // While they change, a majority of both.
        check(&[&[1, 2, 3], &[2, 3, 4]], &[(2, 7900), (3, 7950)], 7950);
        check(&[&[1, 2, 3], &[3, 4, 5]], &[(2, 7900), (3, 7950), (4, 8000)], 8000);
        check(&[&[1, 2, 3], &[3, 4, 5]], &[(2, 7900), (3, 7950)], 9000);
        check(&[], &[(1, 100)], 9000);
    }

    #[test]
    fn a_voter_says_when_it_last_heard_a_leader_of_before() {
        let mut heard = Confirmations::default();
        // Since its start it has heard nobody.
        assert_eq!(heard.before(mandate(4, 1)), Some(ms(0)));
        heard.note(mandate(4, 1), ms(500));
        heard.note(mandate(4, 1), ms(600));
        assert_eq!(heard.before(mandate(4, 1)), Some(ms(0)));
        assert_eq!(heard.before(mandate(5, 2)), Some(ms(600)));
        heard.note(mandate(5, 2), ms(1700));
        assert_eq!(heard.before(mandate(5, 2)), Some(ms(600)));
        assert_eq!(heard.before(mandate(5, 1)), None);
        // Two may be elected for one term, the greater one later.
        assert_eq!(heard.before(mandate(5, 3)), Some(ms(1700)));
        // One that is back does not know yet that it leads no more.
        heard.note(mandate(4, 1), ms(1800));
        assert_eq!(heard.before(mandate(5, 2)), Some(ms(1800)));
        assert_eq!(heard.before(mandate(6, 1)), Some(ms(1800)));
        heard.note(mandate(5, 2), ms(1900));
        heard.note(mandate(6, 1), ms(2900));
        assert_eq!(heard.before(mandate(6, 1)), Some(ms(1900)));
    }

    #[test]
    fn another_clock_may_be_faster_by_a_hundredth() {
        let check = |ago, now, expected| assert_eq!(time_of(ms(ago), ms(now)), ms(expected), "{ago} {now}");
        check(0, 9000, 9000);
        check(1000, 9000, 8010);
        check(1_000_000, 9000, 0);
    }
}
