//! A node is asked by signals: HUP to read its files again, QUIT to tell everything it knows. It never ends by them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, HOST, Origin, Ports, SiteFile, fetch, wait_until};
use rustix::process::Signal;
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_answers_and_goes_on() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    let (log, kept) = (cluster.dir().join("access.log"), cluster.dir().join("access.log.1"));
    let listener = json!({
        "address": format!(":{}", Ports::HTTP), "protocol": "http", "access_log": { "path": log },
    });
    let site = SiteFile::new().proxy("shop", &[origin.endpoint()]).set("listeners", "web", listener);
    cluster.apply(0, &site).await?;
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    let web = cluster.nodes[0].at(Ports::HTTP);
    fetch(web, HOST, "/").await?;
    wait_until("the first line", DEADLINE, async || lines(&log) == 1).await?;

    // As logrotate does it. Nobody asks anything: the signal alone brings the file back.
    std::fs::rename(&log, &kept)?;
    cluster.nodes[0].signal(Signal::HUP)?;
    wait_until("a new file", DEADLINE, async || log.exists()).await?;
    fetch(web, HOST, "/").await?;
    wait_until("a line in it", DEADLINE, async || lines(&log) == 1).await?;
    ensure!(lines(&kept) == 1, "the old file stays as it was");
    wait_until("word of it", DEADLINE, async || cluster.nodes[0].log().contains("SIGHUP: ")).await?;

    cluster.nodes[0].signal(Signal::QUIT)?;
    let is_told = async || cluster.nodes[0].log().contains("state: that was all");
    wait_until("the whole state", DEADLINE, is_told).await?;
    let told = cluster.nodes[0].log();
    for part in ["process", "log", "traffic", "cache", "member", "listener", "upstream"] {
        ensure!(told.contains(&format!("state: {part}")), "nothing of the {part}: {told}");
    }
    let listener = told.lines().find(|line| line.contains("state: listener")).context("no listener")?;
    ensure!(listener.contains("web") && listener.contains(&web.to_string()), "{listener}");

    ensure!(cluster.nodes[0].runs(), "it has ended");
    ensure!(fetch(web, HOST, "/").await?.status == 200);
    cluster.nodes[0].term()?;
    ensure!(cluster.nodes[0].ended(Duration::from_secs(60)).await?.success(), "it did not stop well");
    Ok(())
}
