//! Which nodes a revision comes to next: few at first, and never the same ones first.

use std::collections::BTreeSet;

use shoal_model::state::{NextWave, Pace, Stage, Waves};
use shoal_model::{NodeId, Revision};

use super::canary::{Candidate, in_turn, share};

/// The nodes that serve `revision` first; nobody where nobody is there.
pub fn first_wave(revision: Revision, members: &[Candidate]) -> BTreeSet<NodeId> {
    in_turn(revision, members).into_iter().take(1).map(|member| member.id).collect()
}

/// What follows the wave that `waves` are in, in which `serving` serve `revision`; `None` = everybody does. Stages that bring
/// it to nobody new are left out.
pub fn next_wave(
    revision: Revision,
    waves: &Waves,
    serving: &BTreeSet<NodeId>,
    members: &[Candidate],
) -> Option<NextWave> {
    let in_turn = in_turn(revision, members);
    stages_after(&waves.stage, waves.pace, &in_turn).into_iter().find_map(|stage| {
        let nodes = newcomers(&stage, serving, &in_turn, members.len());
        let is_last = in_turn.iter().all(|member| nodes.contains(&member.id) || serving.contains(&member.id));
        (!nodes.is_empty() && !is_last).then(|| NextWave { wave: waves.wave + 1, stage, nodes })
    })
}

fn stages_after(stage: &Stage, pace: Pace, in_turn: &[&Candidate]) -> Vec<Stage> {
    let mut regions: Vec<&String> = Vec::new();
    for member in in_turn {
        if !regions.contains(&&member.region) {
            regions.push(&member.region);
        }
    }
    if pace.is_urgent {
        return regions.into_iter().map(|region| Stage::NextRegion(region.clone())).collect();
    }
    let first_region = regions.first().map_or_else(String::new, |region| (*region).clone());
    let stages = [
        Stage::OneNode,
        Stage::OnePerRegion,
        Stage::FivePercent,
        Stage::OneRegion(first_region),
        Stage::TwentyFivePercent,
    ];
    // The region that goes first may have become another one meanwhile.
    let place = |stage: &Stage| {
        stages.iter().position(|other| std::mem::discriminant(other) == std::mem::discriminant(stage))
    };
    let done = place(stage).map_or(0, |place| place + 1);
    stages.into_iter().skip(done).collect()
}

/// Who is new in a stage.
fn newcomers(
    stage: &Stage,
    serving: &BTreeSet<NodeId>,
    in_turn: &[&Candidate],
    members: usize,
) -> BTreeSet<NodeId> {
    let others = || in_turn.iter().filter(|member| !serving.contains(&member.id));
    let until = |wanted: usize| -> BTreeSet<NodeId> {
        others().take(wanted.saturating_sub(serving.len())).map(|member| member.id).collect()
    };
    match stage {
        Stage::OneNode => until(1),
        Stage::FivePercent => until(share(members, 5)),
        Stage::TwentyFivePercent => until(share(members, 25)),
        Stage::OnePerRegion => {
            let served = in_turn.iter().filter(|member| serving.contains(&member.id));
            let mut regions: BTreeSet<&String> = served.map(|member| &member.region).collect();
            others().filter(|member| regions.insert(&member.region)).map(|member| member.id).collect()
        }
        Stage::OneRegion(region) | Stage::NextRegion(region) => {
            others().filter(|member| member.region == *region).map(|member| member.id).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `counts` nodes in each region `r0`, `r1`, …
    fn members(counts: &[usize]) -> Vec<Candidate> {
        let regions = counts.iter().enumerate().flat_map(|(region, count)| vec![region; *count]);
        let member = |(id, region)| Candidate {
            id: NodeId(id as u64 + 1),
            name: format!("n{}", id + 1),
            region: format!("r{region}"),
            is_alive: true,
            refuses_already: false,
        };
        regions.enumerate().map(member).collect()
    }

    fn waves(pace: Pace) -> Waves {
        Waves { pace, wave: 1, stage: Stage::OneNode, paused_by: None, passed: Vec::new() }
    }

    /// The nodes that serve revision 8 in each wave until everybody does.
    fn walk(members: &[Candidate], pace: Pace) -> Vec<BTreeSet<NodeId>> {
        let mut serving = first_wave(Revision(8), members);
        let (mut waves, mut seen) = (waves(pace), vec![serving.clone()]);
        while let Some(next) = next_wave(Revision(8), &waves, &serving, members) {
            assert_eq!(next.wave, waves.wave + 1);
            (waves.wave, waves.stage) = (next.wave, next.stage);
            serving.extend(next.nodes);
            seen.push(serving.clone());
        }
        seen
    }

    /// How many they are.
    fn sizes(counts: &[usize], pace: Pace) -> Vec<usize> {
        walk(&members(counts), pace).iter().map(BTreeSet::len).collect()
    }

    #[test]
    fn waves_grow_and_those_of_nobody_are_left_out() {
        let check = |counts: &[usize], expected: &[usize]| {
            assert_eq!(sizes(counts, Pace::default()), expected, "{counts:?}");
        };
        check(&[1], &[1]);
        check(&[3], &[1]);
        check(&[8], &[1, 2]);
        check(&[100], &[1, 5, 25]);
        check(&[3, 3, 3], &[1, 3, 5]);
        check(&[1, 1, 1], &[1]); // one of each region is everybody
        check(&[20, 20, 20], &[1, 3, 22]); // a region is more than a quarter
        check(&[30, 30, 30, 30, 30], &[1, 5, 8, 34, 38]);
    }

    #[test]
    fn an_urgent_one_goes_region_by_region() {
        let pace = Pace { is_urgent: true, ..Pace::default() };
        assert_eq!(sizes(&[3, 3, 3], pace), [1, 3, 6]);
        assert_eq!(sizes(&[3], pace), [1]);
    }

    #[test]
    fn who_goes_first_changes() {
        let members = members(&[2, 2]);
        let first: BTreeSet<NodeId> = (1..40).flat_map(|n| first_wave(Revision(n), &members)).collect();
        assert_eq!(first.len(), 4);
    }

    #[test]
    fn the_dead_are_left_out_and_newcomers_wait_for_their_wave() {
        let mut members = members(&[4, 4]);
        let serving = first_wave(Revision(8), &members);
        let next = |members: &[Candidate]| next_wave(Revision(8), &waves(Pace::default()), &serving, members);
        let peer = next(&members).unwrap().nodes.into_iter().next().unwrap();
        members.iter_mut().for_each(|member| member.is_alive = member.id != peer);
        let other = next(&members).unwrap().nodes;
        assert!(other.len() == 1 && !other.contains(&peer), "{other:?}");
        members.iter_mut().for_each(|member| member.is_alive = false);
        assert_eq!(next(&members), None);
        assert!(first_wave(Revision(8), &members).is_empty());
    }

    #[test]
    fn who_refuses_what_is_active_is_in_no_wave() {
        // Which of the nodes refuse it, and the sizes of the waves before everybody's.
        let check = |counts: &[usize], sick: &[usize], expected: &[usize]| {
            let mut members = members(counts);
            sick.iter().for_each(|place| members[*place].refuses_already = true);
            let waves = walk(&members, Pace::default());
            let sizes: Vec<usize> = waves.iter().map(BTreeSet::len).collect();
            assert_eq!(sizes, expected, "{counts:?} {sick:?}");
            let is_sick = |id: &NodeId| members[id.0 as usize - 1].refuses_already;
            assert!(sick.len() == members.len() || !waves.iter().flatten().any(is_sick), "{waves:?}");
        };
        check(&[2, 1], &[], &[1, 2]); // the third would be everybody
        check(&[2, 1], &[2], &[1]); // nobody is left of the second region
        check(&[3], &[0, 1], &[1]); // two nodes that cannot bind what the third has bound
        check(&[3, 3, 3], &[0, 3, 6], &[1, 3, 4]);
        check(&[3], &[0, 1, 2], &[1]); // somebody has to try what may be the cure
    }
}
