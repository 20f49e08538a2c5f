//! Many nodes join at once, know each other, serve the same, and notice who dies, at a cost that stays within bounds.
//!
//! As many as the machine can bear in a debug build: eight for each CPU, up to fifty, or as many as `SHOAL_MANY_NODES` says. The
//! figures are printed (`--nocapture`); what is asserted leaves room for a machine that does other things as well.

use std::collections::BTreeMap;
use std::env;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Cluster, HOST, NodeProcess, Origin, Ports, Reply, SiteFile, fetch, path_text, stays_so, wait_until,
};
use serde_json::{Value, json};

const NODES: &str = "SHOAL_MANY_NODES";
const NODES_PER_CPU: usize = 8;
const MOST_NODES: usize = 50;
/// Fewer would have no learners worth the name.
const FEWEST_NODES: usize = 9;
const VOTERS: usize = 5;
/// The leader says so when it feeds more.
const MANY_LEARNERS: usize = 50;
/// For all of them to have started, a debug build on a busy machine.
const JOINING: Duration = Duration::from_secs(150);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what they cost at rest is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// Nodes of one region that check an endpoint.
const CHECKERS: u64 = 3;
/// Bytes of gossip that a node may send each second for each node that there is: a message tells of all.
const GOSSIP_BYTES: f64 = 4_000.0;
/// Of one CPU, what the leader may take while nobody asks anything.
const LEADING: f64 = 0.5;

fn how_many() -> Result<usize> {
    if let Ok(text) = env::var(NODES) {
        let n = text.parse().with_context(|| format!("{NODES} is {text:?}"))?;
        ensure!((FEWEST_NODES..=200).contains(&n), "{NODES} is {n}; {FEWEST_NODES} to 200 are possible");
        return Ok(n);
    }
    Ok((NODES_PER_CPU * available_parallelism()?.get()).clamp(FEWEST_NODES, MOST_NODES))
}

fn in_ms(took: Duration) -> u128 {
    took.as_millis()
}

/// How many nodes have each role, as the `i`-th has it.
async fn roles(cluster: &Cluster, i: usize) -> Result<BTreeMap<String, Vec<String>>> {
    let status = cluster.status(i).await?;
    let mut roles: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in status["nodes"].as_array().into_iter().flatten() {
        let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
        roles.entry(text("role")).or_default().push(text("node"));
    }
    Ok(roles)
}

/// The sum of a series over `nodes`.
async fn sum(cluster: &Cluster, nodes: &[usize], name: &str) -> Result<f64> {
    let mut sum = 0.0;
    for node in nodes {
        sum += cluster.metric(*node, name, "").await?;
    }
    Ok(sum)
}

/// Seconds of a CPU that each of `nodes` has taken since it began.
async fn cpu_seconds(cluster: &Cluster, nodes: &[usize]) -> Result<Vec<f64>> {
    let mut taken = Vec::new();
    for node in nodes {
        taken.push(cluster.metric(*node, "process_cpu_seconds_total", "").await?);
    }
    Ok(taken)
}

/// Applies the site on the `i`-th node, and says what came of it.
async fn apply(cluster: &Cluster, i: usize, site: &SiteFile) -> Result<Value> {
    let file = cluster.dir().join("many.json");
    site.write(&file)?;
    let file = path_text(&file);
    let verb = ["-o", "json", "apply", "--prune", "--timeout", "60s", "-f", file];
    cluster.nodes[i].shoal(&verb).await?.expect(0)?.json()
}

fn count(answer: &Value, what: &str) -> usize {
    answer[what].as_array().map_or(0, Vec::len)
}

/// Kills a node, and says after how long the first, half and all of the others know.
async fn kill(cluster: &mut Cluster, victim: usize, survivors: &[usize]) -> Result<[Duration; 3]> {
    let dead = "shoal_gossip_dead_members";
    let before = cluster.metric(survivors[0], dead, "").await?;
    cluster.nodes[victim].kill9()?;
    let since = Instant::now();
    let mut known: BTreeMap<usize, Duration> = BTreeMap::new();
    wait_until("all others know of the death", PATIENCE, async || {
        for node in survivors {
            if !known.contains_key(node)
                && cluster.metric(*node, dead, "").await.is_ok_and(|count| count > before)
            {
                known.insert(*node, since.elapsed());
            }
        }
        known.len() == survivors.len()
    })
    .await?;
    let mut times: Vec<Duration> = known.into_values().collect();
    times.sort();
    Ok([times[0], times[times.len() / 2], times[times.len() - 1]])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_join_at_once_and_notice_a_death() -> Result<()> {
    let n = how_many()?;
    let mut alive: Vec<usize> = (0..n).collect();
    let origin = Origin::start(|_| Reply::ok("ok")).await?;
    let began = Instant::now();
    let mut cluster = Cluster::start_at_once(n, &["--cache-memory", "16MiB"]).await?;
    let health = json!({ "http": { "path": "/healthz" }, "interval": "1s", "timeout": "1s" });
    let mut site = SiteFile::new()
        .upstream("shop", json!({ "endpoints": [origin.endpoint()], "health": health }))
        .route("shop", json!({ "path_prefix": "/", "upstream": "shop" }));

    // Who has only begun to join is nobody that a change waits for.
    let meanwhile = apply(&cluster, 0, &site).await?;
    eprintln!(
        "applied while {n} nodes join: in {} ms, on {} of them, {} not waited for",
        meanwhile["elapsed_ms"],
        count(&meanwhile, "acks"),
        count(&meanwhile, "absent")
    );
    for i in 0..n {
        wait_until(&format!("n{} hears {n} nodes", i + 1), JOINING, async || {
            cluster.metric(i, "shoal_gossip_members", "").await.is_ok_and(|heard| heard == n as f64)
        })
        .await?;
    }
    eprintln!("{n} nodes know each other {} ms after the first began", in_ms(began.elapsed()));
    let learners = n - VOTERS;
    wait_until(&format!("{VOTERS} nodes vote and {learners} learn"), JOINING, async || {
        let Ok(roles) = roles(&cluster, n - 1).await else { return false };
        let of = |role: &str| roles.get(role).map_or(0, Vec::len);
        of("leader") == 1 && of("voter") == VOTERS - 1 && of("learner") == learners
    })
    .await?;
    wait_until("the leader says whether it feeds too many", JOINING, async || {
        let shown = cluster.nodes[0].shoal(&["status"]).await;
        let warns = |text: &str| text.contains("nodes follow the log without a vote");
        shown.is_ok_and(|shown| warns(&shown.stdout) == (learners > MANY_LEARNERS))
    })
    .await?;
    cluster.serves(HOST, "/").await?;
    eprintln!("all serve, and {VOTERS} of them vote, {} ms after that", in_ms(began.elapsed()));

    // A change on any of them is in force on all.
    let mut took: Vec<u64> = Vec::new();
    for k in 0..10 {
        site = site.route("changing", json!({ "path": format!("/changing/{k}"), "upstream": "shop" }));
        let applied = apply(&cluster, k * 7 % n, &site).await?;
        ensure!(count(&applied, "acks") == n && count(&applied, "absent") == 0, "{applied}");
        took.push(applied["elapsed_ms"].as_u64().context("no time")?);
    }
    took.sort_unstable();
    eprintln!("10 changes in force on all {n}: median {} ms, slowest {} ms", took[5], took[9]);

    // What they cost at rest.
    let mut weighed = vec![cluster.leader_seen_by(0).await?];
    for name in &roles(&cluster, 0).await?["learner"] {
        weighed.push(cluster.place_of(name)?);
    }
    // One after the other each time: between two looks at one of them is as much time as between those at the first.
    let (weighing, taken) = (Instant::now(), cpu_seconds(&cluster, &weighed).await?);
    let sent = sum(&cluster, &alive, "shoal_gossip_sent_bytes_total").await?;
    let (probes, since) = (origin.count("/healthz"), Instant::now());
    stays_so("all of them run", since + WATCHED, async || cluster.nodes.iter_mut().all(NodeProcess::runs))
        .await?;
    let (probed, passed) = (origin.count("/healthz") - probes, since.elapsed().as_secs_f64());
    let sent = sum(&cluster, &alive, "shoal_gossip_sent_bytes_total").await? - sent;
    let bytes = sent / since.elapsed().as_secs_f64() / n as f64;
    eprintln!(
        "gossip: {:.1} KB a second from each; checks of the endpoint: {:.1} in its interval of 1 s",
        bytes / 1000.0,
        probed as f64 / passed
    );
    ensure!(bytes < GOSSIP_BYTES * n as f64, "each node sends {bytes} bytes of gossip a second");
    let weighed_for = weighing.elapsed().as_secs_f64();
    let until_now = cpu_seconds(&cluster, &weighed).await?;
    let mut shares: Vec<f64> =
        until_now.iter().zip(&taken).map(|(after, before)| (after - before) / weighed_for).collect();
    let leading = shares.remove(0);
    shares.sort_by(f64::total_cmp);
    let learning = shares[shares.len() / 2];
    eprintln!(
        "the leader takes {:.1} % of a CPU, a learner {:.1} % (the median of {})",
        100.0 * leading,
        100.0 * learning,
        shares.len()
    );
    ensure!(leading < LEADING, "the leader takes {:.0} % of a CPU at rest", 100.0 * leading);
    // Those that were due before and after count as well.
    let most = CHECKERS * (passed.ceil() as u64 + 2);
    ensure!(probed as u64 <= most, "{probed} checks in {passed} s");

    for role in ["learner", "leader"] {
        let names = roles(&cluster, 0).await?;
        let mut others = names[role].iter().filter(|name| *name != "n1" || role == "leader");
        let name = others.next_back().with_context(|| format!("there is no {role}"))?;
        let victim = cluster.nodes.iter().position(|node| node.name == *name).context("who is it?")?;
        alive.retain(|node| *node != victim);
        let [first, half, all] = kill(&mut cluster, victim, &alive).await?;
        eprintln!(
            "a {role} is killed: the first knows after {} ms, half after {} ms, all after {} ms",
            in_ms(first),
            in_ms(half),
            in_ms(all)
        );
        if role == "leader" {
            break;
        }
        let applied = apply(
            &cluster,
            alive[0],
            &site.clone().route("more", json!({ "path": "/more", "upstream": "shop" })),
        )
        .await?;
        ensure!(count(&applied, "acks") == n - 1 && count(&applied, "absent") == 1, "{applied}");
    }
    for node in &alive {
        let answer = fetch(cluster.nodes[*node].at(Ports::HTTP), HOST, "/").await?;
        ensure!(answer.status == 200, "n{} does not serve: {answer:?}", node + 1);
    }
    let asked = alive[alive.len() - 1];
    let applied = apply(&cluster, asked, &site).await?;
    ensure!(count(&applied, "acks") == n - 2 && count(&applied, "absent") == 2, "{applied}");
    Ok(())
}
