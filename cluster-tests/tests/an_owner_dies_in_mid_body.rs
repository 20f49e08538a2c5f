//! A node is killed while others read a large object through it: they get the rest from elsewhere, or are told that there is
//! none. Never other bytes, and never too few that look like all.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cluster_tests::{
    Cluster, Curl, HOST, Origin, Payload, Ports, Reply, Seen, SiteFile, pattern, skip, wait_until,
};
use serde_json::json;
use tokio::sync::Semaphore;

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
    let Some(curl) = Curl::find() else {
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
        let (owner, _, stranger) = cluster.owners_of(&format!("http://{HOST}{path}")).await?;
        let node = cluster.nodes[stranger.context("three nodes")?].at(Ports::HTTP);
        let dir = tempfile::tempdir()?;
        let mut readers = [("one", "--http1.1"), ("two", "--http2-prior-knowledge")]
            .map(|(name, version)| curl.begin(dir.path().join(name), node, HOST, path, &[version]));
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
            let status = reader.ends(DEADLINE).await?;
            let got = reader.body()?;
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
