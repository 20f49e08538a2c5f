//! A change on trial takes itself back unless somebody confirms it, whoever is gone by then.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, Origin, Reply, SiteFile, VerbOutput, stays_so, wait_until};
use serde_json::Value;

/// A debug build on a shared machine elects slowly; revisions are in force everywhere a moment later.
const SLACK: Duration = Duration::from_secs(15);

/// Two sites that answer differently.
struct Sites {
    /// What stays; answers `old`.
    old: SiteFile,
    /// What is tried; answers `new`.
    new: SiteFile,
    _origins: [Origin; 2],
}

impl Sites {
    async fn start() -> Result<Self> {
        let origins =
            [Origin::start(|_| Reply::ok("old")).await?, Origin::start(|_| Reply::ok("new")).await?];
        let [old, new] = origins.each_ref().map(|origin| SiteFile::new().proxy("shop", &[origin.endpoint()]));
        Ok(Self { old, new, _origins: origins })
    }
}

/// Applies `site` through the `i`-th node, to be confirmed within this time.
async fn stage(cluster: &Cluster, i: usize, site: &SiteFile, within: &str) -> Result<VerbOutput> {
    stage_as(cluster, i, site, &["--confirm-timeout", within]).await
}

/// The same with these arguments.
async fn stage_as(cluster: &Cluster, i: usize, site: &SiteFile, how: &[&str]) -> Result<VerbOutput> {
    cluster.apply_as(i, site, &[&["-m", "try it"], how].concat()).await
}

/// Each revision that the `i`-th node knows of, newest first: `NUMBER STANDING MESSAGE`.
async fn history(cluster: &Cluster, i: usize) -> Result<Vec<String>> {
    let history = cluster.nodes[i].told(&["history"]).await?;
    let revisions = history["revisions"].as_array().context("no revisions")?;
    let text = |info: &Value, name: &str| info[name].as_str().unwrap_or_default().to_owned();
    let line = |info: &Value| {
        let number = info["revision"].as_u64().unwrap_or_default();
        format!("{number} {} {}", text(info, "standing"), text(info, "message")).trim_end().to_owned()
    };
    Ok(revisions.iter().map(line).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_confirms_and_the_leader_who_was_asked_is_killed() -> Result<()> {
    const WITHIN: Duration = Duration::from_secs(15);
    let mut cluster = Cluster::start(3).await?;
    let sites = Sites::start().await?;
    cluster.apply(0, &sites.old).await?;
    let leader = cluster.leader_seen_by(0).await?;
    let survivors: Vec<usize> = (0..3).filter(|&i| i != leader).collect();

    let asked = Instant::now();
    let staged = stage(&cluster, leader, &sites.new, "15s").await?.expect(0)?;
    let acknowledged = Instant::now();
    for told in ["applied on 3/3 nodes", "goes back to revision 1 in", "type: shoal confirm 2,"] {
        ensure!(staged.stdout.contains(told), "{told:?} is missing: {}", staged.stdout);
    }
    for i in 0..3 {
        ensure!(cluster.answers_with(i, "new").await, "n{} does not serve what was applied", i + 1);
    }
    let status = cluster.status(survivors[0]).await?;
    ensure!(status["rollout"]["revision"] == 2 && status["rollout"]["before"] == 1, "{status}");
    let left = status["rollout"]["left_ms"].as_u64().context("no time is told")?;
    ensure!((1..=WITHIN.as_millis() as u64).contains(&left), "{left} ms are left");
    let refused = cluster.try_apply(survivors[1], &SiteFile::new()).await?.expect(4)?;
    for told in
        ["revision 2 by ", "is not confirmed", "back to revision 1 in", "shoal confirm, or shoal abort"]
    {
        ensure!(refused.stderr.contains(told), "{told:?} is missing: {}", refused.stderr);
    }
    let lines = history(&cluster, survivors[0]).await?;
    ensure!(lines == ["2 unconfirmed try it", "1"], "{lines:?}");

    cluster.nodes[leader].kill9()?;
    for &i in &survivors {
        let left = (WITHIN + SLACK).saturating_sub(acknowledged.elapsed());
        wait_until("a survivor serves what was before", left, async || cluster.answers_with(i, "old").await)
            .await?;
    }
    ensure!(asked.elapsed() >= WITHIN, "it was taken back after {:?}", asked.elapsed());
    cluster.restart(leader)?;
    cluster.answers(leader).await?;
    for i in 0..3 {
        let what = "every node serves what was before, and knows why";
        wait_until(what, SLACK, async || {
            let is_told = history(&cluster, i).await.is_ok_and(|lines| {
                lines == ["3  revert of 2: not confirmed in time", "2 reverted try it", "1"]
            });
            is_told && cluster.answers_with(i, "old").await
        })
        .await?;
    }
    cluster.apply(survivors[0], &sites.new).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_says_what_becomes_of_it() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let Sites { old, new, _origins } = Sites::start().await?;
    cluster.apply(0, &old).await?;
    stage(&cluster, 0, &new, "4s").await?.expect(1)?;

    // Confirmed, it outlives its time.
    let asked = Instant::now();
    stage(&cluster, 0, &new, "15s").await?.expect(0)?;
    let shown = cluster.nodes[0].shoal(&["get"]).await?.expect(0)?;
    ensure!(shown.stderr.contains("revision 2 may be taken back"), "it looks final: {}", shown.text());
    let confirmed = cluster.nodes[0].shoal(&["confirm"]).await?.expect(0)?;
    ensure!(confirmed.stdout.starts_with("revision 2 is confirmed: it stays in force\n"), "{confirmed:?}");
    stays_so("what is confirmed is served", asked + Duration::from_secs(17), async || {
        cluster.answers_with(0, "new").await
    })
    .await?;
    ensure!(cluster.revision(0).await? == 2, "it was taken back");
    let shown = cluster.nodes[0].shoal(&["get"]).await?.expect(0)?;
    ensure!(shown.stderr.is_empty(), "it is final: {}", shown.text());
    let late = cluster.nodes[0].shoal(&["confirm", "2"]).await?.expect(4)?;
    ensure!(late.stderr.contains("has confirmed revision 2"), "{}", late.stderr);
    cluster.nodes[0].shoal(&["abort"]).await?.expect(4)?;

    // Aborted or rolled back, it goes at once.
    stage(&cluster, 0, &old, "1h").await?.expect(0)?;
    cluster.nodes[0].shoal(&["confirm", "2"]).await?.expect(4)?;
    cluster.nodes[0].shoal(&["abort", "3", "-m", "too slow"]).await?.expect(0)?;
    ensure!(cluster.answers_with(0, "new").await, "abort leaves it");
    stage(&cluster, 0, &old, "1h").await?.expect(0)?;
    cluster.nodes[0].shoal(&["rollback", "--to-revision", "2"]).await?.expect(0)?;
    ensure!(cluster.answers_with(0, "new").await, "rollback leaves it");
    let lines = history(&cluster, 0).await?;
    let expected = [
        "6  rollback to revision 2",
        "5 reverted try it",
        "4  revert of 3: aborted: too slow",
        "3 reverted try it",
        "2 confirmed try it",
        "1",
    ];
    ensure!(lines == expected, "{lines:?}");

    // The time goes on while nobody is there to count it.
    let asked = Instant::now();
    stage(&cluster, 0, &old, "8s").await?.expect(0)?;
    cluster.nodes[0].kill9()?;
    let its_end = asked + Duration::from_secs(8);
    stays_so("the node is not there", its_end, async || !cluster.nodes[0].runs()).await?;
    cluster.restart(0)?;
    cluster.answers(0).await?;
    let left = Duration::from_secs(6);
    wait_until("the restarted node goes back", left, async || cluster.answers_with(0, "new").await).await?;
    ensure!(cluster.revision(0).await? == 8, "by a revision of its own");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_nodes_try_it_before_the_others() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let Sites { old, new, _origins } = Sites::start().await?;
    cluster.apply(0, &old).await?;
    for everybody in ["node=n1,n2,n3", "region=default"] {
        stage_as(&cluster, 0, &new, &["--canary", everybody]).await?.expect(1)?;
    }
    for site in [&old, &new] {
        let unknown = stage_as(&cluster, 0, site, &["--canary", "node=n9"]).await?.expect(1)?;
        ensure!(unknown.stderr.contains("node \"n9\" is not there"), "{unknown:?}");
    }
    let staged = stage_as(&cluster, 0, &new, &["--canary", "node=n3"]).await?.expect(0)?;
    for told in ["applied on 1/1 nodes that try it", "served by n3 alone", "in 1h 0m", "shoal confirm 2"] {
        ensure!(staged.stdout.contains(told), "{told:?} is missing: {}", staged.stdout);
    }
    for (i, body) in ["old", "old", "new"].into_iter().enumerate() {
        ensure!(cluster.answers_with(i, body).await, "n{} does not answer {body}", i + 1);
    }
    let screen = cluster.nodes[0].shoal(&["status"]).await?.expect(0)?;
    ensure!(!screen.stdout.contains("n1 serves revision"), "that is no news: {}", screen.stdout);
    let confirmed = cluster.nodes[1].shoal(&["confirm"]).await?.expect(0)?;
    ensure!(confirmed.stdout.contains("applied on 3/3 nodes"), "{}", confirmed.stdout);
    for i in 0..3 {
        ensure!(cluster.answers_with(i, "new").await, "n{} does not serve what is confirmed", i + 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_fails_with_it_is_the_last_one_to_try_it() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let Sites { old, _origins, .. } = Sites::start().await?;
    cluster.apply(0, &old).await?;
    let broken = Origin::start(|_| Reply::ok("broken").status(500)).await?;
    let broken = SiteFile::new().proxy("shop", &[broken.endpoint()]);
    stage_as(&cluster, 0, &broken, &["--canary", "percent=1"]).await?.expect(0)?;

    let mut broken_on = [false; 3];
    wait_until("the revision is taken back", SLACK * 2, async || {
        for (i, is_broken) in broken_on.iter_mut().enumerate() {
            *is_broken |= cluster.answers_with(i, "broken").await;
        }
        history(&cluster, 0).await.is_ok_and(|lines| lines.len() == 3)
    })
    .await?;
    ensure!(broken_on.iter().filter(|is_broken| **is_broken).count() == 1, "on {broken_on:?}");
    let lines = history(&cluster, 0).await?;
    let message = "3  revert of 2: worse than what was before: 100.0 % of ";
    ensure!(lines[0].starts_with(message) && lines[0].contains("0.0 % of "), "{lines:?}");
    for i in 0..3 {
        wait_until("everybody serves what was before", SLACK, async || cluster.answers_with(i, "old").await)
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_tries_it_and_dies_of_it() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let Sites { old, new, _origins } = Sites::start().await?;
    cluster.apply(0, &old).await?;
    let leader = cluster.leader_seen_by(0).await?;
    let canary = format!("node={}", cluster.nodes[leader].name);
    stage_as(&cluster, (leader + 1) % 3, &new, &["--canary", &canary]).await?.expect(0)?;
    cluster.nodes[leader].kill9()?;

    let survivors: Vec<usize> = (0..3).filter(|&i| i != leader).collect();
    let lost = format!("n{} was lost while it tried it", leader + 1);
    let reason = format!("3  revert of 2: it could not be watched to the end: {lost}");
    wait_until("the next leader takes it back", SLACK * 2, async || {
        for &i in &survivors {
            assert!(cluster.answers_with(i, "old").await, "n{} was to be spared", i + 1);
        }
        history(&cluster, survivors[0]).await.is_ok_and(|lines| lines.first() == Some(&reason))
    })
    .await?;
    cluster.restart(leader)?;
    let what = "the node comes back with what was before";
    wait_until(what, SLACK * 2, async || cluster.answers_with(leader, "old").await).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_left_alone_goes_back_alone() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let Sites { old, new, _origins } = Sites::start().await?;
    cluster.apply(0, &old).await?;
    let asked = Instant::now();
    stage(&cluster, 0, &new, "8s").await?.expect(0)?;
    cluster.nodes[0].kill9()?;
    cluster.nodes[1].kill9()?;
    wait_until("without a quorum it goes back", SLACK * 2, async || cluster.answers_with(2, "old").await)
        .await?;
    ensure!(asked.elapsed() >= Duration::from_secs(8), "after {:?}", asked.elapsed());
    wait_until("it says why", SLACK, async || {
        cluster.readyz(2).await.is_ok_and(|(_, told)| told.contains("2: nobody has confirmed it in time"))
    })
    .await?;
    for i in 0..2 {
        cluster.restart(i)?;
    }
    for i in 0..3 {
        let what = "the cluster agrees on what the node has found by itself";
        wait_until(what, SLACK * 2, async || {
            let is_told = history(&cluster, i).await.is_ok_and(|lines| lines.len() == 3);
            is_told && cluster.answers_with(i, "old").await
        })
        .await?;
    }
    wait_until("nothing is refused any more", SLACK, async || {
        cluster.readyz(2).await.is_ok_and(|(_, told)| !told.contains("refused"))
    })
    .await
    .map(drop)
}
