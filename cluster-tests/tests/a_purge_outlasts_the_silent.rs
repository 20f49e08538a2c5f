//! A purge is complete when no node can serve what it forgets: a node that is silent is waited for until its lease has run
//! out, and no longer; once it has, the next purges do not wait for it again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Ports, SiteFile, Versions, fetch, wait_until};

/// A lease, and what the verb takes besides.
const AT_MOST: Duration = Duration::from_millis(2020 + 2500);
/// What is left of it when it is renewed every half second, and now and then late.
const AT_LEAST: Duration = Duration::from_millis(1000);
/// More than a purge takes that waits for nobody's.
const AT_ONCE_MS: u64 = 1400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_as_long_as_its_lease_and_no_longer() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let origin = Versions::start(|_, reply| reply).await?;
    cluster.put_in_force(&SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    let silent = (cluster.leader_seen_by(0).await? + 1) % 3;
    let (asked, name) = ((silent + 1) % 3, cluster.nodes[silent].name.clone());
    let paths: Vec<String> = (0..20).map(|n| format!("/{n}")).collect();
    for path in &paths {
        for node in &cluster.nodes {
            fetch(node.at(Ports::HTTP), HOST, path).await?;
        }
    }

    // Nobody has noticed yet: by what is gossiped it is alive, and its lease is good.
    cluster.nodes[silent].stop()?;
    let stopped = Instant::now();
    origin.become_version(2);
    let purge = cluster.nodes[asked].shoal(&["cache", "purge", "--all", "-o", "json"]).await?;
    let waited = stopped.elapsed();
    ensure!(purge.elapsed < AT_MOST, "it took {:?}", purge.elapsed);
    let told = purge.json()?;
    let seq = told["seq"].as_u64().unwrap_or_default().to_string();
    let acks = told["acks"].as_array().into_iter().flatten();
    let lapsed = acks.clone().filter(|ack| ack["state"] == "lapsed").count();
    let absent = told["absent"].as_array().into_iter().flatten().filter(|node| node["node"] == *name).count();
    ensure!(acks.filter(|ack| ack["state"] == "acknowledged").count() == 2 && lapsed + absent == 1, "{told}");
    ensure!(purge.code == 0, "it ended with {}: {told}", purge.code);
    ensure!(waited > AT_LEAST, "its lease was not waited for, {waited:?}: {told}");
    let again = cluster.nodes[asked].told(&["cache", "purge", "--all"]).await?;
    ensure!(again["elapsed_ms"].as_u64() < Some(AT_ONCE_MS), "it was waited for again: {again}");

    let status = cluster.nodes[asked].shoal(&["cache", "purge-status", &seq]).await?.expect(0)?;
    ensure!(status.text().contains("lapsed"), "{}", status.text());

    let asking: Vec<_> = paths
        .iter()
        .map(|path| {
            let (web, path) = (cluster.nodes[silent].at(Ports::HTTP), path.clone());
            tokio::spawn(async move { fetch(web, HOST, &path).await })
        })
        .collect();
    cluster.nodes[silent].cont()?;
    for answer in asking {
        let answer = answer.await??;
        ensure!(answer.body == "version 2", "{answer:?}");
    }
    wait_until("it has caught up", Duration::from_secs(30), async || {
        let told = cluster.nodes[asked].told(&["cache", "purge-status", &seq]).await.unwrap_or_default();
        let acks = told["purges"][0]["acks"].as_array().into_iter().flatten();
        acks.filter(|ack| ack["state"] == "acknowledged").count() == 3
    })
    .await?;
    Ok(())
}
