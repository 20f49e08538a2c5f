//! Why TLS with an endpoint does not come about is said where an operator looks.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Ports, SelfSigned, SiteFile, fetch, wait_until};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_named_by_checks_and_by_requests() -> Result<()> {
    let cluster = Cluster::start_with(1, &["--access-log"]).await?;
    let own = SelfSigned::create(cluster.dir(), &[HOST])?;
    let other = SelfSigned::create(cluster.dir(), &["other.example.com"])?;
    // The node's own listener is an endpoint as good as any.
    let endpoint = cluster.nodes[0].at(Ports::HTTPS).to_string();
    let health = json!({ "http": { "path": "/" }, "interval": "100ms", "fall": 1 });
    let upstream = |tls| json!({ "endpoints": [endpoint], "tls": tls, "health": health });
    let site = SiteFile::new()
        .secure_by("own", &own)
        .upstream("far", upstream(json!({ "ca_file": other.chain_file, "server_name": HOST })))
        .route("far", json!({ "upstream": "far", "listeners": ["web"] }));
    cluster.apply(0, &site).await?;
    let why = async || {
        let health = cluster.nodes[0].shoal(&["health", "-o", "json"]).await.and_then(|output| output.json());
        health.is_ok_and(|health| health.to_string().contains("tls: certificate not trusted"))
    };
    wait_until("the reason in `shoal health`", DEADLINE, why).await?;
    for _ in 0..5 {
        ensure!(fetch(cluster.nodes[0].at(Ports::HTTP), HOST, "/").await?.status == 502);
    }
    let log = cluster.nodes[0].log();
    ensure!(log.contains("\"detail\":\"tls: certificate not trusted\""), "{log}");
    // Once by the check, and once by the requests, however many there were.
    let warned: Vec<&str> = log.lines().filter(|line| line.contains("no TLS with an endpoint")).collect();
    ensure!(warned.len() == 2, "{warned:?}");
    for line in warned {
        let names = ["WARN", "upstream=far", &endpoint, "invalid peer certificate"]
            .iter()
            .all(|part| line.contains(part));
        ensure!(names, "{line}");
    }
    Ok(())
}
