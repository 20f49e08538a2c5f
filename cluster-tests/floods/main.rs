//! `floods [SECONDS [NAME [RATE]]]`: one node under each flood of the table in turn, or one (`all` = each), and how somebody
//! else fares beside it. RATE is the `max_connection_rate_per_address` of the node; without it there is none, and whoever
//! is cut off comes back at once.
//!
//! The bystander and its origin go before everybody else on the CPUs, as far as this process may, and the flood behind: all of it
//! would come from other machines.
//!
//! The binary is `SHOAL_BIN`, else that of this profile. Prints for each flood the memory and descriptors of the process
//! before and at the most, and the bystander's p50 and p99 before (quiet) and during; the exit code is 1 if a bound was
//! passed, if the bystander got an error, or if its p99 was twice the quiet one or more (and over a millisecond: below,
//! that is the scheduler's grain).

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::flood::{self, Aftermath, Apart, Backdrop, Bystander, FLOODS, Flood, Latencies, Places};
use cluster_tests::{Cluster, LoopbackBlock, Ports, SelfSigned, WEIGHED};

/// The longest time for each flood, seconds.
const MAX_SECONDS: u64 = 600;
/// Latencies below say nothing.
const GRAIN: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("the run could not be made: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let apart = Apart::begin()?;
    if !apart.goes_first() {
        say("the bystander may not go first (CAP_SYS_NICE): its latencies tell of this machine, too");
    }
    runtime.block_on(floods(&apart.places()))
}

/// Whether all was well.
async fn floods(places: &Places) -> Result<bool> {
    let seconds = std::env::args().nth(1).map_or(Ok(4), |text| text.parse::<u64>()).context("seconds")?;
    ensure!((1..=MAX_SECONDS).contains(&seconds), "1 to {MAX_SECONDS} seconds");
    let lasts = Duration::from_secs(seconds);
    let name = std::env::args().nth(2);
    let is_chosen = |flood: &&Flood| name.as_ref().is_none_or(|name| flood.name == name || name == "all");
    let chosen: Vec<&Flood> = FLOODS.iter().filter(is_chosen).collect();
    ensure!(!chosen.is_empty(), "no flood has this name");
    let rate = std::env::args().nth(3).map(|text| text.parse::<u32>()).transpose().context("rate")?;
    let cluster = Cluster::start_with(1, &[WEIGHED]).await?;
    let origin = flood::origin().await?;
    let bystander_origin = places.near.spawn(flood::origin()).await??;
    let certificate = SelfSigned::create(cluster.dir(), &["a"])?;
    let backdrop = Backdrop {
        origin: &origin,
        bystander_origin: &bystander_origin,
        certificate: &certificate,
        rate_per_address: rate,
    };
    let site = flood::site(&backdrop);
    cluster.apply(0, &site).await?;
    cluster.serves("a", "/small").await?;
    let hostile = LoopbackBlock::claim()?.ip(1);
    let node = &cluster.nodes[0];
    say("flood | connections, ended | RSS MiB, peak | fds, peak | p50, p99 ms quiet | during | verdict");
    let mut well = true;
    for flood in chosen {
        let quiet = Bystander::start(&places.near, node.at(Ports::HTTP), "/small");
        tokio::time::sleep(lasts).await;
        let quiet = quiet.finish().await?;
        match flood::endure(node, flood, hostile, lasts, places).await {
            Ok(aftermath) => well &= report(flood, &quiet, &aftermath),
            Err(error) => {
                well = false;
                say(&format!("{} | {error:#}", flood.name));
            }
        }
    }
    Ok(well)
}

fn report(flood: &Flood, quiet: &Latencies, aftermath: &Aftermath) -> bool {
    let (before, peak) = (aftermath.before, aftermath.peak);
    let during = &aftermath.bystander;
    let bound = GRAIN.max(2 * quiet.percentile(99));
    let verdict = match () {
        () if peak.rss_kib.saturating_sub(before.rss_kib) > flood.memory_bound_kib() => "too much memory",
        () if peak.descriptors - before.descriptors > flood.descriptor_bound() => "too many descriptors",
        () if during.percentile(99) > bound => "slow",
        () => "well",
    };
    let ms = |latencies: &Latencies, percent| latencies.percentile(percent).as_secs_f64() * 1e3;
    say(&format!(
        "{} | {}, {} | {}, {} | {}, {} | {:.2}, {:.2} | {:.2}, {:.2} | {verdict}",
        flood.name,
        aftermath.opened,
        aftermath.ended,
        before.rss_kib >> 10,
        peak.rss_kib >> 10,
        before.descriptors,
        peak.descriptors,
        ms(quiet, 50),
        ms(quiet, 99),
        ms(during, 50),
        ms(during, 99),
    ));
    verdict == "well"
}

/// A line for the operator; a reader that has gone is no reason to stop.
fn say(line: &str) {
    _ = writeln!(std::io::stdout(), "{line}");
}
