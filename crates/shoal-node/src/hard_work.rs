//! Work on a site under limits: what takes too long, or panics, is given up, and whoever waits for it goes on.
//!
//! A site is input like any other, and everybody gets the same: what one cannot digest must not hold up, or take down, the
//! node that tries. The work is done on a thread of its own. Nothing can end that one before it ends by itself, so that only a
//! few may be left behind.
//!
//! What counts is the time that it has had a CPU: a machine that was stopped, or is busy with other things, says nothing
//! against a site.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::thread_stat::ThreadStat;

/// Time of a CPU for a site to be read, checked and compiled.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// So many times as long is waited for work that does not get a CPU.
const PATIENCE: u32 = 6;
/// How much others come first, of 19 at most: on a busy machine it has a quarter of a CPU beside a thread that serves requests,
/// so that these are not held up by it, and it is still done in its time.
const NICENESS: i32 = 6;
/// Between two looks at how far it is.
const LEAST_WAIT: Duration = Duration::from_millis(20);
/// Work that nobody waits for any more, at once: with so much of it nothing is begun.
const MAX_LEFT_BEHIND: isize = 2;

/// What is left behind of what operators, or nodes on their behalf, want to be tried.
pub(crate) static TRIALS: LeftBehind = LeftBehind(AtomicIsize::new(0));
/// Of what is to be served.
pub(crate) static ACTIVATIONS: LeftBehind = LeftBehind(AtomicIsize::new(0));

/// How much work of one kind goes on though nobody waits for it.
pub(crate) struct LeftBehind(AtomicIsize);

/// The work was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GivenUp {
    /// It was the end of its thread.
    #[error("compiling it panicked")]
    Panicked,
    /// It goes on.
    #[error("compiling it takes longer than {0:?}")]
    TooSlow(Duration),
    /// It goes on, for want of a CPU.
    #[error("no CPU was free to compile it within {0:?}")]
    Starved(Duration),
    /// Others do.
    #[error("sites that take too long to compile, {0} of them, are still being worked on")]
    Busy(isize),
    /// Nothing was tried.
    #[error("no thread could be started to compile it: {0}")]
    NoThread(#[from] io::Error),
}

impl GivenUp {
    /// It would be no better another time.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(self, Self::Panicked | Self::TooSlow(_))
    }
}

impl LeftBehind {
    /// Does `work`, for no longer than `limit` of a CPU's time, and a few times that by the clock.
    pub(crate) fn within<T: Send + 'static>(
        &'static self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, GivenUp> {
        let left_behind = self.0.load(Ordering::Relaxed);
        if left_behind >= MAX_LEFT_BEHIND {
            return Err(GivenUp::Busy(left_behind));
        }
        // Set by whoever is first: the end of the work, or that of the wait for it.
        let over = Arc::new(AtomicBool::new(false));
        let (done, outcome) = mpsc::sync_channel(1);
        let (say_which, which) = mpsc::sync_channel(1);
        let over_here = over.clone();
        thread::Builder::new().name("hard work".to_owned()).spawn(move || {
            // Of this thread alone, as Linux has it; where that is not allowed it is as urgent as the rest.
            _ = rustix::process::nice(NICENESS);
            _ = say_which.send(rustix::thread::gettid());
            let ended = catch_unwind(AssertUnwindSafe(work));
            // There is room for it, and whoever does not wait any more does not want it.
            _ = done.send(ended);
            if over_here.swap(true, Ordering::AcqRel) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        })?;
        let (started, patience) = (Instant::now(), limit.saturating_mul(PATIENCE));
        let (mut thread, mut worked) = (None, Duration::ZERO);
        let ended = loop {
            match outcome.recv_timeout(limit.saturating_sub(worked).max(LEAST_WAIT)) {
                Ok(ended) => break ended,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(GivenUp::Panicked),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            thread = thread.or_else(|| which.try_recv().ok());
            worked = match thread {
                // It has not begun.
                None => Duration::ZERO,
                // Where that cannot be read, by the clock.
                Some(thread) => {
                    ThreadStat::read(thread).map_or_else(|| started.elapsed(), |stat| stat.on_cpu)
                }
            };
            let given_up = match () {
                () if worked >= limit => GivenUp::TooSlow(limit),
                () if started.elapsed() >= patience => GivenUp::Starved(patience),
                () => continue,
            };
            if over.swap(true, Ordering::AcqRel) {
                break outcome.recv().map_err(|_| GivenUp::Panicked)?;
            }
            self.0.fetch_add(1, Ordering::Relaxed);
            return Err(given_up);
        };
        ended.map_err(|_| GivenUp::Panicked)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;

    /// Work that is done when somebody says so.
    fn patient() -> (impl FnOnce() -> u8 + Send + 'static, mpsc::Sender<()>) {
        let (end, ended): (_, Receiver<()>) = mpsc::channel();
        let work = move || {
            _ = ended.recv();
            7
        };
        (work, end)
    }

    #[test]
    fn what_takes_too_long_is_left_behind_but_not_without_end() {
        static WORK: LeftBehind = LeftBehind(AtomicIsize::new(0));
        assert_eq!(WORK.within(LIMIT, || 7).unwrap(), 7);
        assert!(matches!(WORK.within(LIMIT, || -> u8 { panic!("planted") }), Err(GivenUp::Panicked)));
        // It waits for something, which costs no CPU.
        let moment = Duration::from_millis(1);
        let (works, ends): (Vec<_>, Vec<_>) = (0..MAX_LEFT_BEHIND).map(|_| patient()).unzip();
        for work in works {
            let given_up = WORK.within(moment, work).unwrap_err();
            assert!(!given_up.is_final(), "{given_up}");
            assert_eq!(given_up.to_string(), "no CPU was free to compile it within 6ms");
        }
        let busy = WORK.within(LIMIT, || 7).unwrap_err();
        assert!(!busy.is_final(), "{busy}");
        drop(ends);
        while WORK.0.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        assert_eq!(WORK.within(LIMIT, || 7).unwrap(), 7);
    }

    #[test]
    fn what_takes_too_much_of_a_cpu_is_too_slow_for_good() {
        static WORK: LeftBehind = LeftBehind(AtomicIsize::new(0));
        let end = Arc::new(AtomicBool::new(false));
        let seen = end.clone();
        let toil = move || {
            while !seen.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        let limit = Duration::from_millis(30);
        let given_up = loop {
            match WORK.within(limit, toil.clone()) {
                // Others have all CPUs: nothing is said against it.
                Err(GivenUp::Starved(_)) => {
                    end.store(true, Ordering::Relaxed);
                    while WORK.0.load(Ordering::Relaxed) > 0 {
                        thread::yield_now();
                    }
                    end.store(false, Ordering::Relaxed);
                }
                ended => break ended.unwrap_err(),
            }
        };
        end.store(true, Ordering::Relaxed);
        assert!(given_up.is_final(), "{given_up}");
        assert_eq!(given_up.to_string(), "compiling it takes longer than 30ms");
    }
}
