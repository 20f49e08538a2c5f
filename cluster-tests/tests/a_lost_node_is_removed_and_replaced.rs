//! A machine burns down: its node is removed or replaced by name, and what was on the old disk never comes back.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, NodeProcess, Origin, Ports, SiteFile, wait_until};
use serde_json::Value;

const HOST: &str = "shop.example.com";
/// For a death to be noticed, and for a removed node to find out, drain and end.
const DEADLINE: Duration = Duration::from_secs(60);

/// Names and states as the first node has them.
async fn members(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let status = cluster.status(0).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nodes = status["nodes"].as_array().into_iter().flatten();
    Ok(nodes.map(|node| (text(&node["node"]), text(&node["state"]))).collect())
}

async fn is_held_dead(cluster: &Cluster, name: &str) -> Result<()> {
    wait_until(&format!("{name} is held to be dead"), DEADLINE, async || {
        members(cluster).await.is_ok_and(|all| all.contains(&(name.to_owned(), "dead".to_owned())))
    })
    .await
    .map(drop)
}

/// A new machine with the name and the addresses of the `i`-th node, which joins with an empty directory.
async fn replace(cluster: &mut Cluster, i: usize) -> Result<NodeProcess> {
    let (name, ip) = (cluster.nodes[i].name.clone(), cluster.nodes[i].ip);
    let dir = cluster.dir().join(format!("{name}-new-{}", members(cluster).await?.len()));
    let mut machine = NodeProcess::new(&name, ip, &dir, &["--drain-delay", "0s"]);
    let (address, token) = (cluster.nodes[0].at(Ports::CLUSTER), cluster.token().await?);
    machine.start(Some((address, &token)))?;
    let old = std::mem::replace(&mut cluster.nodes[i], machine);
    cluster.answers(i).await?;
    cluster.settle().await?;
    Ok(old)
}

/// The old data directory is told what has become of it, once by the others and from then on by itself.
async fn is_sent_away(old: &mut NodeProcess) -> Result<()> {
    for is_told_by_others in [true, false] {
        let before = old.log().len();
        old.start(None)?;
        let status = old.ended(DEADLINE).await?;
        let log = old.log()[before..].to_owned();
        ensure!(!status.success(), "it ended with success: {log}");
        let advice = "this node was removed from the cluster; start it with an empty data directory";
        ensure!(log.contains(advice), "{log}");
        ensure!(log.contains("resuming") == is_told_by_others, "told by others: {is_told_by_others}: {log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_makes_room_and_stays_away() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let origin = Origin::of_patterns(500, "no-store").await?;
    let site = SiteFile::new().proxy("shop", &[origin.endpoint()]);
    cluster.apply(0, &site).await?;
    cluster.serves(HOST, "/").await?;

    let heard = cluster.nodes[0].shoal(&["node", "remove", "n3"]).await?.expect(1)?;
    ensure!(heard.stderr.contains("it is heard"), "{heard:?}");
    let unknown = cluster.nodes[0].shoal(&["node", "remove", "n9"]).await?.expect(1)?;
    ensure!(unknown.stderr.contains("there is no node called \"n9\""), "{unknown:?}");
    // A namesake of a node that is heard is refused, and told how it could be done.
    let (address, token) = (cluster.nodes[0].at(Ports::CLUSTER), cluster.token().await?);
    let (ip, dir) = (cluster.block().ip(99), cluster.dir().join("namesake"));
    let mut namesake = NodeProcess::new("n3", ip, &dir, &[]);
    namesake.start(Some((address, &token)))?;
    ensure!(!namesake.ended(DEADLINE).await?.success(), "{}", namesake.log());
    ensure!(namesake.log().contains("shoal node remove n3"), "{}", namesake.log());

    let described = cluster.nodes[0].shoal(&["node", "describe", "n3"]).await?.expect(0)?.stdout;
    for part in ["alive, ready", "voter, ", "[+] listeners", "listener ", " s left of 2 s", "the newest"] {
        ensure!(described.contains(part), "{part:?} is missing: {described}");
    }
    cluster.nodes[2].kill9()?;
    is_held_dead(&cluster, "n3").await?;
    let described = cluster.nodes[0].shoal(&["node", "describe", "n3"]).await?.expect(0)?.stdout;
    ensure!(described.contains("dead, does not answer"), "{described}");
    let removed = cluster.nodes[0].shoal(&["node", "remove", "n3"]).await?.expect(0)?;
    ensure!(removed.stdout.contains("removed n3 ("), "{removed:?}");
    ensure!(removed.stdout.contains("in force on 2/2 nodes"), "{removed:?}");
    let names: Vec<_> = members(&cluster).await?.into_iter().map(|(name, _)| name).collect();
    ensure!(names == ["n1", "n2"], "{names:?}");
    let (_, readyz) = cluster.readyz(0).await?;
    ensure!(readyz.contains("2 of 2 members heard"), "{readyz}");
    let site = site.route("more", serde_json::json!({ "path_prefix": "/more", "upstream": "shop" }));
    let applied = cluster.apply(0, &site).await?;
    ensure!(applied.stdout.contains("applied on 2/2 nodes"), "{applied:?}");

    let mut old = replace(&mut cluster, 2).await?;
    let site = site.route("again", serde_json::json!({ "path_prefix": "/again", "upstream": "shop" }));
    let applied = cluster.apply(0, &site).await?;
    ensure!(applied.stdout.contains("applied on 3/3 nodes"), "{applied:?}");
    // One machine has the addresses now; its own death makes them free for the old disk to be tried.
    cluster.nodes[2].kill9()?;
    is_sent_away(&mut old).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_machine_takes_the_name_of_a_dead_one() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let origin = Origin::of_patterns(500, "no-store").await?;
    cluster.nodes[2].kill9()?;
    is_held_dead(&cluster, "n3").await?;
    replace(&mut cluster, 2).await?;
    let names: Vec<_> = members(&cluster).await?.into_iter().map(|(name, _)| name).collect();
    ensure!(names == ["n1", "n2", "n3"], "{names:?}");
    let applied = cluster.apply(0, &SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
    ensure!(applied.stdout.contains("applied on 3/3 nodes"), "{applied:?}");
    cluster.serves(HOST, "/").await
}
