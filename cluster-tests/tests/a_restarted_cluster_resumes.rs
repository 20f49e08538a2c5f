//! Every node is stopped and started again: the same revision, the same certificate, serving at once.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::{Bar, Cluster, HOST, Origin, Ports, Reply, Scene, SiteFile, fetch, wait_until};

/// From the start of the processes to an answer of each.
const SERVING: Bar = Bar::of_ms(3_000, 2_300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_resumes_after_sigterm_and_after_sigkill() -> Result<()> {
    let cluster = Cluster::start_with(3, &["--drain-delay", "300ms"]).await?;
    let Scene { mut cluster, origin, site, certificate } = Scene::set(cluster).await?;
    let revision = cluster.revision(0).await?;

    for politely in [true, false] {
        for node in &mut cluster.nodes {
            if politely { node.term()? } else { node.kill9()? }
        }
        if politely {
            for node in &mut cluster.nodes {
                let status = node.ended(Duration::from_secs(45)).await?;
                ensure!(status.success(), "{} ended with {status} after SIGTERM", node.name);
            }
        }
        let started = Instant::now();
        for i in 0..3 {
            cluster.restart(i)?;
        }
        cluster.serves(HOST, "/").await?;
        SERVING.hold(&format!("politely {politely}: nobody serves"), started.elapsed())?;
        for i in 0..3 {
            certificate.is_shown_by(&cluster.nodes[i]).await?;
        }
        cluster.settle().await?;
        for i in 0..3 {
            ensure!(cluster.revision(i).await? == revision, "n{} came back with another revision", i + 1);
        }
    }
    // The cluster takes changes again.
    cluster.apply(1, &site.proxy("more", &[origin.endpoint()]).route("more", more())).await?;
    secrets_are_private(&cluster)
}

fn more() -> serde_json::Value {
    serde_json::json!({ "hosts": ["more.example.com"], "path_prefix": "/", "upstream": "more" })
}

/// Private keys on disk are for their owner only.
fn secrets_are_private(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        for entry in std::fs::read_dir(node.data_dir().join("identity"))? {
            let file = entry?.path();
            let mode = std::fs::metadata(&file)?.permissions().mode() & 0o777;
            ensure!(mode & 0o077 == 0, "{file:?} has mode {mode:o}");
        }
        ensure!(node.stdout().is_empty(), "{} wrote to standard output: {:?}", node.name, node.stdout());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_paused_catches_up() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(500, "no-store").await?;
    cluster.put_in_force(&SiteFile::new().proxy("old", &[origin.endpoint()])).await?;
    let paused = (cluster.leader_seen_by(0).await? + 1) % 3;
    let other = (paused + 1) % 3;
    cluster.nodes[paused].stop()?;
    let site = SiteFile::new().proxy("old", &[origin.endpoint()]).route("more", {
        serde_json::json!({ "hosts": ["late.example.com"], "path": "/late", "upstream": "old" })
    });
    // As long as it counts as live, it is missed by whoever changes something.
    let name = cluster.nodes[paused].name.clone();
    wait_until("the paused node is held to be dead", Duration::from_secs(30), async || {
        cluster.node_seen_by(other, &name).await.is_ok_and(|seen| seen["state"] == "dead")
    })
    .await?;
    let output = cluster.apply(other, &site).await?;
    ensure!(output.stdout.contains("applied on 2/2 live nodes"), "{output:?}");
    cluster.nodes[paused].cont()?;
    let revision = cluster.revision(other).await?;
    wait_until("the paused node has the revision", Duration::from_secs(30), async || {
        cluster.revision(paused).await.is_ok_and(|seen| seen == revision)
    })
    .await?;
    let answer = fetch(cluster.nodes[paused].at(Ports::HTTP), "late.example.com", "/late").await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

/// The guard cannot tell a process that was killed from one that has crashed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_of_a_revision_twice_goes_back_to_the_one_before() -> Result<()> {
    const VICTIM: usize = 2;
    let mut cluster = Cluster::start(3).await?;
    let origins = [Origin::start(|_| Reply::ok("old")).await?, Origin::start(|_| Reply::ok("new")).await?];
    let [old, new] = origins.each_ref().map(|origin| SiteFile::new().proxy("shop", &[origin.endpoint()]));
    cluster.apply(0, &old).await?;
    cluster.apply(0, &new).await?;
    // The first death may have had any reason, the second is one too many, and what is refused stays so.
    for served in ["new", "old", "old"] {
        cluster.nodes[VICTIM].kill9()?;
        cluster.restart(VICTIM)?;
        answers(&cluster, VICTIM, served).await?;
        cluster.answers(VICTIM).await?;
        answers(&cluster, 0, "new").await?;
    }
    cluster
        .eventually("the others are told why", async || {
            let seen = cluster.node_seen_by(0, "n3").await.ok()?;
            seen["refused"]
                .as_str()?
                .starts_with("2 processes of this node have died within 60s")
                .then_some(())
        })
        .await?;
    answers(&cluster, VICTIM, "old").await?;

    // Another revision is tried, also of the same content: no other node has died of it, so it is not to blame.
    cluster.apply(0, &old).await?;
    cluster.apply(0, &new).await?;
    let seen = cluster.nodes[0].told(&["rollout", "status"]).await?;
    ensure!(seen["quarantine"] == serde_json::json!([]), "{seen}");
    answers(&cluster, VICTIM, "new").await
}

/// The `i`-th node comes to answer with `body`.
async fn answers(cluster: &Cluster, i: usize, body: &str) -> Result<()> {
    let what = format!("{} answers {body:?}", cluster.nodes[i].name);
    wait_until(&what, Duration::from_secs(30), async || cluster.answers_with(i, body).await).await.map(drop)
}
