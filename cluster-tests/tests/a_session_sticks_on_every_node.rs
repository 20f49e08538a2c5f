//! A cookie that one node set leads to the same endpoint through another, and to a living one when that is gone.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Cluster, HOST, NodeProcess, Origin, Ports, Reply, SiteFile, find_program, skip, text_of,
};
use serde_json::json;

const STORY: &str = "a_session_sticks_on_every_node";

/// Asks `node` as a browser would that keeps its cookies in `jar`; answers the body.
async fn browse(curl: &Path, node: &NodeProcess, jar: &str) -> Result<String> {
    let resolve = format!("{HOST}:{}:{}", Ports::HTTP, node.ip);
    let url = format!("http://{HOST}:{}/cart", Ports::HTTP);
    let arguments = ["-sS", "--fail", "-b", jar, "-c", jar, "--resolve", &resolve, &url];
    text_of(curl.to_owned(), arguments.map(str::to_owned).to_vec()).await
}

fn cookie_in(jar: &str) -> Result<String> {
    let text = std::fs::read_to_string(jar)?;
    let line = text.lines().find(|line| line.contains("\tnode\t")).with_context(|| text.clone())?;
    line.rsplit('\t').next().map(str::to_owned).context("a cookie has a value")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_of_one_node_is_good_on_another() -> Result<()> {
    let Some(curl) = find_program("curl") else {
        skip(STORY, "curl is not installed");
        return Ok(());
    };
    let cluster = Cluster::start(2).await?;
    let mut origins = Vec::new();
    for n in 0..4 {
        origins.push(Origin::start(move |_| Reply::ok(format!("origin {n}"))).await?);
    }
    let endpoints = |left_out: Option<&str>| {
        let names = origins.iter().enumerate().map(|(n, origin)| (format!("origin {n}"), origin.endpoint()));
        names.filter(|(name, _)| Some(name.as_str()) != left_out).map(|(_, at)| at).collect::<Vec<_>>()
    };
    let site = |endpoints: Vec<String>| {
        SiteFile::new()
            .upstream("shop", json!({ "endpoints": endpoints, "sticky": { "name": "node", "ttl": "1h" } }))
            .route("shop", json!({ "path_prefix": "/", "upstream": "shop" }))
    };
    cluster.put_in_force(&site(endpoints(None))).await?;

    let jar = cluster.dir().join("cookies").display().to_string();
    let first = browse(&curl, &cluster.nodes[0], &jar).await?;
    let cookie = cookie_in(&jar)?;
    for node in [&cluster.nodes[1], &cluster.nodes[0]].repeat(5) {
        let again = browse(&curl, node, &jar).await?;
        ensure!(again == first, "{} led to {again}, not {first}", node.name);
    }
    ensure!(cookie_in(&jar)? == cookie, "a cookie that is good is kept");

    cluster.apply(1, &site(endpoints(Some(&first)))).await?;
    let second = browse(&curl, &cluster.nodes[1], &jar).await?;
    ensure!(second != first && cookie_in(&jar)? != cookie, "{second} after {first}");
    for node in [&cluster.nodes[0], &cluster.nodes[1]].repeat(5) {
        let again = browse(&curl, node, &jar).await?;
        ensure!(again == second, "{} led to {again}, not {second}", node.name);
    }
    Ok(())
}
