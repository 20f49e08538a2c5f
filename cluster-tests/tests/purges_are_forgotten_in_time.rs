//! What every node has checked its cache against is not remembered for ever, and who was away meanwhile serves nothing of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Ports, Reply, SiteFile, Versions, fetch, wait_until};

/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(60);
/// Objects that are stored.
const OBJECTS: usize = 60;
/// URLs that are purged, those among them.
const PURGED: usize = 20_000;
/// URLs of one purge.
const AT_ONCE: usize = 1000;

/// Below `/news/` each version is another; everything else never changes. Answers are validated by their version.
async fn changing() -> Result<Versions> {
    Versions::told(|seen, newest| {
        let version = if seen.path.starts_with("/news/") { newest } else { 1 };
        let etag = format!("\"{version}\"");
        let is_known = seen.field("if-none-match") == etag;
        let reply =
            if is_known { Reply::ok("").status(304) } else { Reply::ok(format!("version {version}")) };
        reply.field("cache-control", "max-age=3600").field("etag", &etag)
    })
    .await
}

async fn purge_news(cluster: &Cluster) -> Result<()> {
    for first in (0..PURGED).step_by(AT_ONCE) {
        let urls: Vec<String> = (first..first + AT_ONCE).map(|n| format!("http://{HOST}/news/{n}")).collect();
        let scopes = urls.iter().flat_map(|url| ["--url", url]);
        let purge: Vec<&str> = ["cache", "purge", "--wait", "committed"].into_iter().chain(scopes).collect();
        cluster.nodes[0].shoal(&purge).await?.expect(0)?;
    }
    Ok(())
}

async fn figure(cluster: &Cluster, node: usize, name: &str) -> f64 {
    cluster.metric(node, &format!("shoal_cache_purge_{name}"), "").await.unwrap_or(f64::NAN)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_who_was_away_asks_the_origin() -> Result<()> {
    let origin = changing().await?;
    let flags = ["--cache-disk", "64MiB", "--purge-retention", "10s"];
    let mut cluster = Cluster::start_with(3, &flags).await?;
    cluster.apply(0, &SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    cluster.serves(HOST, "/ready").await?;
    let web = cluster.nodes[2].at(Ports::HTTP);
    for n in 0..OBJECTS {
        for path in [format!("/news/{n}"), format!("/kept/{n}")] {
            ensure!(fetch(web, HOST, &path).await?.body == "version 1");
        }
    }
    wait_until("node 3 has written much of it", MOMENT, async || {
        let written = cluster.metric(2, "shoal_cache_disk_written_total", "").await;
        written.is_ok_and(|written| written >= OBJECTS as f64 / 2.0)
    })
    .await?;

    cluster.nodes[2].kill9()?;
    origin.become_version(2);
    purge_news(&cluster).await?;
    let seq = cluster.metric(0, "shoal_cache_purge_seq", "").await?;
    wait_until("those that are there have forgotten them", MOMENT, async || {
        figure(&cluster, 0, "records").await == 0.0 && figure(&cluster, 1, "records").await == 0.0
    })
    .await?;
    for node in 0..2 {
        ensure!(figure(&cluster, node, "floor").await == seq, "node {node} has another floor");
        ensure!(figure(&cluster, node, "checked").await >= seq, "node {node} has not checked what it has");
    }
    // What was checked is as good as before.
    let fetched = origin.count_below("/kept/");
    for n in 0..OBJECTS {
        for node in 0..2 {
            let web = cluster.nodes[node].at(Ports::HTTP);
            ensure!(fetch(web, HOST, &format!("/kept/{n}")).await?.body == "version 1");
            ensure!(fetch(web, HOST, &format!("/news/{n}")).await?.body == "version 2");
        }
    }
    // What only the dead node had is fetched again.
    let again = origin.count_below("/kept/") - fetched;
    ensure!(again < OBJECTS / 2, "{again} objects that nobody has purged were asked for again");

    cluster.restart(2)?;
    cluster.holds_lease(2).await?;
    wait_until("node 3 has read its disk", MOMENT, async || {
        cluster.metric(2, "shoal_cache_disk_objects", "").await.is_ok_and(|objects| objects > 0.0)
    })
    .await?;
    cluster.node_serves(2, HOST, "/ready").await?;
    ensure!(figure(&cluster, 2, "floor").await == seq, "node 3 does not know what was forgotten");
    for n in 0..OBJECTS {
        let answer = fetch(web, HOST, &format!("/news/{n}")).await?;
        ensure!(answer.body == "version 2", "{n}: {answer:?}");
        let answer = fetch(web, HOST, &format!("/kept/{n}")).await?;
        ensure!(answer.body == "version 1", "{n}: {answer:?}");
    }
    Ok(())
}
