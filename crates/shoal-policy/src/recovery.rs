//! Whether one node may go on alone once a majority of the voters is lost for good, and what may be lost with them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shoal_model::NodeId;

/// The place of an entry, by which logs are compared: the term of who wrote it, then its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPlace {
    /// The term.
    pub term: u64,
    /// The index.
    pub index: u64,
}

/// As operators write it: `7.1234`.
impl std::fmt::Display for LogPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

impl std::str::FromStr for LogPlace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a place in a log is TERM.INDEX, as 7.1234";
        let (term, index) = text.split_once('.').ok_or(wrong)?;
        Ok(Self { term: term.parse().map_err(|_| wrong)?, index: index.parse().map_err(|_| wrong)? })
    }
}

/// How far the log of a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogEnd {
    /// Its newest entry, committed or not.
    pub last: LogPlace,
    /// The newest term that it has voted in or heard of.
    pub vote_term: u64,
    /// Whom it has voted for, or follows, in that term.
    pub vote_for: NodeId,
    /// Index of the newest entry that it knows to be committed.
    pub committed: u64,
    /// Who votes, by the newest membership in it; of a change under way, all of them.
    pub voters: BTreeSet<NodeId>,
    /// Who only listens.
    pub learners: BTreeSet<NodeId>,
    /// See [`ConfigState::cluster_epoch`](shoal_model::state::ConfigState::cluster_epoch).
    pub epoch: u64,
    /// The active revision, once all of it is applied.
    pub revision: u64,
    /// From where on it cannot be applied, if so.
    pub unknown: Option<UnknownEntry>,
}

/// The first entry of a log that the version of its node does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("entry {place}: {why}")]
pub struct UnknownEntry {
    /// Which.
    pub place: LogPlace,
    /// What is not known of it, and which version would.
    pub why: String,
}

impl UnknownEntry {
    /// With both ways on from there.
    pub fn explain(&self) -> String {
        format!(
            "{self}; or, if there is none, leave that entry out with all that follows it, by --without {}",
            self.place
        )
    }
}

/// What is taken away with the end of a log, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nobody may have been told that it was done.
    Open,
    /// It was agreed upon.
    Committed,
}

/// Why a log keeps its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCut {
    /// There is no reason to.
    #[error("this version knows every entry of the log, which ends at {last}: nothing is to be left out")]
    KnowsAll {
        /// Where it ends.
        last: LogPlace,
    },
    /// What is before it is kept, and what follows it cannot be.
    #[error(
        "what can be left out begins with the first entry that this version does not know, not with {asked}: {unknown}"
    )]
    Elsewhere {
        /// Where it was to be cut.
        asked: LogPlace,
        /// Where it can be.
        unknown: UnknownEntry,
    },
}

/// Whether a log that ends so may be cut so that `from` is the first entry that is left out: what a node can apply it may have
/// applied, and stays.
pub fn cut(end: &LogEnd, from: LogPlace) -> Result<Cut, NoCut> {
    match &end.unknown {
        None => Err(NoCut::KnowsAll { last: end.last }),
        Some(unknown) if unknown.place != from => {
            Err(NoCut::Elsewhere { asked: from, unknown: unknown.clone() })
        }
        Some(_) if from.index <= end.committed => Ok(Cut::Committed),
        Some(_) => Ok(Cut::Open),
    }
}

/// Why nobody should go on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRecovery {
    /// Nothing is lost.
    HasMajority {
        /// How many of them.
        answering: usize,
        /// Of how many.
        voters: usize,
    },
    /// Its log ends before that of the plan.
    Behind {
        /// Where it ends.
        last: LogPlace,
        /// Where that did.
        planned: LogPlace,
    },
    /// They may have acknowledged what nobody else has, and go on with it.
    MayLive(Vec<NodeId>),
    /// Who is named as lost is there.
    NotLost(Vec<NodeId>),
}

impl NoRecovery {
    /// In words; `name` names nodes.
    pub fn explain(&self, name: impl Fn(NodeId) -> String) -> String {
        let list = |nodes: &[NodeId]| nodes.iter().map(|node| name(*node)).collect::<Vec<_>>().join(", ");
        match self {
            Self::HasMajority { answering, voters } => format!(
                "{answering} of {voters} voters answer, which is a majority: the cluster can decide, or will in a moment"
            ),
            Self::Behind { last, planned } => format!(
                "its log ends at {last}, and that of the plan goes to {planned}: it is another node that goes on"
            ),
            Self::MayLive(nodes) => {
                format!("voters that do not answer may live, and may know more: {}", list(nodes))
            }
            Self::NotLost(nodes) => format!("{} answers and is not lost", list(nodes)),
        }
    }
}

/// Who is to go on alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Whose log goes furthest of those that are left.
    pub survivor: NodeId,
    /// The end of it.
    pub last: LogPlace,
    /// Those that are lost are a majority: together they may have acknowledged what the survivor has not.
    pub may_lose: bool,
}

/// Who may go on alone, by the ends of the logs that are left (`ends`) and what an operator says of those that are not (`lost`).
pub fn recovery(ends: &BTreeMap<NodeId, LogEnd>, lost: &BTreeSet<NodeId>) -> Result<Recovery, NoRecovery> {
    let there: Vec<NodeId> = lost.iter().copied().filter(|node| ends.contains_key(node)).collect();
    if !there.is_empty() {
        return Err(NoRecovery::NotLost(there));
    }
    let furthest = ends.iter().max_by_key(|(node, end)| (end.last, std::cmp::Reverse(**node)));
    let Some((survivor, end)) = furthest else { return Err(NoRecovery::MayLive(Vec::new())) };
    let answering = end.voters.iter().filter(|voter| ends.contains_key(voter)).count();
    let voters = end.voters.len();
    if answering * 2 > voters {
        return Err(NoRecovery::HasMajority { answering, voters });
    }
    let missing =
        end.voters.iter().copied().filter(|voter| !ends.contains_key(voter) && !lost.contains(voter));
    let missing: Vec<NodeId> = missing.collect();
    if !missing.is_empty() {
        return Err(NoRecovery::MayLive(missing));
    }
    Ok(Recovery { survivor: *survivor, last: end.last, may_lose: (voters - answering) * 2 > voters })
}

/// Whether `node`, whose log ends so, may go on alone with it, all other voters being `lost`, and the plan having seen `planned`
/// as the end of it, which may have grown since: by who led once more, or by an attempt that was broken off.
pub fn may_go_on(
    node: NodeId,
    end: &LogEnd,
    lost: &BTreeSet<NodeId>,
    planned: LogPlace,
) -> Result<(), NoRecovery> {
    if end.last < planned {
        return Err(NoRecovery::Behind { last: end.last, planned });
    }
    let ends = BTreeMap::from([(node, end.clone())]);
    recovery(&ends, lost).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(term: u64, index: u64, voters: &[u64]) -> LogEnd {
        let voters = voters.iter().copied().map(NodeId).collect();
        LogEnd { last: LogPlace { term, index }, voters, ..LogEnd::default() }
    }

    #[test]
    fn the_most_advanced_goes_on_once_nobody_else_can() {
        let check = |ends: &[(u64, LogEnd)], lost: &[u64], expected: Result<(u64, bool), &str>| {
            let ends = ends.iter().map(|(node, end)| (NodeId(*node), end.clone())).collect();
            let lost = lost.iter().copied().map(NodeId).collect();
            let found = recovery(&ends, &lost);
            let found = found
                .map(|found| (found.survivor.0, found.may_lose))
                .map_err(|why| why.explain(|node| node.to_string()));
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        let (three, five) = (&[1, 2, 3], &[1, 2, 3, 4, 5]);
        check(&[(1, end(2, 9, three))], &[2, 3], Ok((1, true)));
        check(
            &[(1, end(2, 9, three))],
            &[2],
            Err("voters that do not answer may live, and may know more: n3"),
        );
        check(&[(1, end(2, 9, three))], &[1, 2, 3], Err("n1 answers and is not lost"));
        let both = [(1, end(2, 9, three)), (2, end(2, 8, three))];
        check(
            &both,
            &[3],
            Err("2 of 3 voters answer, which is a majority: the cluster can decide, or will in a moment"),
        );
        // A later term goes before more entries; of equals the first.
        check(&[(4, end(3, 7, five)), (5, end(2, 99, five))], &[1, 2, 3], Ok((4, true)));
        check(&[(4, end(2, 9, five)), (5, end(2, 9, five))], &[1, 2, 3], Ok((4, true)));
        // Who only listened goes on if no voter is left.
        check(&[(9, end(2, 9, three))], &[1, 2, 3], Ok((9, true)));
        // Half of four is no majority, and cannot have decided anything.
        check(&[(1, end(2, 9, &[1, 2, 3, 4])), (2, end(2, 9, &[1, 2, 3, 4]))], &[3, 4], Ok((1, false)));
        check(&[], &[], Err("voters that do not answer may live, and may know more: "));
    }

    #[test]
    fn only_the_planned_log_is_gone_on_with() {
        let lost = BTreeSet::from([NodeId(2), NodeId(3)]);
        let check = |planned: &str, expected: bool| {
            let found = may_go_on(NodeId(1), &end(2, 9, &[1, 2, 3]), &lost, planned.parse().unwrap());
            assert_eq!(found.is_ok(), expected, "{planned}");
        };
        check("2.9", true);
        check("2.8", true);
        check("1.99", true);
        check("2.10", false);
        check("3.1", false);
        assert!("7".parse::<LogPlace>().is_err() && "7.x".parse::<LogPlace>().is_err());
    }

    #[test]
    fn a_log_is_cut_where_its_version_knows_no_further() {
        let unknown = |place: &str| UnknownEntry { place: place.parse().unwrap(), why: "too new".to_owned() };
        let check = |unknown: Option<UnknownEntry>, committed, from: &str, expected: Result<Cut, &str>| {
            let end = LogEnd { unknown, committed, ..end(2, 9, &[1, 2, 3]) };
            let found = cut(&end, from.parse().unwrap()).map_err(|why| why.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{from}");
        };
        check(Some(unknown("2.8")), 7, "2.8", Ok(Cut::Open));
        check(Some(unknown("2.8")), 8, "2.8", Ok(Cut::Committed));
        check(Some(unknown("1.8")), 9, "1.8", Ok(Cut::Committed));
        for elsewhere in ["2.7", "2.9", "1.8", "2.99"] {
            let why = format!(
                "what can be left out begins with the first entry that this version does not know, not with {elsewhere}: \
                 entry 2.8: too new"
            );
            check(Some(unknown("2.8")), 7, elsewhere, Err(&why));
        }
        let all = "this version knows every entry of the log, which ends at 2.9: nothing is to be left out";
        check(None, 7, "2.9", Err(all));
    }
}
