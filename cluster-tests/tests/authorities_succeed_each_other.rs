//! The authority that signs the cluster's certificates is replaced by another one under load: nobody loses a request, who was
//! away finds back, and what operators and machines have in their hands is good until the old one is retired.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Bearer, Cluster, Load, NodeProcess, Origin, Ports, SiteFile, Verb, VerbOutput, call, pattern, wait_until,
};
use serde_json::Value;

/// For certificates to be replaced on every node.
const DEADLINE: Duration = Duration::from_secs(90);

async fn keys(cluster: &Cluster, i: usize) -> Result<Value> {
    cluster.nodes[i].told(&["cluster", "keys"]).await
}

/// A verb with an identity file, over TLS.
async fn from_afar(node: &NodeProcess, identity: &str, verb: &[&str]) -> Result<VerbOutput> {
    let address = node.at(Ports::ADMIN).to_string();
    Verb::from_afar(&[&["--addr", &address, "--identity", identity], verb].concat()).run().await
}

/// Every node shows what the authority that signs has signed.
async fn all_are_by_the_new_one(cluster: &Cluster, i: usize) -> Result<()> {
    wait_until("all certificates are by the new authority", DEADLINE, async || {
        let Ok(keys) = keys(cluster, i).await else { return false };
        let mut nodes = keys["nodes"].as_array().into_iter().flatten();
        keys["has_switched"] == true && nodes.all(|node| node["authority_sha256"] == keys["authority_sha256"])
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_succeed_each_other() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let origin = Origin::of_patterns(200, "no-store").await?;
    let site = |round: usize| SiteFile::new().proxy(&format!("shop-{round}"), &[origin.endpoint()]);
    cluster.apply(0, &site(0)).await?;
    cluster.serves("shop.example.com", "/").await?;
    // Certificates of a minute, so that all are replaced within seconds.
    cluster.nodes[0].shoal(&["cluster", "node-life", "1m", "--force"]).await?.expect(0)?;
    let text =
        |path: &std::path::Path| path.to_str().map(str::to_owned).context("the directory is not UTF-8");
    let operator = text(&cluster.nodes[0].data_dir().join("operator.json"))?;
    let token = cluster.token().await?;
    let before = keys(&cluster, 0).await?["authority_sha256"].clone();
    ensure!(before.as_str().is_some_and(|sha256| token.contains(sha256)), "{before} is not in the token");

    cluster.nodes[2].kill9()?;
    let targets: Vec<_> = cluster.nodes[..2].iter().map(|node| node.at(Ports::HTTP)).collect();
    let paths = (0..50).map(|i| format!("/p{i}")).collect();
    let load = Load::start(&targets, 1, "shop.example.com", paths, |path| Some(pattern(path, 200)));
    let rotated =
        cluster.nodes[1].shoal(&["cluster", "rotate", "ca", "--timeout", "60s"]).await?.expect(0)?;
    ensure!(
        rotated.stdout.contains("still with certificates of it: nodes: n3; operators: admin"),
        "{rotated:?}"
    );
    let after = keys(&cluster, 0).await?;
    ensure!(after["authority_sha256"] != before && after["other_authority_sha256"] == before, "{after:#}");

    // Nobody forgets it.
    let screen = cluster.nodes[0].shoal(&["status"]).await?.expect(0)?;
    ensure!(screen.stdout.contains("once nobody needs it: shoal cluster rotate ca --retire"), "{screen:?}");

    // What is in the hands of others is good still, and whoever would be shut out is named.
    for node in &cluster.nodes[..2] {
        from_afar(node, &operator, &["status"]).await?.expect(0)?;
    }
    let refused = cluster.nodes[0].shoal(&["cluster", "rotate", "ca", "--retire"]).await?.expect(1)?;
    for told in ["nodes: n3", "operators: admin", "or give --force", "try: shoal cluster keys"] {
        ensure!(refused.stderr.contains(told), "{told:?} is missing: {refused:?}");
    }
    cluster.nodes[0].shoal(&["cluster", "rotate", "ca", "--abort"]).await?.expect(1)?;
    cluster.restart(2)?;
    cluster.answers(2).await?;
    let dir = cluster.dir().join("n4");
    let mut node = NodeProcess::new("n4", cluster.block().ip(14), &dir, &["--drain-delay", "0s"]);
    node.start(Some((cluster.nodes[0].at(Ports::CLUSTER), &token)))?;
    cluster.nodes.push(node);
    cluster.answers(3).await?;
    cluster.settle().await?;
    all_are_by_the_new_one(&cluster, 3).await?;

    let old = text(&cluster.dir().join("old.json"))?;
    fs::copy(&operator, &old)?;
    from_afar(&cluster.nodes[1], &operator, &["operator", "renew", &operator]).await?.expect(0)?;
    for node in &cluster.nodes {
        from_afar(node, &old, &["status"]).await?.expect(0)?;
        from_afar(node, &operator, &["status"]).await?.expect(0)?;
    }

    // The old one retires: who has kept what it has signed is refused, everybody else goes on.
    cluster.nodes[2].shoal(&["cluster", "rotate", "ca", "--retire"]).await?.expect(0)?;
    for i in 0..4 {
        wait_until("what the old one has signed is refused", DEADLINE, async || {
            let refused = from_afar(&cluster.nodes[i], &old, &["status"]).await;
            refused
                .is_ok_and(|output| output.code != 0 && output.stderr.contains("shoal operator renew FILE"))
        })
        .await?;
        from_afar(&cluster.nodes[i], &operator, &["status"]).await?.expect(0)?;
    }
    let listed = cluster.nodes[0].told(&["operator", "list"]).await?["operators"].clone();
    ensure!(listed.as_array().map(Vec::len) == Some(1), "what the old one has signed is listed: {listed}");
    cluster.apply(3, &site(1)).await?;
    for target in load.finish().await.targets {
        let faults = target.wrong() + target.connection_errors();
        ensure!(faults == 0, "{faults}: {}", target.faults());
    }
    // It is started as it was when it joined, with a token that names the old one.
    cluster.nodes[3].kill9()?;
    let door = cluster.nodes[0].at(Ports::CLUSTER);
    cluster.nodes[3].start(Some((door, &token)))?;
    cluster.answers(3).await?;
    cluster.settle().await?;
    let token = cluster.token().await?;
    let named = keys(&cluster, 0).await?["authority_sha256"].clone();
    ensure!(named.as_str().is_some_and(|sha256| token.contains(sha256)), "{named} is not in the token");
    for node in &cluster.nodes {
        ensure!(!node.log().contains("panicked"), "{}", node.log());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_until_the_old_one_had_retired_is_told_how_to_get_back() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let origin = Origin::of_patterns(200, "no-store").await?;
    let site = |round: usize| SiteFile::new().proxy(&format!("shop-{round}"), &[origin.endpoint()]);
    cluster.apply(0, &site(0)).await?;
    cluster.serves("shop.example.com", "/").await?;
    let before = cluster.token().await?;
    // Somebody has copied a disk, and holds on to what is open.
    let doors = [
        ("identity/node.json", Ports::CLUSTER, "raft.v1.PeerService/Report"),
        ("operator.json", Ports::ADMIN, "admin.v1.AdminService/Status"),
    ];
    let mut open = Vec::new();
    for (file, port, method) in doors {
        let thief = Bearer::from(&cluster.nodes[0].data_dir().join(file))?;
        let mut connection = thief.connect(cluster.nodes[1].at(port)).await?;
        ensure!(call(&mut connection, method, &[]).await?.status == "0", "{file} is not answered");
        open.push((connection, method));
    }
    cluster.nodes[2].kill9()?;
    cluster.nodes[0].shoal(&["cluster", "rotate", "ca", "--timeout", "60s"]).await?.expect(0)?;
    for (connection, method) in &mut open {
        ensure!(call(connection, method, &[]).await?.status == "0", "{method} ends before its time");
    }
    let refused = cluster.nodes[0].shoal(&["cluster", "rotate", "ca", "--retire"]).await?.expect(1)?;
    ensure!(refused.stderr.contains("gets back with `--join` and a new `--token`"), "{refused:?}");
    cluster.nodes[0].shoal(&["cluster", "rotate", "ca", "--retire", "--force"]).await?.expect(0)?;
    for (connection, method) in &mut open {
        ensure!(call(connection, method, &[]).await.is_err(), "{method} goes on by what has retired");
    }
    cluster.apply(0, &site(1)).await?;

    // It serves what it had last, and says what is wrong where an operator looks.
    cluster.restart(2)?;
    cluster.answers(2).await?;
    wait_until("it says how it gets back", DEADLINE, async || {
        let status = cluster.nodes[2].shoal(&["status"]).await;
        status.is_ok_and(|status| {
            let said = status.stdout + &status.stderr;
            said.contains("an authority that this node does not know") && said.contains("a new `--token`")
        })
    })
    .await?;
    ensure!(cluster.nodes[2].log().contains("an authority that this node does not know"));

    // A token of before is no proof of anything that is so now.
    let door = cluster.nodes[0].at(Ports::CLUSTER);
    cluster.nodes[2].kill9()?;
    cluster.nodes[2].start(Some((door, &before)))?;
    cluster.answers(2).await?;
    ensure!(!cluster.nodes[2].log().contains("has found back"), "{}", cluster.nodes[2].log());
    cluster.nodes[2].kill9()?;
    let token = cluster.token().await?;
    cluster.nodes[2].start(Some((door, &token)))?;
    cluster.answers(2).await?;
    cluster.settle().await?;
    let keys = keys(&cluster, 2).await?;
    let nodes = keys["nodes"].as_array().context("no nodes")?;
    ensure!(nodes.len() == 3, "it is the node that it was: {keys:#}");
    ensure!(nodes.iter().all(|node| node["authority_sha256"] == keys["authority_sha256"]), "{keys:#}");
    cluster.apply(2, &site(2)).await?;
    for node in &cluster.nodes {
        ensure!(!node.log().contains("panicked"), "{}", node.log());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_died_in_the_middle_of_it_is_told_how_to_get_back() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let identity = cluster.nodes[2].data_dir().join("identity/node.json");
    let before = fs::read(&identity)?;
    cluster.nodes[0].shoal(&["cluster", "rotate", "ca", "--timeout", "60s"]).await?.expect(0)?;
    // Its log tells of the new authority, and its disk has not got a certificate of it.
    cluster.nodes[2].kill9()?;
    fs::write(&identity, before)?;
    let retire = ["cluster", "rotate", "ca", "--retire", "--force", "--timeout", "60s"];
    cluster.nodes[0].shoal(&retire).await?.expect(0)?;
    cluster.restart(2)?;
    cluster.answers(2).await?;
    let says = async |i: usize, parts: [&str; 2]| {
        wait_until(parts[0], DEADLINE, async || {
            let status = cluster.nodes[i].shoal(&["status"]).await;
            status.is_ok_and(|status| {
                let said = status.stdout + &status.stderr;
                parts.iter().all(|part| said.contains(part))
            })
        })
        .await
    };
    says(2, ["do not believe the authority of this node's certificate any more", "a new `--token`"]).await?;
    says(0, ["n3: is heard, but cannot be called: its certificate is of an authority", "a new `--token`"])
        .await?;
    ensure!(cluster.nodes[2].log().contains("do not believe the authority of this node's certificate"));

    cluster.nodes[2].kill9()?;
    let token = cluster.token().await?;
    let door = cluster.nodes[0].at(Ports::CLUSTER);
    cluster.nodes[2].start(Some((door, &token)))?;
    cluster.answers(2).await?;
    cluster.settle().await?;
    ensure!(cluster.nodes[2].log().contains("has found back"), "{}", cluster.nodes[2].log());
    let keys = keys(&cluster, 2).await?;
    let nodes = keys["nodes"].as_array().context("no nodes")?;
    ensure!(nodes.len() == 3, "it is the node that it was: {keys:#}");
    ensure!(nodes.iter().all(|node| node["authority_sha256"] == keys["authority_sha256"]), "{keys:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leader_goes_on_with_a_succession() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.nodes[0].shoal(&["cluster", "node-life", "1m", "--force"]).await?.expect(0)?;
    let leader = cluster.leader_seen_by(0).await?;
    let other = (leader + 1) % 3;
    let begun = cluster.nodes[other].verb(&["cluster", "rotate", "ca", "--timeout", "1s"]);
    let begun = tokio::spawn(begun.run());
    wait_until("it has begun", DEADLINE, async || {
        keys(&cluster, other).await.is_ok_and(|keys| keys["other_authority_sha256"] != "")
    })
    .await?;
    cluster.nodes[leader].kill9()?;
    let told = begun.await??;
    ensure!([0, 2, 5, 6].contains(&told.code), "{told:?}");
    wait_until("another one leads", DEADLINE, async || {
        cluster.leader_seen_by(other).await.is_ok_and(|new| new != leader)
    })
    .await?;
    // It does not wait for the one that is gone, which finds the new one believed and signing when it is back.
    wait_until("the new authority signs", DEADLINE, async || {
        keys(&cluster, other).await.is_ok_and(|keys| keys["has_switched"] == true)
    })
    .await?;
    cluster.restart(leader)?;
    cluster.answers(leader).await?;
    cluster.settle().await?;
    all_are_by_the_new_one(&cluster, other).await?;
    cluster.nodes[other].shoal(&["cluster", "rotate", "ca", "--retire", "--force"]).await?.expect(0)?;
    cluster.settle().await
}
