//! A change made on any node is on all of them when it is acknowledged, and disturbs no request.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Bar, Cluster, Load, Origin, Ports, Reply, SiteFile, Verb, fetch, path_text, pattern, wait_until,
};
use serde_json::{Value, json};

const ROUTES: usize = 1_000;
const UPSTREAMS: usize = 200;

/// `ROUTES` routes on hosts of their own over `UPSTREAMS` upstreams.
fn large_site(endpoint: &str, generation: usize) -> SiteFile {
    let mut site = SiteFile::new().proxy("any", &[endpoint.to_owned()]);
    for n in 0..UPSTREAMS {
        site = site.upstream(&format!("u{n}"), json!({ "endpoints": [endpoint] }));
    }
    for n in 0..ROUTES {
        let host = format!("r{n}.g{generation}.example.com");
        let upstream = format!("u{}", n % UPSTREAMS);
        site = site.route(
            &format!("r{n}"),
            json!({ "hosts": [host], "path_prefix": "/only", "upstream": upstream }),
        );
    }
    site
}

/// From the acknowledgement until every node was asked for what has changed.
const REACHED: Bar = Bar::of_ms(2_000, 3_000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_change_on_a_follower_is_on_every_node() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    let follower = (cluster.leader_seen_by(0).await? + 1) % 3;
    let output = cluster.apply(follower, &large_site(&origin.endpoint(), 1)).await?;
    ensure!(output.text().contains("3/3"), "apply does not say that 3/3 nodes run it: {}", output.text());

    let acknowledged = Instant::now();
    let revision = cluster.revision(follower).await?;
    for i in 0..3 {
        ensure!(cluster.revision(i).await? == revision, "n{} is at another revision", i + 1);
        for n in (0..ROUTES).step_by(97).chain([ROUTES - 1]) {
            let host = format!("r{n}.g1.example.com");
            let answer = fetch(cluster.nodes[i].at(Ports::HTTP), &host, "/only").await?;
            ensure!(answer.status == 200, "n{}: {host} answers {} {:?}", i + 1, answer.status, answer.body);
        }
    }
    REACHED.hold("what was acknowledged is everywhere", acknowledged.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_survive_ten_changes_in_a_row() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let slow = |path: &str| Reply::ok(pattern(path, 2_000)).after(Duration::from_millis(150));
    let origin = Origin::start(move |seen| slow(&seen.path)).await?;
    cluster.apply(0, &large_site(&origin.endpoint(), 0)).await?;
    cluster.serves("any.example.com", "/ready").await?;

    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    let paths = (0..50).map(|n| format!("/slow/{n}")).collect();
    let load = Load::start(&addresses, 6, "any.example.com", paths, |path| Some(pattern(path, 2_000)));
    wait_until("the load runs", Duration::from_secs(20), async || load.good() > 50).await?;
    for generation in 1..=10 {
        cluster.apply(generation % 3, &large_site(&origin.endpoint(), generation)).await?;
    }
    let good = load.good();
    wait_until("the load goes on", Duration::from_secs(20), async || load.good() > good + 50).await?;
    for (i, target) in load.finish().await.targets.iter().enumerate() {
        let errors = target.wrong() + target.connection_errors();
        ensure!(errors == 0, "n{}: {errors} faults\n{}", i + 1, target.faults());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_asked_before_anything_changes() -> Result<()> {
    const OTHER: u16 = 8090;
    let cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    let site = SiteFile::new().proxy("any", &[origin.endpoint()]);
    cluster.apply(0, &site).await?;
    let revision = cluster.revision(0).await?;
    let of_somebody_else = TcpListener::bind(cluster.nodes[1].at(OTHER))?;
    let other = json!({ "address": format!(":{OTHER}"), "protocol": "http" });
    let file = cluster.file("site.json", site.clone().set("listeners", "other", other.clone()).text())?;
    let file = path_text(&file);
    let refusal =
        format!("n2 would refuse it: listener \"other\": cannot listen on {}", cluster.nodes[1].at(OTHER));

    let plan = cluster.nodes[0].shoal(&["plan", "-f", file]).await?.expect(1)?;
    ensure!(plan.stdout.contains(&refusal), "the plan does not say who refuses it: {}", plan.stdout);
    ensure!(plan.stdout.contains("2/3 live nodes would take it"), "{}", plan.stdout);
    let refused = cluster.nodes[2].shoal(&["apply", "-f", file]).await?.expect(1)?;
    ensure!(refused.stderr.contains(&refusal) && refused.stderr.contains("--force"), "{}", refused.stderr);
    let set = ["set", "listener/other", &format!("address=:{OTHER}"), "protocol=http"];
    let refused = cluster.nodes[0].shoal(&set).await?.expect(1)?;
    ensure!(refused.stderr.contains(&refusal), "{}", refused.stderr);
    let planned = cluster.nodes[0].shoal(&[&set[..], &["--dry-run"]].concat()).await?.expect(1)?;
    ensure!(planned.stdout.contains(&refusal), "{}", planned.stdout);
    ensure!(cluster.revision(1).await? == revision, "what was refused made a revision");

    // Its own sockets are in nobody's way, under whatever name, and stay as they are.
    let renamed = SiteFile::new().proxy("any", &[origin.endpoint()]).text().replace("\"web\"", "\"http\"");
    let renamed = cluster.file("renamed.json", renamed)?;
    let plan = cluster.nodes[0].shoal(&["plan", "--prune", "-f", path_text(&renamed)]).await?;
    ensure!(plan.expect(3)?.stdout.contains("3/3 live nodes would take it"), "a node is in its own way");

    // Who is sick already stands in nobody's way either.
    let forced = cluster.nodes[0].shoal(&["apply", "--force", "-f", file]).await?.expect(5)?;
    ensure!(forced.stdout.contains("n2 refused: listener \"other\""), "{}", forced.stdout);
    let third = ["set", "listener/third", "address=:8091", "protocol=http"];
    let plan = cluster.nodes[0].shoal(&[&third[..], &["--dry-run"]].concat()).await?.expect(0)?;
    ensure!(plan.stdout.contains("n2 refuses the active revision, too: "), "{}", plan.stdout);
    cluster.nodes[0].shoal(&third).await?.expect(5)?;
    drop(of_somebody_else);
    cluster
        .eventually("n2 serves what it has refused", async || {
            fetch(cluster.nodes[1].at(OTHER), "any.example.com", "/")
                .await
                .ok()
                .filter(|answer| answer.status == 200)
        })
        .await?;
    cluster.apply(0, &site).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_go_on_when_an_operator_has_another_node_lead() -> Result<()> {
    let cluster = Cluster::start(4).await?;
    let site = SiteFile::new().proxy("shop", &["127.0.0.1:9".to_owned()]);
    let more = |name: &str| json!({ "path_prefix": format!("/{name}"), "upstream": "shop" });
    cluster.apply(0, &site).await?;
    let leader = cluster.leader_seen_by(0).await?;
    let status = cluster.status(0).await?;
    let known = status["nodes"].as_array().into_iter().flatten().filter(|node| node["role"] == "voter");
    let names = known.filter_map(|node| node["node"].as_str());
    let voters = names.map(|name| cluster.place_of(name)).collect::<Result<Vec<usize>>>()?;
    ensure!(voters.len() == 2, "beside the leader {} nodes vote", voters.len());
    let (heir, asked) = (voters[0], voters[1]);
    let learner = (0..4).find(|i| *i != leader && !voters.contains(i)).context("all of them vote")?;
    let transfer = async |asked: usize, heir: &[&str]| {
        cluster.nodes[asked].shoal(&[&["raft", "transfer-leader"], heir].concat()).await
    };

    let refused = transfer(asked, &[cluster.nodes[learner].name.as_str()]).await?.expect(1)?;
    ensure!(refused.stderr.contains("it does not vote"), "{refused:?}");
    ensure!(cluster.leader_seen_by(asked).await? == leader, "what was refused has changed the leader");

    let name = cluster.nodes[heir].name.as_str();
    let led = transfer(asked, &[name]).await?.expect(0)?;
    ensure!(led.stdout.starts_with(&format!("{name} leads now, term ")), "{led:?}");
    ensure!(cluster.leader_seen_by(asked).await? == heir, "{name} does not lead");
    let applied = cluster.apply(leader, &site.clone().route("more", more("more"))).await?;
    ensure!(applied.stdout.contains("applied on 4/4 nodes"), "{applied:?}");
    let again = transfer(learner, &[name]).await?.expect(0)?;
    ensure!(again.stdout.starts_with(&format!("{name} leads already, term ")), "{again:?}");
    let audit = cluster.nodes[learner].shoal(&["audit"]).await?.expect(0)?.stdout;
    ensure!(audit.contains("TransferLeader") && audit.contains(&format!("leadership to {name}")), "{audit}");

    // Whoever is closest, where nobody is named.
    transfer(heir, &[]).await?.expect(0)?;
    ensure!(cluster.leader_seen_by(heir).await? != heir, "{name} leads on");
    cluster.apply(heir, &site.route("most", more("most"))).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_sees_every_revision_once_whichever_node_is_lost() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let site = SiteFile::new().proxy("shop", &["127.0.0.1:9".to_owned()]);
    cluster.apply(0, &site).await?;
    let first = cluster.revision(0).await?;
    let identity = cluster.dir().join("ada.json");
    let identity = path_text(&identity).to_owned();
    cluster.nodes[0].shoal(&["operator", "create", "ada", &identity]).await?.expect(0)?;
    let address = |i: usize| cluster.nodes[i].at(Ports::ADMIN).to_string();
    let addresses = [address(1), address(2), address(0)].join(",");
    let file = cluster.dir().join("watched");
    let watch = ["--addr", &addresses, "--identity", &identity, "-o", "json", "watch"];
    let _watch = Verb::from_afar(&watch).start(File::create(&file)?)?;
    let seen = || -> Vec<Value> {
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let last = || seen().last().and_then(|event| event["revision"].as_u64()).unwrap_or(0);

    wait_until("the watch begins", Duration::from_secs(20), async || !seen().is_empty()).await?;
    // The node that is watched dies, comes back, and the one after it stops without a word.
    let mut revision = first;
    for round in 0..3 {
        if round == 1 {
            cluster.nodes[1].kill9()?;
        } else if round == 2 {
            cluster.restart(1)?;
            cluster.answers(1).await?;
            cluster.settle().await?;
            cluster.nodes[2].stop()?;
        }
        for n in 0..5 {
            let setting = format!("max_requests={}", 10 * round + n + 1);
            // Who has just been lost may still count as alive.
            let set = cluster.nodes[0].shoal(&["set", "upstream/shop", &setting]).await?;
            ensure!([0, 5].contains(&set.code), "{}", set.text());
            revision += 1;
        }
        let what = format!("the watch has seen revision {revision}");
        wait_until(&what, Duration::from_secs(60), async || last() >= revision).await?;
    }
    cluster.nodes[2].cont()?;

    let events = seen();
    ensure!(events[0]["event"] == "full" && events[0]["revision"] == first, "it begins with {}", events[0]);
    ensure!(events[0]["put"]["routes"]["shop"]["upstream"] == "shop", "the site is not whole: {}", events[0]);
    for (n, event) in events.iter().enumerate().skip(1) {
        let expected = first + n as u64;
        ensure!(event["revision"] == expected, "event {n} is not revision {expected}: {event}");
        ensure!(event["event"] == "delta" && event["previous_revision"] == expected - 1, "{event}");
        ensure!(event["put"]["upstreams"]["shop"]["max_requests"].is_u64(), "{event}");
        ensure!(
            event["put"].as_object().is_some_and(|put| put.len() == 1),
            "more than what differs: {event}"
        );
    }
    ensure!(events.len() as u64 == revision - first + 1, "{} events", events.len());

    // From a revision that is past, everything since then; it ends with its reader.
    let past = File::create(cluster.dir().join("past"))?;
    let from = cluster.nodes[0].verb(&["watch", "--from", &first.to_string()]);
    let _past = from.start(past)?;
    let lines = || fs::read_to_string(cluster.dir().join("past")).unwrap_or_default().lines().count() as u64;
    let all = revision - first + 1;
    wait_until("the past is told", Duration::from_secs(20), async || lines() == all).await?;
    Ok(())
}
