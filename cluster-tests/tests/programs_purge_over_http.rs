//! The HTTP API for purges on the ops address: behind a token, any scope, every node's acknowledgement.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use cluster_tests::{
    Answer, Cluster, HOST, Ports, SiteFile, Speak, Versions, empty, fetch, send, wait_until,
};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

async fn post(cluster: &Cluster, node: usize, token: &str, body: &Value) -> Result<(Answer, Value)> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed();
    let request = Request::post("/v1/purge").header("host", "ops");
    let request = request.header("authorization", format!("Bearer {token}")).body(body)?;
    let answer = send(cluster.nodes[node].at(Ports::OPS), Speak::Http1, request).await?;
    let told = serde_json::from_slice(&answer.body)?;
    Ok((answer, told))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_and_not_without() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let origin = Versions::start(|seen, reply| match seen.path.as_str() {
        "/tagged" => reply.field("surrogate-key", "imprint"),
        "/grouped" => reply.field("cache-groups", "\"news\""),
        _ => reply,
    })
    .await?;
    cluster.put_in_force(&SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    let url = |path: &str| format!("http://{HOST}{path}");
    let paths = ["/a", "/b/c", "/tagged", "/grouped", "/kept"];
    for path in paths {
        for node in &cluster.nodes {
            fetch(node.at(Ports::HTTP), HOST, path).await?;
        }
    }

    let create = ["token", "create", "--role", "purge", "--ttl", "90d"];
    let token = cluster.nodes[1].shoal(&create).await?.expect(0)?.stdout.trim().to_owned();
    let joining = cluster.nodes[1].shoal(&["token", "create"]).await?.expect(0)?.stdout.trim().to_owned();
    let forged = token.replace(".purge.", ".node.");
    for (wrong, status, part) in [
        ("", 401, "a token is needed, as `Authorization: Bearer TOKEN`"),
        ("abc", 401, "the token cannot be read: "),
        (&*forged, 401, "the token is not known here"),
        (&*joining, 403, "the token is for another role"),
    ] {
        let (answer, told) = post(&cluster, 0, wrong, &json!({ "all": true })).await?;
        let challenge = if status == 401 { "Bearer" } else { "" };
        ensure!(answer.status == status && answer.field("www-authenticate") == challenge, "{answer:?}");
        ensure!(told["error"].as_str().is_some_and(|why| why.starts_with(part)), "{part}: {told}");
    }
    what_is_asked_for_wrongly_is_told_in_json(&cluster, &token).await?;
    let stranger = cluster.nodes[0].shoal(&["token", "create", "--role", "node", "--ttl", "90d"]).await?;
    ensure!(stranger.code == 1, "a token of a node lives for 90 days: {}", stranger.text());

    origin.become_version(2);
    let asked = json!({
        "urls": [url("/a")], "prefixes": [url("/b")], "tags": ["imprint"], "groups": [format!("http://{HOST} news")]
    });
    let (answer, told) = post(&cluster, 2, &token, &asked).await?;
    ensure!(answer.status == 200 && told["complete"] == true, "{told}");
    let states: Vec<_> = told["nodes"].as_array().into_iter().flatten().map(|node| &node["state"]).collect();
    ensure!(states == ["acknowledged"; 3], "{told}");
    for node in &cluster.nodes {
        for path in paths {
            let expected = if path == "/kept" { "version 1" } else { "version 2" };
            let answer = fetch(node.at(Ports::HTTP), HOST, path).await?;
            ensure!(answer.body == expected, "{} shows {:?} for {path}", node.name, answer.body);
        }
    }
    for (wrong, part) in [
        (json!({}), "nothing to purge"),
        (json!([[], [], [], [], [], true]), "is not a JSON object"),
        (json!({ "hosts": ["shop/css"] }), "a path as a prefix"),
        (json!({ "urls": ["/a"] }), "is not a URL"),
        (json!({ "url": [url("/a")] }), "unknown field"),
        (json!({ "tags": vec!["x"; 1001] }), "at most 1000"),
        (json!({ "all": true, "timeout": "21s" }), "timeout: 21s is more than 20s"),
    ] {
        let (answer, told) = post(&cluster, 0, &token, &wrong).await?;
        ensure!(answer.status == 400, "{answer:?}");
        ensure!(told["error"].as_str().is_some_and(|why| why.contains(part)), "{told}");
    }

    who_acknowledged_is_remembered(&cluster, &token, told["seq"].as_u64().unwrap_or_default()).await?;
    let id = token.split('.').nth(3).unwrap_or_default();
    who_asked_for_what_is_in_the_log(&cluster, id).await?;
    cluster.nodes[0].shoal(&["token", "revoke", id]).await?.expect(0)?;
    wait_until("it is revoked here", Duration::from_secs(10), async || {
        post(&cluster, 2, &token, &json!({ "all": true })).await.is_ok_and(|(answer, _)| answer.status == 401)
    })
    .await?;
    Ok(())
}

/// Who has no token learns nothing else; who has one is told in JSON.
async fn what_is_asked_for_wrongly_is_told_in_json(cluster: &Cluster, token: &str) -> Result<()> {
    for (method, path, token, status, part) in [
        ("GET", "/v1/purge/abc", "", 401, "a token is needed"),
        ("GET", "/v1/purge/abc", token, 400, "is not the number of a purge"),
        ("GET", "/v1/purge", token, 405, "this path takes POST"),
        ("DELETE", "/v1/purge/7", token, 405, "this path takes GET"),
    ] {
        let request = Request::builder().method(method).uri(path).header("host", "ops");
        let request = request.header("authorization", format!("Bearer {token}")).body(empty())?;
        let answer = send(cluster.nodes[0].at(Ports::OPS), Speak::Http1, request).await?;
        let told: Value = serde_json::from_slice(&answer.body)?;
        ensure!(answer.status == status, "{method} {path}: {answer:?}");
        ensure!(told["error"].as_str().is_some_and(|why| why.contains(part)), "{method} {path}: {told}");
        ensure!((status == 405) != answer.field("allow").is_empty(), "{method} {path}: {answer:?}");
    }
    Ok(())
}

async fn who_asked_for_what_is_in_the_log(cluster: &Cluster, token: &str) -> Result<()> {
    cluster.nodes[1].shoal(&["cache", "purge", "--host", "elsewhere.example", "--soft"]).await?.expect(0)?;
    for (node, parts) in [
        (
            2,
            [
                "kind=\"hard\"",
                &format!("by=\"token {token}\""),
                "tag \"imprint\", group \"http://shop.example.com news\"",
            ],
        ),
        (1, ["kind=\"soft\"", "by=\"", "what=host \"elsewhere.example\""]),
    ] {
        let log = cluster.nodes[node].log();
        let mut told = log.lines().filter(|line| line.contains("a purge was asked for"));
        ensure!(told.any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} are not in {log}");
    }
    Ok(())
}

async fn who_acknowledged_is_remembered(cluster: &Cluster, token: &str, seq: u64) -> Result<()> {
    let request = Request::get(format!("/v1/purge/{seq}")).header("host", "ops");
    let request = request.header("authorization", format!("Bearer {token}")).body(empty())?;
    let answer = send(cluster.nodes[1].at(Ports::OPS), Speak::Http1, request).await?;
    let told: Value = serde_json::from_slice(&answer.body)?;
    ensure!(told["seq"] == seq && told["kind"] == "hard" && told["scopes"] == 4, "{told}");
    ensure!(told["complete"] == true, "{told}");
    let told = cluster.nodes[0].told(&["cache", "purge-status", &seq.to_string()]).await?;
    let acks: Vec<_> = told["purges"][0]["acks"].as_array().into_iter().flatten().collect();
    ensure!(acks.len() == 3, "{told}");
    for ack in acks {
        ensure!(ack["state"] == "acknowledged" && ack["at_ms"].as_u64() > Some(0), "{told}");
    }
    cluster.nodes[0].shoal(&["cache", "purge-status", "999999"]).await?.expect(1)?;
    Ok(())
}
