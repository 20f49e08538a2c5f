//! A node that is told to go finishes what it has begun, and its downstreams find the others.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Load, Origin, Ports, Reply, SiteFile, fetch, pattern, wait_until};

const SIZE: usize = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_breaks_nothing() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "1s"]).await?;
    let slow = |path: &str| Reply::ok(pattern(path, SIZE)).after(Duration::from_millis(50));
    let origin = Origin::start(move |seen| slow(&seen.path)).await?;
    let answers_late =
        Origin::start(|seen| Reply::ok(pattern(&seen.path, SIZE)).after(Duration::from_secs(4))).await?;
    let site = SiteFile::new()
        .proxy("shop", &[origin.endpoint()])
        .proxy("late", &[answers_late.endpoint()])
        .route("late", serde_json::json!({ "path_prefix": "/late", "upstream": "late" }));
    cluster.put_in_force(&site).await?;
    let leader = cluster.leader_seen_by(0).await?;

    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    let paths = (0..40).map(|n| format!("/live/{n}")).collect();
    let load = Load::start(&addresses, 4, HOST, paths, |path| Some(pattern(path, SIZE)));
    wait_until("the load runs", Duration::from_secs(20), async || load.good() > 200).await?;
    let late = tokio::spawn(async move { fetch(addresses[leader], HOST, "/late/one").await });
    wait_until("the late request is under way", Duration::from_secs(10), async || {
        answers_late.count("/late/one") == 1
    })
    .await?;

    cluster.nodes[leader].term()?;
    let ops = cluster.nodes[leader].at(Ports::OPS);
    wait_until("readiness fails first", Duration::from_secs(5), async || {
        fetch(ops, "ops", "/readyz").await.is_ok_and(|answer| answer.status == 503)
    })
    .await?;
    let status = cluster.nodes[leader].ended(Duration::from_secs(60)).await?;
    ensure!(status.success(), "it ended with {status}");
    let answer = late.await??;
    ensure!(answer.body == pattern("/late/one", SIZE), "the request under way was lost: {answer:?}");

    let good = load.good();
    wait_until("the load goes on", Duration::from_secs(20), async || load.good() > good + 300).await?;
    for (i, target) in load.finish().await.targets.iter().enumerate() {
        ensure!(target.wrong() == 0, "n{}: {}", i + 1, target.faults());
        // A refused connection to the node that is gone is how its clients learn it; a broken one is a lost request.
        let broken = target.broken.load(Relaxed) + target.stillborn.load(Relaxed);
        ensure!(broken == 0, "n{}: {broken} requests lost\n{}", i + 1, target.faults());
    }
    Ok(())
}
