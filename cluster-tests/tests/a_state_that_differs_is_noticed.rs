//! The same log leads every node to the same state, unless something is broken: whose state is another notices it by itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, NodeProcess, wait_until};

/// States are compared every 10 s at most, and what others say of theirs takes a second or two.
const DEADLINE: Duration = Duration::from_secs(90);

/// How many tokens for seven nodes a node knows of.
async fn tokens(node: &NodeProcess) -> Option<usize> {
    let listed = node.told(&["token", "list"]).await.ok()?;
    Some(listed["tokens"].as_array()?.iter().filter(|token| token["uses_left"] == 7).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_over_what_the_others_have() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.nodes[2].kill9()?;
    cluster.nodes[2].set_environment("SHOAL_PLANT_DIVERGENCE", "1");
    cluster.restart(2)?;
    cluster.answers(2).await?;
    cluster.settle().await?;
    let mended = "is that of the others again";

    // It forgets what all have agreed on.
    cluster.nodes[0].shoal(&["token", "create", "--uses", "7"]).await?.expect(0)?;
    for i in 0..2 {
        ensure!(tokens(&cluster.nodes[i]).await == Some(1), "n{} does not know the token", i + 1);
    }
    wait_until("it notices, and takes over the state of the leader", DEADLINE, async || {
        cluster.nodes[2].log().contains(mended)
    })
    .await?;
    ensure!(tokens(&cluster.nodes[2]).await == Some(1), "n3 still knows of no token");
    let text = cluster.nodes[2].log();
    ensure!(text.contains("is another than that of 2 others after entry"), "{text}");
    let found = |i| cluster.metric(i, "shoal_raft_state_differences_total", "");
    ensure!([found(0).await?, found(1).await?, found(2).await?] == [0.0, 0.0, 1.0], "only n3 differs");
    ensure!(cluster.metric(2, "shoal_raft_state_differs", "").await? == 0.0, "it does not any more");

    // What is on its disk is right as well.
    cluster.nodes[2].kill9()?;
    cluster.restart(2)?;
    cluster.answers(2).await?;
    cluster.settle().await?;
    ensure!(tokens(&cluster.nodes[2]).await == Some(1), "n3 has forgotten the token again");

    // The leader is not right because it leads: it lets another one lead, and asks that.
    for name in ["n1", "n2"] {
        cluster.nodes[0].shoal(&["node", "cordon", name]).await?.expect(0)?;
    }
    wait_until("the only one in service leads", DEADLINE, async || {
        cluster.leader_seen_by(0).await.is_ok_and(|leader| leader == 2)
    })
    .await?;
    for name in ["n1", "n2"] {
        cluster.nodes[0].shoal(&["node", "uncordon", name]).await?.expect(0)?;
    }
    cluster.nodes[2].shoal(&["token", "create", "--uses", "7"]).await?.expect(0)?;
    wait_until("it notices again", DEADLINE, async || cluster.nodes[2].log().matches(mended).count() > 1)
        .await?;
    ensure!(tokens(&cluster.nodes[2]).await == Some(2), "n3 does not know both tokens");
    let all = [tokens(&cluster.nodes[0]).await, tokens(&cluster.nodes[1]).await];
    ensure!(all == [Some(2), Some(2)], "nobody has forgotten anything: {all:?}");
    let leader = cluster.leader_seen_by(0).await.context("somebody leads")?;
    ensure!(leader != 2, "n3 has let another one lead");
    Ok(())
}
