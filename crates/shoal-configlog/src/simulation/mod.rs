//! The promises of the config log, kept whatever happens: nodes are killed, stop, are cut off, hear nobody or are heard by
//! nobody, messages are lost or come late, disks are slow and fail. Everything is the log's own ([`ConfigLog`] with openraft,
//! its service, its proposals and what they are forwarded by, its reads, the replicated state and its snapshots) but the wire
//! ([`wire`]), the file ([`disk`]), the clock and the dice ([`seeded`]), so that one seed is always one story. What is promised:
//!
//! * What was acknowledged is there, in the order in which it was acknowledged, and once, however often it was proposed.
//! * What was refused was not done.
//! * Who reads what is agreed sees no less than anybody has seen before.
//! * When everything is well again, all nodes come to the same state, and soon.
//!
//! `just sim` plays a thousand seeds, `just sim SEED` tells the story of one.
//!
//! [`ConfigLog`]: crate::ConfigLog

mod clients;
mod disk;
mod fate;
mod figures;
mod scenes;
mod seeded;
mod wire;
mod world;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

pub use seeded::Seeded;
pub use wire::{PeerChannel, Peers};

use self::figures::Figures;
use self::world::{Played, play};

/// How many seeds a test run plays; `just sim` says more.
const SEEDS: u64 = 40;
/// Threads that play them.
const PLAYERS: usize = 2;

thread_local! {
    static UNCONFIRMED: Cell<bool> = const { Cell::new(false) };
}

/// Whether what is called a linearizable read asks nobody: a mistake made on purpose.
pub fn reads_are_unconfirmed() -> bool {
    UNCONFIRMED.get()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn tell(seed: u64) -> Played {
    let played = play(seed, true);
    println!("{:?}\nseed {seed}: {:?}", played.figures, played.outcome);
    played
}

#[test]
fn promises_are_kept_whatever_happens() {
    if let Some(seed) = number("SHOAL_SIM_SEED") {
        let played = tell(seed);
        assert_eq!(played.outcome, Ok(()));
        return;
    }
    let seeds = number("SHOAL_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(1);
    let started = std::time::Instant::now();
    let player = || {
        let mut sum = Figures::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > seeds {
                return sum;
            }
            let played = play(seed, false);
            if let Err(broken) = played.outcome {
                tell(seed);
                panic!("seed {seed}: {broken}; `just sim {seed}` tells it again");
            }
            sum = sum.with(&played.figures);
        }
    };
    let sums = std::thread::scope(|scope| {
        let players: Vec<_> = (0..PLAYERS).map(|_| scope.spawn(player)).collect();
        players.into_iter().map(|player| player.join()).collect::<Vec<_>>()
    });
    let mut sum = Figures::default();
    for played in sums {
        sum = sum.with(&played.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
    println!("{seeds} seeds in {:.0} s: {sum:?}", started.elapsed().as_secs_f64());
    assert!(sum.least() >= seeds / 10, "too little happens: {sum:?}");
}

#[test]
fn a_seed_is_always_the_same_story() {
    for seed in [3, 5, 8] {
        let (once, again) = (play(seed, false), play(seed, false));
        assert_eq!((once.outcome, once.trace), (again.outcome, again.trace), "seed {seed}");
    }
    assert_ne!(play(3, false).trace, play(5, false).trace);
}

#[test]
fn reads_that_ask_nobody_are_found_out() {
    UNCONFIRMED.set(true);
    let found = (1..=30).map(|seed| (seed, play(seed, false).outcome)).find(|(_, outcome)| outcome.is_err());
    let (seed, outcome) = found.expect("thirty seeds are enough");
    println!("seed {seed}: {outcome:?}");
    assert!(outcome.is_err_and(|broken| broken.contains("had been seen")));
}
