//! Who should vote: the decision alone, from a picture of the membership to at most one step. No clock, no IO.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use shoal_model::NodeId;

use super::spread::{crowd, spread, target_voters};

/// Entries that were in the leader's log a round ago and that a learner may lack and still count as caught up. Few: one
/// that is stuck is often only some dozens behind, and what was written within the last round is not counted.
const MAX_LAG: u64 = 4;
/// With fewer voters than these a cluster survives the loss of none.
const SAFE_VOTERS: usize = 3;
/// New members that are welcomed in one change. More of them wait for the next round: the leader sends each its whole log.
const MAX_WELCOMED: usize = 64;

/// How many are to vote, and for how long a node has to be heard, or not to be heard, before anything is done about it.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Voters of a cluster that could have more.
    pub most_voters: usize,
    /// A learner that answered the leader's log longer ago may not vote.
    pub answers_within: Duration,
    /// A learner heard for that long may vote while the cluster survives no loss.
    pub stable_at_first: Duration,
    /// The same of a cluster that does.
    pub stable_after: Duration,
    /// A voter that is silent, or whose log is, for that long is replaced.
    pub dead_after: Duration,
}

/// What the leader sees.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Itself.
    pub leader: NodeId,
    /// An earlier change is half done.
    pub joint: bool,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who only listens.
    pub learners: BTreeSet<NodeId>,
    /// Everyone who was admitted and not removed, the leader included.
    pub members: BTreeMap<NodeId, Member>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug)]
pub struct Member {
    pub hearing: Hearing,
    /// Entries it lacks of those that the leader's log had a round ago; `None` = unknown.
    pub lag: Option<u64>,
    /// For how long it has not answered to replication; `None` = it never did.
    pub unanswered: Option<Duration>,
    pub region: String,
    pub zone: String,
    /// Operators want it to have duties: it is neither cordoned nor drained.
    pub in_service: bool,
    /// Operators let it vote.
    pub may_vote: bool,
}

/// Whether a node is heard, and since when it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    Alive(Duration),
    Silent(Duration),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Complete a change that an earlier leader left half done.
    FinishChange,
    /// Replicate to new members.
    AddLearners(BTreeSet<NodeId>),
    /// From now on these vote; who no longer does stays a learner.
    SetVoters(BTreeSet<NodeId>),
    /// Somebody else has to lead.
    TransferLeader(NodeId),
    /// Replicate no longer to who is not a member any more.
    Remove(BTreeSet<NodeId>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FinishChange => f.write_str("finish what an earlier leader began"),
            Self::AddLearners(ids) => write!(f, "add learners {}", names(ids)),
            Self::SetVoters(ids) => write!(f, "set voters {}", names(ids)),
            Self::TransferLeader(id) => write!(f, "hand the lead to {id}"),
            Self::Remove(ids) => write!(f, "remove {}", names(ids)),
        }
    }
}

/// `n1 n2`, as the log shows nodes.
pub fn names(ids: &BTreeSet<NodeId>) -> String {
    ids.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
}

/// The next step towards the right voters, if there is one to take now. None is ever towards voters of whom too few are
/// alive to decide anything: the cluster could not take it back.
pub fn plan(picture: &Picture, rules: Rules) -> Option<Step> {
    if picture.joint {
        return Some(Step::FinishChange);
    }
    let is_safe = |step: &Step| match step {
        Step::SetVoters(voters) => has_quorum(picture, voters, rules),
        Step::FinishChange | Step::AddLearners(_) | Step::TransferLeader(_) | Step::Remove(_) => true,
    };
    leave_removed(picture, rules)
        .filter(is_safe)
        .or_else(|| yield_lead(picture, rules))
        .or_else(|| adjust_voters(picture, rules).map(Step::SetVoters).filter(is_safe))
        .or_else(|| welcome_new(picture))
        .or_else(|| relieve(picture, rules).map(Step::SetVoters).filter(is_safe))
        .or_else(|| spread(picture, rules).map(Step::SetVoters).filter(is_safe))
}

/// More than half of `voters` can decide now.
fn has_quorum(picture: &Picture, voters: &BTreeSet<NodeId>, rules: Rules) -> bool {
    voters.iter().filter(|id| decides(picture, **id, rules)).count() * 2 > voters.len()
}

/// Who may vote.
pub(super) fn electorate(picture: &Picture) -> impl Iterator<Item = &Member> {
    picture.members.values().filter(|member| member.may_vote)
}

fn may_vote(picture: &Picture, id: NodeId) -> bool {
    picture.members.get(&id).is_none_or(|member| member.may_vote)
}

/// Removed members leave the membership, voters with a successor where there is one. So does who may not vote leave the voters.
fn leave_removed(picture: &Picture, rules: Rules) -> Option<Step> {
    let is_removed = |id: &&NodeId| !picture.members.contains_key(*id);
    let learners: BTreeSet<NodeId> = picture.learners.iter().filter(is_removed).copied().collect();
    if !learners.is_empty() {
        return Some(Step::Remove(learners));
    }
    let barred = || picture.voters.iter().find(|id| !may_vote(picture, **id));
    let leaving = *picture.voters.iter().find(is_removed).or_else(barred)?;
    let rest: BTreeSet<NodeId> = picture.voters.iter().copied().filter(|id| *id != leaving).collect();
    let successor = best_learner(picture, &rest, rules);
    if leaving != picture.leader {
        let voters: BTreeSet<NodeId> = rest.into_iter().chain(successor).collect();
        return (!voters.is_empty()).then_some(Step::SetVoters(voters));
    }
    // A leader cannot be seen out by itself: another voter takes over first, and if there is none, one is made. For one that
    // was removed that may be one that is to leave as well.
    let may_lead = |id: &&NodeId| may_vote(picture, **id) || is_removed(&&leaving);
    let heirs = rest.iter().filter(may_lead).filter(|id| is_alive(picture, **id));
    let worth = |id| (may_vote(picture, id), decides(picture, id, rules), is_in_service(picture, id));
    match heirs.min_by_key(|id| Reverse(worth(**id))) {
        Some(heir) => Some(Step::TransferLeader(*heir)),
        None => successor.map(|heir| Step::SetVoters(picture.voters.iter().copied().chain([heir]).collect())),
    }
}

fn welcome_new(picture: &Picture) -> Option<Step> {
    let is_new = |id: &NodeId| !picture.voters.contains(id) && !picture.learners.contains(id);
    let new = picture.members.keys().copied().filter(|id| is_new(id) && is_alive(picture, *id));
    let welcomed: BTreeSet<NodeId> = new.take(MAX_WELCOMED).collect();
    (!welcomed.is_empty()).then_some(Step::AddLearners(welcomed))
}

/// Grows, shrinks or repairs the set of voters, never to an even number if it can be helped.
fn adjust_voters(picture: &Picture, rules: Rules) -> Option<BTreeSet<NodeId>> {
    let target = target_voters(picture, rules);
    let voters = &picture.voters;
    match voters.len() {
        count if count % 2 == 0 && count < target => {
            with_learners(picture, voters, 1, rules).or_else(|| without(picture, voters, 1, rules))
        }
        count if count % 2 == 0 => without(picture, voters, 1, rules),
        count if count < target => {
            with_learners(picture, voters, 2, rules).or_else(|| replace_dead(picture, rules))
        }
        count if count > target => without(picture, voters, 2, rules),
        _ => replace_dead(picture, rules),
    }
}

/// A leader that was taken out of service hands on, if there is a voter that was not.
fn yield_lead(picture: &Picture, rules: Rules) -> Option<Step> {
    let mut others = picture.voters.iter().filter(|id| **id != picture.leader);
    let heir = others.find(|id| is_in_service(picture, **id) && decides(picture, **id, rules));
    heir.filter(|_| !is_in_service(picture, picture.leader)).map(|heir| Step::TransferLeader(*heir))
}

/// Whoever was taken out of service does not vote if others can: one after the other.
fn relieve(picture: &Picture, rules: Rules) -> Option<BTreeSet<NodeId>> {
    let others = picture.voters.iter().copied().filter(|id| *id != picture.leader);
    let replaced = |leaving: NodeId| {
        let rest = picture.voters.iter().copied().filter(|id| *id != leaving).collect();
        with_learners(picture, &rest, 1, rules)
    };
    let relieved = others.filter(|id| !is_in_service(picture, *id)).find_map(replaced);
    // The only voter cannot go before there is another one to lead.
    let is_alone = picture.voters.len() == 1 && !is_in_service(picture, picture.leader);
    relieved.or_else(|| with_learners(picture, &picture.voters, 1, rules).filter(|_| is_alone))
}

/// Operators want it to have duties, and let it vote.
fn is_in_service(picture: &Picture, id: NodeId) -> bool {
    picture.members.get(&id).is_none_or(|member| member.in_service && member.may_vote)
}

/// The voters with a learner in place of one that is dead.
fn replace_dead(picture: &Picture, rules: Rules) -> Option<BTreeSet<NodeId>> {
    let dead = picture.voters.iter().copied().find(|id| is_dead(picture, *id, rules))?;
    let rest = picture.voters.iter().copied().filter(|id| *id != dead).collect();
    with_learners(picture, &rest, 1, rules)
}

/// `voters` and the best `count` learners; `None` if there are not so many.
fn with_learners(
    picture: &Picture,
    voters: &BTreeSet<NodeId>,
    count: usize,
    rules: Rules,
) -> Option<BTreeSet<NodeId>> {
    let mut grown = voters.clone();
    for _ in 0..count {
        grown.insert(best_learner(picture, &grown, rules)?);
    }
    Some(grown)
}

/// `voters` without `count` of them: the silent first, then those out of service, then those in the region that has most of
/// them, and in the zone of it that does, then the youngest, never the leader.
pub(super) fn without(
    picture: &Picture,
    voters: &BTreeSet<NodeId>,
    count: usize,
    rules: Rules,
) -> Option<BTreeSet<NodeId>> {
    let mut rest = voters.clone();
    for _ in 0..count {
        let others = rest.iter().copied().filter(|id| *id != picture.leader);
        let leaving = others.min_by_key(|id| {
            // Who is no member any more is in no region.
            let crowd = picture.members.get(id).map(|member| crowd(picture, &rest, member));
            let stays = crowd.is_some() && is_in_service(picture, *id);
            (decides(picture, *id, rules), stays, Reverse(crowd), Reverse(*id))
        });
        rest.remove(&leaving?);
    }
    Some(rest)
}

/// The learner that would spread `voters` best: over regions, then over zones; the oldest if all are alike.
pub(super) fn best_learner(picture: &Picture, voters: &BTreeSet<NodeId>, rules: Rules) -> Option<NodeId> {
    let stable_after = match picture.voters.len() {
        ..SAFE_VOTERS => rules.stable_at_first,
        _ => rules.stable_after,
    };
    let eligible = picture.learners.iter().filter(|id| !voters.contains(id)).filter_map(|id| {
        let member = picture.members.get(id)?;
        let stable = matches!(member.hearing, Hearing::Alive(since) if since >= stable_after);
        let has_duties = member.in_service && member.may_vote;
        (stable && has_duties && has_caught_up(member, rules)).then_some((*id, member))
    });
    eligible.min_by_key(|(id, member)| (crowd(picture, voters, member), *id)).map(|(id, _)| id)
}

/// It has the leader's log and still takes what is added to it: being heard is not enough, since the log of a node may be
/// stuck while the node is well.
fn has_caught_up(member: &Member, rules: Rules) -> bool {
    let answers = member.unanswered.is_some_and(|silence| silence <= rules.answers_within);
    answers && member.lag.is_some_and(|lag| lag <= MAX_LAG)
}

/// It is heard, and its log is not one that no longer answers.
pub(super) fn decides(picture: &Picture, id: NodeId, rules: Rules) -> bool {
    is_alive(picture, id) && !is_dead(picture, id, rules)
}

fn is_alive(picture: &Picture, id: NodeId) -> bool {
    id == picture.leader
        || picture.members.get(&id).is_some_and(|member| matches!(member.hearing, Hearing::Alive(_)))
}

/// Not heard for long, or heard while its log does not answer: a node whose log is damaged serves, but decides nothing.
fn is_dead(picture: &Picture, id: NodeId, rules: Rules) -> bool {
    let gone = |member: &Member| {
        let silent = matches!(member.hearing, Hearing::Silent(since) if since >= rules.dead_after);
        silent || member.unanswered.is_some_and(|silence| silence >= rules.dead_after)
    };
    id != picture.leader && picture.members.get(&id).is_some_and(gone)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const RULES: Rules = Rules {
        most_voters: 5,
        answers_within: Duration::from_secs(1),
        stable_at_first: Duration::from_secs(3),
        stable_after: Duration::from_secs(10),
        dead_after: Duration::from_secs(5),
    };

    /// Words `id` + role (`V`oter, `L`earner, `N`ew) + `~` silent for 9 s, `!` silent for 1 s, `?` heard for 1 s only, `,` for 5 s,
    /// `<` five entries behind, `=` four, `-` of unknown lag, `#` has not answered for 2 s, `%` for 9 s, `0` never did, `x` removed,
    /// `c` cordoned or drained, `l` may not vote, `@z` in zone z, `@g/z` in zone z of region g. The first one leads.
    fn picture(text: &str) -> Picture {
        let mut picture = Picture::default();
        for (n, word) in text.split_whitespace().enumerate() {
            let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
            let id = NodeId(digits.parse().unwrap());
            if n == 0 {
                picture.leader = id;
            }
            match &word[digits.len()..=digits.len()] {
                "V" => _ = picture.voters.insert(id),
                "L" => _ = picture.learners.insert(id),
                "N" => {}
                other => panic!("{other} is no role"),
            }
            let (marks, place) = word.split_once('@').unwrap_or((word, ""));
            let (region, zone) = place.split_once('/').unwrap_or(("r", place));
            let seconds = Duration::from_secs;
            let hearing = match marks {
                _ if marks.contains('~') => Hearing::Silent(seconds(9)),
                _ if marks.contains('!') => Hearing::Silent(seconds(1)),
                _ if marks.contains('?') => Hearing::Alive(seconds(1)),
                _ if marks.contains(',') => Hearing::Alive(seconds(5)),
                _ => Hearing::Alive(seconds(60)),
            };
            let lag = match marks {
                _ if marks.contains('-') => None,
                _ if marks.contains('<') => Some(MAX_LAG + 1),
                _ if marks.contains('=') => Some(MAX_LAG),
                _ => Some(0),
            };
            let unanswered = match &marks[digits.len()..] {
                rest if rest.contains('0') => None,
                rest if rest.contains('#') => Some(seconds(2)),
                rest if rest.contains('%') => Some(seconds(9)),
                _ => Some(Duration::from_millis(100)),
            };
            if !marks.contains('x') {
                let (in_service, may_vote) = (!marks.contains('c'), !marks.contains('l'));
                let (region, zone) = (region.into(), zone.into());
                let member = Member { hearing, lag, unanswered, region, zone, in_service, may_vote };
                picture.members.insert(id, member);
            }
        }
        picture
    }

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    pub(in crate::autopilot) fn voters(voters: &[u64]) -> Option<Step> {
        Some(Step::SetVoters(ids(voters)))
    }

    fn learners(learners: &[u64]) -> Option<Step> {
        Some(Step::AddLearners(ids(learners)))
    }

    pub(in crate::autopilot) fn check(text: &str, expected: Option<Step>) {
        assert_eq!(plan(&picture(text), RULES), expected, "{text}");
    }

    #[test]
    fn new_members_listen_before_they_vote() {
        check("1V", None);
        check("1V 2N", learners(&[2]));
        check("1V 2N! 3N", learners(&[3]));
        check("1V 2L", None);
        check("1V 2N 3N! 4L? 5N", learners(&[2, 5])); // all at once
        let many: String = (2..100).map(|id| format!(" {id}N")).collect();
        check(&format!("1V{many}"), learners(&(2..66).collect::<Vec<_>>()));
    }

    #[test]
    fn voters_grow_by_two_once_enough_are_ready() {
        check("1V 2L 3L", voters(&[1, 2, 3]));
        check("1V 2L 3L?", None);
        check("1V 2L 3L<", None);
        check("1V 2L 3L=", voters(&[1, 2, 3]));
        check("1V 2L 3L! 4L", voters(&[1, 2, 4]));
        check("1V 2L 3L 4N", voters(&[1, 2, 3])); // of many that come at once, some vote before all are welcomed
        check("1V 2V 3V 4L", None);
        check("1V 2V 3V 4L 5L", voters(&[1, 2, 3, 4, 5]));
        check("1V 2V 3V 4V 5V 6L 7L", None);
    }

    #[test]
    fn once_a_loss_is_survived_a_vote_takes_longer_to_earn() {
        check("1V 2L, 3L,", voters(&[1, 2, 3]));
        check("1V 2V 3V 4L, 5L", None);
        check("1V 2V~ 3V 4L,", None);
        check("1V 2V~ 3V 4L, 5L", voters(&[1, 3, 5]));
    }

    #[test]
    fn operators_limit_the_voters() {
        let check = |most_voters, text: &str, expected| {
            assert_eq!(plan(&picture(text), Rules { most_voters, ..RULES }), expected, "{text}");
        };
        check(3, "1V 2V 3V 4L 5L", None);
        check(3, "1V 2V 3V 4V 5V", voters(&[1, 2, 3]));
        check(7, "1V 2V 3V 4V 5V 6L 7L", voters(&[1, 2, 3, 4, 5, 6, 7]));
        check(7, "1V 2V 3V 4V 5V 6L", None);
    }

    #[test]
    fn a_learner_that_is_stuck_never_votes() {
        check("1V 2L 3L-", None); // it has nothing yet
        check("1V 2L 3L#", None); // it has everything, but does not answer any more
        check("1V 2L 3L0", None);
        check("1V 2L 3L# 4L", voters(&[1, 2, 4]));
        check("1V 2V~ 3V 4L<", None);
        check("1V 2V~ 3V 4L#", None);
        check("1V 2V~ 3V 4L< 5L", voters(&[1, 3, 5]));
        check("1V 2V 3L#", voters(&[1]));
        check("1Vx 2L<", None);
    }

    #[test]
    fn no_change_costs_the_quorum_of_those_alive() {
        check("1V 2V! 3Vx", voters(&[1])); // not 1 and 2, of whom only 1 is alive
        check("1V 2V% 3Vx", voters(&[1]));
        check("1V 2V 3Vx", voters(&[1, 2]));
        check("1V 2V! 3Vx 4L", voters(&[1, 2, 4]));
        check("1V 2V! 3V! 4V 5Vx", voters(&[1, 2, 4])); // not the four that are left: half of them is silent
        check("1V 2V% 3V 4V", voters(&[1, 3, 4]));
        check("1V 2V! 3V! 4V 5Vx 6N", learners(&[6]));
        check("1V 2V~ 3V~ 4V 5V 6L 7L", voters(&[1, 3, 4, 5, 6]));
        check("1V 2V! 3V! 4L 5L", voters(&[1, 2, 3, 4, 5]));
        check("1V 2V~ 3V~ 4V~ 5V 6L 7L", voters(&[1, 3, 4, 5, 6]));
        check("1V 2V~ 3V~ 4V~ 5V~ 6L 7L", None); // one replaced at a time would leave two of five
    }

    #[test]
    fn a_dead_voter_is_replaced_in_one_step() {
        check("1V 2V~ 3V 4L", voters(&[1, 3, 4]));
        check("1V 2V! 3V 4L", None);
        check("1V 2V~ 3V", None);
        check("1V 2V% 3V 4L", voters(&[1, 3, 4])); // it is heard, but its log is not
        check("1V 2V# 3V 4L", None);
        check("1V 2V0 3V 4L", None); // a new leader does not know yet
        check("1V 2V~ 3V 4L?", None);
        check("1V 2V 3V~ 4V~ 5V 6L 7L", voters(&[1, 2, 4, 5, 6]));
    }

    #[test]
    fn fewer_members_mean_fewer_voters() {
        check("1V 2V 3V 4V 5Vx", voters(&[1, 2, 3, 4]));
        check("1V 2V 3V 4V", voters(&[1, 2, 3]));
        check("1V 2V~ 3V 4V", voters(&[1, 3, 4]));
        check("1V 2V", voters(&[1]));
        check("1V 2V 3L", voters(&[1, 2, 3]));
        check("1V 2V 3L?", voters(&[1]));
    }

    #[test]
    fn removed_members_leave() {
        check("1V 2Lx", Some(Step::Remove(ids(&[2]))));
        check("1V 2Lx 3L? 4Lx", Some(Step::Remove(ids(&[2, 4]))));
        check("1V 2V 3Vx 4L", voters(&[1, 2, 4]));
        check("1V 2V 3Vx", voters(&[1, 2]));
        check("1Vx 2V 3V 4L", Some(Step::TransferLeader(NodeId(2))));
        check("1Vx 2V~ 3V 4L", Some(Step::TransferLeader(NodeId(3))));
        check("1Vx 2L", voters(&[1, 2]));
        check("1Vx 2L?", None);
    }

    #[test]
    fn who_is_out_of_service_votes_only_if_nobody_else_can() {
        check("1V 2L 3L 4Lc", voters(&[1, 2, 3]));
        check("1V 2L 3Lc", None);
        check("1V 2Vc 3V 4L", voters(&[1, 3, 4]));
        check("1V 2Vc 3V", None);
        check("1V 2Vc 3V 4Lc", None);
        check("1V 2Vc 3V 4L?", None);
        check("1V 2Vc 3V! 4L", voters(&[1, 3, 4]));
        check("1V 2Vc 3Vc 4L 5L", voters(&[1, 2, 3, 4, 5])); // all of them vote, as before
        check("1V 2Vc 3Vc 4V 5V 6L 7L", voters(&[1, 3, 4, 5, 6])); // one at a time
        check("1V 2Vc 3V 4V 5V~ 6L", voters(&[1, 2, 3, 4, 6])); // the dead first
        check("1V 2Vc 3V 4V", voters(&[1, 3, 4]));
        check("1Vc 2V 3V", Some(Step::TransferLeader(NodeId(2))));
        check("1Vc 2Vc 3V", Some(Step::TransferLeader(NodeId(3))));
        check("1Vc 2V~ 3V", Some(Step::TransferLeader(NodeId(3))));
        check("1Vc 2Vc 3Vc", None);
        check("1Vc 2Vc 3Vc 4L", voters(&[1, 3, 4]));
        check("1Vc 2L", voters(&[1, 2]));
        check("1Vc 2V", Some(Step::TransferLeader(NodeId(2))));
        check("2V 1Vc", voters(&[2]));
        check("1Vc 2Lc", None);
    }

    #[test]
    fn who_may_not_vote_does_not() {
        check("1V 2Nl", learners(&[2]));
        check("1V 2Ll 3Ll", None);
        check("1V 2L 3Ll", None);
        check("1V 2L 3L 4Ll", voters(&[1, 2, 3]));
        check("1V 2Ll 3L 4L", voters(&[1, 3, 4]));
        check("1V 2V~ 3V 4Ll", None);
        check("1V 2Vc 3V 4Ll", None);
        check("1V 2V 3Vl 4L", voters(&[1, 2, 4]));
        check("1V 2V 3Vl", voters(&[1, 2])); // as if it were removed
        check("1V 2V 3Ll", voters(&[1]));
        check("1V 2V! 3Vl", voters(&[1])); // not 1 and 2, of whom only 1 is alive
        check("1V 2V! 3V! 4V 5Vl", voters(&[1, 4, 5])); // the silent first
        check("1V 2V 3V! 4Vl", voters(&[1, 2, 3]));
        check("1V 2V 3V 4V 5Vl 6L", voters(&[1, 2, 3, 4, 6]));
        check("1V 2Vx 3Vl", voters(&[1, 3])); // the removed first
        check("1Vl 2V 3V", Some(Step::TransferLeader(NodeId(2))));
        check("1Vl 2Vc 3V", Some(Step::TransferLeader(NodeId(3))));
        check("1Vl 2Vl 3V", Some(Step::TransferLeader(NodeId(3))));
        check("1Vl 2V~ 3V", Some(Step::TransferLeader(NodeId(3))));
        check("1Vl 2V% 3Vc", Some(Step::TransferLeader(NodeId(3)))); // whoever takes over can decide
        check("2V 1Vl", voters(&[2]));
        check("1Vl 2L", voters(&[1, 2]));
        check("1Vl 2L?", None);
        check("1Vl 2Vl 3L?", voters(&[1])); // they do not hand the lead to and fro
        check("1Vx 2Vl 3V", Some(Step::TransferLeader(NodeId(3))));
        check("1Vx 2Vl", Some(Step::TransferLeader(NodeId(2))));
        check("1V@a/ 2V@a/ 3V@b/ 4L@b/ 5Ll@c/", None); // two regions are all that vote
        check("1V@a/ 2L@a/ 3L@a/ 4Ll@b/ 5Ll@c/", voters(&[1, 2, 3]));
    }

    #[test]
    fn a_half_done_change_is_finished_first() {
        let half_done = Picture { joint: true, ..picture("1V 2N") };
        assert_eq!(plan(&half_done, RULES), Some(Step::FinishChange));
    }
}
