//! What anybody can have a node answer, whatever it serves, says nothing of a revision that some nodes try: neither against it nor
//! for it.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use bytes::Bytes;
use cluster_tests::{
    Cluster, Connection, HOST, Load, NodeProcess, Origin, Ports, Reply, SiteFile, Speak, empty, fetch,
};
use http::Request;
use http_body_util::combinators::BoxBody;
use hyper::ext::Protocol;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A site that answers with `body`.
async fn site(body: &'static str) -> Result<(Origin, SiteFile)> {
    let origin = Origin::start(move |_| Reply::ok(body)).await?;
    let file = SiteFile::new().proxy("shop", &[origin.endpoint()]);
    Ok((origin, file))
}

/// What a node answers with 501 by itself, whatever it serves.
fn beyond_the_last_hop(host: &str) -> Result<Request<BoxBody<Bytes, anyhow::Error>>> {
    let request = Request::builder().method("TRACE").uri("/").header("host", host);
    Ok(request.header("max-forwards", "0").body(empty())?)
}

/// Has `node` answer requests with this field so, more often than it takes to be sure of a difference.
async fn bother(node: &NodeProcess, field: &str, value: &str, status: u16) -> Result<()> {
    let mut stranger = Connection::open(node.at(Ports::HTTP), Speak::Http1).await?;
    for _ in 0..100 {
        let request = Request::get("/").header("host", HOST).header(field, value);
        let told = stranger.send(request.body(empty())?).await?;
        ensure!(told.status == status, "{field}: {told:?}");
    }
    Ok(())
}

/// Asks for a WebSocket where there is none, as HTTP/2 has it.
async fn ask_for_websockets(node: &NodeProcess) -> Result<()> {
    let mut stranger = Connection::open(node.at(Ports::HTTP), Speak::Http2).await?;
    // Whether it is offered is known once the settings of the node have come, which an answer shows.
    stranger.send(Request::get(format!("http://{HOST}/")).body(empty())?).await?;
    for _ in 0..100 {
        let request = Request::connect(format!("http://{HOST}/")).header("sec-websocket-version", "13");
        let request = request.extension(Protocol::from_static("websocket"));
        let told = stranger.send(request.body(empty())?).await?;
        ensure!(told.status == 502, "{told:?}");
    }
    Ok(())
}

/// Requests whose bodies come when something else has been done.
async fn dawdle(node: &NodeProcess, meanwhile: impl Future<Output = Result<()>>) -> Result<()> {
    let mut dawdlers = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(node.at(Ports::HTTP)).await?;
        let head =
            format!("POST / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-length: 1\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        dawdlers.push(stream);
    }
    meanwhile.await?;
    for mut stream in dawdlers {
        stream.write_all(b"x").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_bring_about_is_not_held_against_it() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let (_old_origin, old) = site("old").await?;
    let (_new_origin, new) = site("new").await?;
    cluster.apply(0, &old).await?;
    let load = Load::on_all(&cluster);
    // It takes more than one message of the usual size.
    let large = (0..1_000).fold(new, |site, i| {
        site.route(
            &format!("more-{i}"),
            json!({ "hosts": [format!("h{i}.example.com")], "upstream": "shop" }),
        )
    });
    cluster.apply_as(0, &large, &["--waves", "--bake", "10s"]).await?.expect(0)?;
    let canary = cluster.place_of(&cluster.tried_by(1).await?.concat())?;
    let node = &cluster.nodes[canary];
    let mut stranger = Connection::open(node.at(Ports::HTTP), Speak::Http1).await?;
    for _ in 0..200 {
        let told = stranger.send(beyond_the_last_hop(HOST)?).await?;
        ensure!(told.status == 501, "{told:?}");
    }
    let name = format!("shoal-{}", node.name);
    let via = format!("1.1 {name}");
    bother(node, "via", &via, 508).await?;
    bother(node, "cdn-loop", &name, 508).await?;
    Box::pin(dawdle(node, ask_for_websockets(node))).await?;
    cluster.nodes[1].shoal(&["--timeout", "5m", "rollout", "status", "--watch"]).await?.expect(0)?;
    cluster.all_answer_with("new").await?;
    for (node, seen) in cluster.nodes.iter().zip(load.finish().await.targets) {
        ensure!(seen.is_faultless(), "{}: {}", node.name, seen.faults());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_bring_about_does_not_hide_what_it_does() -> Result<()> {
    const SELDOM: &str = "seldom.example.com";
    let cluster = Cluster::start(3).await?;
    let (origin, old) = site("old").await?;
    let seldom = |endpoint: &str| {
        old.clone()
            .upstream("seldom", json!({ "endpoints": [endpoint] }))
            .route("seldom", json!({ "hosts": [SELDOM], "upstream": "seldom" }))
    };
    cluster.apply(0, &seldom(&origin.endpoint())).await?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let bad = seldom(&nobody.to_string());
    cluster.apply_as(0, &bad, &["--waves", "--bake", "1h"]).await?.expect(0)?;
    // For each request to what is gone a hundred that any node answers by itself.
    let goes_on = AtomicBool::new(true);
    let ask = async |node: &NodeProcess| -> Result<()> {
        while goes_on.load(Ordering::Relaxed) {
            let mut stranger = Connection::open(node.at(Ports::HTTP), Speak::Http1).await?;
            for _ in 0..100 {
                let told = stranger.send(beyond_the_last_hop(SELDOM)?).await?;
                ensure!(told.status == 501, "{told:?}");
            }
            fetch(node.at(Ports::HTTP), SELDOM, "/").await?;
        }
        Ok(())
    };
    let watch = async {
        let watch = ["--timeout", "5m", "rollout", "status", "2", "--watch"];
        let watched = cluster.nodes[1].shoal(&watch).await;
        goes_on.store(false, Ordering::Relaxed);
        watched?.expect(5)
    };
    let [first, second, third] = &cluster.nodes[..] else { anyhow::bail!("there are three nodes") };
    let (watched, ..) = tokio::try_join!(watch, ask(first), ask(second), ask(third))?;
    ensure!(watched.stdout.contains("revision 2 was taken back in wave 1"), "{}", watched.stdout);
    Ok(())
}
