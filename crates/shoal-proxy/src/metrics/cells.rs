//! Cells with one writer: adding is a load and a store, without a locked instruction.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shoal_policy::failure::{Failure, Tells};
use shoal_policy::gate::RULES;

/// Upper bounds of the duration histogram, µs; one more bucket has no bound.
pub(super) const BUCKETS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];
/// Rules of the gate.
pub(super) const GATE_RULES: usize = RULES.len();
/// Kinds of failure.
pub(super) const FAILURES: usize = ALL_FAILURES.len();

/// One of each kind of failure, in the order of their cells.
pub(super) const ALL_FAILURES: [Failure; 23] = [
    Failure::BadRequest(""),
    Failure::UriTooLong,
    Failure::HeadTooLarge,
    Failure::BodyTooLarge,
    Failure::ExpectationFailed,
    Failure::Misdirected,
    Failure::DownstreamReset,
    Failure::DownstreamTimeout,
    Failure::UpstreamConnectFailed,
    Failure::UpstreamConnectTimeout,
    Failure::UpstreamReset,
    Failure::UpstreamProtocol,
    Failure::UpstreamResponseTimeout,
    Failure::NoRoute,
    Failure::NoEndpoint,
    Failure::Overflow,
    Failure::Overload,
    Failure::Draining,
    Failure::Loop,
    Failure::NotCached,
    Failure::Unverified,
    Failure::UnknownProtocol,
    Failure::Internal,
];

/// The cell of `failure`.
pub(super) fn place_of(failure: Failure) -> usize {
    let kind = std::mem::discriminant(&failure);
    let found = ALL_FAILURES.iter().position(|other| std::mem::discriminant(other) == kind);
    found.unwrap_or(FAILURES - 1)
}

/// A number that only one thread changes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Cell64(AtomicU64);

impl Cell64 {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the cache was for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CacheUse {
    /// It was not asked, or the request is of a kind that it never answers.
    #[default]
    None,
    /// It answered without an origin.
    Hit,
    /// An origin had to be asked.
    Miss,
}

/// One request as it is counted.
pub(crate) struct Sample {
    pub(crate) status: u16,
    /// It came over TLS.
    pub(crate) https: bool,
    pub(crate) duration: Duration,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) cache: CacheUse,
}

/// What went through a listener, a route or an upstream.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Requests by class of status, `1xx` to `5xx`.
    pub(crate) classes: [Cell64; 5],
    pub(crate) buckets: [Cell64; BUCKETS_US.len() + 1],
    pub(crate) duration_us: Cell64,
    pub(crate) request_bytes: Cell64,
    pub(crate) response_bytes: Cell64,
    /// Connections that were carried as they are, without requests.
    pub(crate) carried: Cell64,
    /// Requests over TLS.
    pub(crate) tls: Cell64,
    /// Requests that the cache answered; routes only.
    pub(crate) cache_hits: Cell64,
    /// The bytes of their bodies, which no origin has sent.
    pub(crate) cache_hit_bytes: Cell64,
    /// Requests that the cache was asked for and an origin had to answer.
    pub(crate) cache_misses: Cell64,
    /// What says something of what is served; routes only.
    pub(crate) judged: Judged,
    /// Tries after the first; upstreams only.
    pub(crate) retries: Cell64,
    /// Requests refused because too many waited for a connection, or too many connections were open; upstreams only.
    pub(crate) overflows: Cell64,
    /// Requests sent although health said no, because too little was left; upstreams only.
    pub(crate) panics: Cell64,
}

/// Requests that say something of what is served.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) requests: Cell64,
    /// Of those, what speaks against it.
    pub(crate) faults: Cell64,
    /// How long the answers took that did not wait for the downstream.
    pub(crate) buckets: [Cell64; BUCKETS_US.len() + 1],
}

impl Judged {
    /// A request that was answered after so long; `None` = that says nothing.
    pub(crate) fn record(&self, tells: Tells, answered: Option<Duration>) {
        if tells == Tells::Nothing {
            return;
        }
        self.requests.add(1);
        self.faults.add((tells == Tells::Fault).into());
        if let Some(answered) = answered {
            self.buckets[bucket_of(answered.as_micros() as u64)].add(1);
        }
    }
}

fn bucket_of(duration_us: u64) -> usize {
    BUCKETS_US.partition_point(|bound| *bound < duration_us)
}

impl Traffic {
    pub(crate) fn record(&self, sample: &Sample) {
        let class = usize::from(sample.status / 100).clamp(1, 5) - 1;
        self.classes[class].add(1);
        self.tls.add(sample.https.into());
        let duration_us = sample.duration.as_micros() as u64;
        self.buckets[bucket_of(duration_us)].add(1);
        self.duration_us.add(duration_us);
        self.request_bytes.add(sample.request_bytes);
        self.response_bytes.add(sample.response_bytes);
        match sample.cache {
            CacheUse::None => {}
            CacheUse::Hit => {
                self.cache_hits.add(1);
                self.cache_hit_bytes.add(sample.response_bytes);
            }
            CacheUse::Miss => self.cache_misses.add(1),
        }
    }

    /// A connection that was carried as it is has ended.
    pub(crate) fn record_carried(&self, received: u64, sent: u64) {
        self.carried.add(1);
        self.request_bytes.add(received);
        self.response_bytes.add(sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_own_cell() {
        for (place, failure) in ALL_FAILURES.iter().enumerate() {
            assert_eq!(place_of(*failure), place, "{failure:?}");
        }
        assert_eq!(place_of(Failure::BadRequest("host_missing")), 0);
    }

    #[test]
    fn only_what_says_something_is_judged() {
        let judged = Judged::default();
        let took = Some(Duration::from_millis(30));
        for (tells, answered) in [
            (Tells::Nothing, took),
            (Tells::Good, took),
            (Tells::Fault, took),
            (Tells::Good, None), // it took its time to send its body
        ] {
            judged.record(tells, answered);
        }
        let timed: Vec<u64> = judged.buckets.iter().map(Cell64::read).collect();
        assert_eq!((judged.requests.read(), judged.faults.read()), (3, 1));
        assert_eq!((timed[6], timed.iter().sum::<u64>()), (2, 2), "between 25 and 50 ms");
    }

    #[test]
    fn samples_land_in_their_buckets() {
        let check = |duration_us, bucket: usize| {
            let traffic = Traffic::default();
            let duration = Duration::from_micros(duration_us);
            traffic.record(&Sample {
                status: 404,
                https: false,
                duration,
                request_bytes: 1,
                response_bytes: 2,
                cache: CacheUse::Hit,
            });
            let saved = [&traffic.cache_hits, &traffic.cache_hit_bytes, &traffic.cache_misses];
            assert_eq!(saved.map(Cell64::read), [1, 2, 0]);
            assert_eq!(traffic.buckets[bucket].read(), 1, "{duration_us}");
            assert_eq!(traffic.classes[3].read(), 1);
        };
        check(0, 0);
        check(500, 0);
        check(501, 1);
        check(10_000_001, BUCKETS_US.len());
    }
}
