//! What was purged on one node is not served by any, and nothing else is forgotten.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Ports, SiteFile, Versions, fetch, wait_until};

const OTHER_HOST: &str = "blog.example.com";
const PATHS: [&str; 5] = ["/", "/news/1", "/news/2", "/newsletter", "/about"];

/// Every answer carries the version it was made from; `/about` and `/newsletter` carry tags.
async fn versions() -> Result<Versions> {
    Versions::start(|seen, reply| match seen.path.as_str() {
        "/about" => reply.field("surrogate-key", "imprint legal"),
        "/newsletter" => reply.field("cache-tag", "post,café"),
        _ => reply,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_url_by_prefix_by_tag_and_by_host() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origin = versions().await?;
    cluster.put_in_force(&SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    let url = |path: &str| format!("http://{HOST}{path}");

    let cases: [(&str, String, &[&str]); 6] = [
        ("--url", url("/news/1"), &["/news/1"]),
        ("--prefix", url("/news/"), &["/news/1", "/news/2"]),
        ("--tag", "imprint".to_owned(), &["/about"]),
        ("--tag", "post".to_owned(), &["/newsletter"]),
        ("--tag", "café".to_owned(), &["/newsletter"]),
        ("--host", HOST.to_owned(), &PATHS),
    ];
    // What each path of HOST shows: the version that was current when it was last forgotten.
    let mut shown = PATHS.map(|path| (path, 1));
    expect(&cluster, &shown).await?;
    for (n, (scope, value, forgotten)) in cases.into_iter().enumerate() {
        origin.become_version(n + 2);
        let output = cluster.nodes[n % 3].shoal(&["cache", "purge", scope, &value]).await?.expect(0)?;
        ensure!(output.text().contains("3/3"), "not acknowledged by 3/3 nodes: {}", output.text());
        for (path, seen) in &mut shown {
            if forgotten.contains(path) {
                *seen = n + 2;
            }
        }
        expect(&cluster, &shown).await?;
    }
    what_could_match_nothing_is_refused(&cluster).await?;
    who_is_dead_is_named(&mut cluster).await
}

async fn what_could_match_nothing_is_refused(cluster: &Cluster) -> Result<()> {
    for scope in [
        ["--tag", ""],
        ["--tag", "*"],
        ["--tag", "legal,imprint"],
        ["--url", "http:///about"],
        ["--url", "/about"],
        ["--url", "http://shop.example.com/*"],
        ["--prefix", "/news"],
        ["--host", "*.example.com"],
        ["--host", "shop.example.com/news"],
    ] {
        let output = cluster.nodes[0].shoal(&[&["cache", "purge"], &scope[..]].concat()).await?;
        ensure!(output.code == 1, "{scope:?} ended with {}: {}", output.code, output.text());
        ensure!(output.stderr.contains("error: cache purge: "), "{scope:?}: {}", output.text());
    }
    Ok(())
}

/// The others acknowledge, and nobody is made to believe that there are only two.
async fn who_is_dead_is_named(cluster: &mut Cluster) -> Result<()> {
    cluster.nodes[2].kill9()?;
    let dead = cluster.nodes[2].name.clone();
    wait_until("the others have noticed", Duration::from_secs(30), async || {
        cluster.node_seen_by(0, &dead).await.is_ok_and(|seen| seen["state"] == "dead")
    })
    .await?;
    let output = cluster.nodes[0].shoal(&["cache", "purge", "--all"]).await?.expect(0)?;
    let told = format!("({dead} is dead and will catch up)");
    ensure!(output.text().contains("2/2 live nodes"), "{}", output.text());
    ensure!(output.text().contains(&told), "{}", output.text());
    Ok(())
}

/// Every node shows these versions for HOST, and the first one for the other host.
async fn expect(cluster: &Cluster, shown: &[(&str, usize)]) -> Result<()> {
    for node in &cluster.nodes {
        for (path, version) in shown {
            let answer = fetch(node.at(Ports::HTTP), HOST, path).await?;
            let expected = format!("version {version}");
            ensure!(
                answer.body == expected,
                "{} shows {:?} for {path}, not {expected:?} ({})",
                node.name,
                answer.body,
                answer.cache_status()
            );
        }
        let answer = fetch(node.at(Ports::HTTP), OTHER_HOST, "/news/1").await?;
        ensure!(answer.body == "version 1", "{} forgot another host: {:?}", node.name, answer.body);
    }
    Ok(())
}
