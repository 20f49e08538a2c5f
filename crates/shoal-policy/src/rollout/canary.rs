//! Who tries a revision before everybody has it.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use shoal_model::{NodeId, Revision};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Whom somebody wants to try it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Nodes of these names.
    Nodes(BTreeSet<String>),
    /// All nodes of a region.
    Region(String),
    /// So many of a hundred nodes, at least one, another one each time.
    Percent(u8),
}

/// A member that may be chosen.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// It is heard, and in service.
    pub is_alive: bool,
    /// It has answered when it was called just now: who has not could not be watched.
    pub answers: bool,
    /// It [refuses already](super::refuses_already) what everybody else serves.
    pub refuses_already: bool,
}

impl Candidate {
    /// It can be given a revision, and watched.
    pub(super) fn can_try(&self) -> bool {
        self.is_alive && self.answers
    }
}

/// Nobody can be chosen so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanaryError {
    /// It would try nothing.
    #[error("node {0:?} is not there")]
    NotThere(String),
    /// It has no node that is heard.
    #[error("region {0:?} has no node that is alive")]
    EmptyRegion(String),
    /// Then there is nobody to compare with.
    #[error("that is every node of the cluster: leave --canary out")]
    Everybody,
}

/// Those that can tell how good it is, in the order in which `revision` comes to them: they take turns from one revision to
/// the next (rendezvous hashing, so that a node that comes or goes changes no other's turn).
pub(super) fn in_turn(revision: Revision, members: &[Candidate]) -> Vec<&Candidate> {
    turns(revision, members, Candidate::can_try)
}

/// The same of all that are heard and in service, whether they answer or not.
pub(super) fn heard_in_turn(revision: Revision, members: &[Candidate]) -> Vec<&Candidate> {
    turns(revision, members, |member| member.is_alive)
}

fn turns(revision: Revision, members: &[Candidate], counts: impl Fn(&Candidate) -> bool) -> Vec<&Candidate> {
    let counted = || members.iter().filter(|member| counts(member));
    // Where nobody takes what is active, somebody has to try what may be the cure.
    let nobody_takes_any = counted().all(|member| member.refuses_already);
    let mut able: Vec<&Candidate> =
        counted().filter(|member| nobody_takes_any || !member.refuses_already).collect();
    let turn = |id: NodeId| Reverse(xxh3_64_with_seed(&id.0.to_be_bytes(), revision.0));
    able.sort_by_key(|member| (turn(member.id), member.id));
    able
}

/// So many percent of `count` nodes, rounded up, and at least one.
pub(super) fn share(count: usize, percent: usize) -> usize {
    (count * percent).div_ceil(100).max(1)
}

/// The nodes that try `revision`: some, not all.
pub fn choose(
    canary: &Canary,
    revision: Revision,
    members: &[Candidate],
) -> Result<BTreeSet<NodeId>, CanaryError> {
    let alive = || members.iter().filter(|member| member.can_try());
    let chosen: BTreeSet<NodeId> = match canary {
        Canary::Nodes(names) => {
            let find = |name: &String| {
                let found = alive().find(|member| member.name == *name).map(|member| member.id);
                found.ok_or_else(|| CanaryError::NotThere(name.clone()))
            };
            names.iter().map(find).collect::<Result<_, _>>()?
        }
        Canary::Region(region) => {
            alive().filter(|member| member.region == *region).map(|member| member.id).collect()
        }
        Canary::Percent(percent) => {
            let wanted = share(members.len(), (*percent).into());
            in_turn(revision, members).into_iter().take(wanted).map(|member| member.id).collect()
        }
    };
    match (chosen.len(), canary) {
        (0, Canary::Region(region)) => Err(CanaryError::EmptyRegion(region.clone())),
        (count, _) if count >= members.len() => Err(CanaryError::Everybody),
        _ => Ok(chosen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n2` is dead; `n4` and `n5` are in the west.
    fn members() -> Vec<Candidate> {
        let member = |id: u64| Candidate {
            id: NodeId(id),
            name: format!("n{id}"),
            region: if id >= 4 { "west" } else { "east" }.to_owned(),
            is_alive: id != 2,
            answers: id != 2,
            refuses_already: false,
        };
        (1..=5).map(member).collect()
    }

    #[test]
    fn some_are_chosen_and_never_all() {
        let check = |canary: Canary, expected: Result<&[u64], CanaryError>| {
            let expected = expected.map(|ids| ids.iter().copied().map(NodeId).collect());
            assert_eq!(choose(&canary, Revision(8), &members()), expected, "{canary:?}");
        };
        let named = |names: &[&str]| Canary::Nodes(names.iter().map(|&name| name.to_owned()).collect());
        check(named(&["n1"]), Ok(&[1]));
        check(named(&["n5", "n1"]), Ok(&[1, 5]));
        check(named(&["n1", "n9"]), Err(CanaryError::NotThere("n9".into())));
        check(named(&["n2"]), Err(CanaryError::NotThere("n2".into())));
        check(Canary::Region("west".into()), Ok(&[4, 5]));
        check(Canary::Region("south".into()), Err(CanaryError::EmptyRegion("south".into())));
        let alone = [members().remove(0)];
        assert_eq!(choose(&Canary::Percent(1), Revision(8), &alone), Err(CanaryError::Everybody));
    }

    #[test]
    fn a_share_is_rounded_up_and_takes_turns() {
        let chosen = |percent, revision| {
            choose(&Canary::Percent(percent), Revision(revision), &members()).map(|chosen| chosen.len())
        };
        for (percent, expected) in [(1, 1), (20, 1), (21, 2), (60, 3), (80, 4)] {
            assert_eq!(chosen(percent, 8), Ok(expected), "{percent}");
        }
        let first = |revision| choose(&Canary::Percent(1), Revision(revision), &members()).unwrap();
        let seen: BTreeSet<NodeId> = (1..40).flat_map(first).collect();
        assert_eq!(seen, [1, 3, 4, 5].map(NodeId).into());
        assert_eq!(first(8), first(8));
    }

    #[test]
    fn who_refuses_already_tries_only_what_somebody_wants_it_to_try() {
        let mut members = members();
        members[2].refuses_already = true;
        let named = Canary::Nodes(["n3".to_owned()].into());
        let chosen = |canary: &Canary, revision, members: &[Candidate]| {
            choose(canary, Revision(revision), members).unwrap_or_default()
        };
        // It may be the cure of that node.
        assert_eq!(chosen(&named, 8, &members), [NodeId(3)].into());
        let seen: BTreeSet<NodeId> = (1..40).flat_map(|n| chosen(&Canary::Percent(1), n, &members)).collect();
        assert_eq!(seen, [1, 4, 5].map(NodeId).into());
        members.iter_mut().for_each(|member| member.refuses_already = true);
        assert_eq!(chosen(&Canary::Percent(1), 8, &members).len(), 1);
    }
}
