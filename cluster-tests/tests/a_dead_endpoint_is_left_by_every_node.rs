//! An endpoint that fails its checks, or is gone, gets no more requests from any node, and gets them back when it is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Origin, Ports, Reply, SiteFile, fetch, wait_until};
use serde_json::{Value, json};

const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_endpoint_is_left_and_taken_back() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let well = Origin::start(|_| Reply::ok("well")).await?;
    let healthy = Arc::new(AtomicBool::new(true));
    let flag = healthy.clone();
    let sick = Origin::start(move |seen| match seen.path.as_str() {
        "/healthz" if !flag.load(Ordering::Relaxed) => Reply::ok("ill").status(500),
        _ => Reply::ok("sick"),
    })
    .await?;
    let upstream = json!({
        "endpoints": [well.endpoint(), sick.endpoint()],
        "health": { "http": { "path": "/healthz" }, "interval": "500ms", "timeout": "400ms", "fall": 2, "rise": 2 },
        "panic_threshold_percent": 0,
    });
    let site = SiteFile::new()
        .upstream("shop", upstream)
        .route("shop", json!({ "path_prefix": "/", "upstream": "shop" }));
    cluster.put_in_force(&site).await?;
    every_node_says(&cluster, &sick, "up").await?;

    healthy.store(false, Ordering::Relaxed);
    every_node_says(&cluster, &sick, "down").await?;
    ask_every_node(&cluster, "/while-sick").await?;
    ensure!(sick.count("/while-sick") == 0, "{} requests went to a sick endpoint", sick.count("/while-sick"));

    healthy.store(true, Ordering::Relaxed);
    every_node_says(&cluster, &sick, "up").await?;
    ask_every_node(&cluster, "/well-again").await?;
    ensure!(sick.count("/well-again") > ROUNDS / 2, "it was not taken back: {}", sick.count("/well-again"));

    // Now it is gone altogether: not even the first request after it fails.
    let endpoint = sick.endpoint();
    sick.stop().await;
    ask_every_node(&cluster, "/gone").await?;
    wait_until("every node knows that it is gone", Duration::from_secs(30), async || {
        for i in 0..3 {
            if !availability(&cluster, i, &endpoint).await.is_ok_and(|seen| seen == "down") {
                return false;
            }
        }
        true
    })
    .await?;
    ask_every_node(&cluster, "/long-gone").await
}

async fn every_node_says(cluster: &Cluster, origin: &Origin, expected: &str) -> Result<()> {
    for i in 0..3 {
        wait_until(&format!("n{} says {expected}", i + 1), Duration::from_secs(30), async || {
            availability(cluster, i, &origin.endpoint()).await.is_ok_and(|seen| seen == expected)
        })
        .await?;
    }
    Ok(())
}

/// What `shoal health` says of an endpoint, and that it says who thinks so.
async fn availability(cluster: &Cluster, i: usize, endpoint: &str) -> Result<String> {
    let health = cluster.nodes[i].told(&["health"]).await?;
    let rows = health["endpoints"].as_array().cloned().unwrap_or_default();
    let row = rows.into_iter().find(|row| row["endpoint"] == endpoint).unwrap_or(Value::Null);
    let opinions = row["opinions"].as_array().map_or(0, Vec::len);
    ensure!(row["availability"] != "down" || opinions > 0, "down, and nobody says so: {row}");
    Ok(row["availability"].as_str().unwrap_or_default().to_owned())
}

async fn ask_every_node(cluster: &Cluster, path: &str) -> Result<()> {
    for node in &cluster.nodes {
        for _ in 0..ROUNDS {
            let answer = fetch(node.at(Ports::HTTP), HOST, path).await?;
            ensure!(
                answer.status == 200,
                "{} answers {path} with {}: {:?}",
                node.name,
                answer.status,
                answer.body
            );
        }
    }
    Ok(())
}
