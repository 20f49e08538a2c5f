//! `PURGE` on a route that takes it: who may, hard and soft, and what happens on routes that do not.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{
    Answer, Cluster, HOST, Ports, Reply, SiteFile, Speak, Versions, empty, fetch, send, wait_until,
};
use http::Request;
use serde_json::{Value, json};

/// SHA-256 of `open sesame`.
const TOKEN_SHA256: &str = "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb";

/// What is fetched says which version it is of, and may be served stale for a minute.
async fn versions() -> Result<Versions> {
    Versions::told(|seen, version| {
        let reply = Reply::ok(format!("{} version {version}", seen.method));
        reply
            .field("cache-control", "max-age=3600, stale-while-revalidate=60")
            .field("vary", "accept-language")
    })
    .await
}

async fn purge(cluster: &Cluster, node: usize, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
    let mut request = Request::builder().method("PURGE").uri(path).header("host", HOST);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    send(cluster.nodes[node].at(Ports::HTTP), Speak::Http1, request.body(empty())?).await
}

async fn shown(cluster: &Cluster, node: usize, path: &str) -> Result<Answer> {
    fetch(cluster.nodes[node].at(Ports::HTTP), HOST, path).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_by_network_and_by_token() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let origin = versions().await?;
    let mut site = SiteFile::new().cached("shop", &[origin.endpoint()]);
    for (name, rule) in [
        ("near", json!({ "networks": ["127.0.0.0/8"] })),
        ("far", json!({ "networks": ["192.0.2.0/24"] })),
        ("secret", json!({ "token_sha256": TOKEN_SHA256 })),
    ] {
        let route = json!({ "path_prefix": format!("/{name}"), "upstream": "shop", "cache": { "purge_method": rule } });
        site = site.route(name, route);
    }
    cluster.put_in_force(&site).await?;
    let secret = [("x-purge-token", "open sesame")];
    for path in ["/near", "/far", "/secret", "/plain"] {
        for node in 0..3 {
            ensure!(shown(&cluster, node, path).await?.body == "GET version 1", "{path}");
        }
    }
    origin.become_version(2);

    for (path, fields, status) in [
        ("/near", &[][..], 200),
        ("/far", &[], 403),
        ("/secret", &[], 403),
        ("/secret", &[("x-purge-token", "open")], 403),
        ("/secret", &[("x-purge-token", "open sesame"), ("shoal-purge", "gently")], 400),
        ("/near", &[("shoal-purge", "wait=complete")], 200),
    ] {
        let answer = purge(&cluster, 1, path, fields).await?;
        ensure!(answer.status == status, "{path} {fields:?}: {answer:?}");
        ensure!(answer.field("content-type") == "application/json", "{answer:?}");
    }
    ensure!(shown(&cluster, 1, "/near").await?.body == "GET version 2", "not forgotten");
    ensure!(shown(&cluster, 1, "/secret").await?.body == "GET version 1", "forgotten without permission");

    let answer =
        purge(&cluster, 2, "/secret", &[&secret[..], &[("shoal-purge", "wait=complete")]].concat()).await?;
    let told: Value = serde_json::from_slice(&answer.body)?;
    ensure!(answer.status == 200 && told["complete"] == true, "{told}");
    ensure!(told["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3), "{told}");
    for node in 0..3 {
        ensure!(shown(&cluster, node, "/secret").await?.body == "GET version 2", "node {node} still has it");
    }

    // Elsewhere it is a method that nobody here knows: the origin's to answer.
    let answer = purge(&cluster, 0, "/plain", &secret).await?;
    ensure!(answer.status == 200 && answer.body == "PURGE version 2", "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soft_serves_the_old_once_more_and_hard_does_not() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let origin = versions().await?;
    let cache = json!({ "purge_method": { "networks": ["127.0.0.1"] } });
    let route = json!({ "path_prefix": "/", "upstream": "shop", "cache": cache });
    let site =
        SiteFile::new().upstream("shop", json!({ "endpoints": [origin.endpoint()] })).route("shop", route);
    cluster.put_in_force(&site).await?;
    for path in ["/soft", "/hard", "/both"] {
        shown(&cluster, 0, path).await?;
    }
    origin.become_version(2);

    let soft = [("shoal-purge", "soft")];
    ensure!(purge(&cluster, 0, "/soft", &soft).await?.status == 200);
    ensure!(shown(&cluster, 0, "/soft").await?.body == "GET version 1", "it was not served stale");
    wait_until("it is fetched again", Duration::from_secs(10), async || {
        shown(&cluster, 0, "/soft").await.is_ok_and(|answer| answer.body == "GET version 2")
    })
    .await?;

    ensure!(purge(&cluster, 0, "/hard", &[]).await?.status == 200);
    ensure!(shown(&cluster, 0, "/hard").await?.body == "GET version 2", "it was served stale");

    // A newer soft purge does not bring back what an older hard one has forgotten.
    ensure!(purge(&cluster, 0, "/both", &[]).await?.status == 200);
    ensure!(purge(&cluster, 0, "/both", &soft).await?.status == 200);
    ensure!(shown(&cluster, 0, "/both").await?.body == "GET version 2", "it was served stale");
    Ok(())
}
