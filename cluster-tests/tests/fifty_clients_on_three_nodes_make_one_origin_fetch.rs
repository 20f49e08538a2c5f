//! A cold object is fetched once for the whole cluster, however many ask for it and wherever.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Answer, Cluster, HOST, Origin, Ports, Reply, SiteFile, fetch, pattern};
use tokio::task::JoinSet;

const CLIENTS: usize = 50;
/// Small enough for one chunk, large enough to be streamed.
const SIZES: [usize; 2] = [2_000, 600_000];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_object_is_fetched_once() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let slow = |path: &str| {
        let size = if path.starts_with("/large") { SIZES[1] } else { SIZES[0] };
        Reply::ok(pattern(path, size)).field("cache-control", "max-age=600").after(Duration::from_millis(400))
    };
    let origin = Origin::start(move |seen| slow(&seen.path)).await?;
    cluster.apply(0, &SiteFile::new().cached_unverified("shop", &[origin.endpoint()])).await?;
    cluster.serves(HOST, "/warm-up").await?;

    // Several objects, so that each node is the owner of some and a stranger to others.
    for n in 0..6 {
        let (path, size) =
            if n % 3 == 2 { (format!("/large/{n}"), SIZES[1]) } else { (format!("/small/{n}"), SIZES[0]) };
        for answer in ask_at_once(&cluster, &path).await? {
            ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.cache_status());
            ensure!(answer.body == pattern(&path, size), "{path}: {} other bytes", answer.body.len());
            let status = answer.cache_status();
            ensure!(
                ["n1", "n2", "n3"].iter().any(|name| status.contains(name)),
                "Cache-Status names no node: {status:?}"
            );
        }
        ensure!(
            origin.count(&path) == 1,
            "{path}: {} origin requests for {CLIENTS} clients",
            origin.count(&path)
        );
        for answer in ask_at_once(&cluster, &path).await? {
            ensure!(
                answer.status == 200 && answer.is_hit(),
                "{path}: {} {}",
                answer.status,
                answer.cache_status()
            );
            ensure!(answer.headers.contains_key("age"), "{path}: a cached answer without Age");
        }
        ensure!(origin.count(&path) == 1, "{path}: {} origin requests in all", origin.count(&path));
    }
    Ok(())
}

/// All clients ask for the same path at the same moment, spread over the nodes.
async fn ask_at_once(cluster: &Cluster, path: &str) -> Result<Vec<Answer>> {
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        let (address, path) = (cluster.nodes[n % 3].at(Ports::HTTP), path.to_owned());
        clients.spawn(async move { fetch(address, HOST, &path).await });
    }
    clients.join_all().await.into_iter().collect()
}
