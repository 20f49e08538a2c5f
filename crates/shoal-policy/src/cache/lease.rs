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
//!   one answered was asked before this one began to lead, and counts as asked then.
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
        let last = self.asked.get(&node).copied().unwrap_or_default().max(self.leads_since);
        now.saturating_sub(last)
    }

    fn lead(&mut self, term: u64, now: Duration) {
        if self.term != Some(term) {
            (self.term, self.leads_since) = (Some(term), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// A generator of numbers that are different enough.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }

    /// A question of a member, on its way to a lease.
    struct Question {
        member: usize,
        asked: Duration,
        /// When, by the leader of which term, and how far the log was committed then.
        noted: Option<(Duration, usize, u64)>,
    }

    /// Leaders come and go, questions wait anywhere, purges are committed by whoever leads: what is acknowledged is known to
    /// every lease.
    #[test]
    fn no_lease_outlives_the_acknowledgement_of_a_purge_that_it_does_not_know_of() {
        const MEMBERS: usize = 3;
        let (mut acknowledged, mut early) = (0, 0);
        for seed in 0..2000 {
            let mut dice = Dice(seed);
            let mut now = ms(100_000);
            // Of each term: what its leader knows, and when the next one began.
            let mut terms: Vec<(Askers, Option<Duration>)> = vec![(Askers::default(), None)];
            let mut questions: Vec<Question> = Vec::new();
            // Of each member: until when its best lease lasts, and how far the log is known to it.
            let mut leases: Vec<(usize, Duration, u64)> = Vec::new();
            let (mut committed, mut unacknowledged) = (0u64, Vec::new());
            for _ in 0..200 {
                now += ms(dice.below(120));
                let newest = terms.len() - 1;
                match dice.below(20) {
                    0 => {
                        terms[newest].1 = Some(now);
                        terms.push((Askers::default(), None));
                        now += ms(dice.below(700));
                    }
                    1 => {
                        committed += 1;
                        let askers = &mut terms[newest].0;
                        now += ms(dice.below(30));
                        // Nobody applies anything here: every member is waited for.
                        let left = (0..MEMBERS).map(|member| {
                            let silent = askers.silent_for(newest as u64, NodeId(member as u64), now);
                            lapse_left(DEFAULT_LEASE, Some(silent))
                        });
                        let left = left.max().unwrap_or_default();
                        early += usize::from(left < lapse_of(DEFAULT_LEASE));
                        unacknowledged.push((committed, now + left));
                    }
                    2..=7 => {
                        let member = dice.below(MEMBERS as u64) as usize;
                        questions.push(Question { member, asked: now, noted: None });
                    }
                    8..=13 if !questions.is_empty() => {
                        let question = dice.below(questions.len() as u64) as usize;
                        let term = dice.below(terms.len() as u64) as usize;
                        let Question { member, noted, .. } = &mut questions[question];
                        if noted.is_none() {
                            terms[term].0.note(term as u64, NodeId(*member as u64), now);
                            *noted = Some((now, term, committed));
                        }
                    }
                    _ if !questions.is_empty() => {
                        let question = dice.below(questions.len() as u64) as usize;
                        let Question { member, asked, noted: Some((noted, term, known)) } =
                            questions[question]
                        else {
                            continue;
                        };
                        questions.swap_remove(question);
                        // A majority confirms only what it was told before it voted for the next leader.
                        if terms[term].1.is_none_or(|next| noted < next) {
                            leases.push((member, asked + DEFAULT_LEASE, known));
                        }
                    }
                    _ => {}
                }
                unacknowledged.retain(|(seq, at)| {
                    let is_due = *at <= now;
                    acknowledged += usize::from(is_due);
                    let old = leases.iter().find(|(_, until, known)| is_due && *until > now && known < seq);
                    assert!(old.is_none(), "seed {seed}: purge {seq} at {now:?}: {old:?}");
                    !is_due
                });
            }
        }
        assert!(acknowledged > 2000 && early > 200, "too little happens: {acknowledged}, {early} early");
    }
}
