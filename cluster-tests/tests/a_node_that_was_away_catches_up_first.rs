//! A route is removed while a node is down: the node comes back, and never answers it, not even with its first breath.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use cluster_tests::{Cluster, Origin, Ports, SiteFile, fetch, wait_until_some};
use serde_json::json;

const KEPT: &str = "shop.example.com";
const REMOVED: &str = "old.example.com";

/// For a process in a debug build on a busy machine to accept a connection.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How many answers are looked at, from the first one on: more than two seconds of them.
const ANSWERS: usize = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_route_does_not_come_back_with_a_node() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(300, "no-store").await?;
    let kept = SiteFile::new()
        .upstream("shop", json!({ "endpoints": [origin.endpoint()] }))
        .route("shop", json!({ "hosts": [KEPT], "path_prefix": "/", "upstream": "shop" }));
    let both =
        kept.clone().route("old", json!({ "hosts": [REMOVED], "path_prefix": "/", "upstream": "shop" }));
    let leader = cluster.leader_seen_by(0).await?;
    // Whoever leads after the first round: a follower was away, then the first leader, who believes in itself when it wakes.
    for away in [(leader + 1) % 3, leader] {
        let there = (away + 1) % 3;
        cluster.apply(there, &both).await?;
        cluster.serves(REMOVED, "/").await?;
        cluster.nodes[away].kill9()?;
        remove(&cluster, there, &kept).await?;
        cluster.restart(away)?;
        never_answers_the_old_route(&cluster, away).await?;
        cluster.settle().await?;
    }
    Ok(())
}

/// 5 is as good as 0: the node that was killed may count as live still. Nothing is changed while nobody leads.
async fn remove(cluster: &Cluster, there: usize, site: &SiteFile) -> Result<()> {
    cluster
        .eventually("the route is removed", async || {
            cluster.try_apply(there, site).await.ok().filter(|output| matches!(output.code, 0 | 5))
        })
        .await
        .map(drop)
}

async fn never_answers_the_old_route(cluster: &Cluster, away: usize) -> Result<()> {
    let node = &cluster.nodes[away];
    let at = node.at(Ports::HTTP);
    let first =
        wait_until_some("it answers", START_DEADLINE, async || fetch(at, REMOVED, "/").await.ok()).await?;
    let mut answer = first;
    for nth in 0..ANSWERS {
        if answer.status == 200 {
            bail!("{} answered the removed route, {nth} answers after its first one", node.name);
        }
        answer = fetch(at, REMOVED, "/").await?;
    }
    let answer = fetch(at, KEPT, "/").await?;
    ensure!(answer.status == 200, "the route that was kept: {answer:?}");
    Ok(())
}
