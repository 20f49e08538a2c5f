//! What was stored is there after a stop and after a crash, whole and right; what was purged or changed is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Cluster, HOST, Origin, Ports, Reply, Seen, SiteFile, Speak, Versions, empty, fetch, pattern, send,
    wait_until,
};
use http::Request;

/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(30);
/// Objects that are asked for in a round of kills.
const OBJECTS: usize = 120;
/// Kills; `SHOAL_KILLS` says otherwise.
const KILLS: usize = 12;
/// Small ones, ones that are written on their second hit, ones that are read by pieces.
const SIZES: [usize; 6] = [0, 700, 20_000, 64_000, 100_000, 700_000];

fn size_of(path: &str) -> usize {
    let number = path.rsplit('/').next().and_then(|number| number.parse::<usize>().ok());
    number.map_or(100, |number| SIZES[number % SIZES.len()])
}

fn object(n: usize) -> String {
    format!("/objects/{n}")
}

async fn patterns() -> Result<Origin> {
    Origin::start(|seen| {
        Reply::ok(pattern(&seen.path, size_of(&seen.path))).field("cache-control", "max-age=3600")
    })
    .await
}

/// One node, with an origin whose objects are worth keeping, that may answer from what it has stored.
async fn one_node(extra: &[&str], origin: &Origin) -> Result<Cluster> {
    let cluster = Cluster::start_with(1, extra).await?;
    cluster.apply(0, &SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    serves(&cluster, 0).await?;
    Ok(cluster)
}

/// The node answers, and hits are allowed.
async fn serves(cluster: &Cluster, node: usize) -> Result<()> {
    cluster.holds_lease(node).await?;
    cluster.node_serves(node, HOST, "/ready").await
}

async fn figure(cluster: &Cluster, name: &str) -> Result<f64> {
    cluster.metric(0, &format!("shoal_cache_disk_{name}"), "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_loses_nothing() -> Result<()> {
    let origin = patterns().await?;
    let mut cluster = one_node(&["--cache-disk", "64MiB", "--drain-delay", "0s"], &origin).await?;
    let web = cluster.nodes[0].at(Ports::HTTP);
    for _ in 0..2 {
        for n in 0..OBJECTS {
            ensure!(fetch(web, HOST, &object(n)).await?.status == 200);
        }
    }
    cluster.nodes[0].term()?;
    ensure!(cluster.nodes[0].ended(MOMENT).await?.success());
    cluster.restart(0)?;
    serves(&cluster, 0).await?;
    for n in 0..OBJECTS {
        let answer = fetch(web, HOST, &object(n)).await?;
        ensure!(answer.body == pattern(&object(n), size_of(&object(n))), "{n}: other bytes");
        ensure!(
            answer.cache_status().contains("hit") && answer.cache_status().ends_with("detail=local-disk"),
            "{n}: {}",
            answer.cache_status()
        );
    }
    ensure!(origin.count_below("/objects/") == OBJECTS, "{} fetches", origin.count_below("/objects/"));
    ensure!(figure(&cluster, "hits_total").await? >= OBJECTS as f64);
    // What was read once is in memory, unless it is large.
    let again = fetch(web, HOST, &object(1)).await?;
    ensure!(again.cache_status().ends_with("detail=local-ram"), "{}", again.cache_status());
    let part = Request::get(object(5)).header("host", HOST).header("range", "bytes=300000-600004");
    let part = send(web, Speak::Http1, part.body(empty())?).await?;
    ensure!(
        part.status == 206 && part.body == pattern(&object(5), 700_000)[300_000..=600_004],
        "another part"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_any_time_never_change_a_byte() -> Result<()> {
    let origin = patterns().await?;
    let mut cluster = one_node(&["--cache-disk", "16MiB", "--cache-memory", "4MiB"], &origin).await?;
    let web = cluster.nodes[0].at(Ports::HTTP);
    let kills = std::env::var("SHOAL_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut chance = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance as usize % below
    };
    let from_disk = Arc::new(AtomicUsize::new(0));
    for kill in 0..kills {
        let answered = Arc::new(AtomicUsize::new(0));
        let target = 1 + random(3 * OBJECTS);
        let starts: Vec<usize> = (0..3).map(|_| random(OBJECTS)).collect();
        let readers: Vec<_> = starts
            .into_iter()
            .map(|start| {
                let (answered, from_disk) = (answered.clone(), from_disk.clone());
                tokio::spawn(async move {
                    for n in (0..).map(|step| (start + step * 7) % OBJECTS) {
                        // The kill cuts answers short: that is an error, never a body.
                        let Ok(answer) = fetch(web, HOST, &object(n)).await else { return Ok(()) };
                        let is_right =
                            answer.status != 200 || answer.body == pattern(&object(n), size_of(&object(n)));
                        ensure!(is_right, "{n}: {} bytes that are not its own", answer.body.len());
                        answered.fetch_add(1, Ordering::SeqCst);
                        from_disk.fetch_add(
                            usize::from(answer.cache_status().contains("local-disk")),
                            Ordering::SeqCst,
                        );
                    }
                    Ok(())
                })
            })
            .collect();
        wait_until("some are answered", MOMENT, async || answered.load(Ordering::SeqCst) >= target).await?;
        cluster.nodes[0].kill9()?;
        for reader in readers {
            reader.await?.with_context(|| format!("kill {kill}"))?;
        }
        cluster.restart(0)?;
        serves(&cluster, 0).await?;
        ensure!(figure(&cluster, "errors_total").await? == 0.0, "kill {kill}: it does not open");
    }
    ensure!(from_disk.load(Ordering::SeqCst) > kills, "hardly anything came from the disk");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_there_after_a_crash() -> Result<()> {
    let origin = patterns().await?;
    let mut cluster = one_node(&["--cache-disk", "64MiB"], &origin).await?;
    let web = cluster.nodes[0].at(Ports::HTTP);
    for n in 0..OBJECTS {
        ensure!(fetch(web, HOST, &object(n)).await?.status == 200);
    }
    let small = (0..OBJECTS).filter(|n| size_of(&object(*n)) <= 64 * 1024).count();
    // `/ready` is one, too.
    wait_until("all small ones are written", MOMENT, async || {
        figure(&cluster, "written_total").await.is_ok_and(|written| written as usize > small)
    })
    .await?;
    cluster.nodes[0].kill9()?;
    cluster.restart(0)?;
    serves(&cluster, 0).await?;
    let fetched = origin.count_below("/objects/");
    for n in (0..OBJECTS).filter(|n| size_of(&object(*n)) <= 64 * 1024) {
        let answer = fetch(web, HOST, &object(n)).await?;
        ensure!(answer.body == pattern(&object(n), size_of(&object(n))), "{n}: other bytes");
    }
    ensure!(origin.count_below("/objects/") == fetched, "something was lost");
    Ok(())
}

/// An origin whose every answer says how often it has changed: every POST is a change.
async fn changing() -> Result<Versions> {
    Versions::changed_by(is_change, |_, version| {
        let reply = Reply::ok(format!("version {version}")).field("cache-control", "max-age=3600");
        reply.field("etag", "W/\"never-asked\"")
    })
    .await
}

fn is_change(seen: &Seen) -> bool {
    seen.method == http::Method::POST
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_before_a_crash_is_not_served_after_it() -> Result<()> {
    let origin = changing().await?;
    let mut cluster = one_node(&["--cache-disk", "64MiB"], &origin).await?;
    let web = cluster.nodes[0].at(Ports::HTTP);
    for n in 0..8 {
        let (path, before) = (format!("/cart/{n}"), figure(&cluster, "written_total").await?);
        fetch(web, HOST, &path).await?;
        wait_until("it is written", MOMENT, async || {
            figure(&cluster, "written_total").await.is_ok_and(|written| written > before)
        })
        .await?;
        let change = Request::post(&path).header("host", HOST).body(empty())?;
        ensure!(send(web, Speak::Http1, change).await?.status == 200);
        cluster.nodes[0].kill9()?;
        cluster.restart(0)?;
        serves(&cluster, 0).await?;
        let answer = fetch(web, HOST, &path).await?;
        let expected = format!("version {}", origin.current());
        ensure!(answer.body == expected.as_bytes(), "{path}: {answer:?} for {expected}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_reaches_the_disk_of_a_node_that_was_down() -> Result<()> {
    let origin = changing().await?;
    let mut cluster = Cluster::start_with(3, &["--cache-disk", "64MiB"]).await?;
    cluster.put_in_force(&SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    let web = cluster.nodes[2].at(Ports::HTTP);
    for n in 0..30 {
        ensure!(fetch(web, HOST, &format!("/news/{n}")).await?.body == "version 1");
    }
    wait_until("node 3 has written some", MOMENT, async || {
        cluster.metric(2, "shoal_cache_disk_written_total", "").await.is_ok_and(|written| written >= 5.0)
    })
    .await?;
    cluster.nodes[2].kill9()?;
    origin.become_version(2);
    let purge = ["cache", "purge", "--prefix", "shop.example.com/news"];
    cluster.nodes[0].shoal(&purge).await?.expect(0)?;
    cluster.restart(2)?;
    serves(&cluster, 2).await?;
    wait_until("node 3 has read its disk", MOMENT, async || {
        cluster.metric(2, "shoal_cache_disk_objects", "").await.is_ok_and(|objects| objects >= 5.0)
    })
    .await?;
    for n in 0..30 {
        let answer = fetch(web, HOST, &format!("/news/{n}")).await?;
        ensure!(answer.body == "version 2", "{n}: {answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_hands_the_disk_over() -> Result<()> {
    let origin = patterns().await?;
    let cluster = one_node(&["--cache-disk", "64MiB"], &origin).await?;
    let web = cluster.nodes[0].at(Ports::HTTP);
    for n in 0..OBJECTS {
        fetch(web, HOST, &object(n)).await?;
        fetch(web, HOST, &object(n)).await?;
    }
    let output = cluster.nodes[0].upgrade(&[]).await?;
    ensure!(output.code == 0, "{output:?}");
    serves(&cluster, 0).await?;
    for n in 0..OBJECTS {
        let answer = fetch(web, HOST, &object(n)).await?;
        ensure!(answer.body == pattern(&object(n), size_of(&object(n))), "{n}: other bytes");
    }
    ensure!(origin.count_below("/objects/") == OBJECTS, "{} fetches", origin.count_below("/objects/"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_owed_when_a_node_was_killed_is_forgotten_later() -> Result<()> {
    let origin = Versions::changed_by(is_change, |seen, version| {
        let reply = Reply::ok(format!("version {version}"));
        match is_change(seen) {
            true => reply.field("cache-group-invalidation", "\"news\""),
            false => reply.field("cache-control", "max-age=3600").field("cache-groups", "\"news\""),
        }
    })
    .await?;
    let mut cluster = Cluster::start_with(3, &["--cache-disk", "64MiB"]).await?;
    cluster.apply(0, &SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    cluster.serves(HOST, "/ready").await?;
    let web = cluster.nodes[0].at(Ports::HTTP);
    for n in 0..20 {
        ensure!(fetch(web, HOST, &format!("/news/{n}")).await?.body == "version 1");
    }
    wait_until("node 1 has written some", MOMENT, async || {
        figure(&cluster, "written_total").await.is_ok_and(|written| written >= 5.0)
    })
    .await?;
    for others in 1..3 {
        cluster.nodes[others].kill9()?;
    }
    wait_until("there is no quorum", MOMENT, async || {
        cluster.status(0).await.is_ok_and(|status| status["quorum"] == false)
    })
    .await?;
    let change = Request::post("/write").header("host", HOST).body(empty())?;
    ensure!(send(web, Speak::Http1, change).await?.status == 200);
    cluster.nodes[0].kill9()?;
    for node in 0..3 {
        cluster.restart(node)?;
    }
    serves(&cluster, 0).await?;
    for n in 0..20 {
        let path = format!("/news/{n}");
        wait_until("what was owed is forgotten", MOMENT, async || {
            fetch(web, HOST, &path).await.is_ok_and(|answer| answer.body == "version 2")
        })
        .await?;
    }
    let owed = cluster.nodes[0].data_dir().join("owed-purges");
    wait_until("nothing is owed any more", MOMENT, async || !owed.exists()).await?;
    Ok(())
}
