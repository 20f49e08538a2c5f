//! What seals the gossip is replaced by something else, by order or because a node is not trusted any more, and nobody falls
//! silent for it; who was away meanwhile, or comes new, gets it with the log.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, NodeProcess, Ports, wait_until};

/// For every node to believe a key, and for the leader to have it used.
const DEADLINE: Duration = Duration::from_secs(60);
/// What a node says of another that it does not hear any more.
const SILENT: &str = "a member is not heard";

/// The index of the log under which the key in use is known.
async fn key(cluster: &Cluster, i: usize) -> Result<u64> {
    let keys = cluster.nodes[i].told(&["cluster", "keys"]).await?;
    Ok(keys["gossip_key"].as_u64().unwrap_or_default())
}

async fn rotate(cluster: &Cluster, i: usize) -> Result<u64> {
    let before = key(cluster, i).await?;
    let rotated = cluster.nodes[i].shoal(&["cluster", "rotate", "gossip-key"]).await?.expect(0)?;
    let after = key(cluster, i).await?;
    ensure!(after > before, "{before} and {after}: {rotated:?}");
    ensure!(rotated.stdout.contains(&format!("the gossip is sealed with key {after}")), "{rotated:?}");
    Ok(after)
}

/// Every node hears others, which it would not if it did not have their key.
async fn hear_each_other(cluster: &Cluster) -> Result<()> {
    for i in 0..cluster.nodes.len() {
        let before = cluster.metric(i, "shoal_gossip_received_total", "").await?;
        wait_until("gossip is heard", DEADLINE, async || {
            cluster.metric(i, "shoal_gossip_received_total", "").await.is_ok_and(|now| now > before + 10.0)
        })
        .await?;
    }
    cluster.settle().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gossip_changes_its_keys() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    ensure!(key(&cluster, 0).await? == 0);
    for i in [1, 0, 2] {
        rotate(&cluster, i).await?;
        hear_each_other(&cluster).await?;
    }
    for node in &cluster.nodes {
        ensure!(!node.log().contains(SILENT), "{}", node.log());
    }

    // One is away while all that it knows of is replaced.
    cluster.nodes[2].kill9()?;
    rotate(&cluster, 0).await?;
    let newest = rotate(&cluster, 1).await?;
    cluster.restart(2)?;
    cluster.answers(2).await?;
    hear_each_other(&cluster).await?;
    ensure!(key(&cluster, 2).await? == newest);

    // One comes that has never known any of it.
    let mut node =
        NodeProcess::new("n4", cluster.block().ip(14), &cluster.dir().join("n4"), &["--drain-delay", "0s"]);
    node.start(Some((cluster.nodes[0].at(Ports::CLUSTER), &cluster.token().await?)))?;
    cluster.nodes.push(node);
    cluster.answers(3).await?;
    hear_each_other(&cluster).await?;

    // It is not trusted any more: without another order, nothing that it knows is believed.
    cluster.nodes[0].shoal(&["node", "revoke", "n4"]).await?.expect(0)?;
    wait_until("there is another key", DEADLINE, async || {
        key(&cluster, 1).await.is_ok_and(|now| now > newest)
            && cluster.nodes.iter().any(|node| node.log().contains("the only one that is believed"))
    })
    .await?;
    let mut revoked = cluster.nodes.remove(3);
    ensure!(!revoked.ended(DEADLINE).await?.success());
    hear_each_other(&cluster).await?;
    let record = cluster.nodes[2].shoal(&["audit"]).await?.expect(0)?;
    ensure!(
        record.stdout.contains("KeepKeys") && record.stdout.contains("a new key of the gossip"),
        "{record:?}"
    );
    for node in &cluster.nodes {
        ensure!(!node.log().contains("panicked"), "{}", node.log());
    }
    Ok(())
}
