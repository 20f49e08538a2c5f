//! Watching the nodes that try a revision beside those that do not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use shoal_model::{NodeId, Revision};

use super::gate::{Side, Tally, Worse, compare};
use super::left_out::refuses_already;

/// What is seen of one member at one moment.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Which.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where it is: nodes are compared with those of their region.
    pub region: String,
    /// It is to try the revision.
    pub tries: bool,
    /// It is sent requests: what one that was drained does says nothing.
    pub is_in_service: bool,
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
    /// Milliseconds since its start.
    pub up_ms: u64,
    /// Since its start.
    pub counts: Tally,
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
    /// A node did not say that it serves it, or how it does, for so many seconds.
    Silent(String, u64),
    /// It does worse than what the others serve; the region where it does.
    Worse(Worse, String),
}

impl Evidence {
    /// It says that somebody could not be watched, and nothing of how the revision does.
    pub fn is_of_absence(&self) -> bool {
        match self {
            Self::Restarted(_) | Self::Lost(_) | Self::Silent(..) => true,
            Self::Refused(..) | Self::Worse(..) => false,
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(name, why) => write!(f, "{name} has refused it: {why}"),
            Self::Restarted(name) => write!(f, "{name} was started anew while it tried it"),
            Self::Lost(name) => write!(f, "{name} was lost while it tried it"),
            Self::Silent(name, seconds) => {
                write!(f, "{name} did not say within {seconds} s that it serves it, or how")
            }
            Self::Worse(worse, region) => write!(f, "{worse}, in the region {region:?}"),
        }
    }
}

/// The time since a revision is tried, as whoever leads has seen it: a new leader begins anew.
#[derive(Clone, Debug)]
pub struct Trial {
    revision: Revision,
    /// What the others serve.
    before: Revision,
    members: BTreeMap<NodeId, Known>,
    /// Members that refuse what the others serve, and have served nothing newer since: they do not count, on either side, as
    /// those that are out of service.
    left_out: BTreeSet<NodeId>,
}

/// What a member has counted since its start says how it was before only when it has run for so long, in milliseconds: what
/// was counted between its taking a revision up and being seen then is a small part of that.
const LEAST_PAST_MS: u64 = 5 * 60_000;

/// What is known of a member.
#[derive(Clone, Debug)]
struct Known {
    /// When it was first seen serving what it is to serve.
    from: Option<Start>,
    /// For how long it ran when it was heard last.
    up_ms: u64,
}

/// Where counting begins.
#[derive(Clone, Debug)]
struct Start {
    /// What it had counted by then.
    counts: Tally,
    /// How it was before.
    before: Tally,
}

impl Start {
    fn at(said: &Said) -> Self {
        let counts = said.counts.clone();
        let before = if said.up_ms >= LEAST_PAST_MS { counts.clone() } else { Tally::default() };
        Self { counts, before }
    }
}

/// What a look has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// What those that try the revision have done with it.
    pub tried: Side,
    /// What the others have done meanwhile.
    pub others: Side,
    /// A node that is to try it, and has not said now that it does.
    pub awaited: Option<String>,
    /// Nodes that are to try it, and count.
    pub trying: usize,
}

impl Trial {
    /// Of `revision`, where the others serve the one `before`.
    pub fn new(revision: Revision, before: Revision) -> Self {
        Self { revision, before, members: BTreeMap::new(), left_out: BTreeSet::new() }
    }

    /// What the trial is of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Takes note of all members; fails with what is to be said against the revision now.
    pub fn observe(&mut self, sightings: &[Sighting]) -> Result<Seen, Evidence> {
        let mut seen = Seen::default();
        let mut regions: BTreeMap<&str, [Side; 2]> = BTreeMap::new();
        for sighting in sightings {
            if self.leaves_out(sighting) {
                continue;
            }
            seen.trying += usize::from(sighting.tries);
            let Some(said) = &sighting.said else {
                if sighting.tries && !sighting.is_alive {
                    return Err(Evidence::Lost(sighting.name.clone()));
                }
                if sighting.tries {
                    seen.awaited.get_or_insert_with(|| sighting.name.clone());
                }
                continue;
            };
            if sighting.tries && !said.refused.is_empty() {
                return Err(Evidence::Refused(sighting.name.clone(), shortened(&said.refused)));
            }
            let known = self.members.remove(&sighting.id);
            let is_new = known.as_ref().is_some_and(|known| said.up_ms < known.up_ms);
            if sighting.tries && is_new {
                return Err(Evidence::Restarted(sighting.name.clone()));
            }
            // Nothing counts before it serves what it is to serve.
            let serves = !sighting.tries || said.active == self.revision;
            if !serves {
                seen.awaited.get_or_insert_with(|| sighting.name.clone());
            }
            let from = known.and_then(|known| known.from).filter(|_| serves && !is_new);
            let from = from.unwrap_or_else(|| Start::at(said));
            let counts = Side { now: said.counts.since(&from.counts), before: from.before.clone() };
            self.members.insert(sighting.id, Known { from: serves.then_some(from), up_ms: said.up_ms });
            let (side, total) = if sighting.tries { (0, &mut seen.tried) } else { (1, &mut seen.others) };
            *total += &counts;
            regions.entry(&sighting.region).or_default()[side] += &counts;
        }
        for (region, [tried, others]) in regions {
            // Where a whole region tries it, there are only others elsewhere.
            let others = if others.now.is_empty() { &seen.others } else { &others };
            if let Some(worse) = compare(&tried, others) {
                return Err(Evidence::Worse(worse, shortened(region)));
            }
        }
        Ok(seen)
    }

    /// Nothing that this one does counts: it is out of service, or refuses already what the others serve, and has to serve
    /// what it is to serve before it counts again.
    fn leaves_out(&mut self, Sighting { id, tries, said, is_in_service, .. }: &Sighting) -> bool {
        if !is_in_service {
            self.members.remove(id);
            return true;
        }
        if let Some(said) = said {
            let least = if *tries { self.revision } else { self.before };
            if refuses_already(said.active, &said.refused, self.before) {
                self.members.remove(id);
                self.left_out.insert(*id);
            } else if said.active >= least {
                self.left_out.remove(id);
            }
        }
        self.left_out.contains(id)
    }
}

fn shortened(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON)].to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::gate::Counts;
    use super::*;

    /// Words `NODE:ACTIVE:REQUESTS/ERRORS[@UP_MS]`, `NODE:silent`, `NODE:dead`, `NODE:refused`, `NODE:sick` (it serves 6).
    /// `a` and `b` try revision 8, the others serve 7; nodes in capitals are in the west. One with `!` behind it is drained.
    pub fn sightings(text: &str) -> Vec<Sighting> {
        let sighting = |word: &str| {
            let (word, is_in_service) = word.strip_suffix('!').map_or((word, true), |word| (word, false));
            let mut parts = word.split(':');
            let name = parts.next().unwrap();
            let tries = matches!(name, "a" | "b" | "A");
            let state = parts.next().unwrap();
            let said = state.parse().ok().map(|active| {
                let (counts, up) =
                    parts.next().map(|rest| rest.split_once('@').unwrap_or((rest, "0"))).unwrap();
                let (requests, errors) = counts.split_once('/').unwrap();
                let counts = Tally {
                    all: Counts {
                        requests: requests.parse().unwrap(),
                        errors: errors.parse().unwrap(),
                        ..Counts::default()
                    },
                    routes: BTreeMap::new(),
                };
                let up_ms = up.parse().unwrap();
                Said { active: Revision(active), refused: String::new(), up_ms, counts }
            });
            let refused = Said {
                active: Revision(if state == "sick" { 6 } else { 7 }),
                refused: "port in use".to_owned(),
                up_ms: 0,
                counts: Tally::default(),
            };
            let said = if matches!(state, "refused" | "sick") { Some(refused) } else { said };
            let id = NodeId(u64::from(name.as_bytes()[0]));
            let is_west = name.as_bytes()[0].is_ascii_uppercase();
            let region = if is_west { "west" } else { "east" }.to_owned();
            let (name, is_alive) = (name.to_owned(), state != "dead");
            Sighting { id, name, region, tries, is_in_service, said, is_alive }
        };
        text.split(' ').map(sighting).collect()
    }

    fn check(looks: &[&str], expected: Option<&str>) {
        let mut trial = Trial::new(Revision(8), Revision(7));
        let look = |text: &&str| trial.observe(&sightings(text)).err().map(|evidence| evidence.to_string());
        let seen: Vec<_> = looks.iter().map(look).collect();
        let (last, before) = seen.split_last().unwrap();
        assert!(before.iter().all(Option::is_none), "{looks:?}: {before:?}");
        assert_eq!(last.as_deref(), expected, "{looks:?}");
    }

    #[test]
    fn only_a_long_past_says_how_it_was() {
        // One in seven failed before, and does now: for a minute, and for an hour.
        for (up_ms, expected) in [("60000", true), ("3600000", false)] {
            let mut trial = Trial::new(Revision(8), Revision(7));
            let look = |counts: [&str; 2]| {
                let [a, c] = counts;
                sightings(&format!("a:8:{a}@{up_ms} c:7:{c}@{up_ms}"))
            };
            assert!(trial.observe(&look(["10000/1400", "10000/0"])).is_ok());
            let told = trial.observe(&look(["11000/1540", "11000/0"]));
            assert_eq!(told.is_err(), expected, "{up_ms} {told:?}");
        }
    }

    #[test]
    fn what_was_before_the_trial_does_not_count() {
        check(&["a:8:1000/900 c:7:1000/0"], None);
        check(&["a:8:1000/900 c:7:1000/0", "a:8:1100/900 c:7:1100/0"], None);
        check(&["a:7:1000/0 c:7:1000/0", "a:8:2000/1000 c:7:1100/0"], None); // that was with the one before
        let fails = "50.0 % of 100 requests failed with it, 0.0 % of 200 without it, in the region \"east\"";
        check(&["a:8:0/0 c:7:1000/500 d:7:1000/0", "a:8:100/50 c:7:1100/500 d:7:1100/0"], Some(fails));
        let fails = "50.0 % of 200 requests failed with it, 0.0 % of 100 without it, in the region \"east\"";
        check(&["a:8:0/0 b:8:5/5 c:7:9/9", "a:8:100/0 b:8:105/105 c:7:109/9"], Some(fails));
    }

    #[test]
    fn nodes_are_compared_with_those_of_their_region() {
        let before = "A:8:0/0 C:7:0/0 a:8:0/0 c:7:0/0";
        // The origin of the west is ill, with it and without it.
        check(&[before, "A:8:1000/500 C:7:1000/500 a:8:1000/0 c:7:1000/0"], None);
        let fails =
            "10.0 % of 1000 requests failed with it, 0.0 % of 1000 without it, in the region \"west\"";
        check(&[before, "A:8:1000/100 C:7:1000/0 a:8:1000/0 c:7:1000/0"], Some(fails));
        // The whole west tries it.
        check(&["A:8:0/0 c:7:0/0", "A:8:1000/100 c:7:1000/0"], Some(fails));
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
        let anew = "a was started anew while it tried it";
        check(&["a:8:10/0@500 c:7:10/0", "a:8:30/0@20 c:7:20/0"], Some(anew));
        check(&["a:8:10/0@10 c:7:10/0", "a:8:30/0@20 c:7:20/0", "a:8:40/0@15 c:7:30/0"], Some(anew));
        check(&["a:refused c:7:10/0"], Some("a has refused it: port in use"));
        check(&["a:8:10/0 c:7:1000/0@9", "a:8:10/0 c:dead", "a:8:99/50 c:7:10/0@1"], None); // it begins anew
    }

    #[test]
    fn who_refuses_already_what_the_others_serve_does_not_count() {
        check(&["a:sick b:8:0/0 c:7:0/0", "a:dead b:8:9/0 c:7:9/0", "a:silent b:8:9/0 c:7:9/0"], None);
        check(&["a:sick b:8:0/0 c:7:0/0", "a:6:0/0@5 b:8:9/0 c:7:9/0", "a:8:0/0@9 b:8:9/0 c:7:9/0"], None);
        check(&["b:8:0/0 c:7:0/0 d:sick", "b:8:9/0 c:7:9/0 d:dead"], None);
        // What goes through it hides nothing.
        let fails = "50.0 % of 100 requests failed with it, 0.0 % of 100 without it, in the region \"east\"";
        check(&["a:8:0/0 c:7:0/0 d:sick", "a:8:100/50 c:7:100/0 d:6:1000/500"], Some(fails));
        // Once it has taken it up, it is one of those that have to stay.
        check(&["a:sick c:7:0/0", "a:8:0/0 c:7:9/0", "a:dead c:7:9/0"], Some("a was lost while it tried it"));
        // Who served what the others serve has to take it.
        check(&["a:sick b:8:0/0 c:7:0/0", "a:sick b:refused c:7:0/0"], Some("b has refused it: port in use"));
        let mut trial = Trial::new(Revision(8), Revision(7));
        let seen = trial.observe(&sightings("a:sick b:8:0/0 c:7:0/0")).unwrap();
        assert_eq!(seen.awaited, None);
    }

    #[test]
    fn who_is_out_of_service_does_not_count() {
        // It is stopped and started, as one does with what one has drained.
        check(&["a:8:9/0@9 b:8:0/0 c:7:0/0", "a:dead! b:8:9/0 c:7:9/0", "a:8:0/0@1! b:8:9/0 c:7:9/0"], None);
        check(&["a:8:9/0@9 c:7:0/0", "a:8:99/90@10! c:7:100/0", "a:8:199/90@11 c:7:200/0"], None);
        let mut trial = Trial::new(Revision(8), Revision(7));
        for (text, expected) in [("a:8:0/0 b:8:0/0! c:7:0/0", 1), ("a:8:0/0! c:7:0/0", 0), ("a:silent", 1)] {
            assert_eq!(trial.observe(&sightings(text)).unwrap().trying, expected, "{text}");
        }
    }

    #[test]
    fn who_has_not_taken_it_up_is_waited_for() {
        let mut trial = Trial::new(Revision(8), Revision(7));
        for (text, expected) in [
            ("a:7:0/0 b:8:0/0 c:7:0/0", Some("a")),
            ("a:8:0/0 b:silent c:7:0/0", Some("b")),
            ("a:8:0/0 b:8:0/0 c:silent", None),
        ] {
            assert_eq!(trial.observe(&sightings(text)).unwrap().awaited.as_deref(), expected, "{text}");
        }
    }
}
