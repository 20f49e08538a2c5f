//! A node that stops gives what it has cached to the nodes that own it from then on: each object is on two nodes again, and
//! the next loss takes nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Origin, Ports, SiteFile, fetch, pattern, wait_until};
use serde_json::json;

const OBJECTS: usize = 100;
const SIZE: usize = 4096;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_node_has_left_another_one_may_die() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "1s"]).await?;
    let origin = Origin::of_patterns(SIZE, "max-age=3600").await?;
    // Two of three nodes will be gone, and with them the majority that knows of purges.
    let cache = json!({ "purge_unverified": "serve" });
    let site = SiteFile::new()
        .upstream("shop", json!({ "endpoints": [origin.endpoint()] }))
        .route("shop", json!({ "path_prefix": "/", "upstream": "shop", "cache": cache }));
    cluster.apply(0, &site).await?;
    cluster.serves(HOST, "/first").await?;
    let paths: Vec<String> = (0..OBJECTS).map(|n| format!("/objects/{n}")).collect();
    for (n, path) in paths.iter().enumerate() {
        ensure!(fetch(cluster.nodes[n % 3].at(Ports::HTTP), HOST, path).await?.status == 200, "{path}");
    }
    wait_until("every object has two copies", Duration::from_secs(20), async || {
        objects(&cluster, 1).await.is_some_and(|objects| objects >= 2 * OBJECTS as u64)
    })
    .await?;

    let leader = cluster.leader_seen_by(0).await?;
    let (leaving, dying, last) = ((leader + 1) % 3, (leader + 2) % 3, leader);
    cluster.nodes[leaving].term()?;
    let status = cluster.nodes[leaving].ended(Duration::from_secs(60)).await?;
    ensure!(status.success(), "it ended with {status}\n{}", cluster.nodes[leaving].tail());
    let log = cluster.nodes[leaving].log();
    ensure!(
        log.contains("what was stored here is with its next owners"),
        "{}",
        cluster.nodes[leaving].tail()
    );

    cluster.nodes[dying].kill9()?;
    for path in &paths {
        let answer = fetch(cluster.nodes[last].at(Ports::HTTP), HOST, path).await?;
        ensure!(answer.status == 200 && answer.body == pattern(path, SIZE), "{path}: {answer:?}");
    }
    let lost: Vec<&String> = paths.iter().filter(|path| origin.count(path) > 1).collect();
    ensure!(lost.is_empty(), "fetched again: {lost:?}");
    Ok(())
}

/// Objects that all nodes hold together, by the word of the `i`-th one.
async fn objects(cluster: &Cluster, i: usize) -> Option<u64> {
    let stats = cluster.nodes[i].told(&["cache", "stats"]).await.ok()?;
    let nodes = stats["nodes"].as_array()?.iter();
    Some(nodes.filter_map(|node| node["counters"]["objects"].as_u64()).sum())
}
