//! What goes through every node is seen from any of them, live.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, HOST, Load, Origin, Ports, Reply, SiteFile, wait_until};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_tells_of_all() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let origin = Origin::start(|_| Reply::ok("hi").field("cache-control", "public, max-age=3600")).await?;
    cluster.apply(0, &SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    cluster.serves(HOST, "/first").await?;
    let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    let load = Load::start(&addresses, 2, HOST, vec!["/a".to_owned(), "/b".to_owned()], |_| None);
    wait_until("the load runs", Duration::from_secs(20), async || load.good() > 20).await?;

    // A machine that stands still for a second has no requests in it.
    let top = cluster
        .eventually("both nodes tell of requests", async || {
            let top = cluster.nodes[0].told(&["top", "--once"]).await.ok()?;
            let is_told = |node: &Value| node["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0);
            top["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(is_told)).then_some(top)
        })
        .await?;
    let table = cluster.nodes[1].shoal(&["top", "--once"]).await?.expect(0)?;
    let report = load.finish().await;
    ensure!(report.good() > 20);

    let nodes = top["nodes"].as_array().context("no nodes")?;
    ensure!(nodes.len() == 2, "{top}");
    for node in nodes {
        ensure!(node["reported"] == true, "{node}");
        ensure!(node["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{node}");
        ensure!(node["open_connections"].as_u64().is_some_and(|open| open >= 1), "{node}");
        ensure!(node["cache_hit_ratio"].as_f64().is_some_and(|ratio| ratio > 0.5), "{node}");
        ensure!(node["p99_ms"].as_f64().is_some(), "{node}");
    }
    ensure!(top["routes"][0]["route"] == "shop", "{top}");
    for row in [&top["routes"][0], &top["cluster"]] {
        ensure!(row["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{top}");
    }
    for part in ["REQ/S", "all ", "ROUTE", "shop "] {
        ensure!(table.stdout.contains(part), "{part:?} is not in {}", table.stdout);
    }
    Ok(())
}
