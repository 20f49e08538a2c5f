//! Operators take nodes out of service and put them back, from any node: nothing is lost, nothing is forgotten, and somebody
//! always stays.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Cluster, HOST, Load, Origin, Payload, Ports, Reply, SiteFile, Tongue, fetch, grpc_message, path_text,
    pattern, shoal_binary, wait_until,
};
use http::{HeaderMap, HeaderValue};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const SIZE: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(30);

async fn is_in_state(cluster: &Cluster, i: usize, name: &str, state: &str) -> Result<()> {
    wait_until(&format!("{name} is {state}"), PATIENCE, async || {
        cluster.node_seen_by(i, name).await.is_ok_and(|node| node["state"] == state)
    })
    .await
    .map(drop)
}

async fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

/// A `shoal` that is asked and not waited for; what it prints is in `shown`.
fn ask(cluster: &Cluster, i: usize, arguments: &[&str], shown: &Path) -> Result<Child> {
    let socket = cluster.nodes[i].data_dir().join("admin.sock");
    // Whoever runs the tests in the background may have them ignore Ctrl-C, and everything that they start.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(shoal_binary().map_err(anyhow::Error::msg)?);
    command.arg("--socket").arg(socket).args(arguments).stdin(Stdio::null());
    Ok(command.stdout(File::create(shown)?).stderr(Stdio::null()).spawn()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_drained_and_restarted_in_turn_under_load() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "500ms"]).await?;
    let shop = Origin::of_patterns(SIZE, "no-store").await?;
    let calls = Origin::start(|seen| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let message = grpc_message(&pattern(&seen.path, SIZE));
        Reply::with(Payload::Chunked(vec![message], trailers)).field("content-type", "application/grpc")
    })
    .await?;
    let mut site = SiteFile::new()
        .proxy("shop", &[shop.endpoint()])
        .upstream("calls", json!({ "endpoints": [calls.endpoint()], "protocol": "h2c" }))
        .route("calls", json!({ "path_prefix": "/calls", "upstream": "calls", "trailers": true }));
    cluster.put_in_force(&site).await?;

    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    let loads: Vec<(Tongue, Load)> = [Tongue::Http1, Tongue::Http2, Tongue::Grpc]
        .into_iter()
        .map(|tongue| {
            let prefix = if tongue == Tongue::Grpc { "/calls" } else { "/live" };
            let paths = (0..20).map(|n| format!("{prefix}/{n}")).collect();
            (tongue, Load::start_in(tongue, &addresses, 2, HOST, paths, |path| Some(pattern(path, SIZE))))
        })
        .collect();
    let goes_on = async |what: &str| {
        let before: Vec<u64> = loads.iter().map(|(_, load)| load.good()).collect();
        wait_until(what, PATIENCE, async || {
            loads.iter().zip(&before).all(|((_, load), before)| load.good() > before + 50)
        })
        .await
    };
    goes_on("the loads run").await?;

    let began = Instant::now();
    for (i, web) in addresses.iter().enumerate() {
        let (name, other) = (cluster.nodes[i].name.clone(), (i + 1) % 3);
        // What leads at the time goes, too, and the site changes meanwhile.
        site = site.route(&name, json!({ "path_prefix": format!("/of/{name}"), "upstream": "shop" }));
        let drain = ["node", "drain", &name];
        let (drained, applied) =
            tokio::join!(cluster.nodes[other].shoal(&drain), cluster.apply(other, &site));
        let drained = drained?.expect(0)?;
        ensure!(drained.stdout.contains(&format!("{name} is drained (")), "{drained:?}");
        ensure!(applied?.stdout.contains("applied on 3/3 nodes"), "the drained node follows");
        let (status, text) = cluster.readyz(i).await?;
        ensure!(status == 503 && text.contains("drained: nothing is listened on"), "{status} {text}");
        ensure!(!accepts(*web).await, "{name} still accepts");
        is_in_state(&cluster, other, &name, "drained").await?;
        wait_until("somebody else leads", PATIENCE, async || {
            cluster.leader_seen_by(other).await.is_ok_and(|leader| leader != i)
        })
        .await?;
        goes_on("the loads go on elsewhere").await?;

        // As somebody does who puts another version in its place.
        cluster.nodes[i].term()?;
        let status = cluster.nodes[i].ended(PATIENCE).await?;
        ensure!(status.success(), "{name} ended with {status}");
        cluster.restart(i)?;
        cluster.answers(i).await?;
        is_in_state(&cluster, other, &name, "drained").await?;
        goes_on("the loads go on while a process begins").await?;

        let back = cluster.nodes[other].shoal(&["node", "undrain", &name]).await?.expect(0)?;
        ensure!(back.stdout.contains(&format!("{name} is in service (")), "{back:?}");
        cluster.serves(HOST, &format!("/of/{name}")).await?;
        ensure!(cluster.readyz(i).await?.0 == 200, "{name} is not ready");
        is_in_state(&cluster, other, &name, "alive").await?;
    }
    for (tongue, load) in loads {
        let report = load.finish().await;
        eprintln!(
            "{tongue:?}: {} answered while all nodes were restarted ({:?})",
            report.good(),
            began.elapsed()
        );
        for (i, target) in report.targets.iter().enumerate() {
            // A refused connection is how clients learn that a node is gone; a broken one is a lost request.
            let broken = target.broken.load(Relaxed) + target.stillborn.load(Relaxed);
            ensure!(
                target.wrong() + broken == 0,
                "{tongue:?}, n{}: {broken} lost\n{}",
                i + 1,
                target.faults()
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_outlasts_who_asked_for_it_and_the_process() -> Result<()> {
    let hooks = tempfile::tempdir()?;
    let (hook, calls) = (hooks.path().join("hook"), hooks.path().join("calls"));
    let script =
        format!("#!/bin/sh\necho \"$1 $SHOAL_NODE\" >> {}\nprintf 'odd\\033[31m\\n'\n", calls.display());
    std::fs::write(&hook, script)?;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
    let hook_text = path_text(&hook);
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "0s", "--drain-hook", hook_text]).await?;
    let told = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(&calls).unwrap_or_default();
        let of_it = text.lines().filter_map(|line| line.strip_suffix(name)?.strip_suffix(' '));
        of_it.map(str::to_owned).collect()
    };
    let gate = Arc::new(Semaphore::new(0));
    let waits = gate.clone();
    let origin = Origin::start(move |seen| match seen.path.as_str() {
        "/slow" => Reply::ok("slow").behind(&waits),
        path => Reply::ok(pattern(path, SIZE)),
    })
    .await?;
    cluster.put_in_force(&SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
    let web = cluster.nodes[1].at(Ports::HTTP);
    let slow = tokio::spawn(async move { fetch(web, HOST, "/slow").await });
    wait_until("a request is under way", PATIENCE, async || origin.count("/slow") == 1).await?;

    // Ctrl-C ends the waiting.
    let (drain, shown) = (["node", "drain", "n2", "--deadline", "2m"], hooks.path().join("shown"));
    let mut asking = ask(&cluster, 0, &drain, &shown)?;
    let in_phase = async |phase: &str| {
        wait_until(&format!("n2 is in the phase {phase}"), PATIENCE, async || {
            cluster.node_seen_by(2, "n2").await.is_ok_and(|node| node["drain_phase"] == phase)
        })
        .await
    };
    in_phase("connections").await?;
    kill_process(Pid::from_child(&asking), Signal::INT)?;
    ensure!(!asking.wait()?.success(), "who is interrupted has not succeeded");
    ensure!(!accepts(web).await, "it still accepts");
    let described = cluster.nodes[0].shoal(&["node", "describe", "n2"]).await?.expect(0)?.stdout;
    for part in ["to be drained by ", ": connections\n", "not ready", "1 connections"] {
        ensure!(described.contains(part), "{part:?} is missing: {described}");
    }
    // It is taken back in the middle, and begun anew from another node.
    cluster.nodes[2].shoal(&["node", "undrain", "n2"]).await?.expect(0)?;
    ensure!(fetch(web, HOST, "/again").await?.status == 200, "it does not serve");
    let mut asking = ask(&cluster, 2, &drain, &shown)?;
    wait_until("the request under way is told of", PATIENCE, async || {
        std::fs::read_to_string(&shown)
            .is_ok_and(|text| text.contains("n2: accepts no more; 1 connections\n"))
    })
    .await?;
    gate.add_permits(1);
    ensure!(slow.await??.body == "slow", "the request under way was lost");
    ensure!(asking.wait()?.success(), "the drain has not succeeded");
    let again = cluster.nodes[0].shoal(&["node", "drain", "n2"]).await?.expect(0)?;
    ensure!(
        again.stdout.contains("n2 is drained (") && again.stdout.contains("it keeps its vote"),
        "{again:?}"
    );
    ensure!(told("n2") == ["announce", "withdraw", "announce", "withdraw"], "{:?}", told("n2"));
    let log = cluster.nodes[1].log();
    ensure!(log.contains("odd") && !log.contains('\u{1b}'), "what the hook says is not made harmless");

    // A process that is killed comes back drained, and knows of what has changed.
    cluster.nodes[1].kill9()?;
    cluster.restart(1)?;
    cluster.answers(1).await?;
    is_in_state(&cluster, 0, "n2", "drained").await?;
    ensure!(cluster.readyz(1).await?.0 == 503 && !accepts(web).await, "it serves after a restart");

    // One that is to leave ends, and starts drained.
    let left = cluster.nodes[0].shoal(&["node", "drain", "n3", "--leave"]).await?.expect(0)?;
    ensure!(left.stdout.contains("n3 is drained and has left"), "{left:?}");
    let status = cluster.nodes[2].ended(PATIENCE).await?;
    ensure!(status.success(), "it ended with {status}");
    cluster.restart(2)?;
    cluster.answers(2).await?;
    is_in_state(&cluster, 0, "n3", "drained").await?;

    // Somebody stays.
    let last = cluster.nodes[1].shoal(&["node", "drain", "n1"]).await?.expect(1)?;
    ensure!(last.stderr.contains("--force"), "{last:?}");
    let last = cluster.nodes[1].shoal(&["node", "cordon", "n1"]).await?.expect(1)?;
    ensure!(last.stderr.contains("--force"), "{last:?}");
    ensure!(fetch(cluster.nodes[0].at(Ports::HTTP), HOST, "/last").await?.status == 200, "n1 does not serve");
    for name in ["n2", "n3"] {
        cluster.nodes[0].shoal(&["node", "undrain", name]).await?.expect(0)?;
    }
    cluster.serves(HOST, "/all").await?;
    let wrong = cluster.nodes[0].shoal(&["node", "uncordon", "n9"]).await?.expect(1)?;
    ensure!(wrong.stderr.contains("there is no node called \"n9\""), "{wrong:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_node_serves_and_has_no_duties() -> Result<()> {
    let cluster = Cluster::start(4).await?;
    let origin = Origin::of_patterns(SIZE, "max-age=3600").await?;
    cluster.put_in_force(&SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    let leader = cluster.leader_seen_by(0).await?;
    let (name, other) = (cluster.nodes[leader].name.clone(), (leader + 1) % 4);
    let cordoned = cluster.nodes[other].shoal(&["node", "cordon", &name]).await?.expect(0)?;
    ensure!(cordoned.stdout.contains(&format!("{name} is cordoned (")), "{cordoned:?}");

    // The fourth node votes in its place, and somebody else leads.
    wait_until("it neither leads nor votes", PATIENCE, async || {
        let status = cluster.node_seen_by(other, &name).await;
        status.is_ok_and(|node| node["state"] == "cordoned" && node["role"] == "learner")
    })
    .await?;
    let web = cluster.nodes[leader].at(Ports::HTTP);
    for n in 0..20 {
        let path = format!("/objects/{n}");
        ensure!(fetch(web, HOST, &path).await?.body == pattern(&path, SIZE), "{path}");
        let url = format!("http://{HOST}{path}");
        let found = cluster.nodes[other].told(&["cache", "locate", &url]).await?;
        let places = found["locations"].as_array().context("no locations")?;
        let owns = places.iter().any(|place| place["node"] == *name && place["role"] != "none");
        ensure!(!owns, "{name} owns {path}: {found}");
    }
    ensure!(cluster.readyz(leader).await?.0 == 200, "it is not ready");
    cluster.nodes[other].shoal(&["node", "undrain", &name]).await?.expect(1)?;
    cluster.nodes[other].shoal(&["node", "uncordon", &name]).await?.expect(0)?;
    is_in_state(&cluster, other, &name, "alive").await
}
