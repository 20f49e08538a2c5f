//! Three nodes under load: one is killed, and neither a route nor a cached object is lost.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use cluster_tests::{
    Bar, Cluster, HOST, Load, LoadReport, NginxOrigin, Origin, Ports, Reply, SelfSigned, SiteFile, Speak,
    empty, fetch, pattern, send, skip, wait_until,
};
use http::Request;
use serde_json::json;

const OBJECTS: usize = 300;
const OBJECT_BYTES: usize = 4096;
/// Clients per node.
const CLIENTS: usize = 4;
/// From the death of the leader to a change that all who are left run.
const APPLIED: Bar = Bar::of_ms(5_000, 2_500);

fn answer(path: &str) -> Reply {
    let caching = if path.starts_with("/live/") { "no-store" } else { "public, max-age=3600" };
    Reply::ok(pattern(path, OBJECT_BYTES)).field("cache-control", caching)
}

fn object(n: usize) -> String {
    format!("/objects/{n}")
}

fn shop(endpoints: &[String]) -> SiteFile {
    SiteFile::new().cached_unverified("shop", endpoints)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_under_load() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origins =
        [Origin::start(|seen| answer(&seen.path)).await?, Origin::start(|seen| answer(&seen.path)).await?];
    let endpoints: Vec<String> = origins.iter().map(Origin::endpoint).collect();
    let site = shop(&endpoints);
    cluster.apply(0, &site).await?;
    cluster.serves(HOST, "/live/first").await?;

    cache_every_object(&cluster).await?;
    let fetched = |prefix: &str| origins.iter().map(|origin| origin.count_below(prefix)).sum::<usize>();
    ensure!(
        fetched("/objects/") == OBJECTS,
        "{} origin requests for {OBJECTS} objects",
        fetched("/objects/")
    );

    let leader = cluster.leader_seen_by(0).await?;
    let survivors: Vec<usize> = (0..3).filter(|&i| i != leader).collect();
    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    let paths = (0..60).flat_map(|n| [format!("/warm/{n}"), format!("/live/{n}")]).collect();
    let load = Load::start(&addresses, CLIENTS, HOST, paths, |path| Some(pattern(path, OBJECT_BYTES)));
    wait_until("the load runs", Duration::from_secs(20), async || load.good() > 500).await?;

    let killed = Instant::now();
    cluster.nodes[leader].kill9()?;
    let site =
        site.route("new", json!({ "hosts": ["new.example.com"], "path_prefix": "/", "upstream": "shop" }));
    cluster.apply(survivors[0], &site).await?;
    APPLIED.hold("a change after the leader was killed", killed.elapsed())?;
    let good = load.good();
    wait_until("the load goes on", Duration::from_secs(20), async || load.good() > good + 500).await?;
    judge(&load.finish().await, leader)?;

    let before: Vec<usize> = (0..OBJECTS).map(|n| fetched_once(&origins, n)).collect();
    let mut lost = Vec::new();
    for n in 0..OBJECTS {
        let node = &cluster.nodes[survivors[n % 2]];
        let answer = fetch(node.at(Ports::HTTP), HOST, &object(n)).await?;
        ensure!(
            answer.status == 200 && answer.body == pattern(&object(n), OBJECT_BYTES),
            "{}: {answer:?}",
            object(n)
        );
        if fetched_once(&origins, n) > before[n] {
            lost.push(format!("{}: {}", object(n), answer.cache_status()));
        }
    }
    ensure!(lost.is_empty(), "{} of {OBJECTS} objects were fetched again: {lost:#?}", lost.len());

    let answer = fetch(cluster.nodes[survivors[1]].at(Ports::HTTP), "new.example.com", "/live/new").await?;
    ensure!(answer.status == 200, "the new route answers {}", answer.status);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_node_is_killed_and_nobody_waits_until_it_is_missed() -> Result<()> {
    survives(0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_node_is_killed_and_nobody_waits_until_it_is_missed() -> Result<()> {
    survives(1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_third_node_is_killed_and_nobody_waits_until_it_is_missed() -> Result<()> {
    survives(2).await
}

/// Every object is read from both survivors, from the moment of the kill on: no error, no request to the origin.
async fn survives(victim: usize) -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origin = Origin::start(|seen| answer(&seen.path)).await?;
    cluster.apply(0, &shop(&[origin.endpoint()])).await?;
    cluster.serves(HOST, "/live/first").await?;
    cache_every_object(&cluster).await?;
    ensure!(
        origin.count_below("/objects/") == OBJECTS,
        "{} origin requests",
        origin.count_below("/objects/")
    );

    cluster.nodes[victim].kill9()?;
    for n in 0..OBJECTS {
        for survivor in (0..3).filter(|&i| i != victim) {
            let answer = fetch(cluster.nodes[survivor].at(Ports::HTTP), HOST, &object(n)).await?;
            ensure!(
                answer.status == 200 && answer.body == pattern(&object(n), OBJECT_BYTES),
                "n{} without n{}: {}: {answer:?}",
                survivor + 1,
                victim + 1,
                object(n)
            );
        }
    }
    let lost: Vec<String> = (0..OBJECTS).map(object).filter(|path| origin.count(path) > 1).collect();
    ensure!(lost.is_empty(), "fetched again without n{}: {lost:?}", victim + 1);
    Ok(())
}

fn fetched_once(origins: &[Origin], n: usize) -> usize {
    origins.iter().map(|origin| origin.count(&object(n))).sum()
}

/// Fetches every object once, through different nodes, and waits until each is on two of them.
async fn cache_every_object(cluster: &Cluster) -> Result<()> {
    for n in 0..OBJECTS {
        let answer = fetch(cluster.nodes[n % 3].at(Ports::HTTP), HOST, &object(n)).await?;
        ensure!(answer.status == 200, "{}: {} {}", object(n), answer.status, answer.cache_status());
    }
    wait_until("every object has two copies", Duration::from_secs(20), async || {
        let Ok(stats) = cluster.nodes[0].told(&["cache", "stats"]).await else { return false };
        let copies = stats["nodes"].as_array().into_iter().flatten();
        copies.map(|node| node["counters"]["objects"].as_u64().unwrap_or(0)).sum::<u64>()
            >= 2 * OBJECTS as u64
    })
    .await
    .map(drop)
}

/// Survivors: nothing wrong at all. The dead node: at most one broken connection per client, and no wrong answer.
fn judge(report: &LoadReport, dead: usize) -> Result<()> {
    for (i, target) in report.targets.iter().enumerate() {
        ensure!(target.wrong() == 0, "n{}: {target:?}", i + 1);
        let errors = target.connection_errors();
        if i != dead {
            ensure!(errors == 0, "n{}: {errors} connection errors on a survivor\n{}", i + 1, target.faults());
        } else {
            let broken = target.broken.load(Relaxed);
            ensure!(
                broken <= CLIENTS as u64,
                "{broken} broken connections for {CLIENTS} clients\n{}",
                target.faults()
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_dies_in_front_of_real_files() -> Result<()> {
    let files = tempfile::tempdir()?;
    let root = write_files(files.path())?;
    let one = NginxOrigin::start(&files.path().join("one"), &root).await?;
    let two = NginxOrigin::start(&files.path().join("two"), &root).await?;
    let (Some(one), Some(two)) = (one, two) else {
        skip("a_follower_dies_in_front_of_real_files", "there is no nginx on this machine");
        return Ok(());
    };
    let mut cluster = Cluster::start(3).await?;
    let certificate = SelfSigned::create(cluster.dir(), &[HOST])?;
    let site =
        SiteFile::new().cached("files", &[one.endpoint(), two.endpoint()]).secure_by("shop", &certificate);
    cluster.apply(1, &site).await?;
    cluster.serves(HOST, "/index.html").await?;

    let big = fs::read(root.join("big.bin"))?;
    let tls = Speak::Tls(certificate.trusting_client(&["h2"])?, HOST.to_owned());
    let request = Request::get(format!("https://{HOST}/big.bin")).body(empty())?;
    let answer = send(cluster.nodes[2].at(Ports::HTTPS), tls, request).await?;
    ensure!(answer.body == big, "the large file came through as {} other bytes", answer.body.len());

    let leader = cluster.leader_seen_by(0).await?;
    let dead = (leader + 1) % 3;
    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    let names = ["index.html", "style.css", "logo.png", "page/1.html", "page/2.html", "page/3.html"];
    let paths = names.iter().map(|name| format!("/{name}")).collect();
    let expected = move |path: &str| fs::read(root.join(&path[1..])).ok().map(Bytes::from);
    let load = Load::start(&addresses, CLIENTS, HOST, paths, expected);
    wait_until("the load runs", Duration::from_secs(20), async || load.good() > 300).await?;
    cluster.nodes[dead].kill9()?;
    let good = load.good();
    wait_until("the load goes on", Duration::from_secs(20), async || load.good() > good + 600).await?;
    judge(&load.finish().await, dead)?;
    let asked = one.count_below("/page/1.html")? + two.count_below("/page/1.html")?;
    ensure!(asked <= 2, "the origins' access logs show {asked} requests for a cached file");
    Ok(())
}

fn write_files(dir: &std::path::Path) -> Result<std::path::PathBuf> {
    let root = dir.join("root");
    fs::create_dir_all(root.join("page"))?;
    let mut files =
        vec![("index.html", 3_000), ("style.css", 12_000), ("logo.png", 40_000), ("big.bin", 24 << 20)];
    files.extend([("page/1.html", 900), ("page/2.html", 2_000), ("page/3.html", 70_000)]);
    for (name, length) in files {
        fs::write(root.join(name), pattern(name, length))?;
    }
    Ok(root)
}
