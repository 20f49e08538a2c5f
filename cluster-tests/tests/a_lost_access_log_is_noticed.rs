//! An access log that cannot be written is said where an operator looks, and what it lost is counted.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Origin, Ports, SiteFile, fetch, wait_until};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_named_and_counted() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    let path = cluster.dir().join("logs/access.log");
    let listener = json!({
        "address": format!(":{}", Ports::HTTP), "protocol": "http", "access_log": { "path": path },
    });
    let site = SiteFile::new().proxy("shop", &[origin.endpoint()]).set("listeners", "web", listener);
    cluster.apply(0, &site).await?;
    let named = async || {
        let status = cluster.nodes[0].shoal(&["status"]).await;
        status.is_ok_and(|status| status.stdout.contains("warning: n1: the access log "))
    };
    wait_until("a warning before any request", DEADLINE, named).await?;
    ensure!(cluster.nodes[0].log().contains("cannot write to an access log"), "the log says nothing");
    let web = cluster.nodes[0].at(Ports::HTTP);
    for _ in 0..3 {
        fetch(web, HOST, "/").await?;
    }
    let lost =
        async || cluster.metric(0, "shoal_access_log_dropped_total", "").await.is_ok_and(|lost| lost == 3.0);
    wait_until("lost lines to be counted", DEADLINE, lost).await?;

    std::fs::create_dir(path.parent().unwrap_or(cluster.dir()))?;
    let is_mended = async || fetch(web, HOST, "/").await.is_ok() && !named().await;
    wait_until("the warning to end with the first line", DEADLINE, is_mended).await?;
    ensure!(!std::fs::read_to_string(&path)?.is_empty());
    Ok(())
}
