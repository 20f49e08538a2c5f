//! Who should vote: the decision alone, from a picture of the membership to at most one step. No clock, no IO.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_model::NodeId;

/// Entries a learner may be behind and still count as caught up.
const MAX_LAG: u64 = 250;

/// For how long a node has to be heard, or not to be heard, before anything is done about it.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A learner heard for that long may vote.
    pub stable_after: Duration,
    /// A voter silent for that long is replaced.
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
    /// Entries it is behind; `None` = unknown.
    pub lag: Option<u64>,
    pub region: String,
    pub zone: String,
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
    /// Replicate to a new member.
    AddLearner(NodeId),
    /// From now on these vote; who no longer does stays a learner.
    SetVoters(BTreeSet<NodeId>),
    /// Somebody else has to lead.
    TransferLeader(NodeId),
    /// Replicate no longer to who is not a member any more.
    Remove(NodeId),
}

/// The next step towards the right voters, if there is one to take now.
pub fn plan(picture: &Picture, rules: Rules) -> Option<Step> {
    if picture.joint {
        return Some(Step::FinishChange);
    }
    leave_removed(picture, rules)
        .or_else(|| welcome_new(picture))
        .or_else(|| adjust_voters(picture, rules).map(Step::SetVoters))
}

/// How many voters a cluster of `members` nodes has: never an even number.
fn target_voters(members: usize) -> usize {
    match members {
        0..=2 => 1,
        3..=4 => 3,
        5.. => 5,
    }
}

/// Removed members leave the membership, voters with a successor where there is one.
fn leave_removed(picture: &Picture, rules: Rules) -> Option<Step> {
    let is_removed = |id: &&NodeId| !picture.members.contains_key(*id);
    if let Some(learner) = picture.learners.iter().find(is_removed) {
        return Some(Step::Remove(*learner));
    }
    let removed = *picture.voters.iter().find(is_removed)?;
    let rest: BTreeSet<NodeId> = picture.voters.iter().copied().filter(|id| *id != removed).collect();
    let successor = best_learner(picture, &rest, rules);
    if removed != picture.leader {
        let voters: BTreeSet<NodeId> = rest.into_iter().chain(successor).collect();
        return (!voters.is_empty()).then_some(Step::SetVoters(voters));
    }
    // A leader cannot be seen out by itself: another voter takes over first, and if there is none, one is made.
    match rest.iter().find(|id| is_alive(picture, **id)) {
        Some(heir) => Some(Step::TransferLeader(*heir)),
        None => successor.map(|heir| Step::SetVoters(picture.voters.iter().copied().chain([heir]).collect())),
    }
}

fn welcome_new(picture: &Picture) -> Option<Step> {
    let is_new = |id: &NodeId| !picture.voters.contains(id) && !picture.learners.contains(id);
    picture.members.keys().copied().find(|id| is_new(id) && is_alive(picture, *id)).map(Step::AddLearner)
}

/// Grows, shrinks or repairs the set of voters, never to an even number if it can be helped.
fn adjust_voters(picture: &Picture, rules: Rules) -> Option<BTreeSet<NodeId>> {
    let target = target_voters(picture.members.len());
    let voters = &picture.voters;
    match voters.len() {
        count if count % 2 == 0 && count < target => {
            with_learners(picture, voters, 1, rules).or_else(|| without(picture, voters, 1))
        }
        count if count % 2 == 0 => without(picture, voters, 1),
        count if count < target => with_learners(picture, voters, 2, rules),
        count if count > target => without(picture, voters, 2),
        _ => {
            let dead = voters.iter().copied().find(|id| is_dead(picture, *id, rules))?;
            let rest = voters.iter().copied().filter(|id| *id != dead).collect();
            with_learners(picture, &rest, 1, rules)
        }
    }
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

/// `voters` without `count` of them: the silent first, then the youngest, never the leader.
fn without(picture: &Picture, voters: &BTreeSet<NodeId>, count: usize) -> Option<BTreeSet<NodeId>> {
    let mut leaving: Vec<NodeId> = voters.iter().copied().filter(|id| *id != picture.leader).collect();
    leaving.sort_by_key(|id| (is_alive(picture, *id), std::cmp::Reverse(*id)));
    let leaving = leaving.get(..count)?;
    Some(voters.iter().copied().filter(|id| !leaving.contains(id)).collect())
}

/// The learner that would spread `voters` best: over regions, then over zones; the oldest if all are alike.
fn best_learner(picture: &Picture, voters: &BTreeSet<NodeId>, rules: Rules) -> Option<NodeId> {
    let neighbours = |same: &dyn Fn(&Member) -> bool| {
        voters.iter().filter(|id| picture.members.get(id).is_some_and(same)).count()
    };
    let eligible = picture.learners.iter().filter(|id| !voters.contains(id)).filter_map(|id| {
        let member = picture.members.get(id)?;
        let stable = matches!(member.hearing, Hearing::Alive(since) if since >= rules.stable_after);
        (stable && member.lag.is_some_and(|lag| lag <= MAX_LAG)).then_some((*id, member))
    });
    eligible
        .min_by_key(|(id, member)| {
            let in_region = neighbours(&|other| other.region == member.region);
            let in_zone = neighbours(&|other| other.region == member.region && other.zone == member.zone);
            (in_region, in_zone, *id)
        })
        .map(|(id, _)| id)
}

fn is_alive(picture: &Picture, id: NodeId) -> bool {
    id == picture.leader
        || picture.members.get(&id).is_some_and(|member| matches!(member.hearing, Hearing::Alive(_)))
}

fn is_dead(picture: &Picture, id: NodeId, rules: Rules) -> bool {
    let silent =
        |member: &Member| matches!(member.hearing, Hearing::Silent(since) if since >= rules.dead_after);
    id != picture.leader && picture.members.get(&id).is_some_and(silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { stable_after: Duration::from_secs(3), dead_after: Duration::from_secs(5) };

    /// Words `id` + role (`V`oter, `L`earner, `N`ew) + `~` silent for 9 s, `!` silent for 1 s, `?` heard for 1 s only,
    /// `<` far behind, `x` removed, `@z` in zone z. The first one leads.
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
            let (marks, zone) = word.split_once('@').unwrap_or((word, ""));
            let seconds = Duration::from_secs;
            let hearing = match marks {
                _ if marks.contains('~') => Hearing::Silent(seconds(9)),
                _ if marks.contains('!') => Hearing::Silent(seconds(1)),
                _ if marks.contains('?') => Hearing::Alive(seconds(1)),
                _ => Hearing::Alive(seconds(60)),
            };
            let lag = Some(if marks.contains('<') { 9_999 } else { 0 });
            if !marks.contains('x') {
                let member = Member { hearing, lag, region: "r".into(), zone: zone.into() };
                picture.members.insert(id, member);
            }
        }
        picture
    }

    fn voters(ids: &[u64]) -> Option<Step> {
        Some(Step::SetVoters(ids.iter().copied().map(NodeId).collect()))
    }

    fn check(text: &str, expected: Option<Step>) {
        assert_eq!(plan(&picture(text), RULES), expected, "{text}");
    }

    #[test]
    fn new_members_listen_before_they_vote() {
        check("1V", None);
        check("1V 2N", Some(Step::AddLearner(NodeId(2))));
        check("1V 2N! 3N", Some(Step::AddLearner(NodeId(3))));
        check("1V 2L", None);
    }

    #[test]
    fn voters_grow_by_two_once_enough_are_ready() {
        check("1V 2L 3L", voters(&[1, 2, 3]));
        check("1V 2L 3L?", None);
        check("1V 2L 3L<", None);
        check("1V 2L 3L! 4L", voters(&[1, 2, 4]));
        check("1V 2V 3V 4L", None);
        check("1V 2V 3V 4L 5L", voters(&[1, 2, 3, 4, 5]));
        check("1V 2V 3V 4V 5V 6L 7L", None);
    }

    #[test]
    fn a_dead_voter_is_replaced_in_one_step() {
        check("1V 2V~ 3V 4L", voters(&[1, 3, 4]));
        check("1V 2V! 3V 4L", None);
        check("1V 2V~ 3V", None);
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
        check("1V 2Lx", Some(Step::Remove(NodeId(2))));
        check("1V 2V 3Vx 4L", voters(&[1, 2, 4]));
        check("1V 2V 3Vx", voters(&[1, 2]));
        check("1Vx 2V 3V 4L", Some(Step::TransferLeader(NodeId(2))));
        check("1Vx 2V~ 3V 4L", Some(Step::TransferLeader(NodeId(3))));
        check("1Vx 2L", voters(&[1, 2]));
        check("1Vx 2L?", None);
    }

    #[test]
    fn voters_are_spread_over_zones() {
        check("1V@a 2L@a 3L@a 4L@b", voters(&[1, 2, 4]));
        check("1V@a 2V~@b 3V@c 4L@a 5L@b", Some(Step::SetVoters([1, 2, 3, 4, 5].map(NodeId).into())));
        check("1V@a 2V~@b 3V@a 4L@a", voters(&[1, 3, 4]));
    }

    #[test]
    fn a_half_done_change_is_finished_first() {
        let half_done = Picture { joint: true, ..picture("1V 2N") };
        assert_eq!(plan(&half_done, RULES), Some(Step::FinishChange));
    }
}
