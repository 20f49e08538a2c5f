//! The check by revisions: since every answer says which revision it saw or made, the order of all changes is known, and only
//! has to be one that could have been.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Answer, Asked, Operation, Operations};

/// What a linearizable history tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// The value of each revision that somebody has seen or made; the first is the one before all operations.
    pub values: BTreeMap<u64, u64>,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Reads that were answered.
    pub reads: usize,
    /// Writes of which nobody knows what became of them, but those that were seen.
    pub unknown: usize,
    /// Revisions that nobody has seen, made by some of them.
    pub unseen: usize,
}

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// One revision with two values: a change was replaced by another one.
    TwoValues {
        /// Which.
        revision: u64,
        /// What it is said to be.
        values: [u64; 2],
    },
    /// One write, or one value, in two revisions: it was applied twice.
    TwoRevisions {
        /// What was written.
        value: u64,
        /// By which revisions.
        revisions: [u64; 2],
    },
    /// A value that nobody has written, or whose writer was told that nothing was done.
    NotWritten {
        /// The revision that has it.
        revision: u64,
        /// What was seen.
        value: u64,
    },
    /// An answer is older than what somebody had seen before it was asked for.
    Stale {
        /// What was asked.
        operation: Operation,
        /// The revision that was answered.
        revision: u64,
        /// The revision that had been seen.
        seen: u64,
    },
    /// A write over one revision made another than the next one.
    Misplaced {
        /// What it was to replace.
        over: u64,
        /// What it made.
        revision: u64,
    },
    /// A revision that nobody can have made.
    Gap {
        /// Which.
        revision: u64,
    },
    /// The search finds no order, whatever the revisions say.
    NoOrder {
        /// Of the operations on the revisions from here…
        from: u64,
        /// …to here.
        to: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoValues { revision, values: [one, other] } => {
                write!(f, "revision {revision} is {one} and {other}")
            }
            Self::TwoRevisions { value, revisions: [one, other] } => {
                write!(f, "{value} was written by revision {one} and by {other}")
            }
            Self::NotWritten { revision, value } => {
                write!(f, "revision {revision} is {value}, which was not written")
            }
            Self::Stale { operation, revision, seen } => {
                write!(f, "revision {revision} was answered after {seen} had been seen: {operation:?}")
            }
            Self::Misplaced { over, revision } => {
                write!(f, "a write over revision {over} made revision {revision}")
            }
            Self::Gap { revision } => write!(f, "nobody can have made revision {revision}"),
            Self::NoOrder { from, to } => {
                write!(f, "there is no order of what happened between revisions {from} and {to}")
            }
        }
    }
}

impl std::error::Error for Violation {}

/// Whether `operations` are linearizable, by their revisions.
pub fn check(operations: &Operations) -> Result<Picture, Violation> {
    let mut picture = Picture::default();
    picture.values.insert(operations.start.0, operations.start.1);
    let mut revision_of = BTreeMap::from([(operations.start.1, operations.start.0)]);
    for operation in &operations.all {
        let (revision, value) = match (operation.asked, operation.answered) {
            (Asked::Write { value, over }, Some((_, Answer::Wrote { revision }))) => {
                picture.acknowledged += 1;
                if let Some(over) = over.filter(|over| over + 1 != revision) {
                    return Err(Violation::Misplaced { over, revision });
                }
                (revision, value)
            }
            (Asked::Read, Some((_, Answer::Read { revision, value }))) => {
                picture.reads += 1;
                (revision, value)
            }
            _ => continue,
        };
        let known = *picture.values.entry(revision).or_insert(value);
        if known != value {
            return Err(Violation::TwoValues { revision, values: [known, value] });
        }
        let known = *revision_of.entry(value).or_insert(revision);
        if known != revision {
            return Err(Violation::TwoRevisions { value, revisions: [known, revision] });
        }
    }
    everything_was_written(operations, &picture.values)?;
    let seen = Seen::of(operations);
    nothing_is_stale(operations, &revision_of, &seen)?;
    (picture.unknown, picture.unseen) = gaps_are_filled(operations, &picture.values, &revision_of, &seen)?;
    Ok(picture)
}

/// What the write of an unknown outcome has made, if somebody has seen it; what an answered operation says.
pub(crate) fn revision_of(operation: &Operation, seen: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    match (operation.answered, operation.asked) {
        (Some((_, Answer::Wrote { revision } | Answer::Read { revision, .. })), _) => Some(revision),
        (None, Asked::Write { value, .. }) => seen(value),
        (Some((_, Answer::Nothing)), _) | (None, Asked::Read) => None,
    }
}

fn everything_was_written(operations: &Operations, values: &BTreeMap<u64, u64>) -> Result<(), Violation> {
    let written: BTreeMap<u64, bool> = operations
        .all
        .iter()
        .filter_map(|operation| match operation.asked {
            Asked::Write { value, .. } => {
                Some((value, !matches!(operation.answered, Some((_, Answer::Nothing)))))
            }
            Asked::Read => None,
        })
        .collect();
    let start = operations.start.1;
    match values.iter().find(|(_, value)| **value != start && written.get(*value) != Some(&true)) {
        Some((&revision, &value)) => Err(Violation::NotWritten { revision, value }),
        None => Ok(()),
    }
}

/// The highest revision that anybody had seen, from each time on; both rise.
struct Seen(Vec<(u64, u64)>);

impl Seen {
    fn of(operations: &Operations) -> Self {
        let mut answers: Vec<(u64, u64)> = operations
            .all
            .iter()
            .filter_map(|operation| Some((operation.answered?.0, revision_of(operation, |_| None)?)))
            .collect();
        answers.sort_unstable();
        let mut highest = operations.start.0;
        for (_, revision) in &mut answers {
            highest = highest.max(*revision);
            *revision = highest;
        }
        answers.insert(0, (0, operations.start.0));
        Self(answers)
    }

    /// Before `at`.
    fn before(&self, at: u64) -> u64 {
        let later = self.0.partition_point(|(seen_at, _)| *seen_at < at);
        self.0[..later].last().map_or(0, |(_, revision)| *revision)
    }
}

/// Whoever asks sees no less than anybody had seen by then; who writes makes something new.
fn nothing_is_stale(
    operations: &Operations,
    revisions: &BTreeMap<u64, u64>,
    seen: &Seen,
) -> Result<(), Violation> {
    for operation in &operations.all {
        let Some(revision) = revision_of(operation, |value| revisions.get(&value).copied()) else { continue };
        let before = seen.before(operation.called);
        let is_stale = match operation.asked {
            Asked::Write { .. } => revision <= before,
            Asked::Read => revision < before,
        };
        if is_stale {
            return Err(Violation::Stale { operation: *operation, revision, seen: before });
        }
    }
    Ok(())
}

/// What nobody has seen was made by a write of an unknown outcome, each by another one. Says how many there are of these that
/// were not seen, and how many of the former.
fn gaps_are_filled(
    operations: &Operations,
    values: &BTreeMap<u64, u64>,
    revisions: &BTreeMap<u64, u64>,
    seen: &Seen,
) -> Result<(usize, usize), Violation> {
    let (Some((first, _)), Some((last, _))) = (values.first_key_value(), values.last_key_value()) else {
        return Ok((0, 0));
    };
    let gaps: Vec<u64> = (*first..=*last).filter(|revision| !values.contains_key(revision)).collect();
    // What it can have made: something that nobody had seen when it was called.
    let mut fillers: Vec<(u64, u64)> = operations
        .all
        .iter()
        .filter(|operation| operation.answered.is_none())
        .filter_map(|operation| match operation.asked {
            Asked::Write { value, over } if !revisions.contains_key(&value) => {
                let lowest = seen.before(operation.called) + 1;
                Some(over.map_or((lowest, u64::MAX), |over| (lowest.max(over + 1), over + 1)))
            }
            Asked::Write { .. } | Asked::Read => None,
        })
        .collect();
    let unknown = fillers.len();
    // Who can fill the fewest of what is left goes first.
    fillers.sort_unstable_by_key(|(_, highest)| *highest);
    for gap in &gaps {
        let fits = fillers.iter().position(|(lowest, highest)| lowest <= gap && gap <= highest);
        match fits {
            Some(at) => drop(fillers.remove(at)),
            None => return Err(Violation::Gap { revision: *gap }),
        }
    }
    Ok((unknown, gaps.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search;

    fn write(value: u64, called: u64, answered: Option<(u64, u64)>) -> Operation {
        let answered = answered.map(|(at, revision)| (at, Answer::Wrote { revision }));
        Operation { asked: Asked::Write { value, over: None }, called, answered }
    }

    fn over(over: u64, operation: Operation) -> Operation {
        match operation.asked {
            Asked::Write { value, .. } => {
                Operation { asked: Asked::Write { value, over: Some(over) }, ..operation }
            }
            Asked::Read => operation,
        }
    }

    fn refused(value: u64, called: u64, at: u64) -> Operation {
        let answered = Some((at, Answer::Nothing));
        Operation { asked: Asked::Write { value, over: None }, called, answered }
    }

    fn read(revision: u64, value: u64, called: u64, at: u64) -> Operation {
        Operation { asked: Asked::Read, called, answered: Some((at, Answer::Read { revision, value })) }
    }

    /// Of a register that is 100 by revision 7. Values are 100 more than the revision that is meant to make them.
    fn judge(all: &[Operation]) -> Result<Picture, Violation> {
        check(&Operations { start: (7, 100), all: all.to_vec() })
    }

    /// The search by itself, of what the check of revisions would not have let pass.
    fn has_order(all: &[Operation], values: &[(u64, u64)]) -> bool {
        let picture = Picture { values: values.iter().copied().collect(), ..Picture::default() };
        search::check(&Operations { start: (7, 100), all: all.to_vec() }, &picture, 4).is_ok()
    }

    #[test]
    fn what_is_linearizable_passes_both() {
        let histories: [&[Operation]; 9] = [
            &[],
            &[read(7, 100, 1, 2)],
            &[write(108, 1, Some((2, 8))), read(8, 108, 3, 4)],
            // At the same time, either order will do.
            &[write(108, 1, Some((4, 8))), write(109, 2, Some((3, 9))), read(9, 109, 5, 6)],
            &[write(108, 1, Some((6, 8))), read(7, 100, 2, 3), read(8, 108, 4, 5)],
            // Of an unknown outcome: done, seen only later, never done.
            &[write(108, 1, None), read(8, 108, 2, 3)],
            &[write(108, 1, None), read(7, 100, 2, 3), write(109, 4, Some((5, 9))), read(9, 109, 6, 7)],
            &[write(108, 1, None), write(208, 2, Some((3, 8))), read(8, 208, 4, 5)],
            &[
                over(7, write(108, 1, Some((2, 8)))),
                over(7, refused(109, 3, 4)),
                over(8, write(110, 5, None)),
            ],
        ];
        for all in histories {
            let operations = Operations { start: (7, 100), all: all.to_vec() };
            operations.verify().unwrap_or_else(|violation| panic!("{violation}: {all:?}"));
        }
    }

    #[test]
    fn what_was_not_answered_is_counted() {
        let picture =
            judge(&[write(108, 1, None), write(208, 2, None), write(109, 3, Some((4, 9)))]).unwrap();
        assert_eq!((picture.acknowledged, picture.unknown, picture.unseen), (1, 2, 1));
        let picture = judge(&[write(108, 1, None), read(8, 108, 3, 4)]).unwrap();
        assert_eq!((picture.reads, picture.unknown, picture.unseen), (1, 0, 0), "it was seen");
    }

    #[test]
    fn a_stale_read_is_found() {
        let all = [write(108, 1, Some((2, 8))), read(7, 100, 3, 4)];
        let found = judge(&all).unwrap_err();
        assert_eq!(found, Violation::Stale { operation: all[1], revision: 7, seen: 8 });
        assert!(!has_order(&all, &[(7, 100), (8, 108)]));
        // What one has read, the next one does not read the past of.
        let all = [write(108, 1, Some((9, 8))), read(8, 108, 2, 3), read(7, 100, 4, 5)];
        assert!(matches!(judge(&all), Err(Violation::Stale { revision: 7, seen: 8, .. })));
        assert!(!has_order(&all, &[(7, 100), (8, 108)]));
    }

    #[test]
    fn a_lost_write_is_found() {
        // Its place was given to another one…
        let all = [write(108, 1, Some((2, 8))), write(109, 3, Some((4, 8)))];
        assert_eq!(judge(&all), Err(Violation::TwoValues { revision: 8, values: [108, 109] }));
        let all = [write(108, 1, Some((2, 8))), read(8, 109, 3, 4), write(109, 1, None)];
        assert_eq!(judge(&all), Err(Violation::TwoValues { revision: 8, values: [108, 109] }));
        // …or everything is as if it had not been.
        let all = [write(108, 1, Some((2, 8))), write(109, 3, Some((4, 9))), read(8, 108, 5, 6)];
        assert!(matches!(judge(&all), Err(Violation::Stale { revision: 8, seen: 9, .. })));
        assert!(!has_order(&all, &[(7, 100), (8, 108), (9, 109)]));
    }

    #[test]
    fn a_write_that_was_applied_twice_is_found() {
        let all = [write(108, 1, Some((4, 8))), read(8, 108, 2, 3), read(9, 108, 5, 6)];
        assert_eq!(judge(&all), Err(Violation::TwoRevisions { value: 108, revisions: [8, 9] }));
        // Nobody has seen the second time, but the next write comes out one too high.
        let all = [write(108, 1, Some((2, 8))), write(109, 3, Some((4, 10)))];
        assert_eq!(judge(&all), Err(Violation::Gap { revision: 9 }));
        assert!(!has_order(&all, &[(7, 100), (8, 108), (10, 109)]));
    }

    #[test]
    fn an_unknown_outcome_explains_one_revision_and_none_before_its_call() {
        let all = [write(108, 1, None), write(110, 2, Some((3, 10)))];
        assert_eq!(judge(&all), Err(Violation::Gap { revision: 9 }));
        assert!(!has_order(&all, &[(7, 100), (10, 110)]));
        let all = [write(109, 1, Some((2, 9))), write(108, 3, None)];
        assert_eq!(judge(&all), Err(Violation::Gap { revision: 8 }));
        assert!(!has_order(&all, &[(7, 100), (9, 109)]));
        // Whoever fits one place only gets it, whoever was called first.
        let all = [write(108, 1, None), over(7, write(208, 2, None)), write(110, 3, Some((4, 10)))];
        assert!(judge(&all).is_ok());
        assert!(has_order(&all, &[(7, 100), (10, 110)]));
        let all = [write(108, 1, None), over(8, write(208, 2, None)), over(8, write(308, 3, None))];
        let all = [&all[..], &[write(111, 4, Some((5, 11)))]].concat();
        assert!(matches!(judge(&all), Err(Violation::Gap { .. })));
        assert!(!has_order(&all, &[(7, 100), (11, 111)]));
    }

    #[test]
    fn what_was_refused_is_not_read() {
        let all = [refused(108, 1, 2), read(8, 108, 3, 4)];
        assert_eq!(judge(&all), Err(Violation::NotWritten { revision: 8, value: 108 }));
        assert_eq!(
            judge(&[read(8, 108, 3, 4)]),
            Err(Violation::NotWritten { revision: 8, value: 108 }),
            "nor what nobody wrote"
        );
    }

    #[test]
    fn what_is_read_was_written_before() {
        let all = [read(8, 108, 1, 2), write(108, 3, Some((4, 8)))];
        assert!(matches!(judge(&all), Err(Violation::Stale { revision: 8, seen: 8, .. })));
        assert!(!has_order(&all, &[(7, 100), (8, 108)]));
        let all = [read(8, 108, 1, 2), write(108, 3, None)];
        assert!(matches!(judge(&all), Err(Violation::Stale { revision: 8, seen: 8, .. })));
    }

    #[test]
    fn a_write_over_a_revision_makes_the_next_one() {
        let all = [write(108, 1, None), over(7, write(109, 2, Some((3, 9))))];
        assert_eq!(judge(&all), Err(Violation::Misplaced { over: 7, revision: 9 }));
        assert!(!has_order(&all, &[(7, 100), (9, 109)]));
    }

    #[test]
    fn long_histories_are_searched_in_windows() {
        let mut all = Vec::new();
        for n in 1..=400 {
            all.push(write(100 + n, 4 * n, Some((4 * n + 3, 7 + n))));
            all.push(read(7 + n, 100 + n, 4 * n + 1, 4 * n + 2));
        }
        let good = Operations { start: (7, 100), all };
        let picture = good.verify().unwrap();
        assert_eq!((picture.acknowledged, picture.reads), (400, 400));
        let mut bad = good.clone();
        bad.all[401] = read(150, 243, 900, 901);
        assert!(bad.verify().is_err());
        assert!(search::check(&bad, &picture, 60).is_err(), "the search finds it by itself");
    }
}
