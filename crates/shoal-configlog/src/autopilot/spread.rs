//! How votes lie over regions, and over the zones of each: how many voters can be spread at all, and which one makes room for
//! a learner elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use shoal_model::NodeId;

use super::plan::{Member, Picture, Rules, best_learner, decides, electorate, without};

/// From so many regions on none of them has more than half of the voters.
const SPREAD_REGIONS: usize = 3;
/// A zone that has so many votes more than another one of its region gives one to it. With one fewer, they would only change
/// places.
const LOPSIDED: usize = 2;

/// How many voters are where a member is: first what counts for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crowd {
    region: usize,
    /// Of the region.
    zone: usize,
}

/// How many of `voters` are in the region of `member`, and in its zone.
pub(super) fn crowd(picture: &Picture, voters: &BTreeSet<NodeId>, member: &Member) -> Crowd {
    let neighbours =
        voters.iter().filter_map(|id| picture.members.get(id)).filter(|other| other.region == member.region);
    let zones: Vec<&str> = neighbours.map(|other| &*other.zone).collect();
    Crowd { region: zones.len(), zone: zones.iter().filter(|zone| **zone == member.zone).count() }
}

/// How many voters the cluster has in the end: never an even number, and, where there are three regions, no more than can
/// be spread so that none has more than half of them.
pub(super) fn target_voters(picture: &Picture, rules: Rules) -> usize {
    let mut regions: BTreeMap<&str, usize> = BTreeMap::new();
    electorate(picture).for_each(|member| *regions.entry(&member.region).or_default() += 1);
    let can_be_spread = |count: usize| {
        let minority = (count - 1) / 2;
        regions.len() < SPREAD_REGIONS
            || regions.values().map(|has| minority.min(*has)).sum::<usize>() >= count
    };
    let most = electorate(picture).count().min(rules.most_voters);
    (2..=most).rev().find(|count| count % 2 == 1 && can_be_spread(*count)).unwrap_or(1)
}

/// The voters with one of them elsewhere: in another region first, then in another zone of the same one.
pub(super) fn spread(picture: &Picture, rules: Rules) -> Option<BTreeSet<NodeId>> {
    over_regions(picture, rules).or_else(|| over_zones(picture, rules))
}

/// A region that has more than half of the voters gives a vote to another one, where there are three or more.
fn over_regions(picture: &Picture, rules: Rules) -> Option<BTreeSet<NodeId>> {
    let voters = &picture.voters;
    let regions: BTreeSet<&str> = electorate(picture).map(|member| &*member.region).collect();
    let votes = |of: &BTreeSet<NodeId>, id: &NodeId| {
        picture.members.get(id).map_or(0, |member| crowd(picture, of, member).region)
    };
    let crowded = |id: &NodeId| votes(voters, id) * 2 > voters.len();
    if regions.len() < SPREAD_REGIONS || voters.len() < SPREAD_REGIONS || !voters.iter().any(crowded) {
        return None;
    }
    let rest = without(picture, voters, 1, rules)?;
    let heir = best_learner(picture, &rest, rules)?;
    let grown: BTreeSet<NodeId> = rest.into_iter().chain([heir]).collect();
    let gains = |id: &NodeId| votes(&grown, id) < votes(voters, id);
    voters.iter().filter(|id| crowded(id)).any(gains).then_some(grown)
}

/// A zone gives a vote to another one of its region that has fewer, until all have as many, give or take one: where there are
/// three with nodes that can vote, none has most of the region's votes then. Who leads keeps its own.
fn over_zones(picture: &Picture, rules: Rules) -> Option<BTreeSet<NodeId>> {
    let voters = &picture.voters;
    let giver = |heir: &Member| {
        let enough = crowd(picture, voters, heir).zone + LOPSIDED;
        let others = voters.iter().filter(|id| **id != picture.leader);
        let giving = others.filter_map(|id| {
            let member = picture.members.get(id).filter(|member| member.region == heir.region)?;
            let votes = crowd(picture, voters, member).zone;
            (votes >= enough).then_some((votes, !decides(picture, *id, rules), *id))
        });
        giving.max().map(|(_, _, id)| id)
    };
    let gains = |id: &&NodeId| picture.members.get(*id).and_then(giver).is_some();
    let learners: BTreeSet<NodeId> = picture.learners.iter().filter(gains).copied().collect();
    if learners.is_empty() {
        return None;
    }
    let heir = best_learner(&Picture { learners, ..picture.clone() }, voters, rules)?;
    let giver = picture.members.get(&heir).and_then(giver)?;
    Some(voters.iter().copied().filter(|id| *id != giver).chain([heir]).collect())
}

#[cfg(test)]
mod tests {
    use crate::autopilot::plan::tests::{check, voters};

    #[test]
    fn voters_are_spread_over_zones() {
        check("1V@a 2L@a 3L@a 4L@b", voters(&[1, 2, 4]));
        check("1V@a 2V~@b 3V@c 4L@a 5L@b", voters(&[1, 2, 3, 4, 5]));
        check("1V@a 2V~@b 3V@a 4L@a", voters(&[1, 3, 4]));
        check("1V@a 2V@a 3V@b 4V@c", voters(&[1, 3, 4])); // one too many: not the youngest
    }

    #[test]
    fn votes_go_to_zones_that_have_fewer() {
        check("1V@a 2V@a 3V@a 4V@a 5V@a 6L@b 7L@c", voters(&[1, 2, 3, 4, 6])); // which came later
        check("1V@a 2V@a 3V@a 4V@a 6V@b 5L@a 7L@c", voters(&[1, 2, 3, 6, 7]));
        check("1V@a 2V@a 3V@a 6V@b 7V@c 4L@a 5L@a", None); // nobody could have one
        check("1V@a 2V@a 3V@a 6V@b 7V@c 4L@a 8L@b 9L@c", voters(&[1, 2, 6, 7, 8]));
        check("1V@a 2V@a 6V@b 7V@c 8V@b 3L@a 9L@c", None);
        check("1V@a 2V@a 3V@a 4V@a 5V@b 6L@b", voters(&[1, 2, 3, 5, 6])); // two zones are all there are
        check("1V@a 2V@a 3V@a 4V@b 5V@b 6L@b", None);
        check("1V@a 2V@a 3V@b 4L@c", voters(&[1, 3, 4]));
        check("1V@a 2V@b 3V@c 4L@a 5L@b", voters(&[1, 2, 3, 4, 5]));
        check("1V@a 2V@a 3V@a 4L@a", None);
        check("1V 2V 3V 4L", None); // nobody has said where they are
    }

    #[test]
    fn who_gives_its_vote_to_another_zone_is_not_the_leader() {
        check("5V@a 1V@a 2V@a 3V@a 4V@b 6L@b 7L@c", voters(&[1, 2, 4, 5, 7]));
        check("3V@b 1V@a 2V@a 4L@c", voters(&[1, 3, 4]));
        check("1V@a 2V!@a 3V@a 4V@b 5V@c 6L@b", voters(&[1, 3, 4, 5, 6])); // who is silent before who is not
        check("1V@a 2V@a 3V~@b 4L@c", voters(&[1, 2, 4])); // the dead first
        check("1V@a 2V@a 3V@b 4L?@c", None); // not for long enough
        check("1V@a 2V@a 3V@b 4L<@c", None);
        check("1V@a 2V@a 3V@b 4Lc@c", None);
    }

    #[test]
    fn zones_are_those_of_a_region() {
        check("1V@e/a 2V@e/a 3V@e/a 4V@u/a 5V@u/a 6L@u/b", voters(&[1, 2, 3, 4, 6]));
        check("1V@e/a 2V@u/a 3V@w/a 4L@e/b", None); // no zone has a vote that it could spare
        check("1V@e/a 2V@e/a 3V@e/a 4V@u/a 5V@u/a 6L@u/b 7L@w/a", voters(&[1, 2, 4, 5, 7])); // regions first
    }

    #[test]
    fn no_region_of_three_has_most_of_the_voters() {
        check("1V@a/ 2L@a/ 3L@b/ 4L@c/", voters(&[1, 3, 4]));
        check("1V@a/ 2V@a/ 3V@b/ 4L@c/", voters(&[1, 3, 4]));
        check("1V@a/ 2V@a/ 3V@b/ 4L@b/", None); // two regions are all there are
        check("1V@a/ 2V@a/ 3V@b/ 4L?@c/", None); // not for long enough
        check("1V@b/ 2V@a/ 3V@a/ 4L@c/", voters(&[1, 2, 4]));
        check("1V@a/ 2V@b/ 3V@c/ 4L@a/ 5L@a/", None); // five would be three of one region
        check("1V@a/ 2V@b/ 3V@c/ 4V@a/ 5V@a/", voters(&[1, 2, 3])); // as it was before there were more regions
        check("1V@a/ 2V@a/ 3V@a/ 4V@b/ 5V@c/ 6L@b/ 7L@c/", voters(&[1, 2, 4, 5, 6]));
        check("1V@a/ 2V@a/ 3V@a/ 4V@b/ 5V@c/ 6L@a/ 7L@b/", voters(&[1, 2, 4, 5, 7]));
        check("1V@a/ 2V@a/ 3V@b/ 4V@b/ 5V@c/ 6L@c/ 7L@c/", None);
        check("1V@a/ 2V@b/ 3V@c/ 4L@a/ 5L@b/ 6L@c/", voters(&[1, 2, 3, 4, 5]));
        check("1V@a/ 2V@a/ 3V~@b/ 4L@c/", voters(&[1, 2, 4])); // the dead first
    }
}
