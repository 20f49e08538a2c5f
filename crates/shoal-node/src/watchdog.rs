//! Ends a process whose workers, or whose control runtime, hang: nothing else would notice, and whoever supervises it starts
//! a new one. The crash guard counts that as a death of the revision in force.
//!
//! It looks from a thread of its own, and waits for nothing that those it watches may hold. Whether one hangs is decided by
//! [`shoal_policy::watchdog`].

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
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
/// How long it may take to say why the process ends: the log may be what is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Who seems to hang, in words; `None` = nobody.
pub type Suspicion = Arc<ArcSwapOption<String>>;

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
        let workers = node.proxy.pulses().into_iter().enumerate();
        let workers = workers.map(|(number, pulse)| Watched::new(format!("worker-{number}"), pulse));
        let ticks = AbortOnDropHandle::new(tokio::spawn(tick(control.clone())));
        let control = Watched::new("the control runtime".to_owned(), control);
        let looks = Looks {
            limit,
            watched: workers.chain([control]).collect(),
            suspicion: node.suspicion.clone(),
            config: node.config.clone(),
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
    suspicion: Suspicion,
    config: Arc<ArcSwap<ConfigView>>,
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
            self.judge();
        }
    }

    fn judge(&self) {
        let Some(worst) = self.watched.iter().max_by_key(|watched| watched.silence) else { return };
        let verdict = worst.silence.verdict(self.limit);
        let words = || {
            let silent = worst.silence.0.as_secs_f64();
            format!("{} hangs: it has not ticked in {silent:.1} s in which it could have", worst.name)
        };
        match verdict {
            Verdict::Hung => self.end(words()),
            Verdict::Suspect => self.suspicion.store(Some(Arc::new(words()))),
            Verdict::Well => self.suspicion.store(None),
        }
    }

    /// Says `why`, and ends the process.
    fn end(&self, why: String) -> ! {
        let revision = self.config.load().revision;
        let (said, is_said) = mpsc::sync_channel(1);
        // What hangs may hold what whoever writes the log needs.
        let saying = thread::Builder::new().name("last words".to_owned()).spawn(move || {
            tracing::error!(%revision, "{why}; this process ends");
            _ = said.send(());
        });
        if saying.is_ok() {
            _ = is_said.recv_timeout(LAST_WORDS);
        }
        process::abort()
    }
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
}
