//! A node that may open few files: it says so, closes what is too much, and everything else goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, Connection, HOST, Origin, Ports, SiteFile, Speak, empty, fetch, wait_until};
use http::Request;

const DESCRIPTORS: u32 = 1024;
/// What is left for downstreams.
const ROOM: usize = 512;
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);
const CLOSE_DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_connections_leave_the_node_alone() -> Result<()> {
    let mut cluster = Cluster::start_with(1, &["--drain-delay", "0s"]).await?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    cluster.apply(0, &SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
    cluster.nodes[0].term()?;
    ensure!(cluster.nodes[0].ended(DRAIN_DEADLINE).await?.success(), "it did not stop well");
    cluster.nodes[0].allow_descriptors(DESCRIPTORS);
    cluster.restart(0)?;
    cluster.answers(0).await?;
    cluster.serves(HOST, "/").await?;
    ensure!(cluster.nodes[0].log().contains("few file descriptors"), "it does not say so");

    let web = cluster.nodes[0].at(Ports::HTTP);
    let ask = || Request::get("/").header("host", HOST).body(empty());
    let mut asked = Vec::new();
    for _ in 0..ROOM + 100 {
        let mut connection = Connection::open(web, Speak::Http1).await?;
        match connection.send(ask()?).await {
            Ok(answer) if answer.status == 200 => asked.push(connection),
            Ok(answer) => anyhow::bail!("{answer:?}"),
            Err(_) => {}
        }
    }
    // Who came before and asks nothing makes room, and where nobody does there is none.
    let mut open = Vec::new();
    for mut connection in asked {
        match connection.send(ask()?).await {
            Ok(answer) if answer.status == 200 => open.push(connection),
            Ok(answer) => anyhow::bail!("{answer:?}"),
            Err(_) => {}
        }
    }
    ensure!((ROOM / 2..=ROOM).contains(&open.len()), "{} are in", open.len());
    let full = cluster.metric(0, "shoal_connections_refused_total", "node_full").await?;
    let crowded = cluster.metric(0, "shoal_limits_reached_total", "crowded").await?;
    let closed = ROOM + 100 - open.len();
    ensure!(full + crowded >= closed as f64, "{full} and {crowded} of {closed} are counted");
    cluster.nodes[0].shoal(&["status"]).await?.expect(0)?;
    ensure!(cluster.readyz(0).await?.0 == 200, "watchers are answered");
    cluster.apply(0, &SiteFile::new().cached("shop", &[origin.endpoint()])).await?;

    drop(open);
    wait_until("there is room again", CLOSE_DEADLINE, async || {
        fetch(web, HOST, "/").await.is_ok_and(|answer| answer.status == 200)
    })
    .await
    .map(drop)
}
