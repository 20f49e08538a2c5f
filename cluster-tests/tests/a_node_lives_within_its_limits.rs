//! A node that may open few files: it says so, closes what is too much, and everything else goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, Connection, Origin, Ports, SiteFile, Speak, empty, fetch, wait_until};
use http::Request;

const HOST: &str = "shop.example.com";
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
    let (mut open, mut closed) = (Vec::new(), 0);
    for _ in 0..ROOM + 100 {
        let mut connection = Connection::open(web, Speak::Http1).await?;
        match connection.send(ask()?).await {
            Ok(answer) if answer.status == 200 => open.push(connection),
            Ok(answer) => anyhow::bail!("{answer:?}"),
            Err(_) => closed += 1,
        }
    }
    // The connections of `serves` may still have been among them for a moment.
    ensure!((ROOM - 4..=ROOM).contains(&open.len()), "{} were let in, {closed} were not", open.len());
    let counted = cluster.metric(0, "shoal_connections_refused_total", "node_full").await?;
    ensure!(counted >= f64::from(closed), "{counted} of {closed} are counted");

    for connection in &mut open {
        ensure!(connection.send(ask()?).await?.status == 200, "who is in is served");
    }
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
