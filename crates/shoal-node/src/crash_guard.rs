//! Keeps a node from dying of one revision again and again.
//!
//! Before a revision is put in force for the first time, that is written down (`activating.json`), and taken away once the
//! node has served it for a while. A process that finds the mark of one before it, which did not end as it should, counts:
//! after two such ends the revision is refused here, whatever is asked, and what was good before is served. A new revision
//! is tried, and so is the same one by another version of the program. Somebody who kills a node twice in that time with
//! SIGKILL cannot be told from a crash here: whether the revision is to blame, the other nodes know ([`crate::poison`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shoal_model::Revision;

use crate::watchdog::Suspicion;

/// In the data directory.
pub(crate) const FILE: &str = "activating.json";
/// The file is never shorter: what is written over it has the same size.
const RECORD_BYTES: usize = 256;
/// How many processes may die of a revision.
const MAX_CRASHES: u32 = 2;
/// Between two looks whether anybody still seems to hang.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A revision that has not proven itself here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    revision: Revision,
    /// A process serves it, or has not lived to say that it does not any more.
    in_force: bool,
    /// Processes that have not.
    crashes: u32,
    /// Of the program.
    version: String,
}

/// What a revision was put in force over.
#[derive(Debug)]
pub struct Before {
    mark: Option<Mark>,
    due: Option<Instant>,
    /// What is kept on disk has proven itself: it is worth being kept as the one before.
    pub is_good: bool,
}

/// Counts how often this node has died of the revision that it serves.
#[derive(Debug)]
pub struct CrashGuard {
    /// Held by whoever changes the state, until that is on disk; taken before it. Who only looks waits for no disk.
    file: Mutex<PathBuf>,
    /// For how long a revision has to be served until it counts as good; zero = all are.
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mark: Option<Mark>,
    /// It needs no mark any more.
    good: Option<Revision>,
    /// When the marked one has proven itself.
    due: Option<Instant>,
    /// This process ends because it was told to: whatever comes meanwhile is not to blame.
    stopping: bool,
}

impl CrashGuard {
    /// Takes up what the process before has left in `data_dir`, where `kept` is the site that is served first. One that is a
    /// `successor` of a process that is still there has no crash to count.
    pub fn open(data_dir: &Path, window: Duration, kept: Option<Revision>, successor: bool) -> Self {
        let path = data_dir.join(FILE);
        let found = if window.is_zero() { None } else { read(&path) };
        let mark =
            found.clone().map(|mark| if successor { mark } else { judge(mark, env!("CARGO_PKG_VERSION")) });
        let good = kept.filter(|kept| mark.as_ref().is_none_or(|mark| mark.revision != *kept));
        if mark != found {
            note(&path, mark.as_ref());
        }
        let state = Mutex::new(State { mark: mark.clone(), good, due: None, stopping: false });
        let guard = Self { file: Mutex::new(path), window, state };
        if let Some(Mark { revision, crashes: 1.., .. }) = mark {
            let refused = guard.refusal(revision).is_some();
            tracing::warn!(%revision, refused, "the process before has died of a revision, or soon after it came");
        }
        guard
    }

    /// Why `revision` must not be put in force here; `None` = it may.
    pub fn refusal(&self, revision: Revision) -> Option<String> {
        let state = self.state();
        let mark = state.mark.as_ref().filter(|mark| mark.revision == revision && is_deadly(mark))?;
        Some(format!(
            "{} processes of this node have died within {:?} of taking it up: what was good before is served; a new \
             revision is tried again",
            mark.crashes, self.window
        ))
    }

    /// A revision that is refused.
    pub fn refused(&self) -> Option<Revision> {
        self.state().mark.as_ref().filter(|mark| is_deadly(mark)).map(|mark| mark.revision)
    }

    /// `active`, which is in force, if it has proven itself here.
    pub fn proven(&self, active: Revision) -> Option<Revision> {
        let state = self.state();
        state.mark.as_ref().is_none_or(|mark| mark.revision != active).then_some(active)
    }

    /// `revision` is about to be put in force.
    pub fn begin(&self, revision: Revision) -> Before {
        let file = self.file();
        let mut state = self.state();
        let before = Before { mark: state.mark.clone(), due: state.due, is_good: state.mark.is_none() };
        // What is served in the place of one that is refused must not take its mark away.
        let is_way_out = before.mark.as_ref().is_some_and(|mark| is_deadly(mark) && revision < mark.revision);
        if self.window.is_zero() || state.good == Some(revision) || is_way_out {
            return before;
        }
        let crashes =
            before.mark.as_ref().filter(|mark| mark.revision == revision).map_or(0, |mark| mark.crashes);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let mark = Some(Mark { revision, in_force: !state.stopping, crashes, version });
        (state.mark, state.due) = (mark.clone(), None);
        drop(state);
        note(&file, mark.as_ref());
        before
    }

    /// It is in force: from now on it has to prove itself. How long it took to compile it proves nothing.
    pub fn serves(&self, revision: Revision) {
        let mut state = self.state();
        if state.mark.as_ref().is_some_and(|mark| mark.in_force && mark.revision == revision) {
            state.due = Some(Instant::now() + self.window);
        }
    }

    /// It could not be: what was there before is served on.
    pub fn abandon(&self, before: Before) {
        let file = self.file();
        let mut state = self.state();
        let stopping = state.stopping;
        let mark = before.mark.map(|mark| Mark { in_force: mark.in_force && !stopping, ..mark });
        let given_up = mem::replace(&mut state.mark, mark.clone());
        state.due = before.due;
        drop(state);
        if given_up != mark {
            note(&file, mark.as_ref());
        }
    }

    /// When the revision in force has proven itself, if that is still open.
    fn due(&self) -> Option<Instant> {
        self.state().due
    }

    /// Resolves when the revision in force has proven itself, if that is still open: not while there is any `suspicion`.
    pub async fn prove_in_time(&self, suspicion: &Suspicion) {
        match self.due() {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
        while suspicion.is_any() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.prove();
    }

    /// Its time has come.
    fn prove(&self) {
        let file = self.file();
        let mut state = self.state();
        state.due = None;
        if let Some(Mark { revision, .. }) = state.mark.take() {
            state.good = Some(revision);
            drop(state);
            tracing::info!(%revision, "the revision has proven itself here");
            note(&file, None);
        }
    }

    /// This process ends because it was told to.
    pub fn stopped(&self) {
        let file = self.file();
        let mut state = self.state();
        (state.due, state.stopping) = (None, true);
        if let Some(mark) = state.mark.as_mut().filter(|mark| mark.in_force) {
            mark.in_force = false;
            let mark = mark.clone();
            drop(state);
            note(&file, Some(&mark));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> MutexGuard<'_, PathBuf> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serving goes before guarding: a disk that cannot be written to keeps no revision away.
fn note(path: &Path, mark: Option<&Mark>) {
    if let Err(error) = write(path, mark) {
        tracing::error!(path = %path.display(), %error, "cannot note which revision is being taken up");
    }
}

/// What a process makes of the mark that it finds.
fn judge(found: Mark, version: &str) -> Mark {
    let crashes = match found.version == version {
        true => found.crashes + u32::from(found.in_force),
        false => 0,
    };
    Mark { crashes, in_force: false, version: version.to_owned(), ..found }
}

fn is_deadly(mark: &Mark) -> bool {
    mark.crashes >= MAX_CRASHES
}

/// A mark is on disk before the revision is in force. Over the one before and of its size, which takes the disk one flush;
/// torn is only what a machine loses with its power, and that is no mark of a crash.
fn write(path: &Path, mark: Option<&Mark>) -> io::Result<()> {
    let is_new = !path.exists();
    let mut record = serde_json::to_vec(&mark).map_err(io::Error::other)?;
    record.resize(record.len().max(RECORD_BYTES), b' ');
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.write_all(&record)?;
    if mark.is_some() {
        file.sync_data()?;
    }
    match path.parent().filter(|_| is_new) {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Option<Mark> {
    let text = fs::read(path).inspect_err(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "cannot read which revision was being taken up");
        }
    });
    serde_json::from_slice(&text.ok()?).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    /// What one process does, in words: `3` begins revision 3, `prove`, `stop`, `fail` abandons what was begun last; then it
    /// is gone. The next one refuses `expected`.
    fn check(lives: &[&str], expected: Option<u64>) {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Some(Revision(1));
        for life in lives {
            let (life, successor) = life.strip_prefix("after ").map_or((*life, false), |life| (life, true));
            let guard = CrashGuard::open(dir.path(), WINDOW, kept, successor);
            let mut before = None;
            for word in life.split_whitespace() {
                match word {
                    "prove" => guard.prove(),
                    "stop" => guard.stopped(),
                    "stop-in-3" => {
                        let before = guard.begin(Revision(3));
                        guard.stopped();
                        guard.abandon(before);
                    }
                    "fail" => guard.abandon(before.take().unwrap()),
                    number => {
                        let revision = Revision(number.parse().unwrap());
                        assert_eq!(guard.refusal(revision), None, "{lives:?}: {life}");
                        before = Some(guard.begin(revision));
                        kept = Some(revision);
                    }
                }
            }
        }
        let last = CrashGuard::open(dir.path(), WINDOW, kept, false);
        assert_eq!(last.refused(), expected.map(Revision), "{lives:?}");
        assert_eq!(
            expected.and_then(|revision| last.refusal(Revision(revision))).is_some(),
            expected.is_some()
        );
    }

    #[test]
    fn two_deaths_are_enough() {
        check(&[], None);
        check(&["2"], None);
        check(&["2", "2"], Some(2));
        check(&["2", "2", ""], Some(2)); // it stays refused
        check(&["2", "2", "1", "1", "1"], Some(2));
        check(&["2", "2", "3"], None); // another one is tried
        check(&["2", "", "2"], Some(2)); // a start that got nowhere is no death of a revision
        check(&["2", "", ""], None);
        check(&["2 3", "3"], Some(3)); // the last one counts
        check(&["2", "3"], None);
    }

    #[test]
    fn what_is_good_may_die() {
        check(&["2 prove", "2", "2", "2"], None);
        check(&["2", "2 prove", "2"], None);
        check(&["1", "1", "1"], None); // it is served since before there was a guard
        check(&["2 stop", "2 stop", "2 stop"], None);
        check(&["2", "2 stop", "2"], Some(2));
        check(&["2", "after 2", "after 2 stop"], None); // it has handed over
        check(&["2", "2 3 fail"], Some(2)); // what could not be taken up was not the end of it
        check(&["2 stop 3", "3 stop", "3"], None); // what comes while it ends is not to blame for that
        check(&["2", "2 stop-in-3"], None);
    }

    #[test]
    fn the_one_before_is_kept_if_it_was_good() {
        let dir = tempfile::tempdir().unwrap();
        let guard = CrashGuard::open(dir.path(), WINDOW, Some(Revision(1)), false);
        assert!(guard.begin(Revision(2)).is_good && guard.due().is_none());
        guard.serves(Revision(2));
        assert!(guard.due().is_some());
        assert!(!guard.begin(Revision(3)).is_good && guard.due().is_none());
        guard.serves(Revision(2));
        assert!(guard.due().is_none(), "what takes its place is compiled meanwhile");
        assert_eq!(guard.proven(Revision(3)), None);
        guard.prove();
        assert_eq!(guard.proven(Revision(3)), Some(Revision(3)));
        assert!(guard.begin(Revision(4)).is_good);
        let off = CrashGuard::open(dir.path(), Duration::ZERO, Some(Revision(1)), false);
        assert!(off.begin(Revision(5)).is_good);
        off.serves(Revision(5));
        assert!(off.due().is_none());
    }

    #[tokio::test]
    async fn nothing_proves_itself_while_anybody_seems_to_hang() {
        let dir = tempfile::tempdir().unwrap();
        let guard = CrashGuard::open(dir.path(), Duration::from_millis(1), Some(Revision(1)), false);
        guard.begin(Revision(2));
        guard.serves(Revision(2));
        let suspicion = Suspicion::default();
        suspicion.set(true, None);
        let proving = guard.prove_in_time(&suspicion);
        assert!(tokio::time::timeout(Duration::from_millis(100), proving).await.is_err());
        assert_eq!(guard.proven(Revision(2)), None);
        suspicion.set(false, None);
        guard.prove_in_time(&suspicion).await;
        assert_eq!(guard.proven(Revision(2)), Some(Revision(2)));
    }

    #[test]
    fn who_looks_waits_for_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let guard = CrashGuard::open(dir.path(), WINDOW, Some(Revision(1)), false);
        // Whoever opens it to write waits for somebody who reads.
        mkfifoat(CWD, dir.path().join(FILE).as_path(), Mode::RUSR | Mode::WUSR).unwrap();
        let (tell, told) = mpsc::channel();
        thread::scope(|threads| {
            threads.spawn(|| guard.begin(Revision(2)));
            threads.spawn(|| {
                while guard.proven(Revision(2)).is_some() {
                    thread::yield_now();
                }
                _ = tell.send(());
            });
            let looked = told.recv_timeout(Duration::from_secs(20));
            let written = read(&dir.path().join(FILE));
            assert_eq!(looked, Ok(()));
            assert_eq!(written.map(|mark| mark.revision), Some(Revision(2)));
        });
    }

    #[test]
    fn another_version_of_the_program_tries_again() {
        let mark = |version: &str, crashes, in_force| {
            let version = version.to_owned();
            Mark { revision: Revision(2), in_force, crashes, version }
        };
        assert_eq!(judge(mark("1", 1, true), "1"), mark("1", 2, false));
        assert_eq!(judge(mark("1", 2, false), "1"), mark("1", 2, false));
        assert_eq!(judge(mark("1", 2, true), "2"), mark("2", 0, false));
    }
}
