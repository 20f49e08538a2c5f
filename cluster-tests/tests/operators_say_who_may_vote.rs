//! Operators say which nodes may vote: who may not follows the log and decides nothing, however few vote, and somebody always
//! may.

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, NodeProcess, Ports};
use serde_json::Value;

/// Exactly these vote, the first node says.
async fn vote(cluster: &Cluster, expected: [&str; 3]) -> Result<()> {
    cluster
        .eventually(&format!("{expected:?} vote"), async || {
            let status = cluster.status(0).await.ok()?;
            let votes = |node: &&Value| node["role"] == "leader" || node["role"] == "voter";
            let voting = status["nodes"].as_array()?.iter().filter(votes);
            let names: Vec<&str> = voting.filter_map(|node| node["node"].as_str()).collect();
            (names == expected).then_some(())
        })
        .await
}

/// Who leads, having been let vote.
async fn leader(cluster: &Cluster) -> Result<usize> {
    cluster
        .eventually("somebody leads who may vote", async || {
            let status = cluster.status(0).await.ok()?;
            let leads = |node: &&Value| node["role"] == "leader" && node["may_vote"] == true;
            let name = status["nodes"].as_array()?.iter().find(leads)?["node"].as_str()?;
            cluster.place_of(name).ok()
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_vote_does_not() -> Result<()> {
    let mut cluster = Cluster::start(2).await?;
    for number in [3, 4] {
        let name = format!("n{number}");
        let node = NodeProcess::new(&name, cluster.block().ip(10 + number), &cluster.dir().join(&name), &[]);
        cluster.nodes.push(node);
    }
    let token = cluster.nodes[0].shoal(&["token", "create", "--role", "learner"]).await?.expect(0)?;
    let door = cluster.nodes[0].at(Ports::CLUSTER);
    cluster.nodes[2].start(Some((door, token.stdout.trim())))?;
    cluster.answers(2).await?;
    cluster
        .eventually("the third node is a learner", async || {
            let node = cluster.node_seen_by(0, "n3").await.ok()?;
            (node["role"] == "learner" && node["may_vote"] == false).then_some(())
        })
        .await?;
    let listed = cluster.nodes[0].shoal(&["node", "list"]).await?.expect(0)?;
    ensure!(listed.stdout.contains("learner, may not vote"), "{listed:?}");

    // Two votes were free, and the fourth gets one that came last.
    cluster.let_join(3).await?;
    vote(&cluster, ["n1", "n2", "n4"]).await?;

    let own = cluster.nodes[2].shoal(&["node", "promote", "n3"]).await?.expect(1)?;
    ensure!(own.stderr.contains("ask another one"), "{own:?}");
    cluster.nodes[0].shoal(&["node", "promote", "n3"]).await?.expect(0)?;
    let demoted = cluster.nodes[0].shoal(&["node", "demote", "n4"]).await?.expect(0)?;
    ensure!(demoted.stdout.contains("may not vote from now on"), "{demoted:?}");
    vote(&cluster, ["n1", "n2", "n3"]).await?;

    // Who leads gives way, and the last one does not.
    for _ in 0..2 {
        let leader = leader(&cluster).await?;
        let name = cluster.nodes[leader].name.clone();
        cluster.nodes[(leader + 1) % 4].shoal(&["node", "demote", &name]).await?.expect(0)?;
    }
    let last = cluster.nodes[leader(&cluster).await?].name.clone();
    let kept = cluster.nodes[3].shoal(&["node", "demote", &last]).await?.expect(1)?;
    ensure!(kept.stderr.contains("no other node is heard that may vote"), "{kept:?}");
    let record = cluster.nodes[3].told(&["audit"]).await?.to_string();
    ensure!(record.contains("SetVote") && record.contains(" may not vote"), "{record}");
    Ok(())
}
