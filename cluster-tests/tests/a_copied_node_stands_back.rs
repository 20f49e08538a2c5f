//! A data directory is copied to another machine and started there: one node must not be two.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, NodeProcess, wait_until};

/// For the copy to be noticed, and to end.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_later_of_two_with_one_identity_ends() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let dir = cluster.copy_disk(1).await?;
    let mut machine = NodeProcess::new("n2", cluster.block().ip(40), &dir, &["--drain-delay", "0s"]);
    let advice = "two processes have one identity";

    // It knows where it was, and is answered there.
    machine.start(None)?;
    ensure!(!machine.ended(DEADLINE).await?.success(), "the copy ended with success");
    ensure!(machine.log().contains(advice), "{}", machine.log());
    ensure!(!cluster.nodes[1].log().contains(advice), "it had nothing to notice");

    // It does not know, and hears itself through the others.
    fs::remove_file(dir.join("data/address"))?;
    machine.start(None)?;
    wait_until("the original notices the copy", DEADLINE, async || {
        cluster.metric(1, "shoal_node_has_twin", "").await.is_ok_and(|twins| twins == 1.0)
    })
    .await?;
    wait_until("every operator is told", DEADLINE, async || {
        cluster.nodes[0].shoal(&["status"]).await.is_ok_and(|output| output.stdout.contains(advice))
    })
    .await?;
    ensure!(!machine.ended(DEADLINE).await?.success(), "the copy ended with success");
    ensure!(machine.log().matches(advice).count() > 1, "{}", machine.log());
    ensure!(cluster.nodes[1].log().contains(advice) && cluster.nodes[1].runs(), "the original goes on");
    cluster.settle().await?;
    wait_until("the copy is forgotten", DEADLINE, async || {
        cluster.metric(1, "shoal_node_has_twin", "").await.is_ok_and(|twins| twins == 0.0)
    })
    .await
    .map(drop)
}
