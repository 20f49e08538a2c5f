//! Whoever has no valid token of this very cluster stays outside, and is told why.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Bearer, Cluster, LoopbackBlock, NodeProcess, Ports, Verb, call, field, path_text, pattern,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A would-be member on an address of its own: it must end with a failure, and its log must contain one of `reasons`.
async fn is_refused(
    cluster: &Cluster,
    number: u8,
    target: SocketAddr,
    token: &str,
    reasons: &[&str],
) -> Result<()> {
    is_refused_with(&[], cluster, number, target, token, reasons).await
}

/// The same of one that is told more.
async fn is_refused_with(
    extra: &[&str],
    cluster: &Cluster,
    number: u8,
    target: SocketAddr,
    token: &str,
    reasons: &[&str],
) -> Result<()> {
    let ip = cluster.block().ip(100 + number);
    let dir = cluster.dir().join(format!("stranger-{number}"));
    let mut stranger = NodeProcess::new(&format!("s{number}"), ip, &dir, extra);
    stranger.start(Some((target, token)))?;
    let status = stranger.ended(Duration::from_secs(30)).await?;
    let log = stranger.log();
    ensure!(!status.success(), "stranger {number} ended with success: {log}");
    let told = log.to_lowercase();
    ensure!(
        reasons.iter().any(|reason| told.contains(reason)),
        "stranger {number} was told none of {reasons:?}: {log}"
    );
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// The last character, changed.
fn damaged(token: &str) -> String {
    let last = if token.ends_with('a') { 'b' } else { 'a' };
    format!("{}{last}", &token[..token.len() - 1])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_do_not_fit_are_refused_with_a_reason() -> Result<()> {
    let (cluster, other) = (Cluster::start(1).await?, Cluster::start(1).await?);
    let door = cluster.nodes[0].at(Ports::CLUSTER);
    let (good, foreign) = (cluster.token().await?, other.token().await?);
    ensure!(good.starts_with("shj1.") && good.lines().count() == 1, "not a token: {good:?}");

    let expired = cluster.nodes[0].shoal(&["token", "create", "--ttl", "1s"]).await?.expect(0)?;
    let listed = cluster
        .eventually("only the good one is listed", async || {
            let listed = cluster.nodes[0].told(&["token", "list"]).await.ok()?;
            let [only] = &listed["tokens"].as_array()?[..] else { return None };
            good.contains(only["id"].as_str()?).then_some(listed)
        })
        .await?;
    let secret = good.rsplit('.').next().unwrap_or(&good);
    ensure!(!listed.to_string().contains(secret), "the secret is told: {listed:#}");
    let revoked = cluster.token().await?;
    cluster.nodes[0].shoal(&["token", "revoke", &revoked]).await?.expect(0)?;
    cluster.nodes[0].shoal(&["token", "revoke", &revoked]).await?.expect(1)?;

    is_refused(&cluster, 1, door, &damaged(&good), &["token"]).await?;
    is_refused(&cluster, 5, door, &revoked, &["expired"]).await?;
    is_refused(&cluster, 2, door, expired.stdout.trim(), &["expired"]).await?;
    is_refused(&cluster, 3, door, &foreign, &["not a node of the cluster this token is for"]).await?;
    is_refused(&cluster, 4, door, "open sesame", &["token"]).await?;
    let wrong = "of this cluster is";
    is_refused_with(&["--timing", "wan"], &cluster, 6, door, &good, &[wrong]).await?;
    let wrong = "at most 5 of its nodes vote, not 7";
    is_refused_with(&["--max-voters", "7"], &cluster, 7, door, &good, &[wrong]).await?;

    let status = cluster.status(0).await?;
    let nodes = status["nodes"].as_array().map_or(0, Vec::len);
    ensure!(nodes == 1, "a stranger is a member now: {status:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invented_tokens_never_reach_the_log() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let node = &cluster.nodes[0];
    let somebody = Bearer::from(&node.data_dir().join("identity/node.json"))?;
    let good = cluster.token().await?;
    let parts: Vec<&str> = good.split('.').collect();
    let [prefix, authority, role, id, secret] = parts[..] else { anyhow::bail!("not a token") };
    let key = rcgen::KeyPair::generate()?;
    let request = rcgen::CertificateParams::new(Vec::new())?.serialize_request(&key)?;
    let before = cluster.status(0).await?["committed_index"].as_u64().context("no index")?;
    let mut connection = somebody.connect_as_stranger(node.at(Ports::CLUSTER)).await?;
    for n in 0..300 {
        let (id, secret) = match n % 2 {
            0 => (format!("{n:012x}"), secret.to_owned()),
            _ => (id.to_owned(), damaged(secret)),
        };
        let token = format!("{prefix}.{authority}.{role}.{id}.{secret}");
        let message = [
            field(1, token),
            field(2, request.der()),
            field(3, format!("s{n}")),
            field(4, "r"),
            field(5, "z"),
            field(6, "127.0.0.1:7400"),
            field(7, "127.0.0.1:7401"),
        ];
        let refused = call(&mut connection, "raft.v1.PeerService/Join", &message.concat()).await?;
        // Not allowed; or too many that nobody has heard of.
        ensure!(["7", "8"].contains(&refused.status.as_str()), "{n}: {refused:?}");
    }
    let after = cluster.status(0).await?["committed_index"].as_u64().context("no index")?;
    ensure!(after - before < 10, "strangers have written {} entries", after - before);
    // Who has a good one still comes in, at whichever node.
    for (number, door) in [(41, 1), (42, 2)] {
        let fresh = cluster.token().await?;
        let dir = cluster.dir().join(format!("late-{number}"));
        let mut late = NodeProcess::new(&format!("l{number}"), cluster.block().ip(number), &dir, &[]);
        late.start(Some((cluster.nodes[door].at(Ports::CLUSTER), &fresh)))?;
        cluster
            .eventually("the new node is a member", async || {
                let status = cluster.status(0).await.ok()?;
                let names = status["nodes"].as_array()?.iter().map(|node| node["node"].to_string());
                names.into_iter().any(|name| name.contains(&late.name)).then_some(())
            })
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_forgotten_when_it_is_given() -> Result<()> {
    /// For an hour, once.
    const TOKEN: [u8; 5] = [0x08, 0x90, 0x1c, 0x10, 0x01];
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    let admin = Bearer::from(&node.data_dir().join("operator.json"))?;
    let mut connection = admin.connect(node.at(Ports::ADMIN)).await?;
    let mut given = 0;
    let refused = loop {
        let answer = call(&mut connection, "admin.v1.AdminService/CreateToken", &TOKEN).await?;
        if answer.status != "0" {
            break answer;
        }
        given += 1;
    };
    ensure!(given == 400 && refused.status == "8", "{given} were given, then {refused:?}");
    let listed = node.told(&["token", "list"]).await?;
    let listed: Vec<_> =
        listed["tokens"].as_array().into_iter().flatten().filter_map(|it| it["id"].as_str()).collect();
    ensure!(listed.len() == 400, "{} are listed", listed.len());
    node.shoal(&["token", "create", "--role", "purge"]).await?.expect(0)?;
    let full = node.shoal(&["token", "create"]).await?.expect(2)?;
    ensure!(full.stderr.contains("400 tokens by which nodes join are good already"), "{full:?}");
    node.shoal(&["token", "revoke", listed[0]]).await?.expect(0)?;
    node.shoal(&["token", "create"]).await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_keep_nobody_out() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    let operator = Bearer::from(&node.data_dir().join("operator.json"))?;
    // Three times as many as there are handshakes at once: one after the other they would take 9 s.
    let mut mute = Vec::new();
    for _ in 0..800 {
        mute.push(TcpStream::connect(node.at(Ports::ADMIN)).await?);
    }
    let asked = Instant::now();
    let mut connection = operator.connect(node.at(Ports::ADMIN)).await?;
    let told = call(&mut connection, "admin.v1.AdminService/Status", &[]).await?;
    ensure!(told.status == "0" && asked.elapsed() < Duration::from_secs(6), "{:?} {told:?}", asked.elapsed());
    drop(mute);

    // More than there are places for strangers, and more than one address may have.
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(operator.connect_as_stranger(node.at(Ports::CLUSTER)).await?);
    }
    let token = cluster.token().await?;
    let dir = cluster.dir().join("newcomer");
    let mut newcomer = NodeProcess::new("newcomer", cluster.block().ip(60), &dir, &[]);
    newcomer.start(Some((node.at(Ports::CLUSTER), &token)))?;
    cluster
        .eventually("the newcomer is a member", async || {
            let status = cluster.status(0).await.ok()?;
            (status["nodes"].as_array()?.len() == 2).then_some(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_made_and_renewed() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    let file = cluster.dir().join("ada.json");
    let path = path_text(&file);
    node.shoal(&["operator", "create", "ada", path, "--role", "admin"]).await?.expect(0)?;
    node.shoal(&["operator", "create", "ada", path, "--role", "admin"]).await?.expect(1)?;
    let address = node.at(Ports::ADMIN).to_string();
    let as_ada = async |verb: &[&str]| {
        let way = ["--addr", &address, "--identity", path];
        Verb::from_afar(&[&way, verb].concat()).run().await
    };
    as_ada(&["status"]).await?.expect(0)?;
    let before = std::fs::read(&file)?;
    as_ada(&["operator", "renew", path]).await?.expect(0)?;
    ensure!(std::fs::read(&file)? != before, "nothing was renewed");
    as_ada(&["status"]).await?.expect(0)?;
    ensure!(node.log().contains("an operator was given a certificate"), "{}", node.log());
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file)?) & 0o777;
    ensure!(mode == 0o600, "others may read it: {mode:o}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_clusters_ports_changes_nothing() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    let noise = pattern("noise", 4096);
    let requests: [&[u8]; 4] = [
        &noise,
        b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        // The head of a TLS record that promises 16 KiB and brings none.
        b"\x16\x03\x01\x40\x00",
    ];
    for port in [Ports::CLUSTER, Ports::ADMIN] {
        for request in requests {
            let answer = talk(node.at(port), request).await?;
            let text = String::from_utf8_lossy(&answer);
            ensure!(!text.starts_with("HTTP/"), "port {port} speaks in clear text: {text:?}");
        }
    }
    let datagrams = UdpSocket::bind((LoopbackBlock::claim()?.ip(9), 0))?;
    datagrams.set_read_timeout(Some(Duration::from_millis(300)))?;
    for length in [0, 1, 12, 28, 200, 1400, 9000] {
        datagrams.send_to(&pattern("gossip", length), node.at(Ports::CLUSTER))?;
    }
    let mut buffer = [0; 64];
    ensure!(datagrams.recv(&mut buffer).is_err(), "unauthenticated gossip earned a reply");

    let status = cluster.status(0).await?;
    ensure!(status["quorum"] == true, "{status:#}");
    ensure!(!node.log().contains("panicked"), "{}", node.log());
    Ok(())
}

/// Sends bytes, ends the sending side, and returns whatever comes back before the connection ends.
async fn talk(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let mut answer = Vec::new();
    let exchange = async {
        // Resets are as good an answer as any.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(Duration::from_secs(20), exchange).await?;
    Ok(answer)
}
