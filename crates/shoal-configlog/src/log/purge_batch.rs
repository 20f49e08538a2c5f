//! Purges that come while one is being written are written together: one entry for all of them, so that a crowd of purges
//! costs as many entries as the disk makes in that time, and a lone one waits for nobody.

use std::collections::VecDeque;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use shoal_model::state::{Asker, Command, PurgeKind, PurgeScope};
use tokio::sync::oneshot;

use super::lock;

/// Scopes of one entry.
const MAX_SCOPES: usize = 1000;
/// Who asks for one entry, at most: each may say a kilobyte of himself, and entries have to stay small.
const MAX_ASKERS: usize = 200;

/// Scopes that wait to be written, at most: a hundred entries of them. Whoever comes then is refused.
const MAX_WAITING_SCOPES: usize = 100 * MAX_SCOPES;

/// What became of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<T> {
    /// It was written, with this outcome.
    Written(T),
    /// Whoever was to write it gave up on the way: it may have been written.
    Abandoned,
    /// Too many wait: it is not written.
    TooMany,
}

/// Purges on their way into the log here, where the leader is. `T` is what writing an entry answers.
pub(super) struct PurgeBatches<T> {
    line: Mutex<Line<T>>,
    /// Held by whoever writes.
    turn: tokio::sync::Mutex<()>,
}

struct Waiting<T> {
    askers: Vec<Asker>,
    request_id: String,
    scopes: Vec<PurgeScope>,
    kind: PurgeKind,
    at_ms: u64,
    written: oneshot::Sender<T>,
}

impl<T> Waiting<T> {
    /// How much room it takes among those that wait.
    fn weight(&self) -> usize {
        self.scopes.len().max(1)
    }
}

/// Those that wait, in the order in which they came.
struct Line<T> {
    waiting: VecDeque<Waiting<T>>,
    /// What they weigh together.
    weight: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), weight: 0 }
    }
}

impl<T> Line<T> {
    /// Puts it at the end, if there is room.
    fn push(&mut self, newcomer: Waiting<T>) -> bool {
        if self.weight + newcomer.weight() > MAX_WAITING_SCOPES {
            self.waiting.retain(|waiting| !waiting.written.is_closed());
            self.weight = self.waiting.iter().map(Waiting::weight).sum();
        }
        let has_room = self.waiting.is_empty() || self.weight + newcomer.weight() <= MAX_WAITING_SCOPES;
        if has_room {
            self.weight += newcomer.weight();
            self.waiting.push_back(newcomer);
        }
        has_room
    }

    /// The first one that somebody still waits for.
    fn front(&mut self) -> Option<&Waiting<T>> {
        while self.waiting.front().is_some_and(|waiting| waiting.written.is_closed()) {
            self.pop();
        }
        self.waiting.front()
    }

    fn pop(&mut self) -> Option<Waiting<T>> {
        let first = self.waiting.pop_front()?;
        self.weight -= first.weight();
        Some(first)
    }
}

impl<T> Default for PurgeBatches<T> {
    fn default() -> Self {
        Self { line: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<T: Clone> PurgeBatches<T> {
    /// Writes `command` alone, unless it is a purge and others wait too. What nobody waits for any more when its turn comes is
    /// not written.
    pub(super) async fn write<'a>(
        &self,
        command: Command,
        write: impl Fn(Command) -> BoxFuture<'a, T>,
    ) -> Turn<T> {
        let (askers, command) = command.into_parts();
        let Command::Purge { request_id, scopes, kind, at_ms } = command else {
            return Turn::Written(write(command.asked_by(askers)).await);
        };
        let (written, mut outcome) = oneshot::channel();
        if !lock(&self.line).push(Waiting { askers, request_id, scopes, kind, at_ms, written }) {
            return Turn::TooMany;
        }
        let _turn = self.turn.lock().await;
        loop {
            match outcome.try_recv() {
                Ok(outcome) => return Turn::Written(outcome),
                Err(oneshot::error::TryRecvError::Closed) => return Turn::Abandoned,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let batch = self.next_batch();
            let Some(command) = merged(&batch) else { return Turn::Abandoned };
            let outcome = write(command).await;
            for waiting in batch {
                // Who waited may have given up.
                _ = waiting.written.send(outcome.clone());
            }
        }
    }

    /// Those that have waited for longest and fit into one entry.
    fn next_batch(&self) -> Vec<Waiting<T>> {
        let mut line = lock(&self.line);
        let (mut batch, mut scopes, mut askers): (Vec<Waiting<T>>, usize, usize) = (Vec::new(), 0, 0);
        while let Some(next) = line.front() {
            (scopes, askers) = (scopes + next.scopes.len(), askers + next.askers.len());
            let is_full = scopes > MAX_SCOPES || askers > MAX_ASKERS;
            if batch.first().is_some_and(|first| first.kind != next.kind || is_full) {
                break;
            }
            batch.extend(line.pop());
        }
        batch
    }
}

/// One entry for all of them. Only what is written alone keeps its request id: a purge that comes again with others merely
/// forgets once more.
fn merged<T>(batch: &[Waiting<T>]) -> Option<Command> {
    let (first, others) = batch.split_first()?;
    let mut scopes = first.scopes.clone();
    let mut at_ms = first.at_ms;
    for other in others {
        scopes.extend(other.scopes.iter().cloned());
        at_ms = at_ms.max(other.at_ms);
    }
    let request_id = if others.is_empty() { first.request_id.clone() } else { String::new() };
    let askers = batch.iter().flat_map(|waiting| waiting.askers.iter().cloned()).collect();
    Some(Command::Purge { request_id, scopes, kind: first.kind, at_ms }.asked_by(askers))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::{FutureExt, join_all};
    use tokio::sync::Semaphore;

    use super::*;

    fn purge(id: usize, kind: PurgeKind, scopes: usize) -> Command {
        let scopes = (0..scopes).map(|n| PurgeScope::Tag((id * 10_000 + n) as u64)).collect();
        Command::Purge { request_id: id.to_string(), scopes, kind, at_ms: id as u64 }
    }

    /// Writes `commands` at once and says what the entries were: request id, number of scopes, kind.
    async fn entries(commands: Vec<Command>) -> Vec<(String, usize, PurgeKind)> {
        let batches = PurgeBatches::<usize>::default();
        let (seen, gate) = (Mutex::new(Vec::new()), Arc::new(Semaphore::new(0)));
        let count = commands.len();
        let writing = join_all(commands.into_iter().map(|command| {
            batches.write(command, |command| {
                Box::pin(async {
                    gate.acquire().await.unwrap().forget();
                    let Command::Purge { request_id, scopes, kind, .. } = command else { unreachable!() };
                    let mut seen = lock(&seen);
                    seen.push((request_id, scopes.len(), kind));
                    seen.len()
                })
            })
        }));
        let (outcomes, ()) = tokio::join!(writing, async {
            // The first is being written when the others come.
            tokio::task::yield_now().await;
            gate.add_permits(count);
        });
        assert!(outcomes.iter().all(|turn| matches!(turn, Turn::Written(_))), "{outcomes:?}");
        drop(outcomes);
        seen.into_inner().unwrap()
    }

    #[tokio::test]
    async fn those_that_wait_are_written_together_kinds_apart() {
        let (hard, soft) = (PurgeKind::Hard, PurgeKind::Soft);
        let commands = vec![
            purge(1, hard, 1),
            purge(2, hard, 2),
            purge(3, hard, 3),
            purge(4, soft, 4),
            purge(5, hard, 999),
            purge(6, hard, 2),
        ];
        let expected = [
            ("1".to_owned(), 1, hard),
            (String::new(), 5, hard),
            ("4".to_owned(), 4, soft),
            ("5".to_owned(), 999, hard),
            ("6".to_owned(), 2, hard),
        ];
        assert_eq!(entries(commands).await, expected);
        assert_eq!(entries(vec![purge(7, soft, 2000)]).await, [("7".to_owned(), 2000, soft)]);
    }

    #[test]
    fn all_who_ask_for_an_entry_are_named() {
        let waiting = |names: &[&str]| {
            let asker = |name: &&str| Asker { by: (*name).to_owned(), ..Asker::default() };
            Waiting {
                askers: names.iter().map(asker).collect(),
                request_id: "r".to_owned(),
                scopes: vec![PurgeScope::All],
                kind: PurgeKind::Hard,
                at_ms: 1,
                written: oneshot::channel::<()>().0,
            }
        };
        let check = |batch: &[Waiting<()>], expected: &[&str]| {
            let (askers, command) = merged(batch).unwrap().into_parts();
            let names: Vec<&str> = askers.iter().map(|asker| asker.by.as_str()).collect();
            assert_eq!(names, expected);
            assert!(matches!(command, Command::Purge { .. }), "{command:?}");
        };
        check(&[waiting(&[])], &[]);
        check(&[waiting(&["ada"]), waiting(&[]), waiting(&["eve"])], &["ada", "eve"]);
    }

    #[tokio::test]
    async fn who_gives_up_while_writing_leaves_nobody_waiting() {
        let batches = PurgeBatches::<()>::default();
        let stuck = batches.write(purge(1, PurgeKind::Hard, 1), |_| Box::pin(std::future::pending()));
        let mut stuck = Box::pin(stuck);
        let second = batches.write(purge(2, PurgeKind::Hard, 1), |_| Box::pin(async {}));
        tokio::select! {
            biased;
            _ = &mut stuck => unreachable!(),
            () = tokio::task::yield_now() => {}
        }
        drop(stuck);
        assert_eq!(second.await, Turn::Written(()));
    }

    #[tokio::test]
    async fn only_so_many_wait_and_nobody_who_gave_up() {
        let batches = PurgeBatches::<usize>::default();
        let stuck = || -> BoxFuture<'static, usize> { Box::pin(std::future::pending()) };
        let mut writes: Vec<_> = Vec::new();
        // The first is being written; the others wait.
        for id in 0..=MAX_WAITING_SCOPES / MAX_SCOPES {
            let mut write = Box::pin(batches.write(purge(id, PurgeKind::Hard, MAX_SCOPES), |_| stuck()));
            assert!((&mut write).now_or_never().is_none(), "{id}");
            writes.push(write);
        }
        let one_more = || batches.write(purge(0, PurgeKind::Hard, 1), |_| Box::pin(async { 7 }));
        assert_eq!(one_more().await, Turn::TooMany);
        // What is no purge waits for none.
        assert_eq!(batches.write(Command::CompareStates, |_| Box::pin(async { 9 })).await, Turn::Written(9));
        writes.truncate(1);
        let mut last = Box::pin(one_more());
        assert!((&mut last).now_or_never().is_none());
        writes.clear();
        assert_eq!(last.await, Turn::Written(7), "it is the only one that is left");
    }
}
