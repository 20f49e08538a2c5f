//! A leader that hears nobody for a while takes them for dead. What it would do about that is void where a majority has gone on
//! without it: also when it is back in the middle of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, Network, SiteFile, wait_until};

/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(60);

#[test]
fn a_good_revision_stays_on_its_way() -> Result<()> {
    Network::around("a_good_revision_stays_on_its_way", async |mut network| {
        let cluster = Cluster::start_in(&mut network, 3, &[]).await?;
        let site = |port: u16| SiteFile::new().proxy("shop", &[format!("{}:{port}", Network::HERE)]);
        cluster.apply(0, &site(1)).await?;
        // Nothing goes on by itself while the story lasts. The leader has to miss somebody.
        let far = cluster.apply_past_the_leader(&site(2), "5m").await?;
        let near = (far + 1) % 3;
        let revision = cluster.nodes[near].told(&["rollout", "status"]).await?["rollout"]["revision"].clone();
        network.isolate(far)?;
        wait_until("the others go on", MOMENT, async || {
            cluster.leader_seen_by(near).await.is_ok_and(|leader| leader != far)
        })
        .await?;
        wait_until("to the one that is cut off all others are dead", MOMENT, async || {
            cluster.metric(far, "shoal_gossip_dead_members", "").await.is_ok_and(|dead| dead == 2.0)
        })
        .await?;
        let looked = cluster.nodes[far].log().lines().count();
        network.rejoin(far)?;
        wait_until("it hears the others", MOMENT, async || {
            let seen = cluster.nodes[far].told(&["rollout", "status"]).await;
            seen.is_ok_and(|seen| seen["quorum"] == true)
        })
        .await?;
        let since = cluster.nodes[far].log().lines().skip(looked).collect::<Vec<_>>().join("\n");
        let promoted = cluster.nodes[far].shoal(&["rollout", "promote", "--all"]).await?;
        promoted.expect(0).with_context(|| since)?;
        let ended = cluster.nodes[near].told(&["rollout", "status"]).await?["ended"].clone();
        ensure!(ended["revision"] == revision && ended["reverted_by"] == 0, "{ended}");
        Ok(())
    })
}
