//! Watching the nodes that try a revision beside those that do not.

use std::collections::BTreeMap;
use std::fmt;

use shoal_model::{NodeId, Revision};

use super::gate::{Counts, Worse, compare};

/// What is seen of one member at one moment.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Which.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// It is to try the revision.
    pub tries: bool,
    /// What it says of itself; `None` = it does not answer.
    pub said: Option<Said>,
    /// It is heard, whether it answers or not.
    pub is_alive: bool,
}

/// Bytes of a reason that are kept.
const MAX_REASON: usize = 500;

/// What a member says of itself.
#[derive(Clone, Debug)]
pub struct Said {
    /// The revision that it serves.
    pub active: Revision,
    /// Why it does not serve the one it is to serve; empty = it does.
    pub refused: String,
    /// Since its start.
    pub counts: Counts,
}

/// Why a revision is not fit for everybody.
#[derive(Clone, Debug, PartialEq)]
pub enum Evidence {
    /// A node would not take it.
    Refused(String, String),
    /// A node was started anew while it tried it.
    Restarted(String),
    /// A node went away while it tried it.
    Lost(String),
    /// More requests fail with it than without it.
    Fails(Worse, [Counts; 2]),
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(name, why) => write!(f, "{name} has refused it: {why}"),
            Self::Restarted(name) => write!(f, "{name} was started anew while it tried it"),
            Self::Lost(name) => write!(f, "{name} was lost while it tried it"),
            Self::Fails(Worse { tried_percent, others_percent }, [tried, others]) => write!(
                f,
                "{tried_percent:.1} % of {} requests failed with it, {others_percent:.1} % of {} without it",
                tried.requests, others.requests
            ),
        }
    }
}

/// The time since a revision is tried, as whoever leads has seen it: a new leader begins anew.
#[derive(Clone, Debug)]
pub struct Trial {
    revision: Revision,
    members: BTreeMap<NodeId, Known>,
}

/// What is known of a member.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// What it had counted when it was first seen serving what it is to serve.
    from: Option<Counts>,
    /// What it has said last.
    requests: u64,
}

impl Trial {
    /// Of `revision`.
    pub fn new(revision: Revision) -> Self {
        Self { revision, members: BTreeMap::new() }
    }

    /// What the trial is of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Takes note of all members; what is to be said against the revision now.
    pub fn observe(&mut self, sightings: &[Sighting]) -> Option<Evidence> {
        let (mut tried, mut others) = (Counts::default(), Counts::default());
        for sighting in sightings {
            let known = self.members.get(&sighting.id).copied();
            let Some(said) = &sighting.said else {
                if sighting.tries && !sighting.is_alive {
                    return Some(Evidence::Lost(sighting.name.clone()));
                }
                continue;
            };
            if sighting.tries && !said.refused.is_empty() {
                return Some(Evidence::Refused(sighting.name.clone(), shortened(&said.refused)));
            }
            let is_new = known.is_some_and(|known| said.counts.requests < known.requests);
            if sighting.tries && is_new {
                return Some(Evidence::Restarted(sighting.name.clone()));
            }
            // Nothing counts before it serves what it is to serve.
            let serves = !sighting.tries || said.active == self.revision;
            let from =
                known.and_then(|known| known.from).filter(|_| serves && !is_new).unwrap_or(said.counts);
            let requests = said.counts.requests;
            self.members.insert(sighting.id, Known { from: serves.then_some(from), requests });
            let side = if sighting.tries { &mut tried } else { &mut others };
            *side += Counts {
                requests: said.counts.requests - from.requests,
                errors: said.counts.errors.saturating_sub(from.errors),
            };
        }
        compare(tried, others).map(|worse| Evidence::Fails(worse, [tried, others]))
    }
}

fn shortened(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words `NODE:ACTIVE:REQUESTS/ERRORS`, `NODE:silent`, `NODE:dead`, `NODE:refused`. `a` and `b` try revision 8.
    fn look(trial: &mut Trial, text: &str) -> Option<String> {
        let sighting = |word: &str| {
            let mut parts = word.split(':');
            let name = parts.next().unwrap();
            let tries = matches!(name, "a" | "b");
            let state = parts.next().unwrap();
            let said = state.parse().ok().map(|active| {
                let (requests, errors) = parts.next().unwrap().split_once('/').unwrap();
                let counts = Counts { requests: requests.parse().unwrap(), errors: errors.parse().unwrap() };
                Said { active: Revision(active), refused: String::new(), counts }
            });
            let refused =
                Said { active: Revision(7), refused: "port in use".to_owned(), counts: Counts::default() };
            let said = if state == "refused" { Some(refused) } else { said };
            let id = NodeId(u64::from(name.as_bytes()[0]));
            Sighting { id, name: name.to_owned(), tries, said, is_alive: state != "dead" }
        };
        let sightings: Vec<Sighting> = text.split(' ').map(sighting).collect();
        trial.observe(&sightings).map(|evidence| evidence.to_string())
    }

    fn check(looks: &[&str], expected: Option<&str>) {
        let mut trial = Trial::new(Revision(8));
        let seen: Vec<_> = looks.iter().map(|text| look(&mut trial, text)).collect();
        let (last, before) = seen.split_last().unwrap();
        assert!(before.iter().all(Option::is_none), "{looks:?}: {before:?}");
        assert_eq!(last.as_deref(), expected, "{looks:?}");
    }

    #[test]
    fn what_was_before_the_trial_does_not_count() {
        check(&["a:8:1000/900 c:7:1000/0"], None);
        check(&["a:8:1000/900 c:7:1000/0", "a:8:1100/900 c:7:1100/0"], None);
        check(&["a:7:1000/0 c:7:1000/0", "a:8:2000/1000 c:7:1100/0"], None); // that was with the one before
        let fails = "50.0 % of 100 requests failed with it, 0.0 % of 200 without it";
        check(&["a:8:0/0 c:7:1000/500 d:7:1000/0", "a:8:100/50 c:7:1100/500 d:7:1100/0"], Some(fails));
        let fails = "50.0 % of 200 requests failed with it, 0.0 % of 100 without it";
        check(&["a:8:0/0 b:8:5/5 c:7:9/9", "a:8:100/0 b:8:105/105 c:7:109/9"], Some(fails));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shortened("port in use"), "port in use");
        assert_eq!(shortened(&"ä".repeat(400)).len(), MAX_REASON);
        assert_eq!(shortened(&format!("x{}", "ä".repeat(400))).len(), MAX_REASON - 1);
    }

    #[test]
    fn who_tries_it_has_to_stay() {
        check(&["a:8:10/0 c:7:10/0", "a:silent c:7:20/0"], None);
        check(&["a:8:10/0 c:7:10/0", "a:dead c:7:20/0"], Some("a was lost while it tried it"));
        check(&["a:8:10/0 c:7:10/0", "a:8:3/0 c:7:20/0"], Some("a was started anew while it tried it"));
        check(
            &["a:8:10/0 c:7:10/0", "a:8:30/0 c:7:20/0", "a:8:20/0 c:7:30/0"],
            Some("a was started anew while it tried it"),
        );
        check(&["a:refused c:7:10/0"], Some("a has refused it: port in use"));
        check(&["a:8:10/0 c:7:1000/0", "a:8:10/0 c:dead", "a:8:99/50 c:7:10/0"], None); // it begins anew
    }
}
