//! A node is killed while others read a large object through it: they get the rest from elsewhere, or are told that there is
//! none. Never other bytes, and never too few that look like all.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cluster_tests::{
    Cluster, Origin, Payload, Ports, Reply, Seen, SiteFile, find_program, pattern, skip, wait_until,
    wait_until_some,
};
use serde_json::json;
use tokio::sync::Semaphore;

const HOST: &str = "shop.example.com";
const BODY_BYTES: usize = 200 << 20;
const HALF: usize = BODY_BYTES / 2;
/// What may be on its way when an owner is killed: buffers of sockets and of the nodes.
const ON_THE_WAY: usize = 32 << 20;
/// For half of the body to get through three debug builds on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// curl's exit codes for an answer that ended too soon, on HTTP/1.1 and on HTTP/2.
const CUT_OFF: [i32; 2] = [18, 92];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_get_the_right_bytes_or_an_error() -> Result<()> {
    let Some(curl) = find_program("curl") else {
        skip("an_owner_dies_in_mid_body", "curl is not installed");
        return Ok(());
    };
    let body = pattern("large", BODY_BYTES);
    let gate = Arc::new(Semaphore::new(0));
    let origin = Origin::start({
        let (body, gate) = (body.clone(), gate.clone());
        move |seen| answer(seen, &body, &gate)
    })
    .await?;
    let mut cluster = Cluster::start_with(3, &["--cache-memory", "1GiB"]).await?;
    let cache = json!({ "max_object_size": "400MiB" });
    let site = SiteFile::new()
        .upstream("shop", json!({ "endpoints": [origin.endpoint()] }))
        .route("shop", json!({ "path_prefix": "/", "upstream": "shop", "cache": cache }));
    cluster.apply(0, &site).await?;
    cluster.serves(HOST, "/warm-up").await?;

    for (path, is_strong) in [("/strong", true), ("/weak", false)] {
        let (owner, stranger) = owner_and_stranger(&cluster, path).await?;
        let node = cluster.nodes[stranger].at(Ports::HTTP);
        let dir = tempfile::tempdir()?;
        let mut readers =
            [("one", "--http1.1"), ("two", "--http2-prior-knowledge")].map(|(name, version)| {
                Reader::start(&curl, dir.path().join(name), version, &format!("http://{node}{path}"))
            });
        let at_half = format!("both readers of {path} have half of it");
        wait_until(&at_half, DEADLINE, async || {
            readers.iter_mut().all(|reader| {
                reader.as_mut().is_ok_and(|reader| reader.bytes() + ON_THE_WAY as u64 >= HALF as u64)
            })
        })
        .await?;
        ensure!(origin.count(path) == 1, "{path}: {} fetches by two readers", origin.count(path));
        cluster.nodes[owner].kill9()?;

        for (reader, cut_off) in readers.into_iter().zip(CUT_OFF) {
            let mut reader = reader?;
            let status = reader.ends().await?;
            let got = Bytes::from(fs::read(&reader.file)?);
            if is_strong {
                ensure!(status.success(), "{path}: {status} after {} bytes", got.len());
                ensure!(got == body, "{path}: {} other bytes", got.len());
            } else {
                ensure!(status.code() == Some(cut_off), "{path}: {status} after {} bytes", got.len());
                ensure!(
                    got.len() < BODY_BYTES && body.starts_with(&got),
                    "{path}: {} other bytes",
                    got.len()
                );
            }
        }
        let ranges: Vec<String> =
            origin.seen(path).iter().skip(1).map(|seen| seen.field("range").to_owned()).collect();
        match is_strong {
            true => ensure!(
                ranges.len() == 1 && ranges[0].starts_with("bytes=") && ranges[0] != "bytes=0-",
                "the rest alone is asked for: {ranges:?}"
            ),
            false => ensure!(ranges.is_empty(), "nobody can tell what the rest would be: {ranges:?}"),
        }
        cluster.restart(owner)?;
        cluster.answers(owner).await?;
        cluster.settle().await?;
        cluster.serves(HOST, "/warm-up").await?;
    }
    Ok(())
}

/// Whole, with a pause after the first half; a part of it at once.
fn answer(seen: &Seen, body: &Bytes, gate: &Arc<Semaphore>) -> Reply {
    let reply = match (&*seen.path, seen.field("range")) {
        ("/strong" | "/weak", "") => {
            let (first, rest) = (body.slice(..HALF), body.slice(HALF..));
            Reply::with(Payload::Paused { first, rest, gate: gate.clone() })
        }
        ("/strong", range) => {
            let first =
                range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
            let first = first.unwrap_or(BODY_BYTES);
            Reply::ok(body.slice(first..))
                .status(206)
                .field("content-range", &format!("bytes {first}-{}/{BODY_BYTES}", BODY_BYTES - 1))
        }
        _ => Reply::ok("small"),
    };
    let etag = if seen.path == "/strong" { "\"v1\"" } else { "W/\"v1\"" };
    reply.field("cache-control", "max-age=600").field("etag", etag)
}

/// The first owner of `path`, and the node that owns nothing of it.
async fn owner_and_stranger(cluster: &Cluster, path: &str) -> Result<(usize, usize)> {
    let url = format!("http://{HOST}{path}");
    let by_role = wait_until_some("the object has two owners", Duration::from_secs(30), async || {
        let located =
            cluster.nodes[0].shoal(&["-o", "json", "cache", "locate", &url]).await.ok()?.json().ok()?;
        let node = |role: &str| {
            let mut locations = located["locations"].as_array()?.iter();
            let name = locations.find(|location| location["role"] == role)?["node"].as_str()?;
            cluster.nodes.iter().position(|node| node.name == name)
        };
        Some((node("primary")?, node("secondary")?))
    });
    let (owner, second) = by_role.await?;
    let stranger = (0..3).find(|node| ![owner, second].contains(node)).context("three nodes")?;
    Ok((owner, stranger))
}

/// A curl that writes what it gets into a file; it ends with its value.
struct Reader {
    child: Child,
    file: PathBuf,
}

impl Reader {
    fn start(curl: &PathBuf, file: PathBuf, version: &str, url: &str) -> Result<Self> {
        let mut command = Command::new(curl);
        command.args([
            "-sS",
            "--no-buffer",
            "--max-time",
            "300",
            version,
            "-H",
            &format!("Host: {HOST}"),
            "-o",
        ]);
        command.arg(&file).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: command.spawn().context("start curl")?, file })
    }

    /// What it has so far.
    fn bytes(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |file| file.len())
    }

    async fn ends(&mut self) -> Result<ExitStatus> {
        wait_until_some("curl ends", DEADLINE, async || self.child.try_wait().ok().flatten()).await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It has mostly ended by then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
