//! Ends a process whose workers, or whose control runtime, hang: nothing else would notice, and whoever supervises it starts
//! a new one. The crash guard counts that as a death of the revision in force.
//!
//! It looks from a thread of its own, and waits for nothing that those it watches may hold. Whether one hangs is decided by
//! [`shoal_policy::watchdog`].

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustix::process::Pid;
use shoal_model::ConfigView;
use shoal_policy::watchdog::{Doing, LOOK_EVERY, Silence, Verdict};
use shoal_proxy::Pulse;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use crate::node::Node;
use crate::thread_stat::ThreadStat;

/// Between two ticks of the control runtime.
const TICK: Duration = Duration::from_millis(200);
/// How long it may take to say why the process ends: after that, the log is what is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the watchdog has against anybody.
#[derive(Debug, Default)]
pub struct Suspicion {
    words: ArcSwapOption<String>,
    is_any: AtomicBool,
}

impl Suspicion {
    /// Who seems to hang, in words; `None` = nobody.
    pub fn words(&self) -> Option<Arc<String>> {
        self.words.load_full()
    }

    /// Somebody is silent, for however long: whether it hangs is open.
    pub fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// `words` = for so long that it seems to hang.
    pub fn set(&self, is_any: bool, words: Option<String>) {
        self.words.store(words.map(Arc::new));
        self.is_any.store(is_any, Ordering::Relaxed);
    }
}

/// Watches until it is dropped.
pub struct Watchdog {
    is_over: Arc<AtomicBool>,
    looking: JoinHandle<()>,
    _ticks: AbortOnDropHandle<()>,
}

impl Watchdog {
    /// Watches the workers of `node`, and the control runtime, whose threads are those of `control` and which this must be
    /// called on. `None` = nobody wants it to.
    pub fn start(node: &Node, control: Arc<Pulse>) -> io::Result<Option<Self>> {
        let limit = node.settings.watchdog;
        if limit.is_zero() {
            return Ok(None);
        }
        let crash_guard = node.settings.crash_guard;
        if counts_too_soon(crash_guard, limit) {
            tracing::warn!(
                ?crash_guard,
                watchdog = ?limit,
                "a revision that hangs may count as good first: make --crash-guard longer than --watchdog"
            );
        }
        let workers = node.proxy.pulses().into_iter().enumerate();
        let workers = workers.map(|(number, pulse)| Watched::new(format!("worker-{number}"), pulse));
        let ticks = AbortOnDropHandle::new(tokio::spawn(tick(control.clone())));
        let control = Watched::new("the control runtime".to_owned(), control);
        let looks = Looks {
            limit,
            watched: workers.chain([control]).collect(),
            suspicion: node.suspicion.clone(),
            config: node.config.clone(),
            last_words: None,
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = is_over.clone();
        let looking = thread::Builder::new().name("watchdog".to_owned()).spawn(move || looks.go_on(&ends))?;
        Ok(Some(Self { is_over, looking, _ticks: ticks }))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.looking.thread().unpark();
    }
}

/// A revision is good after `crash_guard`, where there is one, and what hangs from its beginning is not ended by then.
fn counts_too_soon(crash_guard: Duration, limit: Duration) -> bool {
    !crash_guard.is_zero() && crash_guard <= limit
}

/// The signs of life of the runtime that it is polled on.
async fn tick(pulse: Arc<Pulse>) {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        pulse.tick(began.elapsed().as_millis() as u64 + 1);
    }
}

/// What the watchdog does.
struct Looks {
    limit: Duration,
    watched: Vec<Watched>,
    suspicion: Arc<Suspicion>,
    config: Arc<ArcSwap<ConfigView>>,
    /// Hears when they are said; `None` = nobody waits to say any.
    last_words: Option<Receiver<()>>,
}

impl Looks {
    fn go_on(mut self, is_over: &AtomicBool) {
        let mut looked = Instant::now();
        loop {
            thread::park_timeout(LOOK_EVERY);
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let since = looked.elapsed();
            looked += since;
            self.watched.iter_mut().for_each(|watched| watched.look(since));
            if let Some(why) = self.judge() {
                self.end(why);
                // That took a while: the next look is none that comes late.
                looked = Instant::now();
            }
        }
    }

    /// Who hangs, in words.
    fn judge(&mut self) -> Option<String> {
        let worst = self.watched.iter().max_by_key(|watched| watched.silence)?;
        let verdict = worst.silence.verdict(self.limit);
        if matches!(verdict, Verdict::Well | Verdict::Silent) {
            self.suspicion.set(verdict == Verdict::Silent, None);
            // Said too late, they are no word about what hangs next.
            self.last_words.take_if(|said| said.try_recv() != Err(TryRecvError::Empty));
            return None;
        }
        let silent = worst.silence.0.as_secs_f64();
        let words =
            format!("{} hangs: it has not ticked in {silent:.1} s in which it could have", worst.name);
        self.suspicion.set(true, Some(words.clone()));
        (verdict == Verdict::Hung).then_some(words)
    }

    /// Says `why`, and ends the process. Where that cannot be said, the log itself is stuck, and a new process would be, too.
    fn end(&mut self, why: String) {
        let revision = self.config.load().revision;
        let pending = self.last_words.take();
        let was_stuck = pending.is_some();
        let last_words =
            pending.unwrap_or_else(|| say(move || tracing::error!(%revision, "{why}; this process ends")));
        match last_words.recv_timeout(LAST_WORDS) {
            Err(RecvTimeoutError::Timeout) => self.last_words = Some(last_words),
            // What waited for the log as well goes on by the next look, or hangs.
            Ok(()) if was_stuck => {
                _ = say(|| tracing::warn!("the log was stuck: this process ends only if that still hangs"));
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => process::abort(),
        }
    }
}

/// Answers what hears when the `words` are said: what hangs may hold what whoever writes the log needs.
fn say(words: impl FnOnce() + Send + 'static) -> Receiver<()> {
    let (said, is_said) = mpsc::sync_channel(1);
    // Nobody is left to be waited for where there is no thread.
    _ = thread::Builder::new().name("last words".to_owned()).spawn(move || {
        words();
        _ = said.send(());
    });
    is_said
}

/// A runtime that is watched.
struct Watched {
    name: String,
    pulse: Arc<Pulse>,
    /// When it had ticked last at the look before.
    ticked_ms: u64,
    /// How long its threads had had a CPU by then, as far as it did not tick.
    on_cpu: Vec<(Pid, Duration)>,
    silence: Silence,
}

impl Watched {
    fn new(name: String, pulse: Arc<Pulse>) -> Self {
        Self { name, pulse, ticked_ms: 0, on_cpu: Vec::new(), silence: Silence::default() }
    }

    fn look(&mut self, since: Duration) {
        let ticked_ms = self.pulse.ticked_ms();
        let has_ticked = std::mem::replace(&mut self.ticked_ms, ticked_ms) != ticked_ms;
        let before = std::mem::take(&mut self.on_cpu);
        // Who ticks needs no closer look.
        let threads = if has_ticked { Vec::new() } else { self.pulse.threads() };
        let doing: Vec<_> = threads.into_iter().map(|thread| self.doing(thread, &before)).collect();
        self.silence.look(since, has_ticked, &doing);
    }

    /// What `thread` does, which had had a CPU for as long as it says in `before`.
    fn doing(&mut self, thread: Pid, before: &[(Pid, Duration)]) -> Doing {
        let Some(ThreadStat { state, on_cpu }) = ThreadStat::read(thread) else { return Doing::IsHeld };
        self.on_cpu.push((thread, on_cpu));
        let had = before.iter().find(|(known, _)| *known == thread).map_or(on_cpu, |(_, had)| *had);
        match state {
            'S' => Doing::Sleeps,
            'R' => Doing::Runs(on_cpu.saturating_sub(had)),
            _ => Doing::IsHeld,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a look at the calling thread, and at one that `does`, takes note of when the other one does not tick.
    fn silence_of(does: impl FnOnce(&AtomicBool) + Send + 'static) -> Duration {
        let (pulse, is_over) = (Arc::new(Pulse::default()), Arc::new(AtomicBool::new(false)));
        let (entered, has_entered) = mpsc::sync_channel(1);
        let (beating, ends) = (pulse.clone(), is_over.clone());
        let thread = thread::spawn(move || {
            beating.enter();
            entered.send(()).unwrap();
            does(&ends);
        });
        has_entered.recv().unwrap();
        let mut watched = Watched::new("it".to_owned(), pulse.clone());
        let began = Instant::now();
        while watched.silence.0 < LOOK_EVERY && began.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(20));
            watched.look(Duration::from_millis(100));
        }
        let silence = watched.silence.0;
        pulse.tick(1);
        watched.look(LOOK_EVERY);
        assert_eq!(watched.silence.0, Duration::ZERO, "it has ticked");
        is_over.store(true, Ordering::Relaxed);
        thread.thread().unpark();
        thread.join().unwrap();
        silence
    }

    #[test]
    fn an_endless_loop_and_an_endless_wait_are_noticed() {
        let spins = |is_over: &AtomicBool| {
            while !is_over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        let waits = |is_over: &AtomicBool| {
            while !is_over.load(Ordering::Relaxed) {
                thread::park();
            }
        };
        assert!(silence_of(spins) >= LOOK_EVERY);
        assert!(silence_of(waits) >= LOOK_EVERY);
    }

    #[test]
    fn what_hangs_is_ended_before_its_revision_is_good() {
        for (crash_guard, limit, expected) in [(60, 10, false), (10, 10, true), (5, 10, true), (0, 10, false)]
        {
            let seen = counts_too_soon(Duration::from_secs(crash_guard), Duration::from_secs(limit));
            assert_eq!(seen, expected, "{crash_guard} {limit}");
        }
    }

    #[test]
    fn nothing_is_ended_for_a_log_that_is_stuck() {
        let (said, last_words) = mpsc::sync_channel(1);
        let mut looks = Looks {
            limit: Duration::ZERO,
            watched: vec![Watched::new("it".to_owned(), Arc::default())],
            suspicion: Arc::default(),
            config: Arc::new(ArcSwap::from_pointee(ConfigView::default())),
            last_words: Some(last_words),
        };
        for _ in 0..2 {
            let why = looks.judge().unwrap();
            looks.end(why);
            assert!(looks.last_words.is_some(), "they still wait");
            assert!(looks.suspicion.words().is_some());
        }
        looks.limit = LOOK_EVERY;
        assert_eq!(looks.judge(), None);
        assert!(looks.last_words.is_some() && looks.suspicion.words().is_none());
        said.send(()).unwrap();
        assert_eq!(looks.judge(), None);
        assert!(looks.last_words.is_none(), "it does not hang any more");
        let (said, last_words) = mpsc::sync_channel(1);
        (looks.limit, looks.last_words) = (Duration::ZERO, Some(last_words));
        said.send(()).unwrap();
        let why = looks.judge().unwrap();
        looks.end(why);
        assert!(looks.last_words.is_none(), "what waited for the log has the time to go on");
    }
}
