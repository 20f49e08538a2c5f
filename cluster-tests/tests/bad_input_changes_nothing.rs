//! What is wrong is refused where it is written, with the place and the reason, and the running site goes on.

use std::path::Path;

use anyhow::{Result, ensure};
use cluster_tests::{
    Cluster, HOST, Origin, Ports, SelfSigned, SiteFile, VerbOutput, fetch, path_text, pattern,
};
use serde_json::json;

const TEMPLATE: &str = "\
listeners:
  web: { address: \":8080\", protocol: http }
routes:
  shop:
    path_prefix: /
    upstream: shop
upstreams:
  shop:
    endpoints: [\"ENDPOINT\"]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_names_the_place_and_the_reason() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let origin = Origin::of_patterns(50, "no-store").await?;
    let good = TEMPLATE.replace("ENDPOINT", &origin.endpoint());
    let file = cluster.file("good.yaml", &good)?;
    apply(&cluster, &file).await?.expect(0)?;
    cluster.serves(HOST, "/").await?;
    let revision = cluster.revision(0).await?;

    let cases: &[(&str, String, &[&str])] = &[
        ("a typo in a key", good.replace("upstream: shop", "upsteam: shop"), &[":6:", "upsteam"]),
        (
            "a dangling upstream",
            good.replace("upstream: shop", "upstream: shap"),
            &[":6:", "routes.shop", "shap"],
        ),
        (
            "a number without unit",
            good.replace("  shop:\n    end", "  shop:\n    connect_timeout: 5\n    end"),
            &[":9:", "unit"],
        ),
        ("a broken line", good.replace("routes:", "routes: ["), &["bad.yaml:"]),
        (
            "two listeners on one port",
            good.replace("routes:", "  two: { address: \":8080\", protocol: http }\nroutes:"),
            &[":2:", "already"],
        ),
        (
            "a path that is no path",
            good.replace("path_prefix: /", "path_prefix: shop"),
            &[":5:", "path_prefix"],
        ),
        (
            "a bad regular expression",
            good.replace("path_prefix: /", "path_regex: '/(x'"),
            &[":5:", "path_regex"],
        ),
        ("nothing", String::new(), &["bad.yaml:1:1", "empty"]),
    ];
    for (what, text, expected) in cases {
        ensure!(*text != good, "{what}: the case changes nothing");
        let file = cluster.file("bad.yaml", text)?;
        is_refused(what, apply(&cluster, &file).await?, expected)?;
    }

    let garbage = cluster.file("bad.yaml", pattern("garbage", 50 << 20))?;
    is_refused("50 MiB of garbage", apply(&cluster, &garbage).await?, &["bad.yaml"])?;
    let missing = cluster.dir().join("nowhere.yaml");
    is_refused("a file that is not there", apply(&cluster, &missing).await?, &["nowhere.yaml"])?;
    certificates_are_looked_into(&cluster, &origin).await?;

    ensure!(cluster.revision(0).await? == revision, "a refused file made a revision");
    let answer = fetch(cluster.nodes[0].at(Ports::HTTP), HOST, "/still").await?;
    ensure!(answer.status == 200, "the running site is disturbed: {answer:?}");
    Ok(())
}

/// An answer has room for so many problems.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_problems_some_are_told() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let route = |n: u32| (format!("r{n}"), json!({ "path": format!("/{n}"), "upstream": "u" }));
    let site = json!({
        "listeners": { "web": { "address": ":8080", "protocol": "http" } },
        "routes": (0..3_000).map(route).collect::<serde_json::Map<_, _>>(),
        "upstreams": { "u": { "endpoints": ["127.0.0.1:9"] } },
    });
    let file = cluster.file("many.json", site.to_string())?;
    apply(&cluster, &file).await?.expect(0)?;
    let refused = cluster.nodes[0].shoal(&["delete", "upstream/u"]).await?;
    is_refused("3,000 dangling routes", refused, &["routes.r0.upstream", "and 2980 more"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_keeps_for_itself_is_no_endpoint_and_no_log() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let own = cluster.nodes[0].data_dir();
    let link = cluster.dir().join("innocent.sock");
    std::os::unix::fs::symlink(own.join("admin.sock"), &link)?;
    for socket in [&own.join("admin.sock"), &link, &own.join("upgrade.sock")] {
        let endpoint = format!("unix:{}", socket.display());
        let upstream = json!({ "endpoints": [endpoint], "protocol": "h2c" });
        cluster.apply(0, &SiteFile::new().proxy("shop", &[]).upstream("shop", upstream)).await?;
        let answer = fetch(cluster.nodes[0].at(Ports::HTTP), HOST, "/").await?;
        ensure!(answer.status == 502 || answer.status == 503, "{endpoint}: {answer:?}");
    }
    let origin = Origin::of_patterns(50, "no-store").await?;
    let identity = own.join("identity/node.json");
    let before = std::fs::read(&identity)?;
    for log in [&identity, &own.join("log")] {
        let web = json!({
            "address": format!(":{}", Ports::HTTP), "protocol": "http", "access_log": { "path": log },
        });
        cluster
            .apply(0, &SiteFile::new().proxy("shop", &[origin.endpoint()]).set("listeners", "web", web))
            .await?;
        cluster.serves(HOST, "/").await?;
        cluster
            .eventually("the line is dropped", async || {
                let dropped = cluster.metric(0, "shoal_access_log_dropped_total", "").await.ok()?;
                (dropped >= 1.0).then_some(())
            })
            .await?;
    }
    ensure!(std::fs::read(&identity)? == before, "the identity was written to");
    ensure!(!own.join("log").exists(), "a log was made");
    Ok(())
}

/// A key of another certificate, a file that is missing, a file that is no certificate, a key where everybody reads.
async fn certificates_are_looked_into(cluster: &Cluster, origin: &Origin) -> Result<()> {
    let one = SelfSigned::create(cluster.dir(), &["one.example.com"])?;
    let two = SelfSigned::create(cluster.dir(), &["two.example.com"])?;
    let noise = cluster.file("noise.pem", pattern("noise", 2_000))?;
    let missing = cluster.dir().join("missing.pem");
    let both = [std::fs::read(&one.chain_file)?, std::fs::read(&one.key_file)?].concat();
    let combined = cluster.file("combined.pem", &both)?;
    let cases: &[(&str, &Path, &Path, &[&str])] = &[
        ("a key that does not match", &one.chain_file, &two.key_file, &["certificates.shop", "match"]),
        ("a chain that is missing", &missing, &one.key_file, &["missing.pem"]),
        ("a chain that is noise", &noise, &one.key_file, &["certificates.shop"]),
        ("a key that is noise", &one.chain_file, &noise, &["certificates.shop"]),
        (
            "a chain with its key",
            &combined,
            &one.key_file,
            &["certificates.shop.chain_file", "combined.pem holds a private key"],
        ),
    ];
    for (what, chain, key, expected) in cases {
        let site = SiteFile::new().proxy("shop", &[origin.endpoint()]).secure("shop", chain, key);
        is_refused(what, cluster.try_apply(0, &site).await?, expected)?;
    }
    let endpoints = [origin.endpoint()];
    for (field, value) in [("ca_file", combined.display().to_string()), ("ca_pem", String::from_utf8(both)?)]
    {
        let upstream = json!({ "endpoints": endpoints, "tls": { "server_name": "a", field: value } });
        let site = SiteFile::new().proxy("shop", &endpoints).set("upstreams", "other", upstream);
        let expected = [&format!("upstreams.other.tls.{field}"), "holds a private key"];
        is_refused(field, cluster.try_apply(0, &site).await?, &expected)?;
    }
    Ok(())
}

async fn apply(cluster: &Cluster, file: &Path) -> Result<VerbOutput> {
    cluster.nodes[0].shoal(&["apply", "--prune", "-f", path_text(file)]).await
}

fn is_refused(what: &str, output: VerbOutput, expected: &[&str]) -> Result<()> {
    ensure!(output.code == 1, "{what}: exit code {} instead of 1: {output:.2000?}", output.code);
    for part in expected {
        ensure!(output.stderr.contains(part), "{what}: the message lacks {part:?}: {:.2000}", output.stderr);
    }
    ensure!(output.stderr.len() < 20_000, "{what}: a message of {} bytes", output.stderr.len());
    ensure!(!output.stderr.contains("panicked"), "{what}: {:.2000}", output.stderr);
    Ok(())
}
