//! A node that may have missed a purge does with its hits what each route says, and serves everything else.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Ports, SiteFile, Versions, fetch, wait_until};
use serde_json::json;

/// Longer than any lease that a node gets on a slow disk.
const BEYOND_A_LEASE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_follows_the_policy_of_each_route() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origin = Versions::start(|_, reply| reply).await?;
    let mut site = SiteFile::new().cached("shop", &[origin.endpoint()]);
    for policy in ["revalidate", "serve", "fail"] {
        let cache = json!({ "purge_unverified": policy });
        let path = format!("/{policy}");
        site = site.route(policy, json!({ "path_prefix": path, "upstream": "shop", "cache": cache }));
    }
    cluster.put_in_force(&site).await?;
    let web = cluster.nodes[2].at(Ports::HTTP);
    let is_hit = async |path: &str| fetch(web, HOST, path).await.is_ok_and(|answer| answer.is_hit());
    for path in ["/revalidate", "/serve", "/fail"] {
        wait_until("it is a hit", Duration::from_secs(20), async || is_hit(path).await).await?;
    }

    cluster.nodes[0].kill9()?;
    cluster.nodes[1].kill9()?;
    origin.become_version(2);
    // What this node does not own is not here any more: then it is fetched once more, which is a miss.
    wait_until("hits are refused where the route says so", Duration::from_secs(60), async || {
        fetch(web, HOST, "/fail").await.is_ok_and(|answer| answer.status == 504)
    })
    .await?;
    for _ in 0..2 {
        let fetches = origin.count("/revalidate");
        let answer = fetch(web, HOST, "/revalidate").await?;
        ensure!(answer.body == "version 2" && !answer.is_hit(), "{answer:?}");
        ensure!(origin.count("/revalidate") == fetches + 1, "the origin was not asked");
    }
    fetch(web, HOST, "/serve").await?;
    let served = fetch(web, HOST, "/serve").await?;
    ensure!(served.is_hit() && served.cache_status().ends_with("; detail=purge-unverified"), "{served:?}");
    ensure!(fetch(web, HOST, "/never-seen").await?.status == 200, "misses do not go on");
    ensure!(cluster.metric(2, "shoal_cache_lease", "").await? == 0.0, "the metric does not say it");

    cluster.restart(1)?;
    wait_until("a second voter makes hits of them again", Duration::from_secs(60), async || {
        is_hit("/fail").await && is_hit("/revalidate").await
    })
    .await?;
    ensure!(cluster.metric(2, "shoal_cache_lease", "").await? == 1.0, "the metric does not say it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_stopped_serves_nothing_that_was_purged_meanwhile() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let origin = Versions::start(|_, reply| reply).await?;
    cluster.put_in_force(&SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    let sleeper = (cluster.leader_seen_by(0).await? + 1) % 3;
    let awake = (sleeper + 1) % 3;
    let web = cluster.nodes[sleeper].at(Ports::HTTP);
    let paths: Vec<String> = (0..40).map(|n| format!("/{n}")).collect();
    for path in &paths {
        for node in &cluster.nodes {
            fetch(node.at(Ports::HTTP), HOST, path).await?;
        }
    }

    cluster.nodes[sleeper].stop()?;
    let stopped = Instant::now();
    wait_until("the others have noticed", Duration::from_secs(60), async || {
        let dead = cluster.metric(awake, "shoal_gossip_dead_members", "").await;
        stopped.elapsed() > BEYOND_A_LEASE && dead.is_ok_and(|dead| dead == 1.0)
    })
    .await?;
    origin.become_version(2);
    cluster.nodes[awake].shoal(&["cache", "purge", "--all"]).await?.expect(0)?;
    // Asked before it wakes: its workers answer before it can have heard of anything.
    let asked: Vec<_> = paths
        .iter()
        .map(|path| {
            let path = path.clone();
            tokio::spawn(async move { fetch(web, HOST, &path).await })
        })
        .collect();
    cluster.nodes[sleeper].cont()?;
    for answer in asked {
        let answer = answer.await??;
        ensure!(answer.body == "version 2", "{answer:?}");
    }
    Ok(())
}
