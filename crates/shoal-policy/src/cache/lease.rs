//! The lease under which a node answers from what it has stored, and from when on nobody can hold one from before a purge.
//!
//! A node asks the leader how far the log is committed, and has a lease once it has applied as much: good for its length,
//! counted from when it asked. Whoever waits for a purge waits for each member until that has applied it, or until
//! [`lapse_left`], after which it cannot hold a lease any more that knows nothing of the purge. Why that holds, for a purge
//! that is committed, a member that has not applied it, and the [`Askers`] of the leader looked at after the commit:
//!
//! * The leader notes who asks before it looks how far the log is committed. A question that is not among them when they are
//!   looked at is answered with an index that includes the purge: no lease comes of it before the purge is applied.
//! * One that is among them was asked before it was noted, so its lease ends no later than its length after that.
//! * A leader of before answers only what a majority confirms that was told of the question after it was noted. Of that
//!   majority at least one has voted for the leader of now, later, and confirms nothing to the other since: whatever that
//!   one answered was asked before this one began to lead, and counts as asked then; or as long ago as the voters say that
//!   they confirmed anything to others ([`last_confirmed`](super::confirmed::last_confirmed)).
//!
//! How long a lease may be each member says in the log before it takes one: that is in the state of whoever has applied a
//! purge that its lease does not know of. Clocks may differ in pace by 1 %, none of them need show the same time.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_model::NodeId;

use super::trust::SHARED_UNVERIFIED;

/// How long a lease is, unless a node is told otherwise.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(2);
/// No lease may be shorter: it is renewed every half second.
pub const SHORTEST_LEASE: Duration = Duration::from_secs(1);
/// No lease may be longer: purges are waited for for ten seconds.
pub const LONGEST_LEASE: Duration = Duration::from_secs(8);
/// How long it is on members that do not say, whose program is of before they did.
const UNSAID_LEASE: Duration = Duration::from_millis(3600);

/// How long the lease of a member may be, by what it says of itself in the log: milliseconds, 0 = nothing.
pub const fn lease_said(ms: u64) -> Duration {
    match ms {
        0 => UNSAID_LEASE,
        ms => Duration::from_millis(ms),
    }
}

/// How long a lease of `lease` may last by the clock of another node.
pub fn lapse_of(lease: Duration) -> Duration {
    lease + lease / 100
}

/// How long after the commit of a purge a member can still answer with what it forgets that has a lease of `lease` and has
/// been silent for `silent`, as [`Askers::silent_for`] says; `None` = nobody knows. Without a lease, too, requests share for
/// a moment what was asked for just before.
pub fn lapse_left(lease: Duration, silent: Option<Duration>) -> Duration {
    lapse_of(lease).saturating_sub(silent.unwrap_or_default()).max(lapse_of(SHARED_UNVERIFIED))
}

/// The lease outlasts the loss of a leader, if the next one leads within `election`: `renewal` lies between two questions.
pub fn outlasts(lease: Duration, renewal: Duration, election: Duration) -> bool {
    lease >= election + renewal
}

/// When each node has last asked this one how far the log is committed. Times are of this node's own clock, counted from
/// any moment.
#[derive(Debug, Default)]
pub struct Askers {
    term: Option<u64>,
    /// When this node was first seen to lead in this term: later than it began to.
    leads_since: Duration,
    /// Nobody was asked later than this and answered by a leader of before: `leads_since`, or what the voters say.
    confirmed: Duration,
    has_settled: bool,
    asked: BTreeMap<NodeId, Duration>,
}

impl Askers {
    /// `node` asks, of the leader of `term`. To be noted before it is looked how far the log is committed.
    pub fn note(&mut self, term: u64, node: NodeId, now: Duration) {
        self.lead(term, now);
        self.asked.insert(node, now);
    }

    /// For how long no leader has answered `node`, at least, as the leader of `term` knows it.
    pub fn silent_for(&mut self, term: u64, node: NodeId, now: Duration) -> Duration {
        self.lead(term, now);
        let last = self.asked.get(&node).copied().unwrap_or_default().max(self.confirmed);
        now.saturating_sub(last)
    }

    /// Since when the leader of `term` leads, where it would shorten a wait to ask the voters until when they have confirmed
    /// leaders of before: it does not lead for long, and has not heard it yet.
    pub fn unsettled(&mut self, term: u64, now: Duration) -> Option<Duration> {
        self.lead(term, now);
        let is_new = now.saturating_sub(self.leads_since) < lapse_of(LONGEST_LEASE);
        (is_new && !self.has_settled).then_some(self.leads_since)
    }

    /// The voters have said so, to the leader of `term`; [`last_confirmed`](super::confirmed::last_confirmed) is `confirmed`.
    pub fn settle(&mut self, term: u64, confirmed: Duration) {
        if self.term == Some(term) {
            (self.confirmed, self.has_settled) = (self.confirmed.min(confirmed), true);
        }
    }

    fn lead(&mut self, term: u64, now: Duration) {
        if self.term != Some(term) {
            (self.term, self.leads_since, self.confirmed, self.has_settled) = (Some(term), now, now, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cache::confirmed::{Confirmations, Mandate, last_confirmed, time_of};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_lease_that_has_run_out_is_not_waited_for_again() {
        let check = |lease, silent: Option<u64>, expected| {
            assert_eq!(lapse_left(ms(lease), silent.map(ms)), ms(expected), "{lease} {silent:?}");
        };
        check(2000, None, 2020);
        check(2000, Some(0), 2020);
        check(2000, Some(450), 1570);
        check(2000, Some(1900), 202);
        check(2000, Some(2020), 202);
        check(2000, Some(86_400_000), 202);
        check(8000, Some(5000), 3080);
        assert_eq!(lapse_left(lease_said(0), None), ms(3636));
        assert_eq!(lapse_left(lease_said(2000), None), ms(2020));
    }

    #[test]
    fn a_lease_is_longer_than_an_election() {
        assert!(outlasts(ms(2000), ms(500), ms(1500)));
        assert!(!outlasts(ms(2000), ms(500), ms(1501)));
    }

    #[test]
    fn whoever_did_not_ask_since_a_leader_leads_may_have_asked_the_one_before() {
        let (one, other) = (NodeId(1), NodeId(2));
        let mut askers = Askers::default();
        let mut check = |term, node, now, expected| {
            assert_eq!(askers.silent_for(term, node, ms(now)), ms(expected), "{term} {node} {now}");
        };
        check(3, one, 7000, 0);
        check(3, one, 7400, 400);
        askers.note(3, one, ms(8000));
        let mut check = |term, node, now, expected| {
            assert_eq!(askers.silent_for(term, node, ms(now)), ms(expected), "{term} {node} {now}");
        };
        check(3, one, 8100, 100);
        check(3, other, 8100, 1100);
        check(5, one, 9000, 0);
        check(5, other, 9500, 500);
        check(5, one, 9500, 500);
    }

    #[test]
    fn what_the_voters_say_counts_for_one_term() {
        let node = NodeId(1);
        let mut askers = Askers::default();
        assert_eq!(askers.unsettled(3, ms(7000)), Some(ms(7000)));
        assert_eq!(askers.unsettled(3, ms(7100)), Some(ms(7000)));
        assert_eq!(askers.silent_for(3, node, ms(7100)), ms(100));
        askers.settle(2, ms(100));
        assert_eq!(askers.silent_for(3, node, ms(7100)), ms(100));
        askers.settle(3, ms(6000));
        assert_eq!((askers.unsettled(3, ms(7100)), askers.silent_for(3, node, ms(7100))), (None, ms(1100)));
        askers.note(3, node, ms(7200));
        assert_eq!(askers.silent_for(3, node, ms(7250)), ms(50));
        assert_eq!(
            (askers.unsettled(5, ms(9000)), askers.silent_for(5, node, ms(9000))),
            (Some(ms(9000)), ms(0))
        );
        askers.settle(5, ms(9500));
        assert_eq!(askers.silent_for(5, node, ms(9000)), ms(0));
        assert_eq!(askers.unsettled(7, ms(10_000)), Some(ms(10_000)));
        assert_eq!(askers.unsettled(7, ms(18_080)), None);
    }

    /// A generator of numbers that are different enough.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }

        fn node(&mut self) -> NodeId {
            NodeId(self.below(MEMBERS))
        }
    }

    const MEMBERS: u64 = 3;

    /// A question of a member, on its way to a lease.
    struct Question {
        member: NodeId,
        asked: Duration,
        noted: Option<Noted>,
    }

    /// The leader of `term` has it: how far the log is committed, and who has confirmed that it leads.
    struct Noted {
        term: usize,
        committed: u64,
        confirmed_by: BTreeSet<NodeId>,
    }

    /// One who votes: which term it is bound to.
    #[derive(Default)]
    struct Voter {
        term: usize,
        heard: Confirmations,
    }

    /// Leaders come and go, in several terms at once, and voters restart; any message may wait or be lost.
    struct World {
        dice: Dice,
        now: Duration,
        /// Of each term: who leads in it, and what that one knows.
        terms: Vec<(NodeId, Askers)>,
        voters: BTreeMap<NodeId, Voter>,
        questions: Vec<Question>,
        /// Who has one, until when, and how far the log is known to it.
        leases: Vec<(NodeId, Duration, u64)>,
        committed: u64,
    }

    impl World {
        fn new(seed: u64) -> Self {
            Self {
                dice: Dice(seed),
                now: ms(100_000),
                terms: vec![(NodeId(0), Askers::default())],
                voters: (0..MEMBERS).map(|id| (NodeId(id), Voter::default())).collect(),
                questions: Vec::new(),
                leases: Vec::new(),
                committed: 0,
            }
        }

        fn mandate(&self, term: usize) -> Mandate {
            Mandate { term: term as u64, leader: self.terms[term].0 }
        }

        /// A voter and another one elect it. It is known to lead a while later.
        fn elect(&mut self) {
            let (leader, term) = (self.dice.node(), self.terms.len());
            let other = NodeId((leader.0 + 1 + self.dice.below(MEMBERS - 1)) % MEMBERS);
            self.terms.push((leader, Askers::default()));
            for voter in [leader, other] {
                self.voters.entry(voter).or_default().term = term;
                self.now += ms(self.dice.below(300));
            }
            self.terms[term].1.lead(term as u64, self.now);
        }

        /// A question reaches somebody who believes to lead.
        fn note(&mut self, question: usize) {
            let term = self.dice.below(self.terms.len() as u64) as usize;
            let (mandate, committed) = (self.mandate(term), self.committed);
            let question = &mut self.questions[question];
            if question.noted.is_none() {
                let leader = self.voters.entry(mandate.leader).or_default();
                leader.heard.note(mandate, self.now);
                if leader.term == term {
                    self.terms[term].1.note(mandate.term, question.member, self.now);
                    let confirmed_by = BTreeSet::from([mandate.leader]);
                    question.noted = Some(Noted { term, committed, confirmed_by });
                }
            }
        }

        /// A voter hears the leader that has the question, sent since; with a majority a lease comes of it.
        fn confirm(&mut self, question: usize) {
            let id = self.dice.node();
            let Some(noted) = &mut self.questions[question].noted else { return };
            let mandate = Mandate { term: noted.term as u64, leader: self.terms[noted.term].0 };
            let voter = self.voters.entry(id).or_default();
            voter.heard.note(mandate, self.now);
            if voter.term > noted.term {
                return;
            }
            voter.term = noted.term;
            noted.confirmed_by.insert(id);
            if noted.confirmed_by.len() > 1 {
                let lease = (noted.committed, self.questions.swap_remove(question));
                self.leases.push((lease.1.member, lease.1.asked + DEFAULT_LEASE, lease.0));
            }
        }

        /// The leader of now asks the voters; some answers are lost.
        fn settle(&mut self) {
            let term = self.terms.len() - 1;
            let mandate = self.mandate(term);
            let Some(leads_since) = self.terms[term].1.unsettled(mandate.term, self.now) else { return };
            let mut said = BTreeMap::new();
            for (id, voter) in &self.voters {
                if voter.term >= term
                    && self.dice.below(4) > 0
                    && let Some(before) = voter.heard.before(mandate)
                {
                    let ago = self.now - before;
                    self.now += ms(self.dice.below(10));
                    said.insert(*id, time_of(ago, self.now));
                }
            }
            let voters = [self.voters.keys().copied().collect()];
            self.terms[term].1.settle(mandate.term, last_confirmed(&voters, &said, leads_since));
        }

        /// When a purge of now, which nobody applies, is known to every lease.
        fn purge(&mut self) -> (u64, Duration) {
            self.committed += 1;
            self.now += ms(self.dice.below(30));
            let term = self.terms.len() - 1;
            let askers = &mut self.terms[term].1;
            let left = (0..MEMBERS).map(|member| {
                lapse_left(DEFAULT_LEASE, Some(askers.silent_for(term as u64, NodeId(member), self.now)))
            });
            (self.committed, left.max().unwrap_or_default())
        }

        /// It forgets what it has heard, but not to whom it is bound.
        fn restart(&mut self) {
            let (id, now) = (self.dice.node(), self.now);
            let voter = self.voters.entry(id).or_default();
            voter.heard = Confirmations::default();
            voter.heard.note(Mandate::default(), now);
        }
    }

    #[test]
    fn no_lease_outlives_the_acknowledgement_of_a_purge_that_it_does_not_know_of() {
        let (mut acknowledged, mut early, mut soon) = (0, 0, 0);
        for seed in 0..4000 {
            let mut world = World::new(seed);
            let mut unacknowledged: Vec<(u64, Duration)> = Vec::new();
            for _ in 0..300 {
                world.now += ms(world.dice.below(120));
                let question = world.dice.below(world.questions.len().max(1) as u64) as usize;
                match world.dice.below(24) {
                    0 => {
                        world.elect();
                        if world.dice.below(2) == 0 {
                            world.settle();
                        }
                    }
                    1 => world.restart(),
                    2 | 3 => {
                        let has_led_for = {
                            let now = world.now;
                            now - world.terms.last().expect("a term").1.leads_since
                        };
                        let (seq, left) = world.purge();
                        early += usize::from(left < lapse_of(DEFAULT_LEASE));
                        soon += usize::from(left + has_led_for < DEFAULT_LEASE);
                        unacknowledged.push((seq, world.now + left));
                    }
                    4..=9 => {
                        let (member, asked) = (world.dice.node(), world.now);
                        world.questions.push(Question { member, asked, noted: None });
                    }
                    10..=15 if !world.questions.is_empty() => world.note(question),
                    _ if !world.questions.is_empty() => world.confirm(question),
                    _ => {}
                }
                let (now, leases) = (world.now, &world.leases);
                unacknowledged.retain(|(seq, at)| {
                    let is_due = *at <= now;
                    acknowledged += usize::from(is_due);
                    let old = leases.iter().find(|(_, until, known)| is_due && *until > now && known < seq);
                    assert!(old.is_none(), "seed {seed}: purge {seq} at {now:?}: {old:?}");
                    !is_due
                });
            }
        }
        let counts = format!("{acknowledged}, {early} early, {soon} by the word of voters");
        assert!(acknowledged > 20_000 && early > 2000 && soon > 500, "too little happens: {counts}");
    }
}
