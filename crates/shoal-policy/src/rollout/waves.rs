//! Which nodes a revision comes to next: few at first, and never the same ones first.

use std::collections::BTreeSet;

use shoal_model::state::{NextWave, Pace, Stage, Waves};
use shoal_model::{NodeId, Revision};

use super::canary::{Candidate, heard_in_turn, in_turn, share};

/// The nodes that serve `revision` first; nobody where nobody is there.
pub fn first_wave(revision: Revision, members: &[Candidate]) -> BTreeSet<NodeId> {
    in_turn(revision, members).into_iter().take(1).map(|member| member.id).collect()
}

/// What follows a wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Following {
    /// More nodes serve it.
    Wave(NextWave),
    /// All do.
    Everybody,
    /// Nothing as yet: the node of this name is heard and in service, and does not answer. To take it for nobody would bring
    /// the revision to everybody because of a moment in which a whole region was not to be reached.
    Wait(String),
}

/// What follows the wave that `waves` are in, in which `serving` serve `revision`. Stages that bring it to nobody new are left
/// out. Which stage it is goes by all that are heard; whom it comes to, by those that answer.
pub fn next_wave(
    revision: Revision,
    waves: &Waves,
    serving: &BTreeSet<NodeId>,
    members: &[Candidate],
) -> Following {
    let heard = heard_in_turn(revision, members);
    let silent = heard.iter().find(|member| !member.answers && !serving.contains(&member.id));
    let wait = silent.map(|member| Following::Wait(member.name.clone()));
    for stage in stages_after(&waves.stage, waves.pace, &heard) {
        let wanted = newcomers(&stage, serving, &heard, members.len());
        let is_last = heard.iter().all(|member| wanted.contains(&member.id) || serving.contains(&member.id));
        if wanted.is_empty() || is_last {
            continue;
        }
        let nodes = newcomers(&stage, serving, &in_turn(revision, members), members.len());
        return match wait {
            Some(wait) if nodes.is_empty() => wait,
            _ => Following::Wave(NextWave { wave: waves.wave + 1, stage, nodes }),
        };
    }
    wait.unwrap_or(Following::Everybody)
}

/// One more node in the place of those of the wave that `waves` are in, none of which can be watched; `None` = there is none.
pub fn stand_in(
    revision: Revision,
    waves: &Waves,
    serving: &BTreeSet<NodeId>,
    members: &[Candidate],
) -> Option<NextWave> {
    let node = in_turn(revision, members).into_iter().find(|member| !serving.contains(&member.id))?;
    Some(NextWave { wave: waves.wave + 1, stage: waves.stage.clone(), nodes: [node.id].into() })
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
            answers: true,
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
        while let Following::Wave(next) = next_wave(Revision(8), &waves, &serving, members) {
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
        let nodes = |members: &[Candidate]| match next(members) {
            Following::Wave(next) => next.nodes,
            other => panic!("{other:?}"),
        };
        let peer = nodes(&members).into_iter().next().unwrap();
        // Dead, or silent just now.
        for (is_alive, answers) in [(false, false), (true, false)] {
            let member = members.iter_mut().find(|member| member.id == peer).unwrap();
            (member.is_alive, member.answers) = (is_alive, answers);
            let other = nodes(&members);
            assert!(other.len() == 1 && !other.contains(&peer), "{other:?}");
        }
        members.iter_mut().for_each(|member| member.is_alive = false);
        assert_eq!(next(&members), Following::Everybody);
        assert!(first_wave(Revision(8), &members).is_empty());
    }

    #[test]
    fn one_more_stands_in_for_who_cannot_be_watched() {
        let mut members = members(&[2, 1]);
        let (mut serving, mut waves) = (first_wave(Revision(8), &members), waves(Pace::default()));
        for left in [1, 0] {
            members.iter_mut().for_each(|member| member.is_alive = !serving.contains(&member.id));
            let next = stand_in(Revision(8), &waves, &serving, &members).unwrap();
            assert_eq!((next.wave, &next.stage, next.nodes.len()), (waves.wave + 1, &Stage::OneNode, 1));
            assert!(next.nodes.is_disjoint(&serving));
            (waves.wave, waves.stage) = (next.wave, next.stage);
            serving.extend(next.nodes);
            assert_eq!(members.len() - serving.len(), left);
        }
        assert_eq!(stand_in(Revision(8), &waves, &serving, &members), None);
    }

    #[test]
    fn nobody_has_it_because_somebody_is_silent() {
        // Which regions are silent, and which of those are not even heard; what follows wave 1, and so on.
        let check = |counts: &[usize], silent: &[usize], dead: &[usize], expected: &[&str]| {
            let mut members = members(counts);
            let mut serving = first_wave(Revision(8), &members);
            let first = members.iter().find(|member| serving.contains(&member.id)).unwrap().region.clone();
            // Counted from the region that goes first.
            let mut regions: Vec<String> = (0..counts.len()).map(|region| format!("r{region}")).collect();
            regions.retain(|region| *region != first);
            regions.insert(0, first);
            for member in &mut members {
                let place = regions.iter().position(|region| *region == member.region).unwrap();
                let stays = serving.contains(&member.id);
                member.answers = stays || !silent.contains(&place);
                member.is_alive = stays || !dead.contains(&place);
            }
            let mut waves = waves(Pace::default());
            for expected in expected {
                let seen = match next_wave(Revision(8), &waves, &serving, &members) {
                    Following::Wave(next) => {
                        (waves.wave, waves.stage) = (next.wave, next.stage);
                        serving.extend(next.nodes);
                        serving.len().to_string()
                    }
                    Following::Everybody => "all".to_owned(),
                    Following::Wait(name) => {
                        let waited = members.iter().find(|member| member.name == name).unwrap();
                        assert!(waited.is_alive && !waited.answers && !serving.contains(&waited.id));
                        "wait".to_owned()
                    }
                };
                assert_eq!(seen, *expected, "{counts:?} {silent:?} {dead:?} after wave {}", waves.wave);
            }
        };
        check(&[3, 3, 3], &[], &[], &["3", "5", "all"]);
        check(&[3, 3, 3], &[1, 2], &[], &["wait"]);
        check(&[3, 3, 3], &[0, 1, 2], &[], &["wait"]);
        check(&[3, 3, 3], &[1], &[], &["2", "4", "wait"]);
        check(&[3, 3, 3], &[1], &[1], &["2", "4", "all"]);
        check(&[3, 3, 3], &[1, 2], &[1, 2], &["all"]);
        check(&[3, 3, 3], &[1, 2], &[1], &["wait"]);
        check(&[3], &[0], &[], &["wait"]);
        check(&[3], &[0], &[0], &["all"]);
        check(&[1, 1, 1], &[1], &[], &["wait"]);
        check(&[1, 1, 1], &[1], &[1], &["all"]);
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
