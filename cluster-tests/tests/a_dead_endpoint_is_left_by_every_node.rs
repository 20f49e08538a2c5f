//! An endpoint that fails its checks, or is gone, gets no more requests from any node, and gets them back when it is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::{Bar, Cluster, HOST, Origin, Ports, Reply, SiteFile, fetch, wait_until};
use serde_json::{Value, json};

const ROUNDS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);
/// How often an endpoint dies that is checked.
const DEATHS: usize = 3;
/// From its death, with a check a second of which two fail, to when no node sends anything there.
const LEFT: Bar = Bar::of_ms(4_000, 1_610);

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
    cluster.put_in_force(&shop(upstream)).await?;
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
    wait_until("every node knows that it is gone", PATIENCE, async || {
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

/// Traffic tells nobody anything here: the checks do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_have_every_node_leave_a_dead_endpoint_in_time() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let (well, mut doomed) =
        (Origin::start(|_| Reply::ok("well")).await?, Origin::start(|_| Reply::ok("doomed")).await?);
    let upstream = json!({
        "endpoints": [well.endpoint(), doomed.endpoint()],
        "health": { "http": { "path": "/healthz" }, "interval": "1s", "timeout": "1s", "fall": 2, "rise": 2 },
        "passive": { "consecutive_errors": 0 },
        "panic_threshold_percent": 0,
    });
    cluster.put_in_force(&shop(upstream)).await?;
    for death in 1..=DEATHS {
        every_node_says(&cluster, &doomed, "up").await?;
        let (endpoint, since) = (doomed.endpoint(), Instant::now());
        let address = doomed.stop().await;
        wait_until("every node leaves it", PATIENCE, async || {
            for i in 0..3 {
                if !has_left(&cluster, i, &endpoint, "gossip").await {
                    return false;
                }
            }
            true
        })
        .await?;
        LEFT.hold(&format!("death {death}: every node leaves the endpoint"), since.elapsed())?;
        for i in 0..3 {
            let tries = retries(&cluster, i).await?;
            ask(&cluster, i, "/left").await?;
            ensure!(retries(&cluster, i).await? == tries, "n{} sends requests there", i + 1);
        }
        doomed = Origin::start_at(address, |_| Reply::ok("doomed")).await?;
    }
    Ok(())
}

/// Nobody checks anything here: each node goes by its own requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_an_endpoint_dead_leaves_it_after_one_try() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let (well, doomed) =
        (Origin::start(|_| Reply::ok("well")).await?, Origin::start(|_| Reply::ok("doomed")).await?);
    let upstream = json!({
        "endpoints": [well.endpoint(), doomed.endpoint()],
        "passive": { "consecutive_errors": 1, "base_ejection": "1h", "max_ejection": "1h" },
        "panic_threshold_percent": 0,
    });
    cluster.put_in_force(&shop(upstream)).await?;
    ask_every_node(&cluster, "/before").await?;
    ensure!(doomed.count("/before") > ROUNDS, "it was not used: {}", doomed.count("/before"));
    let endpoint = doomed.endpoint();
    doomed.stop().await;
    for i in 0..3 {
        let before = retries(&cluster, i).await?;
        ask(&cluster, i, "/after").await?;
        let tries = retries(&cluster, i).await? - before;
        eprintln!("n{}: {tries} tries at the dead endpoint, 0 of {ROUNDS} requests failed", i + 1);
        ensure!(tries <= 1.0, "n{} has tried it {tries} times", i + 1);
        ensure!(has_left(&cluster, i, &endpoint, "local").await, "n{} has not left it", i + 1);
    }
    Ok(())
}

/// A site whose only upstream is this one.
fn shop(upstream: Value) -> SiteFile {
    SiteFile::new()
        .upstream("shop", upstream)
        .route("shop", json!({ "path_prefix": "/", "upstream": "shop" }))
}

/// The `i`-th node sends nothing to an endpoint, since the checks say so (`gossip`), or its own traffic (`local`).
async fn has_left(cluster: &Cluster, i: usize, endpoint: &str, source: &str) -> bool {
    let labels = format!("endpoint=\"{endpoint}\",source=\"{source}\"");
    cluster.metric(i, "shoal_endpoint_up", &labels).await.is_ok_and(|up| up == 0.0)
}

/// Tries of the `i`-th node that came to nothing and were followed by another one.
async fn retries(cluster: &Cluster, i: usize) -> Result<f64> {
    cluster.metric(i, "shoal_upstream_retries_total", "upstream=\"shop\"").await
}

async fn every_node_says(cluster: &Cluster, origin: &Origin, expected: &str) -> Result<()> {
    for i in 0..3 {
        wait_until(&format!("n{} says {expected}", i + 1), PATIENCE, async || {
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
    for i in 0..cluster.nodes.len() {
        ask(cluster, i, path).await?;
    }
    Ok(())
}

async fn ask(cluster: &Cluster, i: usize, path: &str) -> Result<()> {
    let node = &cluster.nodes[i];
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
    Ok(())
}
