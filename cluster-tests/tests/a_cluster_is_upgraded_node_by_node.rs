//! Nodes of two versions are one cluster: what only the new one can do waits until all have it, until then each can go back,
//! and afterwards who does so says what it needs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, HOST, NodeProcess, Origin, Ports, SiteFile, fetch, skip, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// A node with this in its environment is of as many releases ahead: the next one writes tokens in another form.
const RELEASES_AHEAD: &str = "SHOAL_PRETEND_RELEASES_AHEAD";

/// The node goes and comes back as the version that is so many releases ahead.
async fn change_version(cluster: &mut Cluster, i: usize, ahead: u32) -> Result<()> {
    cluster.nodes[i].term()?;
    cluster.nodes[i].ended(PATIENCE).await?;
    cluster.nodes[i].unset_environment(RELEASES_AHEAD);
    if ahead > 0 {
        cluster.nodes[i].set_environment(RELEASES_AHEAD, &ahead.to_string());
    }
    cluster.restart(i)?;
    cluster.answers(i).await
}

async fn upgrade_status(cluster: &Cluster, i: usize) -> Result<Value> {
    cluster.nodes[i].told(&["upgrade", "status"]).await
}

/// Each node hears every other, and that it knows what it is to know.
async fn know(cluster: &Cluster, levels: [u64; 3]) -> Result<()> {
    for asked in 0..3 {
        wait_until(&format!("n{} hears that the nodes know {levels:?}", asked + 1), PATIENCE, async || {
            let Ok(status) = upgrade_status(cluster, asked).await else { return false };
            let nodes = status["nodes"].as_array().into_iter().flatten();
            // By their names: they have joined in any order.
            let known = nodes.map(|node| {
                let name = node["node"].as_str().unwrap_or_default().to_owned();
                (name, (node["knows"].as_u64().unwrap_or(0), node["heard"] == true))
            });
            let known: BTreeMap<String, (u64, bool)> = known.collect();
            known.into_values().eq(levels.map(|level| (level, true)))
        })
        .await?;
    }
    Ok(())
}

/// One that wants to join as the version that is so many releases ahead ends, and says why.
async fn refused_to_join(cluster: &Cluster, name: &str, ahead: u32) -> Result<String> {
    let token = cluster.token().await?;
    let mut node = NodeProcess::new(name, cluster.block().ip(99), &cluster.dir().join(name), &[]);
    if ahead > 0 {
        node.set_environment(RELEASES_AHEAD, &ahead.to_string());
    }
    node.start(Some((cluster.nodes[0].at(Ports::CLUSTER), &token)))?;
    let ended = node.ended(PATIENCE).await?;
    ensure!(!ended.success(), "{name} has joined: {}", node.log());
    Ok(node.log())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_waits_until_every_node_knows_it() -> Result<()> {
    if !cfg!(debug_assertions) {
        skip(
            "what_is_new_waits_until_every_node_knows_it",
            "only a debug build pretends to be of another release",
        );
        return Ok(());
    }
    let mut cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    let mut site = SiteFile::new().proxy("shop", &[origin.endpoint()]);
    cluster.put_in_force(&site).await?;
    let before = upgrade_status(&cluster, 2).await?;
    let level = before["level"].as_u64().context("a level")?;
    let next = level + 1;
    ensure!(
        before["newest"] == level && level > 0,
        "a new cluster begins at the level of its version: {before}"
    );
    let mut apply_on_each = async |cluster: &Cluster, what: &str| -> Result<()> {
        for i in 0..3 {
            let path = format!("/{what}/{i}");
            site = site.clone().route(what, json!({ "path": path, "upstream": "shop" }));
            let applied = cluster.apply(i, &site).await?;
            ensure!(applied.stdout.contains("applied on 3/3 nodes"), "{what}: {applied:?}");
        }
        Ok(())
    };

    // Somebody wants to look at it for a while.
    let held = cluster.nodes[1].shoal(&["upgrade", "hold", "-m", "until monday"]).await?.expect(0)?;
    ensure!(held.stdout.contains(": until monday"), "{held:?}");
    // Nobody's reason is lost by accident.
    cluster.nodes[2].shoal(&["upgrade", "hold", "-m", "until monday"]).await?.expect(0)?;
    let other = cluster.nodes[2].shoal(&["upgrade", "hold", "-m", "for the fair"]).await?.expect(1)?;
    let whose = ["it is held since 2", "Z by local: until monday; try: shoal upgrade hold --force"];
    ensure!(whose.iter().all(|part| other.stderr.contains(part)), "{other:?}");
    let forced = ["upgrade", "hold", "-m", "for the fair", "--force"];
    let replaced = cluster.nodes[2].shoal(&forced).await?.expect(0)?;
    ensure!(replaced.stdout.contains(": for the fair"), "{replaced:?}");
    let screen = cluster.nodes[2].shoal(&["status"]).await?.expect(0)?;
    ensure!(screen.stdout.contains("is held by local (for the fair)"), "{screen:?}");
    change_version(&mut cluster, 1, 1).await?;
    know(&cluster, [level, next, level]).await?;
    apply_on_each(&cluster, "mixed").await?;
    let token = cluster.nodes[1].shoal(&["token", "create"]).await?.expect(2)?;
    ensure!(
        token.stderr.contains(&format!("create token takes level {next}, and the cluster is at")),
        "{token:?}"
    );
    cluster.token().await.context("the old version writes what it always has")?;
    let early = cluster.nodes[0].shoal(&["upgrade", "finalize"]).await?.expect(2)?;
    for name in ["n1", "n3"] {
        ensure!(early.stderr.contains(&format!("{name} knows up to level {level}")), "{early:?}");
    }
    let why = refused_to_join(&cluster, "two-ahead", 2).await?;
    ensure!(why.contains(&format!("works from level {next} on")), "{why}");

    // All of them, one of which goes back once more.
    for i in [0, 2] {
        change_version(&mut cluster, i, 1).await?;
    }
    know(&cluster, [next; 3]).await?;
    change_version(&mut cluster, 1, 0).await?;
    know(&cluster, [next, level, next]).await?;
    apply_on_each(&cluster, "back").await?;
    change_version(&mut cluster, 1, 1).await?;
    know(&cluster, [next; 3]).await?;

    let done = cluster.nodes[2].shoal(&["upgrade", "finalize"]).await?.expect(0)?;
    ensure!(
        done.stdout.contains(&format!("the cluster is at level {next}, and so is every node")),
        "{done:?}"
    );
    ensure!(!done.stdout.contains("held"), "{done:?}");
    cluster.nodes[2].shoal(&["upgrade", "finalize"]).await?.expect(0)?;
    for (i, node) in cluster.nodes.iter().enumerate() {
        ensure!(upgrade_status(&cluster, i).await?["level"] == next, "n{} is not told", i + 1);
        node.shoal(&["token", "create"]).await?.expect(0)?;
    }
    apply_on_each(&cluster, "new").await?;

    // There is no way back. Who goes it serves what it knew last, and says what it needs.
    change_version(&mut cluster, 1, 0).await?;
    let needs = format!("start a version that knows level {next}");
    wait_until("it says what it needs", PATIENCE, async || {
        let Ok(status) = cluster.status(0).await else { return false };
        let nodes = status["nodes"].as_array().into_iter().flatten();
        nodes
            .filter(|node| node["node"] == "n2")
            .any(|node| node["log_broken"].as_str().is_some_and(|why| why.contains(&needs)))
    })
    .await?;
    ensure!(
        fetch(cluster.nodes[1].at(Ports::HTTP), HOST, "/new/2").await?.status == 200,
        "it does not serve"
    );
    let change = cluster.nodes[1].shoal(&["token", "create"]).await?.expect(2)?;
    ensure!(change.stderr.contains(&needs), "{change:?}");
    let why = refused_to_join(&cluster, "old", 0).await?;
    ensure!(why.contains(&format!("knows up to level {level}")), "{why}");
    change_version(&mut cluster, 1, 1).await?;
    know(&cluster, [next; 3]).await?;
    apply_on_each(&cluster, "again").await
}
