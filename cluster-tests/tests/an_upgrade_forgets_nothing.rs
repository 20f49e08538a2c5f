//! What changes through a process that has handed over is not served by the one that has taken its place, and what it
//! fetches meanwhile is purged like anything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Cluster, HOST, Ports, Reply, Seen, SiteFile, Speak, Versions, empty, fetch, send, wait_until,
};
use http::{Method, Request};
use tokio::sync::Semaphore;

/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(30);

/// An origin whose answers say how often anything has changed: every POST is a change.
struct Changing {
    origin: Versions,
    /// A change is answered when this lets it through.
    gate: Arc<Semaphore>,
}

async fn changing() -> Result<Changing> {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let is_change = |seen: &Seen| seen.method == Method::POST;
    let origin = Versions::changed_by(is_change, move |seen, version| {
        let reply = Reply::ok(format!("version {version}")).field("cache-control", "max-age=3600");
        match (&*seen.path, is_change(seen)) {
            (_, false) => reply.field("cache-groups", "\"all\""),
            ("/group", true) => reply.field("cache-group-invalidation", "\"all\"").behind(&held),
            (_, true) => reply.behind(&held),
        }
    })
    .await?;
    Ok(Changing { origin, gate })
}

/// `changed` is posted to, which is to change what is at `path`.
async fn a_change_is_told(changed: &'static str, path: &str) -> Result<()> {
    let Changing { origin, gate, .. } = changing().await?;
    let cluster = Cluster::start_with(1, &["--cache-disk", "64MiB"]).await?;
    cluster.apply(0, &SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    cluster.serves(HOST, "/ready").await?;
    cluster.holds_lease(0).await?;
    let web = cluster.nodes[0].at(Ports::HTTP);
    for _ in 0..2 {
        ensure!(fetch(web, HOST, path).await?.body == "version 1");
    }

    let change = Request::post(changed).header("host", HOST).body(empty())?;
    let change = tokio::spawn(send(web, Speak::Http1, change));
    wait_until("the change is on its way", MOMENT, async || {
        origin.seen(changed).iter().any(|seen| seen.method == Method::POST)
    })
    .await?;
    cluster.nodes[0].upgrade(&[]).await?.expect(0)?;
    cluster.holds_lease(0).await?;
    let before = fetch(web, HOST, path).await?;
    ensure!(before.is_hit() && before.body == "version 1", "not from the disk: {before:?}");
    gate.add_permits(1);
    ensure!(change.await??.status == 200, "the change was lost");
    let after = fetch(web, HOST, path).await?;
    ensure!(after.body == "version 2", "what has changed is served: {after:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_the_next_process() -> Result<()> {
    a_change_is_told("/cart", "/cart").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_group_reaches_the_next_process() -> Result<()> {
    a_change_is_told("/group", "/news").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_fetched_meanwhile_can_be_purged() -> Result<()> {
    let Changing { origin, .. } = changing().await?;
    let cluster = Cluster::start(2).await?;
    cluster.apply(0, &SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    cluster.serves(HOST, "/ready").await?;
    cluster.holds_lease(1).await?;
    let (web, other) = (cluster.nodes[0].at(Ports::HTTP), cluster.nodes[1].at(Ports::HTTP));
    let (asked, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (number, over) = (asked.clone(), is_over.clone());
    let asking = tokio::spawn(async move {
        while !over.load(Ordering::SeqCst) {
            let n = number.fetch_add(1, Ordering::SeqCst);
            let answer = fetch(web, HOST, &format!("/live/{n}")).await.with_context(|| format!("{n}"))?;
            ensure!(answer.body == "version 1", "{n}: {answer:?}");
        }
        Ok(())
    });
    wait_until("some are asked for", MOMENT, async || asked.load(Ordering::SeqCst) > 20).await?;
    cluster.nodes[0].upgrade(&[]).await?.expect(0)?;
    is_over.store(true, Ordering::SeqCst);
    asking.await??;

    origin.become_version(2);
    cluster.nodes[1].shoal(&["cache", "purge", "--all"]).await?.expect(0)?;
    for n in 0..asked.load(Ordering::SeqCst) {
        let answer = fetch(other, HOST, &format!("/live/{n}")).await?;
        ensure!(answer.body == "version 2", "{n} was purged: {answer:?}");
    }
    Ok(())
}
