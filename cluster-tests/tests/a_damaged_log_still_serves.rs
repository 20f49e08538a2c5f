//! A node whose log is damaged on disk: it serves what it served last, says what is wrong and what to do, and decides
//! nothing; put right again, it takes part as before.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, HOST, Origin, SiteFile, wait_until};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_still_serves() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(700, "no-store").await?;
    let site = SiteFile::new().proxy("shop", &[origin.endpoint()]);
    cluster.put_in_force(&site).await?;

    // A node that is not the leader: the others stay a quorum either way, but sooner.
    let leader = cluster.leader_seen_by(0).await?;
    let sick = (leader + 1) % 3;
    let other = (leader + 2) % 3;
    cluster.nodes[sick].term()?;
    ensure!(cluster.nodes[sick].ended(Duration::from_secs(60)).await?.success(), "it did not end well");
    let path = cluster.nodes[sick].data_dir().join("raft.redb");
    let whole = fs::read(&path)?;

    for damage in [Damage::Overwritten, Damage::Lost] {
        damage.be_done_to(&path, &whole)?;
        cluster.restart(sick)?;
        serves_and_says_why(&mut cluster, sick, &path).await?;
        the_others_go_on(&cluster, leader, other, &site, damage).await?;
        cluster.nodes[sick].kill9()?;
        ensure!(damage.is_still_in(&path)?, "the damaged file was touched");
    }

    // What was put back is what it was: an old log of this very node, which catches up.
    fs::write(&path, &whole)?;
    cluster.restart(sick)?;
    let revision = cluster.revision(other).await?;
    wait_until("the repaired node has what was changed meanwhile", Duration::from_secs(60), async || {
        let text = cluster.readyz(sick).await.map(|(_, text)| text).unwrap_or_default();
        text.contains("quorum: yes") && cluster.revision(sick).await.is_ok_and(|seen| seen == revision)
    })
    .await?;
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A bad sector, as it were.
    Overwritten,
    /// The file is gone.
    Lost,
}

impl Damage {
    fn be_done_to(self, path: &Path, whole: &[u8]) -> Result<()> {
        match self {
            Self::Overwritten => fs::write(path, Self::overwritten(whole))?,
            Self::Lost => fs::remove_file(path)?,
        }
        Ok(())
    }

    fn is_still_in(self, path: &PathBuf) -> Result<bool> {
        Ok(match self {
            Self::Overwritten => fs::read(path)?.starts_with(&[0xa5; 4096]),
            Self::Lost => !path.exists(),
        })
    }

    fn overwritten(whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        let end = bytes.len().min(64 << 10);
        bytes[..end].fill(0xa5);
        bytes
    }
}

async fn serves_and_says_why(cluster: &mut Cluster, sick: usize, path: &Path) -> Result<()> {
    cluster.answers(sick).await?;
    let node = &cluster.nodes[sick];
    cluster.node_serves(sick, HOST, "/sick").await?;
    let path = path.display().to_string();
    let says_it = |text: &str| text.contains(&path) && text.contains("away and join");

    wait_until("the node is ready, and /readyz says what is wrong", Duration::from_secs(30), async || {
        cluster.readyz(sick).await.is_ok_and(|(status, text)| status == 200 && says_it(&text))
    })
    .await?;
    ensure!(says_it(&node.log()), "the log does not say it");
    ensure!(cluster.metric(sick, "shoal_raft_broken", "").await? == 1.0, "the metric does not say it");
    let screen = node.shoal(&["status"]).await?.expect(0)?;
    ensure!(says_it(&screen.stdout), "status does not say it: {}", screen.text());

    // What only the log could tell or take is refused with the reason.
    for verb in [&["history"][..], &["token", "create"]] {
        let refused = node.shoal(verb).await?.expect(2)?;
        ensure!(refused.text().contains(&path), "{verb:?} does not say why: {}", refused.text());
    }
    Ok(())
}

/// The cluster decides without the sick node, and is told that it does not follow.
async fn the_others_go_on(
    cluster: &Cluster,
    leader: usize,
    other: usize,
    site: &SiteFile,
    damage: Damage,
) -> Result<()> {
    let upstream = json!({ "endpoints": ["127.0.0.1:9"] });
    let changed = site.clone().upstream(&format!("{damage:?}").to_lowercase(), upstream);
    let before = cluster.revision(leader).await?;
    let applied = cluster.try_apply(leader, &changed).await?;
    ensure!(applied.code == 5 || applied.code == 0, "apply: {}", applied.text());
    for node in [leader, other] {
        wait_until("both others have the change", Duration::from_secs(30), async || {
            cluster.revision(node).await.is_ok_and(|revision| revision == before + 1)
        })
        .await?;
    }
    Ok(())
}
