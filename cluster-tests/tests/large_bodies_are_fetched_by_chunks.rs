//! Large bodies by a client of the command line, over real sockets: each megabyte is fetched once, whoever asks for which range
//! where; it is there when its owner is killed; and two versions are never one body.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cluster_tests::{
    Cluster, Curl, HOST, Meter, Origin, Ports, Reply, Seen, SiteFile, pattern, skip, wait_until,
};

const MIB: usize = 1 << 20;
const CHUNKS: usize = 40;
const SIZE: usize = CHUNKS * MIB;
/// Far more than lies in the buffers of the sockets between an origin and a client three nodes away.
const VAST: usize = 256 * MIB;
/// Twenty megabytes a second: a node is killed in the middle.
const SLOWLY: [&str; 2] = ["--limit-rate", "20M"];
const DEADLINE: Duration = Duration::from_secs(60);
/// curl's exit code for a body that ended too soon.
const CUT_OFF: i32 = 18;

/// What the origin has, and what it has sent.
struct Studio {
    versions: [Bytes; 2],
    /// What begins with `/abandoned`, and what was taken of it.
    vast: (Bytes, Arc<Meter>),
    /// The version that there is now.
    now: AtomicUsize,
    sent: AtomicUsize,
    /// Requests for what begins with `/cut` that are answered from the first version.
    left: AtomicUsize,
}

impl Studio {
    fn answer(&self, seen: &Seen) -> Reply {
        if seen.path.starts_with("/abandoned") {
            let (body, meter) = &self.vast;
            return Reply::of(body, "\"1\"", seen).field("cache-control", "max-age=600").metered(meter);
        }
        let mut now = self.now.load(Ordering::SeqCst);
        let less = |left: usize| left.checked_sub(1);
        if seen.path.starts_with("/cut")
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err()
        {
            now = 1;
        }
        let tag = match &*seen.path {
            "/warm-up" => return Reply::ok("small"),
            "/weak" => "W/\"same\"",
            "/purged" => "\"same\"",
            _ => ["\"1\"", "\"2\""][now],
        };
        let reply = Reply::of(&self.versions[now], tag, seen).field("cache-control", "max-age=600");
        self.sent.fetch_add(reply.bytes(), Ordering::SeqCst);
        reply
    }

    /// What was sent since this was asked last.
    fn sent(&self) -> usize {
        self.sent.swap(0, Ordering::SeqCst)
    }

    fn turn(&self, now: usize) {
        self.now.store(now, Ordering::SeqCst);
        self.sent();
    }
}

struct Story {
    curl: Curl,
    cluster: Cluster,
    studio: Arc<Studio>,
    origin: Origin,
}

impl Story {
    fn node(&self, node: usize) -> SocketAddr {
        self.cluster.nodes[node].at(Ports::HTTP)
    }

    async fn get(&self, node: usize, path: &str, arguments: &[&str]) -> Result<(Bytes, String)> {
        let got = self.curl.get(self.cluster.dir(), self.node(node), HOST, path, arguments).await;
        got.with_context(|| format!("{path} {arguments:?} at {}", self.cluster.nodes[node].name))
    }

    /// The range is that of this version, wherever it is asked for.
    async fn expect(&self, node: usize, path: &str, version: usize, first: usize, last: usize) -> Result<()> {
        let (bytes, head) = self.get(node, path, &["-r", &format!("{first}-{last}")]).await?;
        ensure!(head.starts_with("http/1.1 206"), "{head}");
        ensure!(head.contains(&format!("content-range: bytes {first}-{last}/{SIZE}")), "{head}");
        let expected = self.studio.versions[version].slice(first..=last);
        ensure!(bytes == expected, "{path} {first}-{last}: {} other bytes", bytes.len());
        Ok(())
    }

    /// The whole is that of this version.
    async fn expect_whole(&self, node: usize, path: &str, version: usize, more: &[&str]) -> Result<()> {
        let (bytes, head) = self.get(node, path, more).await?;
        let is_it = head.starts_with("http/1.1 200") && bytes == self.studio.versions[version];
        ensure!(is_it, "{path}: {} other bytes: {head}", bytes.len());
        Ok(())
    }

    fn expect_sent(&self, chunks: usize) -> Result<()> {
        let sent = self.studio.sent();
        ensure!(sent == chunks * MIB, "the origin sent {sent} bytes, and not {chunks} MiB");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_fetched_by_chunks() -> Result<()> {
    let Some(curl) = Curl::find() else {
        skip("large_bodies_are_fetched_by_chunks", "curl is not installed");
        return Ok(());
    };
    let studio = Arc::new(Studio {
        versions: [pattern("first", SIZE), pattern("second", SIZE)],
        vast: (vec![b'v'; VAST].into(), Arc::default()),
        now: AtomicUsize::new(0),
        sent: AtomicUsize::new(0),
        left: AtomicUsize::default(),
    });
    let given = studio.clone();
    let origin = Origin::start(move |seen| given.answer(seen)).await?;
    let cluster = Cluster::start_with(3, &["--cache-memory", "1GiB"]).await?;
    cluster.apply(0, &SiteFile::new().cached_unverified("shop", &[origin.endpoint()])).await?;
    cluster.serves(HOST, "/warm-up").await?;
    let mut story = Story { curl, cluster, studio, origin };
    only_what_is_missing_is_fetched(&story).await?;
    nothing_is_fetched_for_who_has_gone(&story).await?;
    an_owner_is_killed(&mut story).await?;
    a_purge_takes_all_chunks(&story).await?;
    without_a_strong_validator_nothing_is_put_together(&story).await?;
    two_versions_are_never_one_body(&story).await
}

async fn only_what_is_missing_is_fetched(story: &Story) -> Result<()> {
    for node in 0..3 {
        story.expect(node, "/film", 0, 10 * MIB + 1000, 10 * MIB + 1999).await?;
    }
    story.expect_sent(1)?;
    what_asks_for_no_bytes_costs_none(story).await?;
    for (node, first, last, chunks) in [
        (1, 11 * MIB - 10, 11 * MIB + 10, 1),
        (2, 10 * MIB, 12 * MIB - 1, 0),
        (0, 0, 99, 1),
        (1, 20 * MIB, 24 * MIB - 1, 4),
        (2, 19 * MIB, 25 * MIB - 1, 2),
        (0, SIZE - 1, SIZE - 1, 1),
    ] {
        story.expect(node, "/film", 0, first, last).await?;
        story.expect_sent(chunks)?;
    }
    for (node, chunks) in [(2, CHUNKS - 10), (1, 0), (0, 0)] {
        story.expect_whole(node, "/film", 0, &[]).await?;
        story.expect_sent(chunks)?;
    }
    Ok(())
}

/// The fields that an owner has are enough, at whatever node.
async fn what_asks_for_no_bytes_costs_none(story: &Story) -> Result<()> {
    let asked = story.origin.count("/film");
    let (beyond, length) = (format!("{SIZE}-"), format!("content-length: {SIZE}\r"));
    let range = format!("content-range: bytes */{SIZE}\r");
    for node in 0..3 {
        for (arguments, status, field) in [
            (&["-I"][..], "200", &*length),
            (&["-H", "If-None-Match: \"1\""], "304", "etag: \"1\"\r"),
            (&["-r", &beyond], "416", &*range),
        ] {
            let (_, head) = story.get(node, "/film", arguments).await?;
            let is_it = head.starts_with(&format!("http/1.1 {status}")) && head.contains(field);
            ensure!(is_it && head.contains("; hit; "), "{arguments:?} at node {node}: {head}");
        }
    }
    ensure!(story.origin.count("/film") == asked, "the origin was asked for what an owner knows");
    story.expect_sent(0)
}

/// Somebody asks for a range of what nobody knows yet, and goes away when it has begun to come.
async fn nothing_is_fetched_for_who_has_gone(story: &Story) -> Result<()> {
    let (range, dir, meter) = (format!("{}-", 10 * MIB), tempfile::tempdir()?, &story.studio.vast.1);
    for role in 0..3 {
        let path = format!("/abandoned-{role}");
        let (primary, second, stranger) = story.cluster.owners_of(&format!("http://{HOST}{path}")).await?;
        let node = [primary, second, stranger.context("three nodes")?][role];
        let arguments = ["-r", &range, "--limit-rate", "1M"];
        let file = dir.path().join(role.to_string());
        let reading = story.curl.begin(file, story.node(node), HOST, &path, &arguments)?;
        wait_until("some of it comes", DEADLINE, async || reading.bytes() > 0).await?;
        drop(reading);
        wait_until("the origin is left alone", DEADLINE, async || meter.is_idle()).await?;
        let taken = meter.taken();
        ensure!(taken < VAST / 2, "{taken} bytes were fetched for nobody, at {role}");
    }
    Ok(())
}

async fn an_owner_is_killed(story: &mut Story) -> Result<()> {
    let (primary, second, stranger) = story.cluster.owners_of(&format!("http://{HOST}/film")).await?;
    let stranger = stranger.context("three nodes")?;
    for _ in 0..3 {
        story.expect_whole(primary, "/film", 0, &[]).await?;
    }
    wait_until("the second owner has all chunks", DEADLINE, async || {
        let objects = story.cluster.metric(second, "shoal_cache_objects", "").await;
        objects.is_ok_and(|objects| objects > CHUNKS as f64)
    })
    .await?;
    let dir = tempfile::tempdir()?;
    let mut reading = [second, stranger].map(|node| {
        story.curl.begin(dir.path().join(node.to_string()), story.node(node), HOST, "/film", &SLOWLY)
    });
    wait_until("both have some", DEADLINE, async || {
        reading.iter_mut().all(|reading| reading.as_ref().is_ok_and(|reading| reading.bytes() > MIB as u64))
    })
    .await?;
    story.cluster.nodes[primary].kill9()?;
    for node in [second, stranger, stranger, second] {
        story.expect_whole(node, "/film", 0, &[]).await?;
        story.expect(node, "/film", 0, 30 * MIB - 5, 32 * MIB).await?;
    }
    for reading in reading {
        let mut reading = reading?;
        let status = reading.ends(DEADLINE).await?;
        let body = reading.body()?;
        ensure!(status.success() && body == story.studio.versions[0], "{status}: {} bytes", body.len());
    }
    story.expect_sent(0)?;

    story.cluster.restart(primary)?;
    story.cluster.answers(primary).await?;
    story.cluster.settle().await?;
    story.cluster.holds_lease(primary).await?;
    story.expect(primary, "/film", 0, 7 * MIB - 5, 9 * MIB).await?;
    story.expect_whole(primary, "/film", 0, &[]).await?;
    story.expect_sent(0)
}

/// The tag is the same: only that nothing is left of the first version keeps the two apart.
async fn a_purge_takes_all_chunks(story: &Story) -> Result<()> {
    story.expect_whole(0, "/purged", 0, &[]).await?;
    for node in 0..3 {
        story.expect(node, "/purged", 0, 12 * MIB, 14 * MIB).await?;
    }
    story.expect_sent(CHUNKS)?;
    story.studio.turn(1);
    let url = format!("http://{HOST}/purged");
    let purge = ["cache", "purge", "--wait", "complete", "--url", &url];
    story.cluster.nodes[1].shoal(&purge).await?.expect(0)?;
    for node in [2, 0, 1] {
        story.expect(node, "/purged", 1, 12 * MIB, 14 * MIB).await?;
        story.expect_whole(node, "/purged", 1, &[]).await?;
    }
    story.expect_sent(CHUNKS)?;
    story.studio.turn(0);
    Ok(())
}

async fn without_a_strong_validator_nothing_is_put_together(story: &Story) -> Result<()> {
    story.expect(0, "/weak", 0, 10 * MIB, 10 * MIB + 99).await?;
    story.studio.turn(1);
    for node in 0..3 {
        story.expect(node, "/weak", 1, 20 * MIB, 20 * MIB + 99).await?;
        story.expect_whole(node, "/weak", 1, &[]).await?;
    }
    story.studio.turn(0);
    Ok(())
}

async fn two_versions_are_never_one_body(story: &Story) -> Result<()> {
    // Nothing was sent yet when it shows: downstream gets the new version.
    story.expect(0, "/film-2", 0, 10 * MIB, 20 * MIB - 1).await?;
    story.studio.turn(1);
    for node in [1, 2, 0] {
        story.expect_whole(node, "/film-2", 1, &[]).await?;
        story.expect(node, "/film-2", 1, 10 * MIB, 20 * MIB - 1).await?;
    }
    story.studio.turn(0);
    for role in 0..3 {
        a_body_that_changes_breaks_off(story, role).await?;
    }
    Ok(())
}

/// Of five stretches, the first, the third and the fifth are missing, and the origin changes behind the first.
async fn a_body_that_changes_breaks_off(story: &Story, role: usize) -> Result<()> {
    let path = format!("/cut-{role}");
    let (primary, second, stranger) = story.cluster.owners_of(&format!("http://{HOST}{path}")).await?;
    let node = [primary, second, stranger.context("three nodes")?][role];
    story.studio.left.store(3, Ordering::SeqCst);
    for (first, last) in [(10, 14), (20, 24)] {
        story.expect(0, &path, 0, first * MIB, (last + 1) * MIB - 1).await?;
    }
    let dir = tempfile::tempdir()?;
    let mut broken = story.curl.begin(dir.path().join("cut"), story.node(node), HOST, &path, &[])?;
    let status = broken.ends(DEADLINE).await?;
    let body = broken.body()?;
    let is_other = body == story.studio.versions[1];
    let asked: Vec<_> = story.origin.seen(&path).iter().map(|seen| seen.field("range").to_owned()).collect();
    let what = format!("{role}: {status}: {} bytes, the other version: {is_other}; {asked:?}", body.len());
    ensure!(status.code() == Some(CUT_OFF), "{what}");
    let is_begin = story.studio.versions[0].starts_with(&body);
    ensure!(is_begin && body.len() <= 15 * MIB, "bytes of both versions: {what}");
    for node in 0..3 {
        story.expect_whole(node, &path, 1, &[]).await?;
    }
    Ok(())
}
