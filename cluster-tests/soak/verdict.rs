//! Whether the nodes stay as they are: the trend of memory and descriptors over the last two thirds of each process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use cluster_tests::{Cluster, Weight};

/// A shorter life shows no trend.
const SHORTEST: Duration = Duration::from_secs(60);
/// What memory may grow by over the time that is judged: this much, KiB, or the share below of what it is.
const RSS_GROWTH_KIB: f64 = 8192.0;
const RSS_GROWTH_SHARE: f64 = 0.05;
/// What descriptors may grow by: callers come and go.
const DESCRIPTOR_GROWTH: f64 = 24.0;

/// For an old process to end after another took its place: a drain takes half of it at most.
const OLD_ENDS: Duration = Duration::from_secs(60);

/// Everything that was seen of the processes.
#[derive(Default)]
pub struct Watch {
    /// By node and process.
    lives: BTreeMap<(usize, u32), Vec<(Duration, Weight)>>,
    last: BTreeMap<usize, Vec<Weight>>,
    /// Since when a node has two processes.
    doubled: BTreeMap<usize, Duration>,
    lost: BTreeSet<String>,
}

impl Watch {
    /// Looks at every node.
    pub fn sample(&mut self, cluster: &Cluster, at: Duration) -> Result<()> {
        for (node, process) in cluster.nodes.iter().enumerate() {
            let weights = Weight::of_node(&process.data_dir())?;
            if weights.is_empty() {
                self.lost.insert(format!("n{} ceased to run", node + 1));
            }
            if weights.len() < 2 {
                self.doubled.remove(&node);
            } else if at.saturating_sub(*self.doubled.entry(node).or_insert(at)) > OLD_ENDS {
                self.lost.insert(format!("the old process of n{} did not end", node + 1));
            }
            // One that only ends its connections gives back what it has; it is not judged.
            if let Some(serving) = weights.last() {
                self.lives.entry((node, serving.pid)).or_default().push((at, *serving));
            }
            self.last.insert(node, weights);
        }
        Ok(())
    }

    /// The last look at a node, in words.
    pub fn last(&self, node: usize) -> String {
        let words = |weight: &Weight| {
            let Weight { pid, rss_kib, descriptors, threads, .. } = weight;
            format!("[{pid}: {} MiB, {descriptors} fds, {threads} threads]", rss_kib >> 10)
        };
        let weights = self.last.get(&node).map(Vec::as_slice).unwrap_or_default();
        weights.iter().map(words).collect::<Vec<_>>().join(" ")
    }

    /// What grew, and who died.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.lost.iter().cloned().collect();
        for ((node, pid), life) in &self.lives {
            let judged = last_two_thirds(life);
            let (Some((first, _)), Some((last, weight))) = (judged.first(), judged.last()) else { continue };
            if *last - *first < SHORTEST {
                continue;
            }
            let minutes = (*last - *first).as_secs_f64() / 60.0;
            let mut judge = |what: &str, growth: f64, bound: f64| {
                if growth > bound {
                    let who = format!("n{} (process {pid})", node + 1);
                    faults.push(format!(
                        "{what} of {who} grew by {growth:.0} in {minutes:.1} min, {bound:.0} allowed"
                    ));
                }
            };
            let bound = RSS_GROWTH_KIB.max(weight.rss_kib as f64 * RSS_GROWTH_SHARE);
            judge("RSS in KiB", growth(judged, |weight| weight.rss_kib), bound);
            judge("descriptors", growth(judged, |weight| weight.descriptors), DESCRIPTOR_GROWTH);
            judge("threads", growth(judged, |weight| weight.threads), 4.0);
        }
        faults
    }
}

fn last_two_thirds(life: &[(Duration, Weight)]) -> &[(Duration, Weight)] {
    &life[life.len() / 3..]
}

/// By how much the line of least squares rises from the first to the last sample.
fn growth(samples: &[(Duration, Weight)], of: impl Fn(&Weight) -> u64) -> f64 {
    let points: Vec<(f64, f64)> =
        samples.iter().map(|(at, weight)| (at.as_secs_f64(), of(weight) as f64)).collect();
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let (rise, run) = points.iter().fold((0.0, 0.0), |(rise, run), (x, y)| {
        (rise + (x - mean_x) * (y - mean_y), run + (x - mean_x) * (x - mean_x))
    });
    let length = points.last().map_or(0.0, |(x, _)| x - points[0].0);
    if run > 0.0 { rise / run * length } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_the_trend() {
        let check = |rss: &[u64], expected: f64| {
            let weigh = |(second, rss_kib): (usize, &u64)| {
                (Duration::from_secs(second as u64), Weight { rss_kib: *rss_kib, ..Weight::default() })
            };
            let samples: Vec<_> = rss.iter().enumerate().map(weigh).collect();
            let seen = growth(&samples, |weight| weight.rss_kib);
            assert!((seen - expected).abs() < 0.01, "{rss:?}: {seen}");
        };
        check(&[7, 7, 7], 0.0);
        check(&[1, 2, 3, 4], 3.0);
        check(&[4, 2, 0], -4.0);
        check(&[5, 0, 5, 0, 5], 0.0);
        check(&[5], 0.0);
    }

    #[test]
    fn a_process_that_grows_is_named() {
        let check = |per_sample_kib: u64, expected: &[&str]| {
            let mut watch = Watch::default();
            let life = (0..60u64).map(|n| {
                let weight = Weight { pid: 7, rss_kib: 50_000 + n * per_sample_kib, ..Weight::default() };
                (Duration::from_secs(n * 5), weight)
            });
            watch.lives.insert((1, 7), life.collect());
            assert_eq!(watch.faults(), expected);
        };
        check(0, &[]);
        check(200, &[]);
        check(300, &["RSS in KiB of n2 (process 7) grew by 11700 in 3.2 min, 8192 allowed"]);
    }
}
