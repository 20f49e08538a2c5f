//! A leader that hears nobody for a while takes them for dead. What it would do about that is void where a majority has gone on
//! without it: also when it is back in the middle of it.
//!
//! Two things see to that, each alone: who is followed by no majority does not look at a revision on trial, and what a leader
//! decides it writes itself, as the leader, or not at all. The first story is told of nodes as they are, which do not look;
//! the second of nodes that look all the same, by a mistake made on purpose: there the other thing has to do.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::{Channel, Cluster, Network, SiteFile, skip, stays_so, wait_until};
use serde_json::Value;

/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(60);
/// Who looks at a wave does so twice in that time, also where nobody answers: 2 s between two looks, 1.5 s for answers.
const TWO_LOOKS: Duration = Duration::from_secs(7);
/// Under which nodes that are started with it look whether they lead or not.
const UNLED_LOOKS: &str = "SHOAL_PLANT_UNLED_LOOKS";
/// What a node logs that would have a revision taken back, and has not written it.
const IN_VAIN: &str = "the cluster does not go back yet";
/// Why, where those that try it are dead or silent to it.
const UNWATCHED: &str = "it could not be watched to the end";

/// Somebody led a revision that does no harm through its first wave, was cut off, and has all others for dead.
struct CutOff {
    cluster: Cluster,
    /// Who has led.
    far: usize,
    /// Another one.
    near: usize,
    revision: Value,
}

impl CutOff {
    async fn of(cluster: Cluster, network: &Network) -> Result<Self> {
        let site = |port: u16| SiteFile::new().proxy("shop", &[format!("{}:{port}", Network::HERE)]);
        cluster.apply(0, &site(1)).await?;
        // Nothing goes on by itself while the story lasts. The leader has to miss somebody.
        let since = Instant::now();
        let far = cluster.apply_past_the_leader(&site(2), "5m").await?;
        let begun = since.elapsed();
        let near = (far + 1) % 3;
        let revision = cluster.nodes[near].told(&["rollout", "status"]).await?["rollout"]["revision"].clone();
        network.isolate(far)?;
        let led = wait_until("the others go on", MOMENT, async || {
            cluster.leader_seen_by(near).await.is_ok_and(|leader| leader != far)
        })
        .await?;
        let cut_off = Self { cluster, far, near, revision };
        let dead = wait_until("to the one that is cut off all others are dead", MOMENT, async || {
            cut_off.has_all_for_dead().await.unwrap_or(false)
        })
        .await?;
        eprintln!("a first wave after {begun:?}; another leader after {led:?}; all dead after {dead:?}");
        Ok(cut_off)
    }

    async fn has_all_for_dead(&self) -> Result<bool> {
        Ok(self.cluster.metric(self.far, "shoal_gossip_dead_members", "").await? == 2.0)
    }

    /// How often it would have had the revision taken back so far, for want of those that it hears not.
    fn in_vain(&self) -> usize {
        let log = self.cluster.nodes[self.far].log();
        log.lines().filter(|line| line.contains(IN_VAIN) && line.contains(UNWATCHED)).count()
    }

    async fn hears_the_others(&self) -> Result<()> {
        let heard = wait_until("it hears the others", MOMENT, async || {
            let seen = self.cluster.nodes[self.far].told(&["rollout", "status"]).await;
            seen.is_ok_and(|seen| seen["quorum"] == true)
        })
        .await?;
        eprintln!("it hears the others after {heard:?}");
        Ok(())
    }

    /// The revision is, as the others say.
    async fn is_on_its_way(&self) -> Result<bool> {
        let seen = self.cluster.nodes[self.near].told(&["rollout", "status"]).await?;
        Ok(seen["rollout"]["revision"] == self.revision)
    }

    /// Somebody has it brought to all, by way of the one that was cut off.
    async fn ends_well(&self) -> Result<()> {
        let [far, near] = [self.far, self.near].map(|node| &self.cluster.nodes[node]);
        let promoted = far.shoal(&["rollout", "promote", "--all"]).await?.expect(0)?;
        eprintln!("brought to all after {:?}", promoted.elapsed);
        let ended = near.told(&["rollout", "status"]).await?["ended"].clone();
        ensure!(ended["revision"] == self.revision && ended["reverted_by"] == 0, "{ended}");
        Ok(())
    }
}

#[test]
fn a_good_revision_stays_on_its_way() -> Result<()> {
    Network::around("a_good_revision_stays_on_its_way", async |mut network| {
        let cluster = Cluster::start_in(&mut network, 3, &[]).await?;
        let cut_off = CutOff::of(cluster, &network).await?;
        let decides_nothing = async || cut_off.in_vain() == 0;
        stays_so("it decides nothing while nobody follows it", Instant::now() + TWO_LOOKS, decides_nothing)
            .await?;
        network.rejoin(cut_off.far)?;
        cut_off.hears_the_others().await?;
        cut_off.ends_well().await?;
        ensure!(cut_off.in_vain() == 0, "it has decided what nobody followed");
        Ok(())
    })
}

#[test]
fn what_it_decides_all_the_same_is_not_written() -> Result<()> {
    let story = "what_it_decides_all_the_same_is_not_written";
    if std::env::var_os("SHOAL_BIN").is_some() || !cfg!(debug_assertions) {
        skip(story, "this build cannot be made to look where it does not lead");
        return Ok(());
    }
    Network::around(story, async |mut network| {
        let cluster = Cluster::start_planted_in(&mut network, 3, UNLED_LOOKS).await?;
        let cut_off = CutOff::of(cluster, &network).await?;
        wait_until("it would have the revision taken back", MOMENT, async || cut_off.in_vain() > 0).await?;
        // Another one leads it, which would write what it passes on, and all are dead to it as before.
        network.silence(cut_off.far, Channel::Gossip)?;
        network.rejoin(cut_off.far)?;
        cut_off.hears_the_others().await?;
        let before = cut_off.in_vain();
        // The first one may have been decided before.
        wait_until("it looks and decides again", MOMENT, async || {
            cut_off.in_vain() >= before + 2 || cut_off.is_on_its_way().await.is_ok_and(|is_so| !is_so)
        })
        .await?;
        ensure!(cut_off.is_on_its_way().await?, "what it had decided while it was cut off was written");
        ensure!(cut_off.has_all_for_dead().await?, "it hears the gossip of the others");
        network.let_speak(cut_off.far, Channel::Gossip)?;
        cut_off.ends_well().await
    })
}
