//! One of three nodes alone: it serves what it last knew, says so, and refuses to change anything.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::{
    Bar, Cluster, HOST, Origin, Ports, SelfSigned, SiteFile, Speak, empty, path_text, send, wait_until,
};
use http::Request;
use serde_json::{Value, json};

/// For a node that has been alone for long to refuse a change, half of the time: one more attempt at an election, and the verb.
const REFUSED_AGAIN: Bar = Bar::of_median_ms(1_000, 900);
/// Changes that it is asked for then.
const ASKED_AGAIN: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_serves_alone_and_says_so() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(700, "no-store").await?;
    let certificate = SelfSigned::create(cluster.dir(), &[HOST])?;
    let site = SiteFile::new().proxy("shop", &[origin.endpoint()]).secure_by("shop", &certificate);
    cluster.put_in_force(&site).await?;
    let revision = cluster.revision(0).await?;

    // The majority dies while the third node runs…
    cluster.nodes[0].kill9()?;
    cluster.nodes[1].kill9()?;
    serves_alone(&cluster, &certificate, &site, revision).await?;

    // …and the third node comes back to nobody.
    cluster.nodes[2].kill9()?;
    cluster.restart(2)?;
    cluster.answers(2).await?;
    serves_alone(&cluster, &certificate, &site, revision).await?;

    // A second voter makes a quorum again.
    cluster.restart(1)?;
    wait_until("two of three are a quorum", Duration::from_secs(30), async || {
        cluster.status(2).await.is_ok_and(|status| status["quorum"] == true)
    })
    .await?;
    wait_until(
        "the node is ready and says nothing of a missing quorum",
        Duration::from_secs(40),
        async || {
            cluster.readyz(2).await.is_ok_and(|(status, text)| status == 200 && text.contains("quorum: yes"))
        },
    )
    .await?;
    Ok(())
}

async fn serves_alone(
    cluster: &Cluster,
    certificate: &SelfSigned,
    site: &SiteFile,
    revision: u64,
) -> Result<()> {
    let node = &cluster.nodes[2];
    cluster.node_serves(2, HOST, "/alone").await?;
    let speak = Speak::Tls(certificate.trusting_client(&["h2"])?, HOST.to_owned());
    let request = Request::get(format!("https://{HOST}/alone")).body(empty())?;
    let answer = send(node.at(Ports::HTTPS), speak, request).await?;
    ensure!(answer.status == 200, "over TLS: {answer:?}");

    wait_until("status says that there is no quorum", Duration::from_secs(20), async || {
        cluster.status(2).await.is_ok_and(|status| status["quorum"] == false)
    })
    .await?;
    ensure!(cluster.revision(2).await? == revision, "another revision than before");
    let (_, text) = cluster.readyz(2).await?;
    ensure!(text.contains("quorum: none"), "/readyz?verbose does not mention the quorum: {text}");

    let screen = node.shoal(&["status"]).await?.expect(0)?;
    ensure!(screen.stdout.contains("quorum NO"), "status does not say it: {}", screen.text());
    let changed = site.clone().upstream("other", json!({ "endpoints": ["127.0.0.1:9"] }));
    let refused = cluster.try_apply(2, &changed).await?.expect(6)?;
    ensure!(
        refused.text().to_lowercase().contains("quorum"),
        "the refusal does not say why: {}",
        refused.text()
    );
    let mut took = Vec::new();
    for _ in 0..ASKED_AGAIN {
        let asked = Instant::now();
        let refused = cluster.try_apply(2, &changed).await?.expect(6)?;
        took.push(asked.elapsed());
        let said = "this node has known of no leader that a majority of the 3 voters follows for";
        ensure!(refused.text().contains(said), "not {said:?}: {}", refused.text());
    }
    took.sort_unstable();
    REFUSED_AGAIN
        .hold("half of the refusals of a node that has been alone for long", took[ASKED_AGAIN / 2])?;
    for verb in ["get", "export"] {
        let shown = node.shoal(&[verb]).await?.expect(0)?;
        ensure!(shown.stderr.contains("warning: no quorum"), "it looks current: {}", shown.text());
    }
    let history = node.shoal(&["history"]).await?.expect(0)?;
    ensure!(history.stdout.starts_with("warning: no quorum"), "it looks complete: {}", history.text());
    let history = node.shoal(&["history", "-o", "json"]).await?.expect(0)?;
    let history: Value = serde_json::from_str(&history.stdout)?;
    ensure!(history["quorum"] == false, "{history:#}");
    ensure!(history["staleness_ms"].as_u64() > Some(0), "{history:#}");
    for who_may_call in ["token", "operator"] {
        let listed = node.shoal(&[who_may_call, "list"]).await?.expect(0)?;
        ensure!(listed.stdout.starts_with("warning: no quorum"), "it looks complete: {}", listed.text());
    }
    let unsure = node.shoal(&["get", "--consistent"]).await?.expect(6)?;
    ensure!(unsure.stderr.contains("quorum"), "the refusal does not say why: {}", unsure.text());
    let file = cluster.file("changed.json", changed.text())?;
    let file = path_text(&file);
    let planned = node.shoal(&["plan", "-f", file]).await?.expect(3)?;
    ensure!(planned.stdout.contains("+ upstream other"), "no plan: {}", planned.text());
    ensure!(planned.stdout.contains("possibly old"), "the plan hides its base: {}", planned.text());
    Ok(())
}
