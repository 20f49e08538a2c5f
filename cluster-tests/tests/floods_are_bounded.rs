//! Whatever hostile downstreams do, a node takes no more memory and descriptors than its limits say, gives them back, and
//! goes on serving others.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::flood::{self, Backdrop, FLOODS, Places};
use cluster_tests::{Cluster, LoopbackBlock, SelfSigned, WEIGHED};

/// How long each flood lasts.
const LASTS: Duration = Duration::from_secs(3);
/// Nobody else waits longer, on the busiest of machines.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_are_bounded() -> Result<()> {
    let cluster = Cluster::start_with(1, &[WEIGHED]).await?;
    let origin = flood::origin().await?;
    let certificate = SelfSigned::create(cluster.dir(), &["a"])?;
    let backdrop = Backdrop {
        origin: &origin,
        bystander_origin: &origin,
        certificate: &certificate,
        rate_per_address: None,
    };
    let site = flood::site(&backdrop);
    cluster.apply(0, &site).await?;
    cluster.serves("a", "/small").await?;
    let hostile = LoopbackBlock::claim()?.ip(1);
    let mut wrong = Vec::new();
    for flood in &FLOODS {
        let aftermath = flood::endure(&cluster.nodes[0], flood, hostile, LASTS, &Places::here()).await?;
        let (before, peak) = (aftermath.before, aftermath.peak);
        let grown_kib = peak.rss_kib.saturating_sub(before.rss_kib);
        let mut check = |holds: bool, what: String| {
            if !holds {
                wrong.push(format!("{}: {what}", flood.name));
            }
        };
        let (memory, descriptors) = (flood.memory_bound_kib(), flood.descriptor_bound());
        check(grown_kib <= memory, format!("{grown_kib} KiB more, {memory} at most"));
        let opened = peak.descriptors - before.descriptors;
        check(opened <= descriptors, format!("{opened} descriptors more, {descriptors} at most"));
        let longest = aftermath.bystander.longest();
        check(longest <= PATIENCE, format!("somebody else waited for {longest:?}"));
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    // Limits that floods run into have counted it.
    for limit in ["tls_handshake_timeout", "header_timeout", "max_header_bytes"] {
        let count = cluster.metric(0, "shoal_limits_reached_total", &format!("limit=\"{limit}\"")).await?;
        ensure!(count > 0.0, "nothing has reached {limit}");
    }
    Ok(())
}
