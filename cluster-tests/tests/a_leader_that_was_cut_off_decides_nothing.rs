//! A leader that hears nobody for a while takes them for dead. What it would do about that is void where a majority has gone on
//! without it: also when it is back in the middle of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, Network, SiteFile, path_text, wait_until, wait_until_some};

/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(60);

#[test]
fn a_good_revision_stays_on_its_way() -> Result<()> {
    Network::around("a_good_revision_stays_on_its_way", async |mut network| {
        let cluster = Cluster::start_in(&mut network, 3, &[]).await?;
        let site = |port: u16| SiteFile::new().proxy("shop", &[format!("{}:{port}", Network::HERE)]);
        cluster.apply(0, &site(1)).await?;
        let file = cluster.dir().join("next.json");
        site(2).write(&file)?;
        let apply = ["apply", "--prune", "-f", path_text(&file), "--waves", "--bake", "5m"];
        // Nothing goes on by itself while the story lasts. Who goes first changes with the revision: until it is not the
        // leader, which has to miss somebody.
        let far = wait_until_some("a first wave without the leader", MOMENT, async || {
            cluster.nodes[0].shoal(&apply).await.ok()?.expect(0).ok()?;
            let leader = cluster.leader_seen_by(0).await.ok()?;
            if !cluster.tried_by(0).await.ok()?.contains(&cluster.nodes[leader].name) {
                return Some(leader);
            }
            cluster.nodes[0].shoal(&["rollout", "abort"]).await.ok();
            None
        })
        .await?;
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
