//! Whoever leads requests to nodes hears in time which of them are ready: by DNS, answered by the nodes themselves; by BGP,
//! from the scripts under `deploy/anycast`; by asking `/readyz` in a scope of his own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster_tests::{
    Bird, Cluster, HOST, Network, NodeProcess, Origin, Ports, SiteFile, fetch, find_program, path_text, skip,
    text_of, wait_until, wait_until_some,
};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const PATIENCE: Duration = Duration::from_secs(30);
/// For one answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
const DNS: u16 = 5300;
/// What every node is started with.
const RUN: [&str; 6] = ["--dns-listen", "{ip}:5300", "--public-address", "{ip}", "--zone", "zone-of-{name}"];

async fn site() -> Result<(SiteFile, Origin)> {
    let origin = Origin::of_patterns(50, "no-store").await?;
    let route = json!({ "hosts": [HOST, "*.shop.example.com"], "upstream": "shop" });
    let site = SiteFile::new()
        .upstream("shop", json!({ "endpoints": [origin.endpoint()] }))
        .route("shop", route)
        .set("dns_zones", "example.com", json!({ "nameservers": { "ns1.example.com": ["192.0.2.53"] } }));
    Ok((site, origin))
}

fn question(name: &str, kind: RecordType) -> Result<Message> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.queries.push(Query::query(Name::from_ascii(format!("{name}."))?, kind));
    message.edns = Some(Edns::new());
    Ok(message)
}

/// Asks by a datagram; `None` = no answer in time.
async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Result<Option<Message>> {
    let socket = UdpSocket::bind((server.ip(), 0)).await?;
    socket.send_to(&question(name, kind)?.to_vec()?, server).await?;
    let mut answer = [0; 4096];
    match tokio::time::timeout(ANSWER_PATIENCE, socket.recv(&mut answer)).await {
        Ok(length) => Ok(Some(Message::from_vec(&answer[..length?])?)),
        Err(_) => Ok(None),
    }
}

fn addresses_in(message: &Message) -> BTreeSet<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// The addresses that the `i`-th node answers for the shop.
async fn answered_by(cluster: &Cluster, i: usize) -> Option<BTreeSet<IpAddr>> {
    let answer = ask(cluster.nodes[i].at(DNS), HOST, RecordType::A).await.ok()??;
    Some(addresses_in(&answer))
}

fn addresses_of(cluster: &Cluster, nodes: &[usize]) -> BTreeSet<IpAddr> {
    nodes.iter().map(|i| cluster.nodes[*i].ip).collect()
}

/// The `i`-th node answers exactly these.
async fn comes_to_answer(cluster: &Cluster, i: usize, nodes: &[usize]) -> Result<Duration> {
    let expected = addresses_of(cluster, nodes);
    wait_until(&format!("{} answers {expected:?}", cluster.nodes[i].name), PATIENCE, async || {
        answered_by(cluster, i).await.as_ref() == Some(&expected)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_lead_to_nodes_that_serve() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &[&RUN[..], &["--drain-delay", "500ms"]].concat()).await?;
    let (site, _origin) = site().await?;
    cluster.put_in_force(&site).await?;
    for i in 0..3 {
        comes_to_answer(&cluster, i, &[0, 1, 2]).await?;
    }
    let server = cluster.nodes[0].at(DNS);
    for (name, kind, code, authority) in [
        (HOST, RecordType::AAAA, ResponseCode::NoError, 1),
        ("none.example.com", RecordType::A, ResponseCode::NXDomain, 1),
        ("example.net", RecordType::A, ResponseCode::Refused, 0),
    ] {
        let answer = ask(server, name, kind).await?.context("no answer")?;
        ensure!(answer.metadata.response_code == code && answer.answers.is_empty(), "{name}: {answer}");
        ensure!(answer.authorities.len() == authority && !answer.metadata.recursion_available, "{answer}");
    }
    dig_agrees(&cluster, server).await?;
    ensure!(asked_by_tcp(server).await? == addresses_of(&cluster, &[0, 1, 2]), "by TCP as by UDP");

    // Whatever is sent, it answers on.
    let garbage = UdpSocket::bind((server.ip(), 0)).await?;
    for n in 0..200_u32 {
        let noise: Vec<u8> = (0..n).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        garbage.send_to(&noise, cluster.nodes[1].at(DNS)).await?;
    }
    ensure!(cluster.metric(1, "shoal_dns_queries_total", "udp").await? > 0.0, "it is counted");
    wait_until("what one network asks for is bounded", PATIENCE, async || {
        for _ in 0..200 {
            let asked = question(HOST, RecordType::A).and_then(|question| Ok(question.to_vec()?));
            let Ok(asked) = asked else { return false };
            _ = garbage.send_to(&asked, cluster.nodes[1].at(DNS)).await;
        }
        cluster.metric(1, "shoal_dns_rate_limited_total", "").await.is_ok_and(|limited| limited > 0.0)
    })
    .await?;
    drop(garbage);

    // The node that answers is replaced by a new process: what comes meanwhile waits for it, and it is as ready as that was.
    wait_until("n1 has been ready for a while", PATIENCE, async || {
        told(&cluster, 0, "scope=bgp&min_ready_s=2").await.is_ok_and(|(status, _)| status == 200)
    })
    .await?;
    cluster.nodes[0].upgrade(&[]).await?.expect(0)?;
    let (status, body) = told(&cluster, 0, "scope=bgp&min_ready_s=2").await?;
    ensure!(status == 200, "an upgrade is no reason to withdraw anything: {body}");
    comes_to_answer(&cluster, 0, &[0, 1, 2]).await?;

    cluster.nodes[0].shoal(&["node", "drain", "n2"]).await?.expect(0)?;
    comes_to_answer(&cluster, 0, &[0, 2]).await?;
    cluster.nodes[0].shoal(&["node", "undrain", "n2"]).await?.expect(0)?;
    comes_to_answer(&cluster, 0, &[0, 1, 2]).await?;

    cluster.nodes[2].kill9()?;
    let out_after = comes_to_answer(&cluster, 0, &[0, 1]).await?;
    println!("a killed node is out of the answers after {out_after:?}");
    // The bar is 3 s; a machine that does much else may take longer to notice.
    ensure!(out_after < Duration::from_secs(10), "{out_after:?}");

    // Without a quorum it serves, and says so to those who ask for no more.
    cluster.nodes[1].kill9()?;
    wait_until("n1 is stale", PATIENCE, async || {
        told(&cluster, 0, "scope=bgp&max_staleness=1s")
            .await
            .is_ok_and(|(status, body)| status == 503 && body["status"] == "stale" && body["quorum"] == false)
    })
    .await?;
    let (status, body) = told(&cluster, 0, "scope=bgp").await?;
    ensure!(status == 200 && body["status"] == "stale", "{body}");
    Ok(())
}

/// A program that others ask with, where there is one.
async fn dig_agrees(cluster: &Cluster, server: SocketAddr) -> Result<()> {
    let Some(dig) = find_program("dig") else {
        skip("names_lead_to_nodes_that_serve", "there is no dig; only a socket of ours has asked");
        return Ok(());
    };
    let (address, port) = (format!("@{}", server.ip()), server.port().to_string());
    let asked = async |more: &[&str]| {
        let arguments = [&[&address, "-p", &port, "+tries=3"], more].concat();
        text_of(dig.clone(), arguments.iter().map(|&word| word.to_owned()).collect()).await
    };
    for more in [&["+short", HOST][..], &["+short", "+tcp", HOST], &["+short", "+noedns", HOST]] {
        let text = asked(more).await?;
        let seen: BTreeSet<IpAddr> = text.lines().filter_map(|line| line.parse().ok()).collect();
        ensure!(seen == addresses_of(cluster, &[0, 1, 2]), "{more:?}: {text}");
    }
    let any = asked(&["+notcp", "ANY", HOST]).await?;
    ensure!(any.contains("RFC8482") && any.contains("status: NOERROR"), "{any}");
    let soa = asked(&["SOA", "example.com"]).await?;
    ensure!(soa.contains("ns1.example.com. hostmaster.example.com.") && soa.contains(" aa "), "{soa}");
    Ok(())
}

async fn asked_by_tcp(server: SocketAddr) -> Result<BTreeSet<IpAddr>> {
    let mut stream = TcpStream::connect(server).await?;
    let asked = question(HOST, RecordType::A)?.to_vec()?;
    let mut answers = BTreeSet::new();
    // Two on one connection.
    for _ in 0..2 {
        stream.write_u16(u16::try_from(asked.len())?).await?;
        stream.write_all(&asked).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        answers = addresses_in(&Message::from_vec(&answer)?);
    }
    Ok(answers)
}

/// What `/readyz` says to a program.
async fn told(cluster: &Cluster, i: usize, query: &str) -> Result<(u16, Value)> {
    let answer = fetch(cluster.nodes[i].at(Ports::OPS), "ops", &format!("/readyz?{query}")).await?;
    let body = serde_json::from_slice(&answer.body)
        .with_context(|| String::from_utf8_lossy(&answer.body).into_owned())?;
    Ok((answer.status, body))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_is_ready_everybody_is_answered() -> Result<()> {
    // They serve, and are not ready for DNS before a thousand looks have said so.
    let looks = ["--ready-looks", "dns=1000/2"];
    let mut cluster = Cluster::start_with(2, &[&RUN[..], &looks].concat()).await?;
    let (site, _origin) = site().await?;
    cluster.put_in_force(&site).await?;
    comes_to_answer(&cluster, 0, &[0, 1]).await?;
    ensure!(cluster.metric(0, "shoal_dns_nodes", "ready").await? == 0.0, "somebody is ready");

    // The scopes have nothing to do with each other.
    wait_until("n1 is ready for BGP", PATIENCE, async || {
        told(&cluster, 0, "scope=bgp").await.is_ok_and(|(status, _)| status == 200)
    })
    .await?;
    let (status, body) = told(&cluster, 0, "scope=dns").await?;
    ensure!(status == 503 && body["status"] == "ready" && body["scope"] == "dns", "{body}");
    ensure!(body["reason"].as_str().is_some_and(|why| why.contains("of 1000 good looks")), "{body}");
    let (status, body) = told(&cluster, 0, "scope=bgp&min_ready_s=3600").await?;
    ensure!(status == 503 && body["reason"].as_str().is_some_and(|why| why.contains("of 3600 s")), "{body}");
    let (status, body) = told(&cluster, 0, "format=json").await?;
    ensure!(status == 200 && body["status"] == "ready" && body["scope"].is_null(), "{body}");
    for wrong in ["scope=ospf", "scope=bgp&min_ready_s=soon", "min_ready_s=3", "scope=lb&format=text"] {
        let answer = fetch(cluster.nodes[0].at(Ports::OPS), "ops", &format!("/readyz?{wrong}")).await?;
        ensure!(answer.status == 400, "{wrong}: {}", answer.status);
    }
    ensure!(cluster.metric(0, "shoal_ready", "bgp").await? == 1.0, "as /metrics has it");
    ensure!(cluster.metric(0, "shoal_ready", "dns").await? == 0.0, "as /metrics has it");

    // Of two nodes one is gone: the other hears nobody, and serves.
    cluster.nodes[1].kill9()?;
    wait_until("n1 is told apart as isolated", PATIENCE, async || {
        told(&cluster, 0, "scope=bgp")
            .await
            .is_ok_and(|(status, body)| status == 200 && body["status"] == "isolated")
    })
    .await?;
    ensure!(answered_by(&cluster, 0).await == Some(addresses_of(&cluster, &[0, 1])), "everybody is answered");
    Ok(())
}

fn anycast(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/anycast").join(file)
}

/// The script that leads routes to a node, and what it has printed.
struct Announcer {
    child: Child,
    lines: Receiver<String>,
}

impl Announcer {
    fn start(node: &NodeProcess, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(anycast("shoal-anycast"));
        let readyz = format!("http://{}/readyz?scope=bgp&min_ready_s=1", node.at(Ports::OPS));
        command.args(arguments).env("SHOAL_READYZ", readyz).envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().context("no stdout")?);
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { child, lines })
    }

    async fn says(&self, expected: &str) -> Result<()> {
        let line = wait_until_some(expected, PATIENCE, async || self.lines.try_recv().ok()).await?;
        ensure!(line == expected, "{line:?} instead of {expected:?}");
        Ok(())
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_follow_readiness() -> Result<()> {
    if find_program("curl").is_none() {
        skip("routes_follow_readiness", "there is no curl");
        return Ok(());
    }
    let mut cluster = Cluster::start_with(2, &["--drain-delay", "4s"]).await?;
    let (site, _origin) = site().await?;
    cluster.put_in_force(&site).await?;
    let announcer =
        Announcer::start(&cluster.nodes[1], &["exabgp", "192.0.2.1/32"], &[("SHOAL_GRACE_S", "2")])?;
    let announced = "announce route 192.0.2.1/32 next-hop self med 100";
    let withdrawn = "withdraw route 192.0.2.1/32 next-hop self";
    announcer.says(withdrawn).await?;
    announcer.says(announced).await?;

    let began = Instant::now();
    let drain = cluster.nodes[0].verb(&["node", "drain", "n2"]);
    let drain = tokio::spawn(async move { drain.run().await });
    announcer.says("announce route 192.0.2.1/32 next-hop self med 4294967295 community [65535:0]").await?;
    announcer.says(withdrawn).await?;
    println!("withdrawn {:?} after the order to drain", began.elapsed());
    drain.await??.expect(0)?;
    let (status, body) = told(&cluster, 1, "scope=bgp").await?;
    ensure!(status == 503 && body["status"] == "draining", "{body}");
    cluster.nodes[0].shoal(&["node", "undrain", "n2"]).await?.expect(0)?;
    announcer.says(announced).await?;

    cluster.nodes[1].kill9()?;
    announcer.says(withdrawn).await?;
    drop(announcer);
    Ok(())
}

/// A route as the router's table has it: whether it is the best one, its MED, its communities.
const BEST: &str = "* 100";
const SECOND: &str = "100";
const LAST_CHOICE: &str = "4294967295 (65535,0)";
const NONE: &str = "";

#[test]
fn routers_leave_a_node_before_its_route_is_gone() -> Result<()> {
    let story = "routers_leave_a_node_before_its_route_is_gone";
    let programs = ["bird", "birdc", "curl"];
    if let Some(program) = programs.iter().find(|program| find_program(program).is_none()) {
        skip(story, &format!("there is no {program}"));
        return Ok(());
    }
    Network::around(story, routers_leave)
}

async fn routers_leave(mut network: Network) -> Result<()> {
    let birds = tempfile::tempdir()?;
    let [of_n2, of_n3] = ["n2", "n3"].map(|name| birds.path().join(name));
    // It is for n3 alone: n2 is left to the script.
    let hook = birds.path().join("hook");
    let shown = [Bird::socket_in(&of_n3), anycast("drain-hook")].map(|path| format!("'{}'", path.display()));
    let [socket, drain_hook] = &shown;
    let variables = format!("SHOAL_BIRD_SOCKET={socket} SHOAL_PROPAGATION_S=4");
    let calls = format!("[ \"$SHOAL_NODE\" != n3 ] || exec env {variables} {drain_hook} \"$@\"");
    fs::write(&hook, format!("#!/bin/sh\n{calls}\n"))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let run = ["--drain-delay", "6s", "--drain-hook", path_text(&hook), "--drain-hook-timeout", "30s"];
    let mut cluster = Cluster::start_in(&mut network, 3, &run).await?;
    let origin = Origin::of_patterns_in_network(50, "no-store").await?;
    cluster.put_in_force(&SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;

    let [_, n2, n3] = &cluster.nodes[..] else { bail!("not three nodes") };
    let bird_of_n2 = Bird::start(&of_n2, &announcing(n2)?, Some(n2)).await?;
    let _bird_of_n3 = Bird::start(&of_n3, &announcing(n3)?, Some(n3)).await?;
    let router = Bird::start(&birds.path().join("router"), &hearing(&[n2, n3]), None).await?;
    let by_script = |node, dir: &Path, grace_s| {
        let socket = Bird::socket_in(dir);
        let variables = [("SHOAL_BIRD_SOCKET", path_text(&socket)), ("SHOAL_GRACE_S", grace_s)];
        Announcer::start(node, &["bird", "shoal"], &variables)
    };
    // Of n3 the hook withdraws the route long before the script would.
    let _announcers = [by_script(n2, &of_n2, "4")?, by_script(n3, &of_n3, "60")?];

    come_to_be(&router, [BEST, SECOND]).await?;
    // What its file disables is disabled once more, and the script finds it so.
    let before = withdrawals(&router, "n2").await?;
    bird_of_n2.told(&["configure"]).await?;
    wait_until("n2 has withdrawn its route", PATIENCE, async || {
        withdrawals(&router, "n2").await.is_ok_and(|now| now == before + 1)
    })
    .await?;
    come_to_be(&router, [BEST, SECOND]).await?;

    for (name, meanwhile, in_the_end) in
        [("n2", [LAST_CHOICE, BEST], [NONE, BEST]), ("n3", [BEST, LAST_CHOICE], [BEST, NONE])]
    {
        let before = withdrawals(&router, name).await?;
        let drain = tokio::spawn(cluster.nodes[0].verb(&["node", "drain", name]).run());
        come_to_be(&router, meanwhile).await?;
        come_to_be(&router, in_the_end).await?;
        drain.await??.expect(0)?;
        ensure!(routes(&router).await? == in_the_end, "{name} is drained, and leads here again");
        ensure!(withdrawals(&router, name).await? == before + 1, "{name} was withdrawn in between as well");
        cluster.nodes[0].shoal(&["node", "undrain", name]).await?.expect(0)?;
        come_to_be(&router, [BEST, SECOND]).await?;
    }
    ensure!(cluster.nodes[2].log().contains("withdrawn for n3"), "the hook has not come to its end");

    cluster.nodes[1].kill9()?;
    come_to_be(&router, [NONE, BEST]).await
}

/// As it is deployed, with the addresses of the story.
fn announcing(node: &NodeProcess) -> Result<String> {
    let deployed = fs::read_to_string(anycast("bird.conf"))?;
    let (own, neighbor) = (node.ip.to_string(), Network::HERE.to_string());
    Ok(deployed.replace("10.0.0.11", &own).replace("10.0.0.254", &neighbor))
}

/// A router that both lead to, and that leaves the choice to what they say.
fn hearing(nodes: &[&NodeProcess]) -> String {
    let here = Network::HERE;
    let sessions = nodes.iter().map(|NodeProcess { name, ip, .. }| {
        let ends = format!("local {here} as 65000; neighbor {ip} as 65011;");
        format!("protocol bgp {name} {{ {ends} ipv4 {{ import all; export none; }}; }}\n")
    });
    format!("router id {here};\nprotocol device {{ }}\n{}", sessions.collect::<String>())
}

/// Those to n2 and n3 that the router has.
async fn routes(router: &Bird) -> Result<[String; 2]> {
    let table = router.told(&["show", "route", "all"]).await?;
    Ok(["n2", "n3"].map(|name| route_to(name, &table).unwrap_or_default()))
}

fn route_to(name: &str, table: &str) -> Option<String> {
    let of_it = format!("{name} ");
    let route = table.split("unicast [").find(|route| route.starts_with(&of_it))?;
    let is_best = route.lines().next()?.contains("] * ");
    let attribute = |name: &str| route.lines().find_map(|line| line.trim().strip_prefix(name));
    let (med, communities) = (attribute("BGP.med: "), attribute("BGP.community: "));
    let parts = [is_best.then_some("*"), med, communities];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

async fn come_to_be(router: &Bird, expected: [&str; 2]) -> Result<()> {
    wait_until(&format!("the routes are {expected:?}"), PATIENCE, async || {
        routes(router).await.is_ok_and(|routes| routes == expected)
    })
    .await
    .map(drop)
}

/// How often the node has withdrawn its route.
async fn withdrawals(router: &Bird, name: &str) -> Result<u32> {
    let told = router.told(&["show", "protocols", "all", name]).await?;
    let counts = told.lines().find_map(|line| line.trim().strip_prefix("Import withdraws:"));
    let received = counts.and_then(|counts| counts.split_whitespace().next());
    Ok(received.with_context(|| told.clone())?.parse()?)
}
