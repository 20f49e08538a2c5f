//! What the clients saw: answers by node, their latency, and every fault by kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Kinds of faults that are told apart; more than that is told as one.
const MAX_KINDS: usize = 100;
/// Latencies of a node that are kept in one minute.
const MAX_LATENCIES: usize = 2_000_000;
/// Longest text of a kind, bytes.
const MAX_TEXT: usize = 160;

/// Shared by all clients.
pub struct Tally {
    nodes: Vec<Mutex<Minute>>,
    faults: Mutex<BTreeMap<String, u64>>,
}

#[derive(Default)]
struct Minute {
    /// Microseconds, of small answers.
    latencies: Vec<u32>,
    answered: u64,
    bytes: u64,
}

/// What a node carried in a minute.
pub struct Carried {
    pub answered: u64,
    bytes: u64,
    p50_us: u32,
    p99_us: u32,
    lasted: Duration,
}

impl Tally {
    pub fn new(nodes: usize) -> Self {
        Self { nodes: (0..nodes).map(|_| Mutex::default()).collect(), faults: Mutex::default() }
    }

    /// A right answer of `node`; its latency counts if it is one of the small ones.
    pub fn answered(&self, node: usize, bytes: usize, latency: Option<Duration>) {
        let mut minute = lock(&self.nodes[node]);
        minute.answered += 1;
        minute.bytes += bytes as u64;
        if let Some(latency) = latency
            && minute.latencies.len() < MAX_LATENCIES
        {
            minute.latencies.push(latency.as_micros().min(u128::from(u32::MAX)) as u32);
        }
    }

    /// Something that should not have been. Numbers are left out of its kind, so that like is counted with like.
    pub fn fault(&self, node: usize, what: &str, error: impl fmt::Display) {
        let text: String =
            format!("{error:#}").chars().filter(|c| !c.is_ascii_digit() && !c.is_control()).collect();
        let mut kind = format!("n{} {what}: {text}", node + 1);
        kind.truncate(kind.floor_char_boundary(MAX_TEXT));
        let mut faults = lock(&self.faults);
        let kind =
            if faults.len() < MAX_KINDS || faults.contains_key(&kind) { kind } else { "others".to_owned() };
        *faults.entry(kind).or_default() += 1;
    }

    /// What each node carried since the last call.
    pub fn take_minute(&self, lasted: Duration) -> Vec<Carried> {
        let take = |node: &Mutex<Minute>| {
            let Minute { mut latencies, answered, bytes } = std::mem::take(&mut *lock(node));
            latencies.sort_unstable();
            let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or(0);
            Carried { answered, bytes, p50_us: at(50), p99_us: at(99), lasted }
        };
        self.nodes.iter().map(take).collect()
    }

    /// Every kind of fault so far, and how often.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.faults).iter().map(|(kind, count)| format!("{count} × {kind}")).collect()
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lasted.as_secs().max(1);
        let (per_second, mib) = (self.answered / seconds, self.bytes >> 20);
        write!(f, "{} requests ({per_second}/s, {mib} MiB), ", self.answered)?;
        write!(f, "p50 {} µs, p99 {} µs", self.p50_us, self.p99_us)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
