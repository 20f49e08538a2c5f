//! Ranges by a client of the command line, over real sockets: what is here is cut from it, the rest is fetched, and what was
//! broken off is gone on with.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cluster_tests::{Cluster, Curl, HOST, Origin, Payload, Ports, Reply, Seen, SiteFile, pattern, skip};

const TAG: &str = "\"v1\"";
const SIZE: usize = 300_000;

async fn get(
    curl: &Curl,
    cluster: &Cluster,
    node: SocketAddr,
    arguments: &[&str],
) -> Result<(Bytes, String)> {
    curl.get(cluster.dir(), node, HOST, "/film", arguments).await
}

/// An origin that gives out what it is asked for under one tag.
fn give(film: &Bytes, seen: &Seen) -> Reply {
    Reply::of(film, TAG, seen).field("cache-control", "max-age=600")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_cut_from_one_object() -> Result<()> {
    let Some(curl) = Curl::find() else {
        skip("ranges_are_cut_from_one_object", "curl is not installed");
        return Ok(());
    };
    let cluster = Cluster::start(3).await?;
    let film = pattern("/film", SIZE);
    let reel = film.clone();
    let origin = Origin::start(move |seen| give(&reel, seen)).await?;
    cluster.apply(0, &SiteFile::new().cached_unverified("shop", &[origin.endpoint()])).await?;
    cluster.serves(HOST, "/warm-up").await?;

    for (n, (range, first, last)) in
        [("1000-1999", 1000, 1999), ("1500-1600", 1500, 1600), ("1999-1999", 1999, 1999)]
            .into_iter()
            .enumerate()
    {
        for node in &cluster.nodes {
            let (bytes, head) = get(&curl, &cluster, node.at(Ports::HTTP), &["-r", range]).await?;
            ensure!(head.starts_with("http/1.1 206"), "{head}");
            ensure!(head.contains(&format!("content-range: bytes {first}-{last}/{SIZE}")), "{head}");
            ensure!(bytes == film.slice(first..=last), "range {n}: {} other bytes", bytes.len());
        }
    }
    ensure!(origin.count("/film") == 1, "one range was fetched {} times", origin.count("/film"));

    let node = cluster.nodes[1].at(Ports::HTTP);
    let (bytes, head) = get(&curl, &cluster, node, &["-r", "0-4999"]).await?;
    ensure!(bytes == film.slice(..5000), "{head}");
    let (bytes, head) = get(&curl, &cluster, node, &["-r", "-100"]).await?;
    ensure!(bytes == film.slice(SIZE - 100..), "{head}");
    let (bytes, head) = get(&curl, &cluster, node, &[]).await?;
    ensure!(head.starts_with("http/1.1 200") && bytes == film, "{head}: {} bytes", bytes.len());
    let seen = origin.seen("/film");
    ensure!(seen[1..].iter().all(|seen| seen.field("if-range") == TAG), "{seen:#?}");
    let asked: usize = seen.iter().map(|seen| seen.field("range").len()).filter(|bytes| *bytes == 0).count();
    ensure!(asked == 0, "the whole was asked for although a part was here: {seen:#?}");

    let fetches = origin.count("/film");
    let mut owner = None;
    for node in cluster.nodes.iter().map(|node| node.at(Ports::HTTP)) {
        let (_, head) = get(&curl, &cluster, node, &[]).await?;
        owner =
            owner.or(head.contains("detail=local").then_some(node).filter(|_| !head.contains("detail=peer")));
    }
    // Only who has the object puts several ranges together.
    let node = owner.context("an owner has it")?;
    let (bytes, head) = get(&curl, &cluster, node, &["-r", "0-1,10-11"]).await?;
    ensure!(head.contains("multipart/byteranges; boundary="), "{head}");
    let text = String::from_utf8_lossy(&bytes);
    ensure!(text.contains(&format!("Content-Range: bytes 10-11/{SIZE}")), "{text}");
    let (_, head) = get(&curl, &cluster, node, &["-r", "900000-"]).await?;
    ensure!(head.contains("416") && head.contains(&format!("content-range: bytes */{SIZE}")), "{head}");
    ensure!(origin.count("/film") == fetches, "the origin was asked again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_download_is_gone_on_with() -> Result<()> {
    let Some(curl) = Curl::find() else {
        skip("a_broken_download_is_gone_on_with", "curl is not installed");
        return Ok(());
    };
    let cluster = Cluster::start(1).await?;
    let film = pattern("/film", SIZE);
    let reel = film.clone();
    let origin = Origin::start(move |seen| {
        if seen.field("range").is_empty() && seen.path == "/film" {
            let cut = Payload::Truncated { promised: SIZE, sent: reel.slice(..100_000) };
            return Reply::with(cut).field("cache-control", "max-age=600").field("etag", TAG);
        }
        give(&reel, seen)
    });
    let origin = origin.await?;
    cluster.apply(0, &SiteFile::new().cached_unverified("shop", &[origin.endpoint()])).await?;
    cluster.serves(HOST, "/warm-up").await?;
    let node = cluster.nodes[0].at(Ports::HTTP);
    let broken = get(&curl, &cluster, node, &[]).await;
    ensure!(broken.is_err(), "a body that broke off looked whole: {broken:?}");
    let (bytes, head) = get(&curl, &cluster, node, &[]).await?;
    ensure!(head.starts_with("http/1.1 200") && bytes == film, "{head}: {} bytes", bytes.len());
    let seen = origin.seen("/film");
    ensure!(seen.len() == 2 && seen[1].field("range") == "bytes=100000-", "{seen:#?}");
    ensure!(seen[1].field("if-range") == TAG, "{seen:#?}");
    Ok(())
}
