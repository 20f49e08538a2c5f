//! Traffic as numbers, summed over the workers: what `shoal top` shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_policy::failure::Failure;

use super::cells::{BUCKETS_US, Cell64, Judged, place_of};
use super::{Traffic, WorkerMetrics};

/// What went through a node since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficFigures {
    /// All listeners.
    pub total: TrafficSum,
    /// Requests for which no endpoint could be connected to.
    pub unconnected: u64,
    /// By route; at most as many as have series of their own.
    pub routes: BTreeMap<Arc<str>, TrafficSum>,
}

/// Requests, how many of them failed, and how long they took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficSum {
    /// All that have ended.
    pub requests: u64,
    /// Answered with a status from 500.
    pub errors: u64,
    /// What says something of what is served; routes only.
    pub judged: JudgedSum,
    /// Answered by the cache, without an origin; routes only.
    pub cache_hits: u64,
    /// Answered by an origin that the cache had to ask.
    pub cache_misses: u64,
    /// Bytes of bodies that the cache sent in the place of an origin.
    pub cache_hit_bytes: u64,
    /// Upper bound in µs (`None` = there is none) and how many lie between it and the one before.
    pub durations: Vec<(Option<u64>, u64)>,
}

/// Requests that say something of what is served ([`Tells`](shoal_policy::failure::Tells)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JudgedSum {
    /// All of them.
    pub requests: u64,
    /// Of those, what speaks against it.
    pub faults: u64,
    /// How long the answers took that did not wait for the downstream: upper bound in µs (`None` = there is none) and how many
    /// lie between it and the one before.
    pub times: Vec<(Option<u64>, u64)>,
}

impl TrafficFigures {
    pub(crate) fn of(workers: &[Arc<WorkerMetrics>]) -> Self {
        let mut figures = Self::default();
        for worker in workers {
            worker.listeners.lock().values().for_each(|traffic| figures.total.add(traffic));
            for failure in [Failure::UpstreamConnectFailed, Failure::UpstreamConnectTimeout] {
                figures.unconnected += worker.failures[place_of(failure)].read();
            }
            for (name, traffic) in worker.routes.lock().iter() {
                figures.routes.entry(name.clone()).or_default().add(traffic);
            }
        }
        figures
    }
}

impl TrafficSum {
    fn add(&mut self, traffic: &Traffic) {
        self.requests += traffic.classes.iter().map(|class| class.read()).sum::<u64>();
        self.errors += traffic.classes[4].read();
        self.cache_hits += traffic.cache_hits.read();
        self.cache_misses += traffic.cache_misses.read();
        self.cache_hit_bytes += traffic.cache_hit_bytes.read();
        add_buckets(&mut self.durations, &traffic.buckets);
        self.judged.add(&traffic.judged);
    }
}

impl JudgedSum {
    fn add(&mut self, judged: &Judged) {
        self.requests += judged.requests.read();
        self.faults += judged.faults.read();
        add_buckets(&mut self.times, &judged.buckets);
    }
}

fn add_buckets(sums: &mut Vec<(Option<u64>, u64)>, buckets: &[Cell64]) {
    if sums.is_empty() {
        let bounds = BUCKETS_US.iter().copied().map(Some).chain([None]);
        *sums = bounds.map(|bound| (bound, 0)).collect();
    }
    for ((_, sum), bucket) in sums.iter_mut().zip(buckets) {
        *sum += bucket.read();
    }
}
