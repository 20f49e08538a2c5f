//! A machine burns down: its node is removed or replaced by name, and what was on the old disk never comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, HOST, NodeProcess, Origin, Ports, Reply, SiteFile, Verb, fetch, wait_until};
use serde_json::Value;

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
    let machine = NodeProcess::new(&name, ip, &dir, &["--drain-delay", "0s"]);
    let old = std::mem::replace(&mut cluster.nodes[i], machine);
    cluster.let_join(i).await?;
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
    cluster.put_in_force(&site).await?;

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
    ensure!(!namesake.log().contains("--force"), "`run` has no such flag: {}", namesake.log());

    let described = cluster.nodes[0].shoal(&["node", "describe", "n3"]).await?.expect(0)?.stdout;
    for part in ["alive, ready", "voter, ", "[+] listeners", "listener ", " s left of 2 s", "the newest"] {
        ensure!(described.contains(part), "{part:?} is missing: {described}");
    }
    cluster.nodes[2].kill9()?;
    is_held_dead(&cluster, "n3").await?;
    let described = cluster.nodes[0].shoal(&["node", "describe", "n3"]).await?.expect(0)?.stdout;
    ensure!(described.contains("dead, does not answer"), "{described}");
    for verb in [&["status"][..], &["node", "list"], &["upgrade", "status"]] {
        let shown = cluster.nodes[0].shoal(verb).await?.expect(0)?.stdout;
        ensure!(shown.contains("if it will not come back: shoal node remove n3"), "{verb:?}: {shown}");
    }
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
    // Its id is another one than its name looks like.
    let id = cluster.node_seen_by(0, "n3").await?["node_id"].as_u64().context("it has no id")?;
    let by_id = cluster.nodes[0].shoal(&["node", "describe", &format!("n{id}")]).await?.expect(1)?;
    ensure!(by_id.stderr.contains(&format!("--id n{id} is \"n3\"")), "{by_id:?}");
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

/// Versions of what an origin has, and the first of them that may be answered: what was before has been purged everywhere.
#[derive(Default)]
struct Versions {
    newest: AtomicU64,
    least: AtomicU64,
    purges: AtomicU64,
    is_over: AtomicBool,
}

/// Asks the node at `web` again and again; how many answers there were, each no older than what had been purged when it was
/// asked for.
async fn read(web: SocketAddr, versions: Arc<Versions>) -> Result<u64> {
    let mut answers = 0;
    while !versions.is_over.load(Ordering::SeqCst) {
        for path in ["/a", "/b", "/c"] {
            let least = versions.least.load(Ordering::SeqCst);
            // A node that is down says nothing, and nothing wrong.
            let Ok(Ok(answer)) = tokio::time::timeout(DEADLINE, fetch(web, HOST, path)).await else {
                continue;
            };
            if answer.status == 200 {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                let version: u64 = text.parse().with_context(|| format!("no version: {text:?}"))?;
                ensure!(
                    version >= least,
                    "{web}{path}: {version}, and all before {least} was purged: {answer:?}"
                );
                answers += 1;
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(answers)
}

/// A version, and when it is there, the one before is purged; again and again, by way of the node with this `socket`.
async fn purge(socket: String, versions: Arc<Versions>) -> Result<()> {
    while !versions.is_over.load(Ordering::SeqCst) {
        let version = versions.newest.fetch_add(1, Ordering::SeqCst) + 1;
        let purge = Verb::from_afar(&["--socket", &socket, "cache", "purge", "--all"]).run().await?;
        // 5: not known to be forgotten everywhere, 6: not in the log.
        ensure!([0, 5, 6].contains(&purge.code), "{purge:?}");
        if purge.code == 0 {
            versions.least.fetch_max(version, Ordering::SeqCst);
            versions.purges.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_purged_is_served_while_nodes_come_and_go() -> Result<()> {
    let mut cluster = Cluster::start_with(4, &["--drain-delay", "0s", "--cache-disk", "64MiB"]).await?;
    let versions = Arc::new(Versions::default());
    let newest = versions.clone();
    let origin = Origin::start(move |_| {
        let version = newest.newest.load(Ordering::SeqCst);
        Reply::ok(version.to_string()).field("cache-control", "max-age=3600")
    })
    .await?;
    cluster.put_in_force(&SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    let socket = cluster.nodes[0].data_dir().join("admin.sock").display().to_string();
    let purging = tokio::spawn(purge(socket, versions.clone()));
    let reading: Vec<_> =
        cluster.nodes.iter().map(|node| tokio::spawn(read(node.at(Ports::HTTP), versions.clone()))).collect();
    let more_purges = async |so_many: u64| {
        let before = versions.purges.load(Ordering::SeqCst);
        let purged =
            async || versions.purges.load(Ordering::SeqCst) >= before + so_many || purging.is_finished();
        wait_until("it is purged meanwhile", DEADLINE, purged).await
    };

    more_purges(5).await?;
    cluster.nodes[1].kill9()?;
    more_purges(2).await?;
    cluster.restart(1)?;
    cluster.answers(1).await?;
    cluster.nodes[2].stop()?;
    more_purges(2).await?;
    cluster.nodes[2].cont()?;
    more_purges(2).await?;
    cluster.nodes[0].shoal(&["node", "drain", "n2"]).await?.expect(0)?;
    more_purges(2).await?;
    cluster.nodes[0].shoal(&["node", "undrain", "n2"]).await?.expect(0)?;
    cluster.nodes[3].kill9()?;
    is_held_dead(&cluster, "n4").await?;
    replace(&mut cluster, 3).await?;
    more_purges(5).await?;

    versions.is_over.store(true, Ordering::SeqCst);
    purging.await??;
    for (node, reading) in cluster.nodes.iter().zip(reading) {
        let answers = reading.await??;
        ensure!(answers > 100, "{} has answered {answers} times", node.name);
    }
    eprintln!("{} purges were complete", versions.purges.load(Ordering::SeqCst));
    Ok(())
}
