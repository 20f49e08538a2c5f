//! Certificates of nodes are short-lived, and nobody has to think of them: each node has its own renewed in time, without a
//! restart or a lost request; one that was away past the end is let in late; and where all have ended they begin anew.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, Load, Origin, Ports, SiteFile, Verb, path_text, pattern, stays_so, wait_until};

/// How long certificates last in this story. It is renewed after half of that at the earliest.
const LIFE: Duration = Duration::from_secs(20);
/// For two renewals, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);

/// The series of a node that counts renewals.
const RENEWALS: (&str, &str) = ("shoal_node_cert_renewals_total", "ok");

async fn renewals(cluster: &Cluster, i: usize) -> Result<f64> {
    cluster.metric(i, RENEWALS.0, RENEWALS.1).await
}

/// Every node has been renewed so often since `before`.
async fn are_renewed(cluster: &Cluster, before: &[f64], times: f64) -> Result<()> {
    for (i, before) in before.iter().enumerate() {
        wait_until(&format!("{} is renewed", cluster.nodes[i].name), DEADLINE, async || {
            renewals(cluster, i).await.is_ok_and(|now| now >= before + times)
        })
        .await?;
    }
    Ok(())
}

/// The third node is not there for longer than a certificate lasts.
async fn outlive_certificates(cluster: &mut Cluster) -> Result<()> {
    stays_so("nobody renews anything", Instant::now() + LIFE + LIFE / 10, async || !cluster.nodes[2].runs())
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_renew_themselves() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(200, "no-store").await?;
    let site = |round: usize| SiteFile::new().proxy(&format!("shop-{round}"), &[origin.endpoint()]);
    cluster.apply(0, &site(0)).await?;
    cluster.serves("shop.example.com", "/").await?;
    let keys = cluster.nodes[1].told(&["cluster", "keys"]).await?;
    ensure!(keys["node_seconds"] == 7 * 86_400, "{keys:#}");
    let operator = cluster.nodes[0].data_dir().join("operator.json");
    let operator = path_text(&operator);

    let targets: Vec<_> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    let paths = (0..50).map(|i| format!("/p{i}")).collect();
    let load = Load::start(&targets, 1, "shop.example.com", paths, |path| Some(pattern(path, 200)));
    let life = format!("{}s", LIFE.as_secs());
    let short = cluster.nodes[2].shoal(&["cluster", "node-life", &life]).await?.expect(1)?;
    ensure!(short.stderr.contains("less than 1h"), "{short:?}");
    cluster.nodes[2].shoal(&["cluster", "node-life", &life, "--force"]).await?.expect(0)?;
    are_renewed(&cluster, &[0.0; 3], 3.0).await?;
    for i in 0..3 {
        cluster.apply(i, &site(i + 1)).await?;
        let address = cluster.nodes[i].at(Ports::ADMIN).to_string();
        Verb::from_afar(&["--addr", &address, "--identity", operator, "history"]).run().await?.expect(0)?;
        let left = cluster.metric(i, "shoal_node_cert_left_seconds", "").await?;
        ensure!(left <= LIFE.as_secs_f64(), "{left} s are left");
    }
    for target in load.finish().await.targets {
        let faults = target.wrong() + target.connection_errors();
        ensure!(faults == 0, "{faults}: {}", target.faults());
    }

    // One was away for longer than its certificate lasts.
    cluster.nodes[2].kill9()?;
    outlive_certificates(&mut cluster).await?;
    cluster.restart(2)?;
    cluster.answers(2).await?;
    cluster.settle().await?;
    let logs = [0, 1].map(|i| cluster.nodes[i].log());
    ensure!(
        logs.iter().any(|log| log.contains("late=true")),
        "nobody has let it in: {}",
        cluster.nodes[2].log()
    );
    let told = "a certificate for n3, whose last one has ended";
    wait_until("that is on the record", DEADLINE, async || {
        cluster.nodes[0].shoal(&["audit"]).await.is_ok_and(|audit| audit.stdout.contains(told))
    })
    .await?;
    cluster.apply(2, &site(5)).await?;

    // All were.
    cluster.nodes.iter_mut().try_for_each(cluster_tests::NodeProcess::kill9)?;
    outlive_certificates(&mut cluster).await?;
    for i in 0..3 {
        cluster.restart(i)?;
    }
    for i in 0..3 {
        cluster.answers(i).await?;
    }
    cluster.settle().await?;
    let before = [renewals(&cluster, 0).await?, renewals(&cluster, 1).await?, renewals(&cluster, 2).await?];
    cluster.apply(1, &site(6)).await?;
    are_renewed(&cluster, &before, 1.0).await?;
    for node in &cluster.nodes {
        ensure!(!node.log().contains("panicked"), "{}", node.log());
    }
    Ok(())
}
