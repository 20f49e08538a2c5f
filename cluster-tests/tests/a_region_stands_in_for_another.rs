//! Where the endpoints of a region die, those of another serve its requests, until they are well again: by themselves, or when
//! somebody says so. Each node tells what every region finds.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Load, LoadReport, Origin, Ports, Reply, SiteFile, fetch, wait_until};
use serde_json::{Value, json};

/// For checks to notice, and for all nodes to hear of it.
const MOMENT: Duration = Duration::from_secs(30);
/// For so long must a region be able to carry everything before anything comes back, but for a tick of a worker's clock.
const WELL_FOR: Duration = Duration::from_secs(59);
/// Until something has come back: by a hundredth of the requests a second.
const BACK: Duration = Duration::from_secs(120);
const ROUNDS: usize = 20;
/// Requests of a region for each upstream that show where they go.
const SOME: usize = 50;

/// Two nodes in each of two regions, and the endpoints there.
struct Town {
    cluster: Cluster,
    eu: Vec<Origin>,
    us: Vec<Origin>,
}

/// Requests for these paths, of all of these origins.
fn count(origins: &[Origin], prefix: &str) -> usize {
    origins.iter().map(|origin| origin.count_below(prefix)).sum()
}

async fn origins(text: &'static str) -> Result<Vec<Origin>> {
    let start = || Origin::start(move |_| Reply::ok(text));
    Ok(vec![start().await?, start().await?])
}

/// An upstream whose endpoints stand in both regions, each of which stands in for the other.
fn upstream(eu: &[Origin], us: &[Origin], failback: &str) -> Value {
    let eu = eu.iter().map(|origin| (origin, "eu"));
    let all = eu.chain(us.iter().map(|origin| (origin, "us")));
    let endpoint = |(origin, region): (&Origin, &str)| {
        let address = origin.endpoint();
        json!({ "address": address, "region": region, "capacity": 100_000 })
    };
    let endpoints: Vec<_> = all.map(endpoint).collect();
    json!({
        "endpoints": endpoints,
        "failover": ["eu", "us"],
        "failback": failback,
        "health": { "http": { "path": "/healthz" }, "interval": "500ms", "timeout": "400ms", "fall": 2, "rise": 2 },
    })
}

/// What `shoal health` at the `i`-th node says of an endpoint: from here, and from each region.
async fn verdicts(cluster: &Cluster, i: usize, upstream: &str, endpoint: &str) -> Result<Vec<String>> {
    let health = cluster.nodes[i].told(&["health", upstream]).await?;
    let rows = health["endpoints"].as_array().cloned().unwrap_or_default();
    let row = rows.into_iter().find(|row| row["endpoint"] == endpoint).unwrap_or(Value::Null);
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut verdicts = vec![word(&row["availability"])];
    for region in row["regions"].as_array().into_iter().flatten() {
        let (name, is) = (word(&region["region"]), word(&region["availability"]));
        let exceptions = region["exceptions"].as_array().map_or(0, Vec::len);
        ensure!(is != "down" || exceptions > 0, "down, and nobody says so: {region}");
        verdicts.push(format!("{name} {is} {}/{}", region["agreeing"], region["checkers"]));
    }
    Ok(verdicts)
}

async fn says(cluster: &Cluster, i: usize, upstream: &str, endpoint: &str, expected: &[&str]) -> Result<()> {
    let what = format!("{} says {expected:?} of {endpoint}", cluster.nodes[i].name);
    wait_until(&what, MOMENT, async || {
        verdicts(cluster, i, upstream, endpoint).await.is_ok_and(|said| said == expected)
    })
    .await
    .map(drop)
}

impl Town {
    async fn start() -> Result<Self> {
        let cluster = Cluster::start_of_regions(&["eu", "eu", "us", "us"]).await?;
        let (eu, us) = (origins("eu").await?, origins("us").await?);
        let site = SiteFile::new()
            .upstream("auto", upstream(&eu, &us, "automatic"))
            .upstream("manual", upstream(&eu, &us, "manual"))
            .route("auto", json!({ "path_prefix": "/", "upstream": "auto" }))
            .route("manual", json!({ "path_prefix": "/manual", "upstream": "manual" }));
        cluster.put_in_force(&site).await?;
        let town = Self { cluster, eu, us };
        town.all_find("up").await?;
        Ok(town)
    }

    /// Both regions find the endpoints of `eu` so, and those of `us` well; every node knows of both.
    async fn all_find(&self, eu: &str) -> Result<()> {
        for (i, [here, there]) in [["eu", "us"], ["eu", "us"], ["us", "eu"], ["us", "eu"]].iter().enumerate()
        {
            for (origins, is) in [(&self.eu, eu), (&self.us, "up")] {
                for endpoint in origins.iter().map(Origin::endpoint) {
                    let [here, there] = [here, there].map(|region| format!("{region} {is} 2/2"));
                    for upstream in ["auto", "manual"] {
                        says(&self.cluster, i, upstream, &endpoint, &[is, &here, &there]).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks every node for both upstreams, by paths that say what for and from where.
    async fn ask(&self, what: &str) -> Result<()> {
        for (node, region) in self.cluster.nodes.iter().zip(["eu", "eu", "us", "us"]) {
            for path in ["", "/manual"].map(|upstream| format!("{upstream}/{what}/{region}")) {
                for _ in 0..ROUNDS {
                    let answer = fetch(node.at(Ports::HTTP), HOST, &path).await?;
                    ensure!(answer.status == 200, "{} answers {path} with {}", node.name, answer.status);
                }
            }
        }
        Ok(())
    }

    /// Somebody at each node of `region` who asks for both upstreams all the time.
    fn load(&self, region: &str) -> Load {
        let nodes = if region == "eu" { &self.cluster.nodes[..2] } else { &self.cluster.nodes[2..] };
        let asked: Vec<_> = nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
        let paths = ["", "/manual"].map(|upstream| format!("{upstream}/load/{region}"));
        Load::start(&asked, 1, HOST, paths.to_vec(), |_| None)
    }
}

fn ensure_faultless(report: &LoadReport) -> Result<()> {
    for target in &report.targets {
        ensure!(
            target.is_faultless(),
            "{} good, then {}",
            target.good.load(Ordering::Relaxed),
            target.faults()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoints_of_a_region_die_and_come_back() -> Result<()> {
    let mut town = Town::start().await?;
    town.ask("well").await?;
    for upstream in ["", "/manual"] {
        let at = |origins: &[Origin], region: &str| count(origins, &format!("{upstream}/well/{region}"));
        let kept = [at(&town.eu, "eu"), at(&town.us, "us")];
        ensure!(kept == [2 * ROUNDS; 2], "each region serves its own: {kept:?} of {upstream:?}");
    }

    let mut addresses = Vec::new();
    for origin in town.eu.drain(..) {
        addresses.push(origin.stop().await);
    }
    for endpoint in addresses.iter().map(ToString::to_string) {
        for upstream in ["auto", "manual"] {
            let of = async |i, from: [&str; 2]| {
                says(&town.cluster, i, upstream, &endpoint, &["down", from[0], from[1]]).await
            };
            for i in [0, 1] {
                of(i, ["eu down 2/2", "us down 2/2"]).await?;
            }
            for i in [2, 3] {
                of(i, ["us down 2/2", "eu down 2/2"]).await?;
            }
        }
    }
    town.ask("lost").await?;
    for upstream in ["", "/manual"] {
        let from = ["eu", "us"].map(|region| count(&town.us, &format!("{upstream}/lost/{region}")));
        ensure!(from == [2 * ROUNDS; 2], "the other region serves both: {from:?} of {upstream:?}");
    }

    let loads = [town.load("eu"), town.load("us")];
    wait_until("all of it goes to the other region", MOMENT, async || {
        ["", "/manual"].iter().all(|upstream| count(&town.us, &format!("{upstream}/load/eu")) >= SOME)
    })
    .await?;
    let back_since = Instant::now();
    for address in addresses {
        town.eu.push(Origin::start_at(address, |_| Reply::ok("eu")).await?);
    }
    town.all_find("up").await?;
    wait_until("what may comes back", BACK, async || count(&town.eu, "/load/eu") > 0).await?;
    ensure!(back_since.elapsed() >= WELL_FOR, "it came back after {:?}", back_since.elapsed());
    let kept_away = count(&town.eu, "/manual/load");
    ensure!(kept_away == 0, "{kept_away} requests came back, which nobody has allowed");

    town.cluster.nodes[3].shoal(&["set", "upstream/manual", "failback=automatic"]).await?.expect(0)?;
    wait_until("the rest does, too", BACK, async || count(&town.eu, "/manual/load/eu") > 0).await?;
    let strangers = count(&town.eu, "/load/us") + count(&town.eu, "/manual/load/us");
    ensure!(strangers == 0, "{strangers} requests have left a region that was well");
    for load in loads {
        ensure_faultless(&load.finish().await)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_region_finds_down_is_up_from_the_other() -> Result<()> {
    let cluster = Cluster::start_of_regions(&["eu", "eu", "us"]).await?;
    let origin = Origin::start(|seen| match seen.path.as_str() {
        "/there" => Reply::ok("ill").status(500),
        _ => Reply::ok("well"),
    })
    .await?;
    let endpoint = origin.endpoint();
    let checked_by = |path: &str| {
        let health = json!({ "http": { "path": path }, "interval": "500ms", "timeout": "400ms" });
        SiteFile::new()
            .upstream("shop", json!({ "endpoints": [origin.endpoint()], "health": health }))
            .route("shop", json!({ "path_prefix": "/", "upstream": "shop" }))
    };
    cluster.put_in_force(&checked_by("/here")).await?;
    says(&cluster, 0, "shop", &endpoint, &["up", "eu up 2/2", "us up 1/1"]).await?;

    // For a while the nodes of one region check it otherwise than the others.
    let there = checked_by("/there");
    cluster.apply_as(0, &there, &["--canary", "region=us"]).await?.expect(0)?;
    for i in [0, 1] {
        says(&cluster, i, "shop", &endpoint, &["up", "eu up 2/2", "us down 1/1"]).await?;
    }
    says(&cluster, 2, "shop", &endpoint, &["down", "us down 1/1", "eu up 2/2"]).await?;
    let table = cluster.nodes[1].shoal(&["health"]).await?.expect(0)?.stdout;
    let row = table.lines().find(|line| line.contains("us down (1/1)")).unwrap_or_default();
    ensure!(row.contains("n3"), "it is not said who finds it down:\n{table}");

    cluster.nodes[0].shoal(&["abort"]).await?.expect(0)?;
    for i in [0, 1] {
        says(&cluster, i, "shop", &endpoint, &["up", "eu up 2/2", "us up 1/1"]).await?;
    }
    says(&cluster, 2, "shop", &endpoint, &["up", "us up 1/1", "eu up 2/2"]).await
}
