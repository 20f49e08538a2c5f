//! Two clusters on one machine, each told that the nodes of the other are its own: over gossip, consensus and the door for
//! those who join they hear each other all the time, and neither ever believes a word. What else comes to these ports, of
//! whatever kind and however much, is survived as well.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster_tests::{
    Cluster, Connection, Load, NodeProcess, Origin, Ports, SiteFile, Speak, pattern, wait_until,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// For nodes to be heard by each other again.
const DEADLINE: Duration = Duration::from_secs(60);
/// Paths of the load.
const PATHS: usize = 40;

/// A cluster of three whose nodes were told to join at the other one first.
async fn grow(own: &mut Cluster, other: SocketAddr) -> Result<()> {
    for i in 1..3 {
        let name = format!("n{}", i + 1);
        let first = ["--join", &other.to_string()];
        let node = NodeProcess::new(&name, own.block().ip(11 + i), &own.dir().join(&name), &first);
        own.nodes.push(node);
        own.let_join(i.into()).await?;
        own.answers(i.into()).await?;
    }
    own.settle().await
}

/// A node that knows nobody but the other cluster's nodes until its log says otherwise, and is told to join there.
async fn mislead(own: &mut Cluster, i: usize, others: &[SocketAddr]) -> Result<()> {
    let token = own.token().await?;
    let node = &mut own.nodes[i];
    node.kill9()?;
    let known: Vec<Value> = others.iter().enumerate().map(|(i, address)| json!([i + 1, address])).collect();
    fs::write(node.data_dir().join("joined.json"), Value::from(known).to_string())?;
    node.start(Some((others[i % others.len()], &token)))?;
    own.answers(i).await
}

/// Every node knows the nodes of its cluster, and nobody else.
async fn knows_only_its_own(cluster: &Cluster, expected: usize) -> Result<()> {
    let own: BTreeSet<String> =
        cluster.nodes.iter().map(|node| node.at(Ports::CLUSTER).to_string()).collect();
    for i in 0..expected {
        let status = cluster.status(i).await?;
        let seen: BTreeSet<String> = status["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|node| Some(node["cluster_addr"].as_str()?.to_owned()))
            .collect();
        ensure!(!seen.is_empty() && seen.is_subset(&own), "n{} of {own:?} sees {seen:?}", i + 1);
    }
    Ok(())
}

fn site(cluster: &str, round: usize, origin: &Origin) -> SiteFile {
    SiteFile::new()
        .proxy("shop", &[origin.endpoint()])
        .route(&format!("of-{cluster}-{round}"), json!({ "path_prefix": "/never", "upstream": "shop" }))
}

fn load(cluster: &Cluster, origin: &'static str) -> Load {
    let targets: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
    let paths = (0..PATHS).map(|i| format!("/{origin}-{i}")).collect();
    Load::start(&targets, 1, "shop.example.com", paths, |_| None)
}

/// Every request of the load was answered, by every node.
async fn was_served(load: Load) -> Result<()> {
    for target in load.finish().await.targets {
        let faults = target.wrong() + target.connection_errors();
        ensure!(target.good.load(Ordering::Relaxed) > 0 && faults == 0, "{faults}: {}", target.faults());
    }
    Ok(())
}

fn addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.nodes.iter().map(|node| node.at(Ports::CLUSTER)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_on_one_machine_never_mix() -> Result<()> {
    let (mut one, mut two) = (Cluster::start(1).await?, Cluster::start(1).await?);
    let doors = [one.nodes[0].at(Ports::CLUSTER), two.nodes[0].at(Ports::CLUSTER)];
    grow(&mut one, doors[1]).await?;
    grow(&mut two, doors[0]).await?;
    let (in_one, in_two) = (addresses(&one), addresses(&two));
    ensure!(one.status(0).await?["nodes"].as_array().map_or(0, Vec::len) == 3);

    let origin = Origin::of_patterns(50, "no-store").await?;
    for (cluster, name) in [(&one, "one"), (&two, "two")] {
        cluster.apply(0, &site(name, 0, &origin)).await?;
        cluster.serves("shop.example.com", "/").await?;
    }
    // Each node in turn begins anew, and calls the other cluster as if it were its own.
    for i in 0..3 {
        mislead(&mut one, i, &in_two).await?;
        mislead(&mut two, i, &in_one).await?;
        one.settle().await?;
        two.settle().await?;
        knows_only_its_own(&one, 3).await?;
        knows_only_its_own(&two, 3).await?;
    }
    for cluster in [&one, &two] {
        cluster.serves("shop.example.com", "/").await?;
    }
    let loads = [load(&one, "a"), load(&two, "b")];
    for round in 1..=6 {
        for (cluster, name) in [(&one, "one"), (&two, "two")] {
            let applied = cluster.apply(round % 3, &site(name, round, &origin)).await?;
            ensure!(applied.stdout.contains("applied on 3/3 nodes"), "{applied:?}");
            knows_only_its_own(cluster, 3).await?;
        }
    }
    for load in loads {
        was_served(load).await?;
    }
    // They did hear each other, and dropped what they heard.
    for cluster in [&one, &two] {
        let mut unheard = 0.0;
        for i in 0..3 {
            unheard += cluster.metric(i, "shoal_gossip_dropped_total", "unauthentic").await?;
        }
        ensure!(unheard > 0.0, "the clusters never called each other");
    }

    // A node of the one is gone for good, and a node of the other gets its address: it is called by both, for ever.
    one.nodes[2].kill9()?;
    let moved = two.nodes[2].data_dir();
    two.nodes[2].kill9()?;
    let dir = moved.parent().context("a data directory has a parent")?;
    let mut squatter = NodeProcess::new("n3", one.nodes[2].ip, dir, &[]);
    squatter.start(None)?;
    two.nodes[2] = squatter;
    two.answers(2).await?;
    two.settle().await?;
    for i in 0..2 {
        wait_until("the one cluster misses its node", DEADLINE, async || {
            one.metric(i, "shoal_gossip_dead_members", "").await.is_ok_and(|dead| dead == 1.0)
        })
        .await?;
    }
    for (cluster, name, nodes) in [(&one, "one", 2), (&two, "two", 3)] {
        let applied = cluster.try_apply(0, &site(name, 9, &origin)).await?;
        ensure!(applied.stdout.contains(&format!("applied on {nodes}/")), "{applied:?}");
    }
    for i in 0..2 {
        let status = one.status(i).await?;
        let states: Vec<_> =
            status["nodes"].as_array().into_iter().flatten().map(|node| node["state"].clone()).collect();
        ensure!(states == ["alive", "alive", "dead"], "{status:#}");
    }
    knows_only_its_own(&two, 3).await?;
    for node in one.nodes.iter().chain(&two.nodes) {
        ensure!(!node.log().contains("panicked"), "{}", node.log());
    }
    Ok(())
}

/// The side of TLS of a node, taken from its disk, with the protocol `alpn`.
fn speak_as(node: &NodeProcess, trusted: &NodeProcess, alpn: &[u8]) -> Result<Speak> {
    let read = |node: &NodeProcess| -> Result<Value> {
        Ok(serde_json::from_str(&fs::read_to_string(node.data_dir().join("identity/node.json"))?)?)
    };
    let part = |identity: &Value, name: &str| -> Result<Vec<u8>> {
        Ok(STANDARD.decode(identity[name].as_str().with_context(|| format!("there is no {name}"))?)?)
    };
    let (own, theirs) = (read(node)?, read(trusted)?);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(part(&theirs, "ca")?))?;
    let chain = vec![CertificateDer::from(part(&own, "certificate")?)];
    let key = PrivatePkcs8KeyDer::from(part(&own, "key")?).into();
    let mut config =
        ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    let cluster = theirs["cluster_id"].as_str().context("there is no cluster id")?;
    Ok(Speak::Tls(Arc::new(config), format!("node.{cluster}.shoal.internal")))
}

/// Connections that say half a word and stay, beside those that ask in vain.
const SILENT: usize = 300;
/// Datagrams of a flood.
const DATAGRAMS: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_floods_at_the_clusters_ports_are_survived() -> Result<()> {
    let (cluster, other) = (Cluster::start(3).await?, Cluster::start(1).await?);
    let origin = Origin::of_patterns(50, "no-store").await?;
    cluster.apply(0, &site("one", 0, &origin)).await?;
    cluster.serves("shop.example.com", "/").await?;
    let load = load(&cluster, "a");
    let node = &cluster.nodes[0];

    // A node of another cluster, though it knows whom to believe; then one of this cluster that speaks of what this version
    // does not know: another protocol, another service.
    for port in [Ports::CLUSTER, Ports::ADMIN] {
        let strange = Connection::open(node.at(port), speak_as(&other.nodes[0], node, b"h2")?).await;
        let answered = match strange {
            Ok(mut connection) => ask(&mut connection, "shoal.raft.v1.PeerService/Report").await.is_ok(),
            Err(_) => false,
        };
        ensure!(!answered, "a node of another cluster is answered at {port}");
    }
    let later =
        Connection::open(node.at(Ports::CLUSTER), speak_as(&cluster.nodes[1], node, b"shoal/9")?).await;
    ensure!(later.is_err(), "a protocol of a later version is spoken");
    let mut peer =
        Connection::open(node.at(Ports::CLUSTER), speak_as(&cluster.nodes[1], node, b"h2")?).await?;
    for unknown in ["shoal.raft.v9.RaftService/Vote", "shoal.raft.v1.PeerService/Tomorrow"] {
        ensure!(ask(&mut peer, unknown).await? == "12", "{unknown} is not unimplemented");
    }

    // Floods on every port of one node, for as long as the others change the site through it.
    let mut held = Vec::new();
    for i in 0..SILENT {
        let port = if i % 2 == 0 { Ports::CLUSTER } else { Ports::ADMIN };
        let mut stream = TcpStream::connect(node.at(port)).await?;
        // The head of a TLS record that promises 16 KiB and brings none.
        stream.write_all(b"\x16\x03\x01\x40\x00").await?;
        held.push(stream);
    }
    let flooder = UdpSocket::bind((node.ip, 0))?;
    let target = node.at(Ports::CLUSTER);
    let flood = std::thread::spawn(move || {
        for i in 0..DATAGRAMS {
            // As of this version, of a later one, and of none.
            let mut datagram = pattern("gossip", [60, 700, 1400][i % 3]).to_vec();
            datagram[..2].copy_from_slice(&[[2, 0], [3, 0], [0, 9]][i % 3]);
            // A full queue is the kernel's answer.
            let _ = flooder.send_to(&datagram, target);
        }
    });
    for round in 1..=3 {
        let applied = cluster.apply(round % 3, &site("one", round, &origin)).await?;
        ensure!(applied.stdout.contains("applied on 3/3 nodes"), "{applied:?}");
    }
    ensure!(flood.join().is_ok(), "the flood broke off");
    drop(held);
    cluster.settle().await?;
    let dropped = cluster.metric(0, "shoal_gossip_dropped_total", "unauthentic").await?;
    ensure!(dropped > 0.0, "nothing of the flood arrived");
    was_served(load).await?;
    for node in &cluster.nodes {
        ensure!(!node.log().contains("panicked"), "{}", node.log());
    }
    Ok(())
}

/// The status of a call of gRPC with an empty message.
async fn ask(connection: &mut Connection, method: &str) -> Result<String> {
    let request = http::Request::post(format!("https://shoal.internal/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(cluster_tests::empty())?;
    let answer = connection.send(request).await?;
    let status = answer.trailers.get("grpc-status").or(answer.headers.get("grpc-status"));
    Ok(status.context("no status")?.to_str()?.to_owned())
}
