//! The second opinion: the search of a library for an order in which all operations can have happened, over windows of
//! revisions, each of which begins where the one before has ended.

use std::collections::{BTreeMap, BTreeSet};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use crate::history::{Answer, Asked, Operation, Operations};
use crate::revisions::{Picture, Violation, revision_of};

/// The register that the search knows: revisions count up by one.
struct Register;

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    /// It is this, before everything else.
    Begins { revision: u64, value: u64 },
    /// It becomes `value`, which makes `revision` where somebody knows.
    Write { value: u64, over: Option<u64>, revision: Option<u64> },
    /// It is seen to be this.
    Read { revision: u64, value: u64 },
}

impl Specification for Register {
    type State = (u64, u64);
    type Operation = Event;

    fn init() -> Self::State {
        (0, 0)
    }

    fn apply(event: &Event, state: &Self::State) -> (bool, Self::State) {
        match *event {
            Event::Begins { revision, value } => (true, (revision, value)),
            Event::Read { revision, value } => ((revision, value) == *state, *state),
            Event::Write { value, over, revision } => {
                let next = state.0 + 1;
                let fits = over.is_none_or(|over| over == state.0) && revision.is_none_or(|it| it == next);
                // Of one that nobody knows anything of, not having been done is as good.
                let counts = fits || revision.is_none();
                (counts, if fits { (next, value) } else { *state })
            }
        }
    }
}

/// Whether there is an order in each window of so many revisions. The check by revisions has made the `picture`.
pub fn check(operations: &Operations, picture: &Picture, window: usize) -> Result<(), Violation> {
    let revisions: BTreeMap<u64, u64> =
        picture.values.iter().map(|(revision, value)| (*value, *revision)).collect();
    let known: Vec<u64> = picture.values.keys().copied().collect();
    let mut begin = 0;
    loop {
        let end = (begin + window).min(known.len() - 1);
        let (from, to) = (known[begin], known[end]);
        let has_gaps = (to - from) as usize > end - begin;
        let place = |operation: &Operation| revision_of(operation, |value| revisions.get(&value).copied());
        let belongs = |operation: &&Operation| match (place(operation), operation.asked) {
            (Some(revision), Asked::Read) => (from..=to).contains(&revision),
            (Some(revision), Asked::Write { .. }) => revision > from && revision <= to,
            (None, Asked::Write { .. }) => has_gaps && operation.answered.is_none(),
            (None, Asked::Read) => false,
        };
        let inside = operations.all.iter().filter(belongs);
        let events = inside.filter_map(|operation| Some((operation, event(operation, place(operation))?)));
        let start = Event::Begins { revision: from, value: picture.values[&from] };
        if !WGLChecker::<Register>::is_linearizable(History::from_actions(in_order(start, events))) {
            return Err(Violation::NoOrder { from, to });
        }
        if end == known.len() - 1 {
            return Ok(());
        }
        begin = end;
    }
}

fn event(operation: &Operation, revision: Option<u64>) -> Option<Event> {
    match (operation.asked, operation.answered) {
        (Asked::Write { value, over }, _) => Some(Event::Write { value, over, revision }),
        (Asked::Read, Some((_, Answer::Read { revision, value }))) => Some(Event::Read { revision, value }),
        (Asked::Read, _) => None,
    }
}

/// Calls and answers as they happened; what was not answered ends last.
fn in_order<'a>(
    start: Event,
    events: impl Iterator<Item = (&'a Operation, Event)>,
) -> Vec<(usize, Action<Event>)> {
    let mut timeline = BTreeSet::new();
    let mut all = vec![start];
    for (operation, event) in events {
        let process = all.len();
        all.push(event);
        timeline.insert((operation.called, process, false));
        timeline.insert((operation.answered.map_or(u64::MAX, |(at, _)| at), process, true));
    }
    let begins = [(0, Action::Call(start)), (0, Action::Response(start))];
    let rest = timeline.into_iter().map(|(_, process, is_answer)| {
        let event = all[process];
        (process, if is_answer { Action::Response(event) } else { Action::Call(event) })
    });
    begins.into_iter().chain(rest).collect()
}
