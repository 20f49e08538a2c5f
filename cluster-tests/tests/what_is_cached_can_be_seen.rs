//! What is stored of a URL, what is used most and what it saved is told by any node; and what will be wanted is fetched ahead.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Cluster, HOST, Load, Origin, Ports, Reply, SiteFile, Speak, empty, fetch, path_text, send, wait_until,
};
use http::Request;
use serde_json::{Value, json};

/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(30);

/// Objects of 1000 bytes in two variants, with a tag; below `/private/` nothing is to be stored, and `/gone` ends early.
async fn shop() -> Result<Origin> {
    Origin::start(|seen| {
        let reply = Reply::ok("x".repeat(1000)).field("etag", "\"v1\"").field("surrogate-key", "shop");
        match seen.path.as_str() {
            path if path.starts_with("/private/") => reply.field("cache-control", "private"),
            path if path.starts_with("/missing/") => reply.status(404).field("cache-control", "no-store"),
            _ => reply.field("cache-control", "max-age=3600").field("vary", "accept-language"),
        }
    })
    .await
}

async fn cluster(origin: &Origin) -> Result<Cluster> {
    let cluster = Cluster::start_with(3, &["--cache-disk", "64MiB"]).await?;
    let key = json!({ "exclude_query": ["utm_*"] });
    let route = json!({ "path_prefix": "/", "upstream": "shop", "cache": { "key": key } });
    let site = SiteFile::new().cached("shop", &[origin.endpoint()]).route("shop", route);
    cluster.apply(0, &site).await?;
    cluster.serves(HOST, "/private/ready").await?;
    Ok(cluster)
}

fn url(path: &str) -> String {
    format!("http://{HOST}{path}")
}

async fn told(cluster: &Cluster, node: usize, arguments: &[&str]) -> Result<Value> {
    cluster.nodes[node].shoal(&[arguments, &["-o", "json"]].concat()).await?.json()
}

/// What `cache get` says of a path, asked of one node after the other.
async fn objects(cluster: &Cluster, node: usize, path: &str) -> Result<Vec<Value>> {
    let told = told(cluster, node, &["cache", "get", &url(path)]).await?;
    Ok(told["objects"].as_array().cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_variant_on_each_node_and_what_a_purge_made_of_it() -> Result<()> {
    let origin = shop().await?;
    let cluster = cluster(&origin).await?;
    let nothing = cluster.nodes[0].shoal(&["cache", "get", &url("/logo.svg")]).await?.expect(1)?;
    ensure!(nothing.stdout.contains("(primary): absent"), "{}", nothing.stdout);
    for language in ["de", "en"] {
        let request = Request::get("/logo.svg?utm_source=x").header("host", HOST);
        let request = request.header("accept-language", language).body(empty())?;
        ensure!(send(cluster.nodes[0].at(Ports::HTTP), Speak::Http1, request).await?.status == 200);
    }
    // Both owners have both; a query that does not count is in no key.
    let held = cluster
        .eventually("both owners have both variants, on disk as well", async || {
            let objects = objects(&cluster, 1, "/logo.svg?utm_source=y").await.ok()?;
            let owners = objects.iter().filter(|object| object["role"] != "none");
            (owners.filter(|object| object["tier"] == "both").count() == 4).then_some(objects)
        })
        .await?;
    for object in &held {
        ensure!(object["url"] == url("/logo.svg") && object["route"] == "shop", "{object}");
        ensure!(
            object["status"] == 200 && object["body_bytes"] == 1000 && object["whole"] == true,
            "{object}"
        );
        ensure!(object["state"] == "fresh" && object["etag"] == "\"v1\"", "{object}");
        ensure!(object["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{object}");
        let ttl = object["ttl_seconds"].as_i64().context("no ttl")?;
        ensure!(ttl > 3000 && ttl <= 3600 && object["age_seconds"].as_i64() < Some(600), "{object}");
        ensure!(object["fill_seq"].as_u64() <= object["checked_seq"].as_u64(), "{object}");
    }
    for language in ["accept-language: de", "accept-language: en"] {
        let of_language = held.iter().filter(|object| object["selecting"][0] == language).count();
        ensure!(of_language >= 2, "{language}: {held:?}");
    }
    let name = held[0]["node"].as_str().context("no name")?;
    let of_one = told(&cluster, 0, &["cache", "get", &url("/logo.svg"), "--node", name]).await?;
    let of_one = of_one["objects"].as_array().context("no objects")?;
    ensure!(of_one.len() == 2 && of_one.iter().all(|object| object["node"] == name), "{of_one:?}");

    cluster.nodes[2].shoal(&["cache", "purge", "--tag", "shop", "--soft"]).await?.expect(0)?;
    let soft = objects(&cluster, 2, "/logo.svg").await?;
    ensure!(
        soft.len() == held.len() && soft.iter().all(|object| object["state"] == "soft_purged"),
        "{soft:?}"
    );
    // A purge means what `cache get` means: what does not count for the route is in no key.
    let with_more = url("/logo.svg?utm_source=z");
    cluster.nodes[2].shoal(&["cache", "purge", "--url", &with_more]).await?.expect(0)?;
    let purged = objects(&cluster, 0, "/logo.svg").await?;
    ensure!(
        purged.len() == held.len() && purged.iter().all(|object| object["state"] == "purged"),
        "{purged:?}"
    );
    let table = cluster.nodes[1].shoal(&["cache", "get", &url("/logo.svg")]).await?.expect(0)?;
    for part in ["TIER", "purged", "1000 B", "accept-language: de"] {
        ensure!(table.stdout.contains(part), "{part:?} is not in {}", table.stdout);
    }
    for wrong in [&["logo.svg"][..], &["http://shop.example.com/", "--node", "nobody"]] {
        cluster.nodes[0].shoal(&[&["cache", "get"], wrong].concat()).await?.expect(1)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_used_most_and_what_it_saves() -> Result<()> {
    let origin = shop().await?;
    let cluster = cluster(&origin).await?;
    let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    for n in 0..30 {
        fetch(addresses[n % 3], HOST, &format!("/seldom/{n}")).await?;
    }
    let load = Load::start(&addresses, 2, HOST, vec!["/much".to_owned()], |_| None);
    wait_until("the load runs", MOMENT, async || load.good() > 300).await?;
    let top = told(&cluster, 1, &["cache", "top", "--limit", "5"]).await?;
    let stats = told(&cluster, 0, &["cache", "stats"]).await?;
    let report = load.finish().await;
    ensure!(report.good() > 300);

    let hot = top["objects"].as_array().context("no objects")?;
    ensure!(hot.len() == 5 && hot[0]["url"] == url("/much"), "{top}");
    ensure!(hot[0]["hits_per_second"].as_f64() > Some(20.0), "{top}");
    ensure!(hot[1]["hits_per_second"].as_f64() < hot[0]["hits_per_second"].as_f64(), "{top}");
    let (hits, saved) = (hot[0]["hits"].as_u64().unwrap_or(0), hot[0]["saved_bytes"].as_u64().unwrap_or(0));
    ensure!(hits > 100 && saved == hits * 1000, "{top}");
    ensure!(hot[0]["nodes"].as_array().is_some_and(|nodes| nodes.len() >= 2), "{top}");
    let by_size =
        told(&cluster, 0, &["cache", "top", "--by", "size", "--for", "1s", "--limit", "500"]).await?;
    ensure!(by_size["objects"].as_array().is_some_and(|objects| objects.len() == 31), "{by_size}");
    let refused = cluster.nodes[0].shoal(&["cache", "top", "--for", "1m"]).await?.expect(1)?;
    ensure!(refused.text().contains("hits are counted for 1s to 10s, not for 1m"), "{}", refused.text());

    let total = &stats["total"]["counters"];
    let sum = |field: &str| {
        let nodes = stats["nodes"].as_array().into_iter().flatten();
        nodes.filter_map(|node| node["counters"][field].as_u64()).sum::<u64>()
    };
    for field in ["hits", "misses", "origin_fetches", "bytes", "disk_objects"] {
        ensure!(total[field].as_u64() == Some(sum(field)), "{field}: {stats}");
    }
    ensure!(stats["routes"][0]["route"] == "shop", "{stats}");
    ensure!(stats["routes"][0]["hit_bytes"].as_u64() > Some(200_000), "{stats}");
    let count = |times: &Value| {
        times.as_array().into_iter().flatten().filter_map(|bucket| bucket["requests"].as_u64()).sum::<u64>()
    };
    ensure!(
        count(&stats["total"]["origin_times"]) >= 31 && count(&stats["total"]["peer_times"]) > 0,
        "{stats}"
    );
    let name = &cluster.nodes[2].name;
    let of_one = told(&cluster, 0, &["cache", "stats", "--node", name]).await?;
    ensure!(of_one["nodes"].as_array().is_some_and(|nodes| nodes.len() == 1), "{of_one}");
    ensure!(of_one["nodes"][0]["node"] == name.as_str(), "{of_one}");
    let hits = |stats: &Value| stats["routes"][0]["hits"].as_u64().unwrap_or(0);
    ensure!(hits(&of_one) > 0 && hits(&of_one) < hits(&stats) + report.good() as u64, "{of_one}");
    let table = cluster.nodes[0].shoal(&["cache", "stats"]).await?.expect(0)?;
    for part in ["(all)", "origins", "peers", "SAVED"] {
        ensure!(table.stdout.contains(part), "{part:?} is not in {}", table.stdout);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_fetch_ahead_what_a_list_names() -> Result<()> {
    let origin = shop().await?;
    let mut cluster = cluster(&origin).await?;
    let mut lines = vec!["# all that is for sale".to_owned(), String::new()];
    lines.extend((0..60).map(|n| url(&format!("/sale/{n}?utm_campaign=1"))));
    let list = cluster.file("urls", lines.join("\n"))?;
    let warm = ["cache", "warm", "--file", path_text(&list)];
    let first = cluster.nodes[0].shoal(&warm).await?.expect(0)?;
    ensure!(first.stdout == "60 stored (58.6 KiB), 0 were there and fresh\n", "{}", first.text());
    let again = told(&cluster, 1, &warm).await?;
    ensure!(again["fresh"] == 60 && again["stored"] == 0 && again["not_stored"] == json!([]), "{again}");
    ensure!(origin.count_below("/sale/") == 60, "{} fetches", origin.count_below("/sale/"));
    let seen = origin.seen("/sale/7");
    ensure!(
        seen.len() == 1 && seen[0].field("host") == HOST && seen[0].field("via").contains("shoal-"),
        "{seen:?}"
    );
    for n in 0..60 {
        let answer = fetch(cluster.nodes[n % 3].at(Ports::HTTP), HOST, &format!("/sale/{n}")).await?;
        ensure!(answer.status == 200 && answer.is_hit(), "{n}: {}", answer.cache_status());
    }
    ensure!(origin.count_below("/sale/") == 60, "an owner had not fetched it");

    // A variant of its own, by way of a node's address.
    let address = format!("http://{}/sale/1", cluster.nodes[0].at(Ports::HTTP));
    let german =
        ["cache", "warm", &address, "--host", HOST, "--field", "Accept-Language: de", "--listener", "web"];
    let german = told(&cluster, 2, &german).await?;
    ensure!(german["stored"] == 1, "{german}");
    ensure!(origin.seen("/sale/1").iter().any(|seen| seen.field("accept-language") == "de"));

    what_cannot_be_is_told(&cluster).await?;
    a_dead_owner_is_replaced(&mut cluster, &origin).await
}

async fn what_cannot_be_is_told(cluster: &Cluster) -> Result<()> {
    let urls = [
        url("/private/1"),
        url("/missing/1"),
        url("/sale/1"),
        format!("https://{HOST}/"),
        "/x".to_owned(),
        url("/ü1"),
        url("/%C3%BC2"),
    ];
    let arguments: Vec<&str> = ["cache", "warm"].into_iter().chain(urls.iter().map(String::as_str)).collect();
    let output = cluster.nodes[0].shoal(&arguments).await?.expect(2)?;
    for line in [
        format!("{}: uncacheable: its answer (200) is not stored", urls[0]),
        format!("{}: uncacheable: its answer (404) is not stored", urls[1]),
        format!("{}: refused: no route takes it", urls[3]),
        "/x: refused: it is not a URL".to_owned(),
        format!("{}: refused: a URL has no spaces, and other than ASCII is written %C3%A9", urls[5]),
        "1 stored (1000 B), 1 were there and fresh, 2 uncacheable, 3 refused".to_owned(),
    ] {
        ensure!(output.stdout.contains(&line), "{line:?} is not in {}", output.text());
    }
    let warmed = fetch(cluster.nodes[0].at(Ports::HTTP), HOST, "/%C3%BC2").await?;
    ensure!(warmed.is_hit(), "{}", warmed.cache_status());
    for wrong in [
        &["cache", "warm"][..],
        &["cache", "warm", &urls[2], "--field", "none"],
        &["cache", "warm", &urls[2], "--concurrency", "65"],
        &["cache", "warm", "--file", "/nowhere/urls"],
    ] {
        cluster.nodes[0].shoal(wrong).await?.expect(1)?;
    }
    for (wrong, told) in [
        (&["warm", &urls[2], "--field", "Host: x"][..], "named by --host"),
        (&["get", ""], "an empty URL"),
        (&["purge", "--host", "bücher.example"], "punycode"),
        (&["purge", "--host", "shop.example.com:8080"], "write \"shop.example.com\""),
    ] {
        let output = cluster.nodes[0].shoal(&[&["cache"], wrong].concat()).await?;
        ensure!(output.code != 0 && output.text().contains(told), "{wrong:?}: {}", output.text());
    }
    let listener =
        cluster.nodes[0].shoal(&["cache", "warm", &urls[2], "--listener", "inner"]).await?.expect(2)?;
    ensure!(listener.stdout.contains("there is no listener \"inner\""), "{}", listener.text());
    Ok(())
}

/// The second owner fetches where the first cannot be reached, and nobody has to wait for its being noticed.
async fn a_dead_owner_is_replaced(cluster: &mut Cluster, origin: &Origin) -> Result<()> {
    cluster.nodes[2].kill9()?;
    let urls: Vec<String> = (0..20).map(|n| url(&format!("/late/{n}"))).collect();
    let arguments: Vec<&str> = ["cache", "warm"].into_iter().chain(urls.iter().map(String::as_str)).collect();
    let warmed = told(cluster, 0, &arguments).await?;
    ensure!(warmed["stored"] == 20, "{warmed}");
    ensure!(origin.count_below("/late/") == 20, "{} fetches", origin.count_below("/late/"));
    Ok(())
}
