//! Room on the disk: a write for which there is none is not given up, it waits until there is.
//!
//! Nothing is in doubt then, as it is after a failed fsync: the system has refused to take the bytes, and says so. For the
//! others this is a node with a very slow disk, which acknowledges nothing; when there is room again it goes on where it was.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::trouble::{in_words, is_out_of_space};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// The room that a log and its snapshots share; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    patience: Patience,
    /// Since when somebody waits, and what the system has said.
    missing: Option<(Instant, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Patience {
    /// Whoever opens the files wants to know at once.
    #[default]
    None,
    /// It waits as long as it takes.
    Endless,
    /// Nobody wants what is not written yet.
    GivenUp,
}

impl Room {
    /// From now on writes wait.
    pub fn be_patient(&self) {
        self.lock().patience = Patience::Endless;
    }

    /// Nobody waits any more: whoever does gets the error.
    pub fn give_up(&self) {
        self.lock().patience = Patience::GivenUp;
        self.0.changed.notify_all();
    }

    /// What `write` answers, once there is room for it; it is called again and again until then. Blocks.
    pub fn wait_for<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            let error = match write() {
                Err(error) if is_out_of_space(&error) => error,
                answer => {
                    self.there_is();
                    return answer;
                }
            };
            let mut state = self.lock();
            if state.patience != Patience::Endless {
                return Err(error);
            }
            if state.missing.is_none() {
                state.missing = Some((Instant::now(), in_words(&error)));
                tracing::error!(%error, "there is no room for the log; it waits until there is");
            }
            let pause =
                self.0.changed.wait_timeout_while(state, PAUSE, |state| state.patience == Patience::Endless);
            drop(pause.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What is missing and what to do, if somebody has been waiting for at least this long.
    pub fn missing_for(&self, at_least: Duration) -> Option<String> {
        let state = self.lock();
        let (since, why) = state.missing.as_ref()?;
        (since.elapsed() >= at_least).then(|| {
            format!("its log waits for room on the disk: {why}; free space for its data directory, and it goes on by itself")
        })
    }

    fn there_is(&self) {
        let mut state = self.lock();
        if let Some((since, _)) = state.missing.take() {
            tracing::info!(waited = ?since.elapsed(), "there is room for the log again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> io::Error {
        io::Error::from_raw_os_error(28)
    }

    #[test]
    fn waits_only_when_it_may_and_only_for_room() {
        let room = Room::default();
        assert!(room.wait_for(|| Err::<(), _>(full())).is_err(), "nobody said that it may wait");
        room.be_patient();
        assert_eq!(
            room.wait_for(|| Err::<(), _>(io::Error::other("bad page"))).unwrap_err().to_string(),
            "bad page"
        );

        let mut tries = 0;
        let written = room.wait_for(|| {
            tries += 1;
            if tries == 1 { Err(full()) } else { Ok(room.missing_for(Duration::ZERO)) }
        });
        let said = written.unwrap().unwrap();
        assert!(said.contains("no space left on device; free space"), "{said}");
        assert_eq!(room.missing_for(Duration::ZERO), None);
    }

    #[test]
    fn whoever_waits_is_let_go() {
        let room = Room::default();
        room.be_patient();
        let waiting = {
            let room = room.clone();
            std::thread::spawn(move || room.wait_for(|| Err::<(), _>(full())).is_err())
        };
        room.give_up();
        assert!(waiting.join().unwrap());
    }
}
