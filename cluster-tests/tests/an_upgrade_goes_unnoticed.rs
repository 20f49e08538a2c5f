//! A node is replaced by a new process under load: nobody is refused, nobody is cut off, and the cluster sees no death.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Cluster, HOST, Load, Origin, Ports, Reply, SiteFile, fetch, path_text, pattern, shoal_binary, wait_until,
};

const SIZE: usize = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_upgraded_under_load() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origin =
        Origin::start(|seen| Reply::ok(pattern(&seen.path, SIZE)).after(Duration::from_millis(20))).await?;
    let answers_late =
        Origin::start(|seen| Reply::ok(pattern(&seen.path, SIZE)).after(Duration::from_secs(4))).await?;
    let site = SiteFile::new()
        .proxy("shop", &[origin.endpoint()])
        .proxy("late", &[answers_late.endpoint()])
        .route("late", serde_json::json!({ "path_prefix": "/late", "upstream": "late" }));
    cluster.put_in_force(&site).await?;

    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    let paths = (0..40).map(|n| format!("/live/{n}")).collect();
    let load = Load::start(&addresses, 3, HOST, paths, |path| Some(pattern(path, SIZE)));
    wait_until("the load runs", Duration::from_secs(20), async || load.good() > 200).await?;

    // A binary that is none changes nothing.
    let refused = cluster.nodes[0].upgrade(&["--binary", "/bin/false"]).await?.expect(2)?;
    ensure!(refused.stderr.contains("the old process serves on"), "{}", refused.stderr);
    ensure!(cluster.nodes[0].runs() && cluster.status(0).await?["quorum"] == true);

    for (i, address) in addresses.iter().copied().enumerate() {
        let path = format!("/late/{i}");
        let asked = path.clone();
        let late = tokio::spawn(async move { fetch(address, HOST, &asked).await });
        wait_until("the late request is under way", Duration::from_secs(10), async || {
            answers_late.count(&path) == 1
        })
        .await?;
        if i == 2 {
            cluster.nodes[i].usr2()?;
        } else {
            let upgraded = cluster.nodes[i].upgrade(&[]).await?.expect(0)?;
            ensure!(upgraded.stdout.contains("serves"), "{}", upgraded.stdout);
        }
        let status = cluster.nodes[i].ended(Duration::from_secs(60)).await?;
        ensure!(status.success(), "the old process ended with {status}");
        ensure!(late.await??.body == pattern(&path, SIZE), "the request under way was lost");
        cluster.settle().await?;
        ensure!(cluster.readyz(i).await?.0 == 200, "the new process is not ready");
    }
    for node in &cluster.nodes {
        ensure!(!node.log().contains("is not heard any more"), "{} believed another one dead", node.name);
    }
    // The cluster decides as before, and the new processes follow.
    let changed = site.route("more", serde_json::json!({ "path_prefix": "/more", "upstream": "shop" }));
    cluster.apply(1, &changed).await.context("a change after the upgrades")?;

    for (i, target) in load.finish().await.targets.iter().enumerate() {
        let lost =
            target.broken.load(Relaxed) + target.stillborn.load(Relaxed) + target.refused.load(Relaxed);
        ensure!(target.wrong() == 0 && lost == 0, "n{}: {lost} lost\n{}", i + 1, target.faults());
    }
    Ok(())
}

/// It can do all that is rehearsed, and fails when log and sockets are its own: one of its addresses is of no interface.
fn binary_that_fails_late(cluster: &Cluster) -> Result<PathBuf> {
    let shoal = shoal_binary().map_err(anyhow::Error::msg)?;
    let script = format!(
        "#!/bin/sh\nfor a; do shift; case $a in *:{}) a=192.0.2.1:1;; esac; set -- \"$@\" \"$a\"; done\nexec {} \"$@\"\n",
        Ports::OPS,
        shoal.display()
    );
    let file = cluster.file("fails-late", script)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    Ok(file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_that_fails_late_is_replaced_by_the_old_one() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let origin = Origin::start(|seen| Reply::ok(pattern(&seen.path, SIZE))).await?;
    cluster.put_in_force(&SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
    let address = cluster.nodes[0].at(Ports::HTTP);
    let load = Load::start(&[address], 3, HOST, vec!["/live".to_owned()], |path| Some(pattern(path, SIZE)));
    wait_until("the load runs", Duration::from_secs(20), async || load.good() > 50).await?;

    let file = binary_that_fails_late(&cluster)?;
    let binary = path_text(&file);
    let failed = cluster.nodes[0].upgrade(&["--binary", binary]).await?.expect(2)?;
    ensure!(failed.stderr.contains("192.0.2.1"), "why it failed is not said: {}", failed.stderr);
    ensure!(failed.stderr.contains("the old binary serves on, as process"), "{}", failed.stderr);
    ensure!(cluster.nodes[0].ended(Duration::from_secs(60)).await?.success());
    cluster.settle().await?;
    cluster.nodes[0].upgrade(&["--binary", "/bin/false"]).await?.expect(2)?;

    let good = load.good();
    wait_until("the load goes on", Duration::from_secs(20), async || load.good() > good + 50).await?;
    let report = load.finish().await;
    let target = &report.targets[0];
    let lost = target.broken.load(Relaxed) + target.stillborn.load(Relaxed) + target.refused.load(Relaxed);
    ensure!(target.wrong() == 0 && lost == 0, "{lost} lost\n{}", target.faults());
    Ok(())
}
