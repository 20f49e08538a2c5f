//! A change made on any node is on all of them when it is acknowledged, and disturbs no request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, Load, Origin, Ports, Reply, SiteFile, fetch, pattern, wait_until};
use serde_json::json;

const ROUTES: usize = 1_000;
const UPSTREAMS: usize = 200;

/// `ROUTES` routes on hosts of their own over `UPSTREAMS` upstreams.
fn large_site(endpoint: &str, generation: usize) -> SiteFile {
    let mut site = SiteFile::new().proxy("any", &[endpoint.to_owned()]);
    for n in 0..UPSTREAMS {
        site = site.upstream(&format!("u{n}"), json!({ "endpoints": [endpoint] }));
    }
    for n in 0..ROUTES {
        let host = format!("r{n}.g{generation}.example.com");
        let upstream = format!("u{}", n % UPSTREAMS);
        site = site.route(
            &format!("r{n}"),
            json!({ "hosts": [host], "path_prefix": "/only", "upstream": upstream }),
        );
    }
    site
}

/// From the acknowledgement to every node; a debug build compiles a site some ten times more slowly.
fn reach_deadline() -> Duration {
    if cfg!(debug_assertions) { Duration::from_secs(10) } else { Duration::from_secs(2) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_change_on_a_follower_is_on_every_node() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    let follower = (cluster.leader_seen_by(0).await? + 1) % 3;
    let output = cluster.apply(follower, &large_site(&origin.endpoint(), 1)).await?;
    ensure!(output.text().contains("3/3"), "apply does not say that 3/3 nodes run it: {}", output.text());

    let acknowledged = Instant::now();
    let revision = cluster.revision(follower).await?;
    for i in 0..3 {
        ensure!(cluster.revision(i).await? == revision, "n{} is at another revision", i + 1);
        for n in (0..ROUTES).step_by(97).chain([ROUTES - 1]) {
            let host = format!("r{n}.g1.example.com");
            let answer = fetch(cluster.nodes[i].at(Ports::HTTP), &host, "/only").await?;
            ensure!(answer.status == 200, "n{}: {host} answers {} {:?}", i + 1, answer.status, answer.body);
        }
    }
    ensure!(
        acknowledged.elapsed() < reach_deadline(),
        "it took {:?} after the acknowledgement",
        acknowledged.elapsed()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_survive_ten_changes_in_a_row() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let slow = |path: &str| Reply::ok(pattern(path, 2_000)).after(Duration::from_millis(150));
    let origin = Origin::start(move |seen| slow(&seen.path)).await?;
    cluster.apply(0, &large_site(&origin.endpoint(), 0)).await?;
    cluster.serves("any.example.com", "/ready").await?;

    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    let paths = (0..50).map(|n| format!("/slow/{n}")).collect();
    let load = Load::start(&addresses, 6, "any.example.com", paths, |path| Some(pattern(path, 2_000)));
    wait_until("the load runs", Duration::from_secs(20), async || load.good() > 50).await?;
    for generation in 1..=10 {
        cluster.apply(generation % 3, &large_site(&origin.endpoint(), generation)).await?;
    }
    let good = load.good();
    wait_until("the load goes on", Duration::from_secs(20), async || load.good() > good + 50).await?;
    for (i, target) in load.finish().await.targets.iter().enumerate() {
        let errors = target.wrong() + target.connection_errors();
        ensure!(errors == 0, "n{}: {errors} faults\n{}", i + 1, target.faults());
    }
    Ok(())
}
