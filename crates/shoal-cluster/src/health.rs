//! What all checkers of a region together say of the endpoints, folded from the facts each of them gossips.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use shoal_model::{EndpointId, NodeId};
use shoal_policy::health::{
    Availability, CHECKERS_PER_ENDPOINT, Candidate, Fact, FactState, Reason, SHARDS, Shard, Vote, assign,
    merge, shard_of,
};

use crate::view::EndpointState;

/// A node repeats that it is still checking at least this often.
pub const FACT_REFRESH: Duration = Duration::from_secs(30);
/// Placements whose checkers are remembered.
const MAX_PLACEMENTS: usize = 8;

/// What one node says of one endpoint, for `shoal health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// Who.
    pub node: NodeId,
    /// What.
    pub says: Says,
    /// Since when, unix seconds by the author's clock; 0 = not told.
    pub since: u64,
    /// Why; empty = there is nothing wrong.
    pub reason: &'static str,
    /// How long ago the author last showed that it is still checking.
    pub age: Option<Duration>,
    /// It is one of the nodes that check this endpoint now.
    pub checker: bool,
}

/// A node's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It checks the endpoint and finds it well.
    Up,
    /// A fact of its own.
    Fact(FactState),
    /// It checks the endpoint and no check has ended yet.
    Checking,
    /// It should check the endpoint and was not heard for too long.
    Silent,
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Fact(state) => state.name(),
            Self::Checking => "checking",
            Self::Silent => "silent",
        })
    }
}

/// What the checkers of one region say of an endpoint together, for `shoal health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where they stand.
    pub region: Arc<str>,
    /// The merged word.
    pub availability: Availability,
    /// How many they are.
    pub checkers: usize,
    /// How many of them say the same by themselves.
    pub agreeing: usize,
    /// Whoever of the region says anything but that it is well.
    pub exceptions: Vec<Opinion>,
}

/// A node whose facts are read.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    pub(crate) id: NodeId,
    pub(crate) zone: Arc<str>,
    pub(crate) serving: bool,
    pub(crate) alive: bool,
    /// `None` = one that cannot be read.
    pub(crate) shards: [Option<Shard>; SHARDS],
    /// The placement under which it has checked all that it must.
    pub(crate) checked_through: Option<u64>,
    /// How long ago it showed that it is still checking; `None` = never.
    pub(crate) age: Option<Duration>,
}

impl Author {
    fn fact(&self, endpoint: EndpointId) -> Option<&Fact> {
        self.shards[shard_of(endpoint)].as_ref()?.fact(endpoint)
    }

    /// All its facts about `endpoint` would be in this shard: not naming it means something.
    fn tells_all_about(&self, endpoint: EndpointId) -> bool {
        self.shards[shard_of(endpoint)].as_ref().is_some_and(|shard| shard.omitted == 0)
    }
}

/// Who could check under recent placements: a node's silence counts only for what it checked already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placements {
    /// The latest first.
    recent: VecDeque<Arc<Placement>>,
}

#[derive(Clone, Debug)]
struct Placement {
    id: u64,
    nodes: Vec<(NodeId, Arc<str>)>,
}

impl Placements {
    /// Remembers who may check from now on.
    pub(crate) fn remember(&mut self, placement_id: u64, authors: &[Author]) {
        self.recent.retain(|placement| placement.id != placement_id);
        self.recent.truncate(MAX_PLACEMENTS - 1);
        let serving = authors.iter().filter(|author| author.serving);
        let nodes = serving.map(|author| (author.id, author.zone.clone())).collect();
        self.recent.push_front(Arc::new(Placement { id: placement_id, nodes }));
    }

    fn was_checker(&self, placement_id: u64, node: NodeId, endpoint: EndpointId) -> bool {
        let found = self.recent.iter().find(|placement| placement.id == placement_id);
        found.is_some_and(|placement| {
            let candidates = placement.nodes.iter().map(|(id, zone)| Candidate { id: *id, zone });
            assign(endpoint, &candidates.collect::<Vec<_>>(), CHECKERS_PER_ENDPOINT).contains(&node)
        })
    }
}

/// What was heard in one region. A node's facts have an upper bound, and so has what is kept of all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegionFacts {
    pub(crate) authors: Vec<Author>,
    pub(crate) placements: Placements,
}

impl RegionFacts {
    pub(crate) fn round(&self, fresh_for: Duration, settled: bool, now_unix: u64) -> Round<'_> {
        let Self { authors, placements } = self;
        Round { authors, placements, fresh_for, settled, now_unix }
    }
}

/// What is known when facts are merged.
#[derive(Clone, Copy)]
pub(crate) struct Round<'a> {
    pub(crate) authors: &'a [Author],
    pub(crate) placements: &'a Placements,
    /// Facts of an author that has been quiet for longer do not count.
    pub(crate) fresh_for: Duration,
    /// The placement has held for a while. Until then an endpoint of which some checker was not heard keeps what it has.
    pub(crate) settled: bool,
    pub(crate) now_unix: u64,
}

impl Round<'_> {
    fn checkers(&self, endpoint: EndpointId) -> Vec<NodeId> {
        let serving = self.authors.iter().filter(|author| author.serving);
        let candidates: Vec<_> =
            serving.map(|author| Candidate { id: author.id, zone: &author.zone }).collect();
        assign(endpoint, &candidates, CHECKERS_PER_ENDPOINT)
    }

    fn author(&self, id: NodeId) -> Option<&Author> {
        self.authors.iter().find(|author| author.id == id)
    }

    fn vote(&self, author: &Author, endpoint: EndpointId) -> Vote {
        if author.age.is_none_or(|age| age > self.fresh_for) {
            return Vote::Unheard;
        }
        match author.fact(endpoint).map(|fact| fact.state) {
            Some(FactState::Down) => Vote::Down,
            Some(FactState::Degraded) => Vote::Up,
            Some(FactState::Unknown) => Vote::Unheard,
            // An ejection is about the author's traffic: its checks are silent.
            Some(FactState::Ejected) | None => {
                let was_checker = |placement| self.placements.was_checker(placement, author.id, endpoint);
                let checked =
                    author.tells_all_about(endpoint) && author.checked_through.is_some_and(was_checker);
                if checked { Vote::Up } else { Vote::Unheard }
            }
        }
    }

    /// The availability of every endpoint that is not plainly up.
    pub(crate) fn merge(
        &self,
        previous: &FxHashMap<EndpointId, EndpointState>,
    ) -> FxHashMap<EndpointId, EndpointState> {
        let alive = self.authors.iter().filter(|author| author.alive);
        let facts = alive.flat_map(|author| author.shards.iter().flatten()).flat_map(|shard| &shard.facts);
        let named: BTreeSet<_> = facts.map(|fact| fact.endpoint).chain(previous.keys().copied()).collect();
        let merged = named.into_iter().filter_map(|endpoint| {
            let before = previous.get(&endpoint).copied();
            self.merge_one(endpoint, before).map(|state| (endpoint, state))
        });
        merged.collect()
    }

    fn merge_one(&self, endpoint: EndpointId, before: Option<EndpointState>) -> Option<EndpointState> {
        let checkers = self.checkers(endpoint);
        let votes: Vec<_> = checkers
            .iter()
            .filter_map(|id| self.author(*id))
            .map(|author| self.vote(author, endpoint))
            .collect();
        if !self.settled && votes.contains(&Vote::Unheard) {
            return before;
        }
        let alive = self.authors.iter().filter(|author| author.alive);
        let ejects =
            |author: &&Author| author.fact(endpoint).is_some_and(|fact| fact.state == FactState::Ejected);
        let ejecting = alive.clone().filter(ejects).count();
        match merge(&votes, ejecting, alive.count()) {
            Availability::Up => None,
            Availability::Down => match before {
                Some(state) if state.availability == Availability::Down => Some(state),
                Some(_) | None => {
                    Some(EndpointState { availability: Availability::Down, since: self.now_unix })
                }
            },
            // The last word stands.
            Availability::Unknown => Some(
                before.unwrap_or(EndpointState { availability: Availability::Unknown, since: self.now_unix }),
            ),
        }
    }

    /// Who says what of an endpoint: its checkers, and whoever else has a fact.
    pub(crate) fn opinions(&self, endpoint: EndpointId) -> Vec<Opinion> {
        let checkers = self.checkers(endpoint);
        let opinion = |author: &Author| {
            let fact = author.fact(endpoint);
            let checker = checkers.contains(&author.id);
            if !checker && fact.is_none() {
                return None;
            }
            let says = match (fact, self.vote(author, endpoint)) {
                (Some(fact), _) => Says::Fact(fact.state),
                (None, Vote::Up) => Says::Up,
                (None, _) if author.age.is_some_and(|age| age > self.fresh_for) => Says::Silent,
                (None, Vote::Unheard | Vote::Down) => Says::Checking,
            };
            Some(Opinion {
                node: author.id,
                says,
                since: fact.map_or(0, |fact| u64::from(fact.since)),
                reason: fact.map_or("", |fact| Reason::name(fact.reason)),
                age: author.age,
                checker,
            })
        };
        self.authors.iter().filter_map(opinion).collect()
    }

    /// What they say of an endpoint together, unless it is `known`.
    pub(crate) fn verdict(
        &self,
        region: &Arc<str>,
        endpoint: EndpointId,
        known: Option<Availability>,
    ) -> Verdict {
        let merged = || self.merge_one(endpoint, None).map_or(Availability::Up, |state| state.availability);
        let availability = known.unwrap_or_else(merged);
        let checkers = self.checkers(endpoint);
        let agrees = |author: &&Author| {
            let says = match self.vote(author, endpoint) {
                Vote::Up => Availability::Up,
                Vote::Down => Availability::Down,
                Vote::Unheard => Availability::Unknown,
            };
            says == availability
        };
        let agreeing = checkers.iter().filter_map(|id| self.author(*id)).filter(agrees).count();
        let mut exceptions = self.opinions(endpoint);
        exceptions.retain(|opinion| opinion.says != Says::Up);
        Verdict { region: region.clone(), availability, checkers: checkers.len(), agreeing, exceptions }
    }
}

#[cfg(test)]
mod tests {
    use shoal_policy::health::encode_shards;

    use super::*;

    const ENDPOINT: EndpointId = EndpointId(8);
    const PLACEMENT: u64 = 77;

    /// One letter per node: `u` silent and has checked, `d` says down, `e` ejected and has checked, `?` has not come
    /// round, `o` says down but is old, `f` silent with a full shard, `x` dead and said down, `l` draining and says down.
    fn authors(words: &str) -> Vec<Author> {
        let author = |(place, word): (usize, char)| {
            let fact = |state| Fact { endpoint: ENDPOINT, state, since: 100, reason: Reason::ConnectRefused };
            let facts = match word {
                'd' | 'o' | 'x' | 'l' => vec![fact(FactState::Down)],
                'e' => vec![fact(FactState::Ejected)],
                _ => vec![],
            };
            let mut shards = encode_shards(facts).map(|text| Shard::decode(&text));
            if word == 'f' {
                shards[0].as_mut().unwrap().omitted = 1;
            }
            Author {
                id: NodeId(place as u64 + 1),
                zone: "".into(),
                serving: !matches!(word, 'x' | 'l'),
                alive: word != 'x',
                shards,
                checked_through: (word != '?').then_some(PLACEMENT),
                age: Some(Duration::from_secs(if word == 'o' { 1000 } else { 1 })),
            }
        };
        words.chars().enumerate().map(author).collect()
    }

    fn merged(words: &str, settled: bool, before: Option<Availability>) -> Option<Availability> {
        let authors = authors(words);
        let mut placements = Placements::default();
        placements.remember(PLACEMENT, &authors);
        let round = Round {
            authors: &authors,
            placements: &placements,
            fresh_for: Duration::from_secs(90),
            settled,
            now_unix: 500,
        };
        let before = before.map(|availability| (ENDPOINT, EndpointState { availability, since: 1 }));
        let merged = round.merge(&before.into_iter().collect());
        merged.get(&ENDPOINT).map(|state| state.availability)
    }

    #[test]
    fn checkers_decide_by_majority() {
        let check = |words, expected| assert_eq!(merged(words, true, None), expected, "{words}");
        let (down, unknown) = (Some(Availability::Down), Some(Availability::Unknown));
        check("uuu", None);
        check("duu", None);
        check("ddu", down);
        check("d", down);
        check("du", None);
        // Those who have not come round, are old, or could not say all do not count.
        check("d??", down);
        check("d?u", None);
        check("dou", None);
        check("oo?", unknown);
        check("dfu", None);
        check("df?", down);
        // The dead and the draining have no word.
        check("xuu", None);
        check("xxu", None);
        check("lluuu", None);
        check("xxd", down);
        // Traffic of a third of the nodes is one more vote.
        check("edu", None);
        check("edd", down);
        check("dde", down);
        check("ee", None);
    }

    #[test]
    fn the_last_word_stands_while_nobody_knows() {
        let check = |words, settled, before, expected| {
            assert_eq!(
                merged(words, settled, before),
                expected,
                "{words} settled {settled} before {before:?}"
            );
        };
        let (down, unknown) = (Some(Availability::Down), Some(Availability::Unknown));
        check("???", true, down, down);
        check("oo?", true, down, down);
        check("", true, down, down);
        check("u??", true, down, None);
        check("uuu", true, unknown, None);
        // A placement that just changed decides nothing until all were heard.
        check("d??", false, None, None);
        check("u??", false, down, down);
        check("ddu", false, None, down);
    }

    #[test]
    fn silence_counts_only_for_what_was_checked_before() {
        let mut authors = authors("d????");
        let mut placements = Placements::default();
        // Under the earlier placement only nodes 1 and 2 could check, and both had come round.
        placements.remember(1, &authors[..2]);
        placements.remember(2, &authors);
        authors.iter_mut().for_each(|author| author.checked_through = Some(1));
        let round = Round {
            authors: &authors,
            placements: &placements,
            fresh_for: Duration::from_secs(90),
            settled: true,
            now_unix: 500,
        };
        for author in &authors {
            let expected = match author.id {
                NodeId(1) => Vote::Down,
                NodeId(2) => Vote::Up,
                _ => Vote::Unheard,
            };
            assert_eq!(round.vote(author, ENDPOINT), expected, "{}", author.id);
        }
    }

    #[test]
    fn opinions_name_every_checker_and_every_fact() {
        let authors = authors("du?xl");
        let mut placements = Placements::default();
        placements.remember(PLACEMENT, &authors);
        let round = Round {
            authors: &authors,
            placements: &placements,
            fresh_for: Duration::from_secs(90),
            settled: true,
            now_unix: 500,
        };
        let seen: Vec<_> = round
            .opinions(ENDPOINT)
            .into_iter()
            .map(|opinion| {
                format!("{} {} {} {}", opinion.node, opinion.says, opinion.reason, opinion.checker)
            })
            .collect();
        let expected = [
            "n1 down connection refused true",
            "n2 up  true",
            "n3 checking  true",
            "n4 down connection refused false",
            "n5 down connection refused false",
        ];
        assert_eq!(seen, expected);
        assert_eq!(round.opinions(EndpointId(16)).len(), 3);
    }

    #[test]
    fn verdicts_count_those_who_say_the_same() {
        let check = |words, known, expected: &str| {
            let authors = authors(words);
            let mut placements = Placements::default();
            placements.remember(PLACEMENT, &authors);
            let facts = RegionFacts { authors, placements };
            let round = facts.round(Duration::from_secs(90), true, 0);
            let verdict = round.verdict(&"us".into(), ENDPOINT, known);
            let says = |opinion: &Opinion| format!("{} {}", opinion.node, opinion.says);
            let exceptions: Vec<_> = verdict.exceptions.iter().map(says).collect();
            let (is, agreeing, of) = (verdict.availability.name(), verdict.agreeing, verdict.checkers);
            let told = format!("{} {is} {agreeing}/{of} {exceptions:?}", verdict.region);
            assert_eq!(told.replace('"', ""), expected, "{words}");
        };
        check("uuu", None, "us up 3/3 []");
        check("duu", None, "us up 2/3 [n1 down]");
        check("ddu", None, "us down 2/3 [n1 down, n2 down]");
        // Traffic of half of the nodes is one more vote.
        check("de", None, "us down 1/2 [n1 down, n2 ejected]");
        check("??", None, "us unknown 2/2 [n1 checking, n2 checking]");
        check("", None, "us unknown 0/0 []");
        // The last word stands where somebody remembers it.
        check("??", Some(Availability::Down), "us down 0/2 [n1 checking, n2 checking]");
        check("xd", None, "us down 1/1 [n1 down, n2 down]");
    }
}
