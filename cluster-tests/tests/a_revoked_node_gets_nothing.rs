//! A machine is stolen: its node is revoked, and whoever uses its certificate, or starts a copy of its disk, gets nothing. So it
//! is with the identity of an operator.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use cluster_tests::{
    Bar, Bearer, Cluster, Connection, NodeProcess, Origin, Outcome, Ports, SiteFile, Verb, call, empty,
    field, path_text, wait_until,
};
use http::Request;

/// For a revoked process to find out, drain and end.
const DEADLINE: Duration = Duration::from_secs(60);
/// For what is open to be cut once the command was given, its own start included.
const AT_ONCE: Bar = Bar::of_ms(1_000, 1_000);

/// What a thief may try on an address of the cluster.
const CALLS: [&str; 13] = [
    "raft.v1.PeerService/Report",
    "raft.v1.PeerService/AwaitApplied",
    "raft.v1.PeerService/Rehearse",
    "raft.v1.PeerService/Renew",
    "raft.v1.PeerService/Join",
    "raft.v1.RaftService/TransferLeader",
    "raft.v1.PeerService/ReadIndex",
    "raft.v1.PeerService/Propose",
    "raft.v1.PeerService/HandOver",
    "raft.v1.RaftService/Vote",
    "raft.v1.RaftService/AppendEntries",
    "cache.v1.CacheService/Lookup",
    "admin.v1.AdminService/Status",
];

/// A certificate for a key that the cluster knows.
const RENEW: &str = "raft.v1.PeerService/Renew";

/// The first node is elsewhere now, and has another key.
const FORGED_MOVE: &str = r#"{"UpdateNode":{"node_id":1,"record":{"name":"n1","region":"default","zone":"default",
    "cluster_addr":"127.0.0.1:1","admin_addr":"127.0.0.1:2","public_key_sha256":"00"}}}"#;

/// An operator has asked the first node.
const FORGED_ASKER: &str = r#"{"AskedBy":{"askers":[{"by":"admin","role":"admin","from":"","node":1,"call":"SetUpgrade",
    "what":"","request_id":"","at_ms":1}],"command":{"HoldLevel":{"hold":null}}}}"#;

/// `AwaitApplied` of an entry that does not come for half a minute.
const WAIT_LONG: [u8; 10] = [0x08, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x18, 0xb0, 0xea, 0x01];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_gets_nothing() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let dir = cluster.copy_disk(2).await?;
    let stolen = Bearer::from(&dir.join("data/identity/node.json"))?;
    let doors = [0, 1].map(|i| cluster.nodes[i].at(Ports::CLUSTER));

    // With it, a thief is the node.
    let mut before = stolen.connect(doors[0]).await?;
    let told = call(&mut before, CALLS[0], &[]).await?;
    ensure!(told.status == "0" && told.body.len() > 100, "a member is told {told:?}");
    let renewed = call(&mut before, RENEW, &stolen.renewal()?).await?;
    ensure!(renewed.status == "0" && renewed.body.len() > 100, "a member gets no certificate: {renewed:?}");
    let mut waiting = stolen.connect(doors[1]).await?;
    let waiting = tokio::spawn(async move {
        let outcome = call(&mut waiting, "raft.v1.PeerService/AwaitApplied", &WAIT_LONG).await;
        (outcome, Instant::now())
    });

    // Even so it cannot have written what nobody knows, which would be the end of the log for all, nor lead the others astray
    // about a third one, nor about whom somebody has asked.
    let asked = format!(r#"{{"AskedBy":{{"askers":[],"command":{FORGED_MOVE}}}}}"#);
    for (command, why) in [
        (
            r#"{"Later":{"cmd_version":4000000000,"kind":"x","may_ignore":false,"payload":"{}"}}"#,
            "known here",
        ),
        (r#"{"SetLevel":{"from":1,"to":4000000000}}"#, "nobody here"),
        (FORGED_MOVE, "and not where n1 is"),
        (asked.as_str(), "and not where n1 is"),
        (FORGED_ASKER, "and not who has asked n1"),
        (r#"{"ChangeSetup":{"max_voters":2}}"#, "3, 5 or 7 voters"),
    ] {
        let told = call(&mut before, "raft.v1.PeerService/Propose", &field(1, command)).await?;
        ensure!(told.status == "3" && told.message.contains(why), "{command}: {told:?}");
    }
    // Nor is what others show everybody a proof for who has nothing but the key.
    let other = Bearer::from(&cluster.nodes[0].data_dir().join("identity/node.json"))?;
    let mut stranger = stolen.connect_as_stranger(doors[0]).await?;
    let told = call(&mut stranger, RENEW, &stolen.renewal_with(&other)?).await?;
    ensure!(told.status == "7" && told.message.contains("of another key"), "{told:?}");
    let name = ["name", "zone", "zone", "127.0.0.1:1", "127.0.0.1:2"];
    let name = (3..).zip(name).flat_map(|(number, text)| field(number, text));
    let mut parts: Vec<_> = cluster.token().await?.split('.').map(str::to_owned).collect();
    let [.., id, secret] = &mut parts[..] else { bail!("tokens have other parts: {parts:?}") };
    (*id, *secret) = ("0".repeat(id.len()), "0".repeat(secret.len()));
    let invented = parts.join(".");
    let join = [field(1, invented), field(2, stolen.certificate_request()?), name.collect()].concat();
    let told = call(&mut stranger, "raft.v1.PeerService/Join", &join).await?;
    ensure!(told.status == "7" && told.message.contains("token"), "{told:?}");

    let given = Instant::now();
    let revoked = cluster.nodes[0].shoal(&["node", "revoke", "n3"]).await?.expect(0)?;
    ensure!(
        revoked.stdout.contains("revoked n3 (") && revoked.stdout.contains("in force on 2/2 nodes"),
        "{revoked:?}"
    );
    let (outcome, cut) = waiting.await?;
    let after = cut.duration_since(given);
    ensure!(!matches!(&outcome, Ok(Outcome { status, .. }) if status == "0"), "it was answered: {outcome:?}");
    AT_ONCE.hold("what was open is cut", after)?;
    ensure!(call(&mut before, CALLS[0], &[]).await.is_err(), "an open connection goes on");

    for door in doors {
        for method in CALLS {
            let mut connection = stolen.connect(door).await?;
            let Outcome { status, body, .. } = call(&mut connection, method, &[]).await?;
            ensure!(status != "0" && body.is_empty(), "{method} at {door}: status {status}, {body:?}");
        }
        // Nor by nothing but the key, as one who comes late.
        for mut connection in [stolen.connect(door).await?, stolen.connect_as_stranger(door).await?] {
            let told = call(&mut connection, RENEW, &stolen.renewal()?).await?;
            ensure!(told.status == "7" && told.body.is_empty(), "a certificate at {door}: {told:?}");
        }
        let body = Connection::open(door, stolen.speak(b"http/1.1")?).await;
        let answered = match body {
            Ok(mut connection) => connection.send(Request::get("/").body(empty())?).await.is_ok(),
            Err(_) => false,
        };
        ensure!(!answered, "{door} speaks of bodies");
    }
    for i in [0, 1] {
        let mut connection = stolen.connect(cluster.nodes[i].at(Ports::ADMIN)).await?;
        let Outcome { status, .. } = call(&mut connection, "admin.v1.AdminService/Status", &[]).await?;
        ensure!(status == "16", "n{} answers operators with {status}", i + 1);
    }

    // The node itself, and a copy of its disk elsewhere, are told that, and end.
    let advice = "this node was removed from the cluster";
    ensure!(!cluster.nodes[2].ended(DEADLINE).await?.success() && cluster.nodes[2].log().contains(advice));
    fs::remove_file(dir.join("data/address"))?;
    let mut copy = NodeProcess::new("n3", cluster.block().ip(40), &dir, &["--drain-delay", "0s"]);
    copy.start(None)?;
    ensure!(!copy.ended(DEADLINE).await?.success() && copy.log().contains(advice), "{}", copy.log());
    let status = cluster.status(1).await?;
    let names: Vec<_> = status["nodes"].as_array().into_iter().flatten().map(|node| &node["node"]).collect();
    ensure!(names == ["n1", "n2"], "{names:?}");
    let record = cluster.nodes[1].shoal(&["audit"]).await?.expect(0)?;
    ensure!(record.stdout.contains("RevokeNode") && record.stdout.contains("n3 ("), "{record:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_operator_is_cut_off() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let node = &cluster.nodes[0];
    let file = cluster.dir().join("ada.json");
    let path = path_text(&file);
    node.shoal(&["operator", "create", "ada", path]).await?.expect(0)?;
    let door = cluster.nodes[2].at(Ports::ADMIN);
    let address = door.to_string();
    let as_ada = async |verb: &[&str]| {
        let way = ["--addr", &address, "--identity", path];
        Verb::from_afar(&[&way, verb].concat()).run().await
    };
    let stolen = Bearer::from(&file)?;
    let mut open = stolen.connect(door).await?;
    let status = "admin.v1.AdminService/Status";
    ensure!(call(&mut open, status, &[]).await?.status == "0", "an operator is not answered");

    let unknown = node.shoal(&["operator", "revoke", "nobody"]).await?.expect(1)?;
    ensure!(unknown.stderr.contains("--force revokes the name all the same"), "{unknown:?}");
    let revoked = node.shoal(&["operator", "revoke", "ada"]).await?.expect(0)?;
    ensure!(revoked.stdout.contains("revoked ada: 1 on the list"), "{revoked:?}");
    wait_until("every node refuses it", DEADLINE, async || {
        as_ada(&["status"]).await.is_ok_and(|output| output.code == 2)
    })
    .await?;
    ensure!(call(&mut open, status, &[]).await.is_err(), "an open connection goes on");
    let answer = call(&mut stolen.connect(door).await?, status, &[]).await?;
    ensure!(answer.status == "7" && answer.body.is_empty(), "it is answered with {answer:?}");
    let refused = as_ada(&["history"]).await?.expect(2)?;
    ensure!(refused.stderr.contains("the identity of \"ada\" was revoked"), "{refused:?}");

    // She is given another one, which is good.
    fs::remove_file(&file)?;
    node.shoal(&["operator", "create", "ada", path, "--role", "viewer", "--ttl", "1h"]).await?.expect(0)?;
    cluster
        .eventually("the new one is good", async || {
            as_ada(&["status"]).await.ok().filter(|output| output.code == 0)
        })
        .await?;
    let listed = cluster.nodes[1].shoal(&["operator", "list"]).await?.expect(0)?;
    let shown: Vec<Vec<&str>> =
        listed.stdout.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    ensure!(
        shown == [["NAME", "ROLE"], ["ada", "revoked"], ["ada", "viewer"], ["admin", "admin"]],
        "{listed:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_revoked_like_any_other() -> Result<()> {
    let cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let origin = Origin::of_patterns(50, "no-store").await?;
    let leader = cluster.leader_seen_by(0).await?;
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let name = cluster.nodes[leader].name.clone();
    let itself = cluster.nodes[leader].shoal(&["node", "revoke", &name]).await?.expect(1)?;
    ensure!(itself.stderr.contains("ask another one"), "{itself:?}");
    cluster.nodes[one].shoal(&["node", "revoke", &name]).await?.expect(0)?;
    wait_until("another one leads", DEADLINE, async || {
        cluster.leader_seen_by(other).await.is_ok_and(|new| new != leader)
    })
    .await?;
    let applied = cluster.apply(other, &SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
    ensure!(applied.stdout.contains("applied on 2/2 nodes"), "{applied:?}");
    Ok(())
}
