//! `soak [MINUTES]`: a three-node cluster at 70 % of saturation, under everything at once, and whether it stays as it was.
//!
//! The binary is `SHOAL_BIN`, else that of this profile. The first minute finds what the machine can carry; then come
//! HTTP/1.1 and HTTP/2 with and without TLS, gRPC, uploads, downloads, aborts, slow readers and WebSockets, with a config
//! change every 10 s and an upgrade of a node every 10 minutes (in the middle of a shorter run). Each minute prints what
//! each node carried and weighs; the exit code is 1 if any answer was lost or wrong, or if memory or descriptors grew.

mod changes;
mod clients;
mod origins;
mod pace;
mod tally;
mod verdict;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, SelfSigned, WEIGHED};

use changes::Changes;
use clients::{Clients, Place};
use origins::Origins;
use pace::Pace;
use tally::Tally;
use verdict::Watch;

/// The longest run, minutes: every sample is kept.
const MAX_MINUTES: u64 = 24 * 60;
/// How long the search for saturation takes.
const SATURATION: Duration = Duration::from_secs(60);
/// The share of it that is then asked for, per cent.
const SHARE_PERCENT: u64 = 70;
/// Between two looks at the processes.
const SAMPLE: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
/// For clients to end what they have begun.
const WIND_DOWN: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(soak())) {
        Ok(faults) if faults.is_empty() => {
            say("verdict: well");
            ExitCode::SUCCESS
        }
        Ok(faults) => {
            faults.iter().for_each(|fault| say(&format!("verdict: {fault}")));
            ExitCode::FAILURE
        }
        Err(error) => {
            say(&format!("verdict: the run could not be made: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn soak() -> Result<Vec<String>> {
    let minutes = std::env::args().nth(1).map_or(Ok(60), |text| text.parse::<u64>()).context("minutes")?;
    ensure!((1..=MAX_MINUTES).contains(&minutes), "1 to {MAX_MINUTES} minutes");
    let cluster = Cluster::start_with(3, &[WEIGHED]).await?;
    let origins = Origins::start().await?;
    let certificate = SelfSigned::create(cluster.dir(), &[clients::HOST])?;
    let changes = Changes::new(&origins, &certificate);
    cluster.apply(0, &changes.site(0)).await?;
    cluster.serves(clients::HOST, "/live/0").await?;
    let tls = certificate.trusting_client(&["h2"])?;
    let tls1 = certificate.trusting_client(&["http/1.1"])?;
    let places: Vec<Place> =
        cluster.nodes.iter().map(|node| Place { ip: node.ip, h2: tls.clone(), h1: tls1.clone() }).collect();

    let tally = Arc::new(Tally::new(places.len()));
    let unpaced = Clients::start_plain(&places, &tally, &Arc::new(Pace::none()));
    tokio::time::sleep(SATURATION).await;
    unpaced.finish(WIND_DOWN).await?;
    let found = tally.take_minute(SATURATION);
    let saturation: u64 = found.iter().map(|node| node.answered).sum::<u64>() / SATURATION.as_secs();
    let rate = (saturation * SHARE_PERCENT / 100).max(1);
    say(&format!("saturation {saturation}/s; asking for {rate}/s"));

    let clients = Clients::start_all(&places, &tally, &Arc::new(Pace::new(rate)));
    let watch = run(&cluster, &changes, &tally, Duration::from_secs(minutes * 60)).await?;
    clients.finish(WIND_DOWN).await?;
    Ok([tally.faults(), watch.faults()].concat())
}

/// One loop over everything that happens at its time.
async fn run(cluster: &Cluster, changes: &Changes, tally: &Tally, length: Duration) -> Result<Watch> {
    let upgrade_every = Duration::from_secs(600).min(length / 2);
    let since = Instant::now();
    let mut watch = Watch::default();
    let (mut revision, mut upgrades, mut minutes, mut reported) = (0, 0, 0, Instant::now());
    let mut sampling = tokio::time::interval(SAMPLE);
    sampling.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while since.elapsed() < length {
        sampling.tick().await;
        watch.sample(cluster, since.elapsed())?;
        let at = since.elapsed();
        if at > changes::EVERY * (revision as u32 + 1) {
            revision += 1;
            changes.apply(cluster, revision, tally).await?;
        }
        if at > upgrade_every * (upgrades as u32 + 1) && at + upgrade_every / 2 < length {
            changes::upgrade(cluster, upgrades % cluster.nodes.len(), tally).await?;
            upgrades += 1;
        }
        if at > MINUTE * (minutes + 1) {
            minutes += 1;
            report(minutes, &watch, tally, std::mem::replace(&mut reported, Instant::now()).elapsed());
        }
    }
    report(minutes + 1, &watch, tally, reported.elapsed());
    Ok(watch)
}

fn report(minute: u32, watch: &Watch, tally: &Tally, lasted: Duration) {
    for (node, carried) in tally.take_minute(lasted).iter().enumerate() {
        say(&format!("minute {minute} n{} {} {carried}", node + 1, watch.last(node)));
    }
    let faults = tally.faults();
    if !faults.is_empty() {
        say(&format!("minute {minute} so far: {}", faults.join("; ")));
    }
}

/// A line for the operator; a reader that has gone is no reason to stop.
fn say(line: &str) {
    _ = writeln!(std::io::stdout(), "{line}");
}
