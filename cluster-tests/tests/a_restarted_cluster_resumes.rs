//! Every node is stopped and started again: the same revision, the same certificate, serving at once.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Cluster, Connection, HOST, Origin, Ports, Reply, SelfSigned, SiteFile, Speak, fetch, wait_until,
};

/// From the start of the processes to an answer; a debug build takes its time.
fn serving_deadline() -> Duration {
    if cfg!(debug_assertions) { Duration::from_secs(10) } else { Duration::from_secs(3) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_resumes_after_sigterm_and_after_sigkill() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "300ms"]).await?;
    let origin = Origin::of_patterns(500, "max-age=60").await?;
    let certificate = SelfSigned::create(cluster.dir(), &[HOST])?;
    let site = SiteFile::new().cached("shop", &[origin.endpoint()]).secure(
        "shop",
        &certificate.chain_file,
        &certificate.key_file,
    );
    cluster.apply(2, &site).await?;
    cluster.serves(HOST, "/").await?;
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
        ensure!(
            started.elapsed() < serving_deadline(),
            "politely {politely}: served after {:?}",
            started.elapsed()
        );
        for i in 0..3 {
            same_certificate(&cluster, i, &certificate).await?;
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

async fn same_certificate(cluster: &Cluster, i: usize, certificate: &SelfSigned) -> Result<()> {
    let speak = Speak::Tls(certificate.trusting_client(&["http/1.1"])?, HOST.to_owned());
    let connection = Connection::open(cluster.nodes[i].at(Ports::HTTPS), speak).await?;
    let served = connection.certificate.context("no certificate")?;
    ensure!(served == certificate.der, "n{} serves another certificate", i + 1);
    Ok(())
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
    // The paused node may still count as live, so 5 (not every live node) is as good as 0: it is committed.
    let output = cluster.try_apply(other, &site).await?;
    ensure!(output.code == 0 || output.code == 5, "{output:?}");
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
            let status = cluster.status(0).await.ok()?;
            let nodes = status["nodes"].as_array()?;
            let refused = nodes.iter().find(|node| node["node"] == "n3")?["refused"].as_str()?;
            refused.starts_with("2 processes of this node have died within 60s").then_some(())
        })
        .await?;
    answers(&cluster, VICTIM, "old").await?;

    // Another revision is tried.
    let next = new.clone().upstream("unused", serde_json::json!({ "endpoints": [origins[0].endpoint()] }));
    cluster.apply(0, &next).await?;
    answers(&cluster, VICTIM, "new").await
}

/// The `i`-th node comes to answer with `body`.
async fn answers(cluster: &Cluster, i: usize, body: &str) -> Result<()> {
    let what = format!("{} answers {body:?}", cluster.nodes[i].name);
    wait_until(&what, Duration::from_secs(30), async || {
        fetch(cluster.nodes[i].at(Ports::HTTP), HOST, "/").await.is_ok_and(|answer| answer.body == body)
    })
    .await
    .map(drop)
}
