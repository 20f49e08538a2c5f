//! Operators have roles, which their certificates carry: each call takes one, and who has less is refused, counted and told.
//! What they change is on a record that every node has.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Bearer, Cluster, Connection, NodeProcess, Ports, SiteFile, Verb, VerbOutput, call, field, grpc_message,
    path_text,
};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use shoal_cluster::identity::{Authority, ClusterSecret, NODE_VALIDITY, NodeKey};
use shoal_model::NodeId;

/// From the least to the highest.
const ROLES: [&str; 3] = ["viewer", "operator", "admin"];

/// Runs a verb from afar with the identity in `file`.
async fn run_as(file: &Path, node: &NodeProcess, verb: &[&str]) -> Result<VerbOutput> {
    let address = node.at(Ports::ADMIN).to_string();
    Verb::from_afar(&[&["--addr", &address, "--identity", path_text(file)], verb].concat()).run().await
}

/// A new identity of the name `name` with `role`, made over the socket.
async fn identity(cluster: &Cluster, name: &str, role: &str) -> Result<PathBuf> {
    let file = cluster.dir().join(format!("{name}.json"));
    let make = ["operator", "create", name, path_text(&file), "--role", role];
    cluster.nodes[0].shoal(&make).await?.expect(0)?;
    Ok(file)
}

/// What each call is, by the verb that makes it, and the least role that it takes.
fn calls<'a>(site: &'a str, new_file: &'a str) -> Vec<(&'static str, &'static str, Vec<&'a str>)> {
    let url = "http://shop.example.com/";
    vec![
        ("Plan", "viewer", vec!["plan", "-f", site]),
        ("Show", "viewer", vec!["get"]),
        ("History", "viewer", vec!["history"]),
        ("Diff", "viewer", vec!["diff", "0"]),
        ("PlanEdit", "viewer", vec!["delete", "route/none", "--dry-run"]),
        ("Status", "viewer", vec!["status"]),
        ("Health", "viewer", vec!["health"]),
        ("Top", "viewer", vec!["top", "--once"]),
        ("CacheStats", "viewer", vec!["cache", "stats"]),
        ("CacheLocate", "viewer", vec!["cache", "locate", url]),
        ("CacheGet", "viewer", vec!["cache", "get", url]),
        ("CacheTop", "viewer", vec!["cache", "top", "--for", "1s"]),
        ("PurgeStatus", "viewer", vec!["cache", "purge-status"]),
        ("ListTokens", "viewer", vec!["token", "list"]),
        ("Audit", "viewer", vec!["audit"]),
        ("ListOperators", "viewer", vec!["operator", "list"]),
        ("Keys", "viewer", vec!["cluster", "keys"]),
        ("KeepKeys", "admin", vec!["cluster", "node-life", "7d"]),
        ("Apply", "operator", vec!["apply", "-f", site]),
        ("RollOut", "operator", vec!["apply", "-f", site, "--confirm-timeout", "5s"]),
        ("GetRollout", "viewer", vec!["rollout", "status"]),
        ("SetRolloutPolicy", "operator", vec!["rollout", "policy", "--at-once"]),
        ("Confirm", "operator", vec!["confirm"]),
        ("Abort", "operator", vec!["abort"]),
        ("Edit", "operator", vec!["delete", "route/none"]),
        ("Rollback", "operator", vec!["rollback", "--to-revision", "1"]),
        ("Purge", "operator", vec!["cache", "purge", "--url", url]),
        ("CacheWarm", "operator", vec!["cache", "warm", url]),
        ("TransferLeader", "operator", vec!["raft", "transfer-leader"]),
        ("CreateToken", "admin", vec!["token", "create"]),
        ("RevokeToken", "admin", vec!["token", "revoke", "0123456789abcdef"]),
        ("IssueOperator", "admin", vec!["operator", "create", "eve", new_file]),
        ("RevokeOperator", "admin", vec!["operator", "revoke", "nobody"]),
        ("RemoveNode", "admin", vec!["node", "remove", "n9"]),
        ("RevokeNode", "admin", vec!["node", "revoke", "n9"]),
        ("SetVote", "admin", vec!["node", "demote", "n9"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_takes_a_role() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    let (site, new_file) = (cluster.dir().join("site.json"), cluster.dir().join("eve.json"));
    SiteFile::new().proxy("shop", &["127.0.0.1:9".to_owned()]).write(&site)?;
    let mut refused = 0_u32;
    for (rank, role) in ROLES.iter().enumerate() {
        let file = identity(&cluster, &format!("ada-{role}"), role).await?;
        for (call, least, verb) in calls(path_text(&site), path_text(&new_file)) {
            let output = run_as(&file, node, &verb).await?;
            let may = ROLES.iter().position(|role| *role == least).is_some_and(|least| least <= rank);
            let why =
                format!("\"ada-{role}\" has the role {role}, and this takes the role {least} (call {call})");
            if may {
                ensure!(!output.text().contains("has the role"), "{role} may {call}: {output:?}");
            } else {
                ensure!(output.stderr.contains(&why), "{role} {call}: {output:?}");
                output.expect(2)?;
                refused += 1;
            }
        }
        // Of its own accord nobody becomes more than he is.
        if *role != "admin" {
            ensure!(!new_file.exists(), "{role} has made an identity");
            let before = fs::read(&file)?;
            run_as(&file, node, &["operator", "renew", path_text(&file)]).await?.expect(2)?;
            ensure!(fs::read(&file)? == before, "{role} was renewed");
            refused += 1;
        }
    }
    ensure!(new_file.exists(), "the admin has made no identity");
    let counted = cluster.metric(0, "shoal_admin_refused_total", "").await?;
    ensure!(counted == f64::from(refused), "{counted} of {refused} refusals were counted");
    let told = node.log();
    ensure!(told.contains("an operator was refused") && told.contains("ada-viewer"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identities_end_and_keep_their_role() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    // As all were before there were roles.
    let first = node.data_dir().join("operator.json");
    run_as(&first, node, &["token", "create"]).await?.expect(0)?;
    let guest = identity(&cluster, "guest", "viewer").await?;
    run_as(&first, node, &["operator", "renew", path_text(&guest)]).await?.expect(0)?;
    let denied = run_as(&guest, node, &["token", "create"]).await?.expect(2)?;
    ensure!(denied.stderr.contains("\"guest\" has the role viewer"), "{denied:?}");
    run_as(&guest, node, &["status"]).await?.expect(0)?;
    run_as(&first, node, &["operator", "renew", path_text(&guest), "--ttl", "1s"]).await?.expect(0)?;
    let file = &guest;
    cluster
        .eventually("the identity has ended", async || {
            run_as(file, node, &["status"]).await.ok().filter(|output| output.code == 2)
        })
        .await?;
    let wrong = node.shoal(&["operator", "create", "eve", "x.json", "--role", "root"]).await?;
    ensure!(wrong.code != 0 && wrong.stderr.contains("viewer, operator, admin"), "{wrong:?}");
    Ok(())
}

/// Where the log has the key of the authority.
const SEALED_KEY: &[u8] = b"\"ca_key_sealed\":";

/// The authority of the cluster, as whoever takes the disk of a node apart finds it: in the first entry of its log, sealed with the
/// secret that lies beside it.
fn stolen_authority(data_dir: &Path) -> Result<Authority> {
    let disk = Bearer::from(&data_dir.join("identity/node.json"))?;
    let secret = ClusterSecret::from_bytes(&disk.part("secret")?).context("that is no secret")?;
    let (cluster, certificate) = (disk.cluster()?.parse()?, disk.part("ca")?);
    let log = fs::read(data_dir.join("raft.redb"))?;
    let unsealed = |at: usize| {
        let list = log[at..].strip_prefix(SEALED_KEY)?;
        let end = list.iter().position(|byte| *byte == b']')?;
        let sealed: Vec<u8> = serde_json::from_slice(&list[..=end]).ok()?;
        Authority::unseal(cluster, &certificate, &sealed, &secret).ok()
    };
    (0..log.len()).find_map(unsealed).context("the log does not have the authority's key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_key_of_the_authority_is_no_operator_and_no_node() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let given = identity(&cluster, "ada", "admin").await?;
    // What the cluster has given is good at once, and everywhere.
    for node in &cluster.nodes {
        run_as(&given, node, &["token", "list"]).await?.expect(0)?;
    }
    let (forger, forged) =
        (stolen_authority(&cluster.nodes[0].data_dir())?, cluster.dir().join("forged.json"));
    for name in ["ada", "eve"] {
        forger.issue_operator(name)?.save(&forged)?;
        for node in &cluster.nodes {
            for verb in [["token", "create"], ["operator", "list"]] {
                let refused = run_as(&forged, node, &verb).await?.expect(2)?;
                let why = format!("the identity of \"{name}\" is not on the list");
                ensure!(refused.stderr.contains(&why), "{refused:?}");
            }
        }
    }
    // Neither the node whose key everybody knows, nor one that nobody has heard of.
    let key = NodeKey::generate()?;
    let disk = Bearer::from(&cluster.nodes[0].data_dir().join("identity/node.json"))?;
    for id in [1, 1_000_000] {
        let certificate = forger.sign_node(&key.request()?, NodeId(id), NODE_VALIDITY)?;
        let forged = disk.showing(&certificate, key.key_der().secret_pkcs8_der());
        for node in &cluster.nodes {
            for method in ["Peer/Report", "Peer/ReadIndex", "Raft/FetchState", "Raft/AppendEntries"] {
                let method = format!("raft.v1.{}", method.replace('/', "Service/"));
                let mut connection = forged.connect(node.at(Ports::CLUSTER)).await?;
                let told = call(&mut connection, &method, &[]).await?;
                // It is a stranger, for whom there is a door and nothing else, or is not believed.
                ensure!(
                    ["12", "16"].contains(&&*told.status) && told.body.is_empty(),
                    "n{id}, {method}: {told:?}"
                );
            }
        }
    }
    Ok(())
}

/// What `audit` says on the `i`-th node, in the order in which it was done.
async fn record(cluster: &Cluster, i: usize) -> Result<Vec<Value>> {
    let answer = cluster.nodes[i].told(&["audit", "--limit", "500"]).await?;
    ensure!(answer["quorum"] == true, "{answer:#}");
    let mut records = answer["records"].as_array().cloned().unwrap_or_default();
    records.reverse();
    Ok(records)
}

/// What nodes have done of their own accord, and what somebody has asked for.
fn parted(records: Vec<Value>) -> (Vec<Value>, Vec<Value>) {
    records.into_iter().partition(|record| record["by"].as_str().is_some_and(|by| by.starts_with("node ")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_on_the_record_of_every_node() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let (ada, guest) =
        (identity(&cluster, "ada", "admin").await?, identity(&cluster, "guest", "viewer").await?);
    let file = cluster.dir().join("site.json");
    SiteFile::new().proxy("shop", &["127.0.0.1:9".to_owned()]).write(&file)?;
    let (site, second) = (path_text(&file), &cluster.nodes[1]);
    run_as(&ada, second, &["apply", "-f", site, "-m", "first"]).await?.expect(0)?;
    run_as(&ada, second, &["apply", "-f", site, "-m", "nothing new"]).await?.expect(0)?;
    let back = ["rollback", "--to-revision", "1"];
    run_as(&guest, second, &back).await?.expect(2)?;
    run_as(&ada, second, &[&back[..], &["--check-revision", "7"]].concat()).await?.expect(4)?;
    SiteFile::new().proxy("shop", &["127.0.0.1:8".to_owned()]).write(&file)?;
    run_as(&ada, second, &["apply", "-f", site]).await?.expect(0)?;
    cluster.nodes[2].shoal(&back).await?.expect(0)?;
    run_as(&ada, second, &["cache", "purge", "--tag", "red", "--url", "http://a/b"]).await?.expect(0)?;
    let token = cluster.nodes[0].shoal(&["token", "create", "--role", "purge"]).await?.expect(0)?;
    run_as(&ada, second, &["token", "revoke", token.stdout.trim()]).await?.expect(0)?;

    let told = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let (_, records) = parted(record(&cluster, 0).await?);
    let shown: Vec<_> = records
        .iter()
        .map(|record| ["by", "role", "node", "call", "outcome"].map(|name| told(record, name)).join(" "))
        .collect();
    // The others join while tokens are still being made.
    let begun = shown.iter().position(|line| line.contains(" Apply ")).context("nothing was applied")?;
    let (before, after) = shown.split_at(begun);
    let count = |begin: &str, end: &str| {
        before.iter().filter(|line| line.starts_with(begin) && line.contains(end)).count()
    };
    ensure!(count("local  n1 Bootstrap admitted as n1", "") == 1, "{shown:#?}");
    ensure!(count("local  n1 IssueOperator done", "") == 1, "{shown:#?}");
    ensure!(count("local admin n1 CreateToken done", "") == 2, "{shown:#?}");
    ensure!(count("local admin n1 IssueOperator done", "") == 2, "{shown:#?}");
    ensure!(count("token ", " node n1 Join admitted as n") == 2 && before.len() == 8, "{shown:#?}");
    let purged = after.iter().find(|line| line.contains(" Purge ")).context("nothing was purged")?;
    // The record is of the purge's own entry.
    let purge = records.iter().find(|record| record["call"] == "Purge").context("no purge")?;
    ensure!(*purged == format!("ada admin n2 Purge purge {}", purge["index"]), "{shown:#?}");
    let expected = [
        "ada admin n2 Apply revision 1",
        "ada admin n2 Apply revision 2",
        "local admin n3 Rollback revision 3",
        purged,
        "local admin n1 CreateToken done",
        "ada admin n2 RevokeToken done",
    ];
    ensure!(after == expected, "{shown:#?}");
    let of = |call: &str| records.iter().find(|record| record["call"] == call).cloned().unwrap_or_default();
    let (apply, rollback) = (of("Apply"), of("Rollback"));
    ensure!(told(&apply, "from").starts_with("127."), "{apply:#}");
    ensure!(told(&apply, "what").contains("first") && !told(&apply, "request_id").is_empty(), "{apply:#}");
    ensure!(told(&rollback, "from").starts_with("socket, uid "), "{rollback:#}");
    ensure!(told(purge, "what") == "tag \"red\", url \"http://a/b\"", "{purge:#}");
    ensure!(cluster.nodes[1].log().contains("an operator was refused"), "{}", cluster.nodes[1].log());

    // Equal on all, and still so after one has begun anew from its disk.
    cluster.nodes[2].kill9()?;
    cluster.restart(2)?;
    cluster.answers(2).await?;
    cluster.settle().await?;
    for i in [1, 2] {
        let (of_nodes, others) = parted(record(&cluster, i).await?);
        ensure!(others == records, "n{} has another record", i + 1);
        let (by, place) = (format!("node n{}", i + 1), cluster.nodes[i].at(Ports::CLUSTER));
        let said =
            of_nodes.iter().find(|record| record["call"] == "UpdateNode" && record["by"] == by.as_str());
        let said = said.with_context(|| format!("{by} has not said where it is: {of_nodes:#?}"))?;
        ensure!(told(said, "what").ends_with(&format!(" at {place}")), "{said:#}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_operator_leaves_room_for_others() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    let door = node.at(Ports::ADMIN);
    let ada = Bearer::from(&identity(&cluster, "ada", "viewer").await?)?;
    let watch = |connection: &Connection| {
        let request = Request::post("https://shoal.internal/shoal.admin.v1.AdminService/Watch")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(grpc_message(&[])).map_err(|never| match never {}).boxed());
        (connection.share(), request)
    };
    let connection = ada.connect(door).await?;
    let mut open = Vec::new();
    for n in 1..=9 {
        let (sender, request) = watch(&connection);
        let response = sender.context("HTTP/2 is shared")?.begin(request?).await?;
        let refused = response.headers().get("grpc-status").map(|status| status.to_str().map(str::to_owned));
        ensure!(
            refused.transpose()? == (n == 9).then(|| "8".to_owned()),
            "watch {n}: {:?}",
            response.headers()
        );
        open.push(response);
    }
    // Others follow, and local root does.
    let bob = Bearer::from(&identity(&cluster, "bob", "viewer").await?)?;
    let (sender, request) = watch(&bob.connect(door).await?);
    let response = sender.context("HTTP/2 is shared")?.begin(request?).await?;
    ensure!(!response.headers().contains_key("grpc-status"), "{:?}", response.headers());

    let mut connection = ada.connect(door).await?;
    let long = call(&mut connection, "admin.v1.AdminService/Status", &field(15, vec![0; 100 << 10])).await?;
    ensure!(long.status == "11" && long.message.contains("65536"), "{long:?}");
    let plan = call(&mut connection, "admin.v1.AdminService/Plan", &field(1, vec![b' '; 100 << 10])).await?;
    ensure!(plan.status == "3" && plan.message.contains("cannot be read"), "{plan:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_are_bounded_before_they_are_worked_out() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let door = cluster.nodes[0].at(Ports::ADMIN);
    let mut many = "{\"routes\":{".to_owned();
    (0..=100_000).for_each(|n| many.push_str(&format!("\"r{n}\":0,")));
    let (many, large) = (many.into_bytes(), vec![b' '; 9 << 20]);
    let as_a_viewer = "a message for Plan by somebody with the role viewer has at most 8388608 bytes";
    let too_many = "the site has more than 100000 objects (routes, upstreams and all others)";
    // What holds it is told before it is found out that the rest is wrong, too.
    for (role, site, status, why) in [
        ("viewer", &large, "11", as_a_viewer),
        ("operator", &large, "3", "the site cannot be read"),
        ("viewer", &many, "3", too_many),
        ("operator", &many, "3", too_many),
    ] {
        let name = format!("{role}{}", site.len());
        let who = Bearer::from(&identity(&cluster, &name, role).await?)?;
        let mut connection = who.connect(door).await?;
        let plan = call(&mut connection, "admin.v1.AdminService/Plan", &field(1, site.clone())).await?;
        ensure!(plan.status == status && plan.message.contains(why), "{role}: {plan:?}");
    }
    Ok(())
}
