//! A revision that comes in waves goes on where it does well, and harms nobody but its wave where it does not.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Cluster, HOST, Load, Origin, Ports, Reply, SiteFile, fetch, path_text, wait_until, wait_until_some,
};
use serde_json::{Value, json};

/// A debug build on a shared machine elects slowly; waves follow a moment later.
const SLACK: Duration = Duration::from_secs(60);

/// A site that answers with `body`, and `500` to each `fails`-th request; 0 = to none.
async fn site(body: &'static str, fails: u64) -> Result<(Origin, SiteFile)> {
    let asked = AtomicU64::new(0);
    let origin = Origin::start(move |_| {
        let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
        let is_bad = fails > 0 && number.is_multiple_of(fails);
        Reply::ok(body).status(if is_bad { 500 } else { 200 })
    })
    .await?;
    let file = SiteFile::new().proxy("shop", &[origin.endpoint()]);
    Ok((origin, file))
}

/// What `shoal rollout status` says at the `i`-th node.
async fn rollout(cluster: &Cluster, i: usize) -> Result<Value> {
    cluster.nodes[i].told(&["rollout", "status"]).await
}

/// The wave that the revision on its way is in, as the `i`-th node says; 0 = none is.
async fn wave(cluster: &Cluster, i: usize) -> Result<u64> {
    Ok(rollout(cluster, i).await?["rollout"]["waves"]["wave"].as_u64().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_in_fifty_fails_and_it_goes_no_further() -> Result<()> {
    let cluster = Cluster::start_of_regions(&["east", "east", "west"]).await?;
    let (_good_origin, good) = site("good", 0).await?;
    let (_bad_origin, bad) = site("bad", 50).await?;
    cluster.apply(0, &good).await?;
    let load = Load::on_all(&cluster);
    let begun = cluster.apply_as(0, &bad, &["--waves", "--bake", "30s"]).await?.expect(0)?;
    for told in
        ["applied on 1/1 nodes of its wave", "wave 1, one node: 1 of 3 nodes", "shoal rollout status --watch"]
    {
        ensure!(begun.stdout.contains(told), "{told:?} is missing: {}", begun.stdout);
    }
    let history = cluster.nodes[0].shoal(&["history"]).await?.expect(0)?;
    ensure!(history.stdout.contains("2 (in wave 1)"), "{}", history.stdout);
    let canary = cluster.tried_by(1).await?;
    ensure!(canary.len() == 1, "{canary:?}");

    let watched =
        cluster.nodes[1].shoal(&["--timeout", "5m", "rollout", "status", "--watch"]).await?.expect(5)?;
    ensure!(
        watched.stdout.contains("revision 2 was taken back in wave 1 by revision 3"),
        "{}",
        watched.stdout
    );
    // Whoever looks when it is over is told the same, whatever has begun since.
    for named in [&["2"][..], &[]] {
        let status = [&["rollout", "status", "--watch"], named].concat();
        let late = cluster.nodes[2].shoal(&status).await?.expect(5)?;
        ensure!(late.stdout.contains("revision 2 was taken back in wave 1 by revision 3"), "{}", late.stdout);
    }
    let first = cluster.nodes[2].shoal(&["rollout", "status", "1"]).await?.expect(0)?;
    ensure!(first.stdout.contains("revision 1 stays"), "{}", first.stdout);
    cluster.nodes[2].shoal(&["rollout", "status", "99"]).await?.expect(1)?;
    cluster.all_answer_with("good").await?;
    for (node, seen) in cluster.nodes.iter().zip(load.finish().await.targets) {
        ensure!(node.name == canary[0] || seen.is_faultless(), "{}: {}", node.name, seen.faults());
    }
    let seen = rollout(&cluster, 2).await?;
    let why = seen["ended"]["why"].as_str().unwrap_or_default();
    ensure!(
        why.starts_with("revert of 2: worse than what was before: ")
            && why.contains(" requests failed with it"),
        "{why}"
    );
    let audit = cluster.nodes[2].shoal(&["audit"]).await?.expect(0)?;
    ensure!(audit.stdout.contains("its content goes into quarantine, as the cluster"), "{}", audit.stdout);

    // What did harm is known again by its content, whoever applies it.
    let again = cluster.apply_as(0, &bad, &[]).await?.expect(1)?;
    ensure!(
        again.stderr.contains("it is what revision 2 was, which is in quarantine (revert of 2"),
        "{}",
        again.stderr
    );
    let file = cluster.dir().join("site.json");
    bad.write(&file)?;
    let plan = ["plan", "--prune", "-f", path_text(&file)];
    let planned = cluster.nodes[2].shoal(&plan).await?.expect(1)?;
    ensure!(
        planned.stdout.contains("refused without --force: it is what revision 2 was"),
        "{}",
        planned.stdout
    );
    let screen = cluster.nodes[2].shoal(&["rollout", "status"]).await?.expect(0)?;
    ensure!(
        screen.stdout.contains("in quarantine, and not applied again without --force"),
        "{}",
        screen.stdout
    );
    let history = cluster.nodes[2].shoal(&["history"]).await?.expect(0)?;
    ensure!(history.stdout.contains("2 (reverted by 3, quarantined)"), "{}", history.stdout);
    let refused = cluster.nodes[1].shoal(&["rollback", "--to-revision", "2"]).await?.expect(1)?;
    ensure!(refused.stderr.contains("shoal rollback --force"), "{}", refused.stderr);
    let back = cluster.nodes[1].shoal(&["rollback"]).await?.expect(0)?;
    ensure!(back.stdout.contains("revision 3: no changes"), "not to what was taken back: {}", back.stdout);
    ensure!(back.stderr.contains("revision 1 is the newest before"), "{}", back.stderr);
    // With something else beside it, it is another site, and the same in what was bad.
    let beside = |site: &SiteFile| {
        site.clone().route("more", json!({ "hosts": ["more.example.com"], "upstream": "shop" }))
    };
    let known = "in upstream/shop it is what revision 2 was, which is in quarantine (revert of 2";
    let again = cluster.apply_as(0, &beside(&bad), &[]).await?.expect(1)?;
    ensure!(again.stderr.contains(known), "{}", again.stderr);
    beside(&bad).write(&file)?;
    let planned = cluster.nodes[2].shoal(&plan).await?.expect(1)?;
    ensure!(planned.stdout.contains(&format!("refused without --force: {known}")), "{}", planned.stdout);
    cluster.apply_as(0, &beside(&good), &[]).await?.expect(0)?;
    cluster.apply_as(0, &beside(&bad), &[]).await?.expect(1)?;
    cluster.apply_as(0, &good, &[]).await?.expect(0)?;
    // To try it is not to want it: only once it stays is it out of quarantine.
    cluster.apply_as(0, &bad, &["--force", "--confirm-timeout", "1h"]).await?.expect(0)?;
    cluster.nodes[0].shoal(&["abort"]).await?.expect(0)?;
    cluster.apply_as(0, &bad, &[]).await?.expect(1)?;
    cluster.apply_as(0, &bad, &["--force"]).await?.expect(0)?;
    cluster.apply_as(0, &good, &[]).await?.expect(0)?;
    cluster.apply_as(0, &bad, &[]).await?.expect(0).map(drop)
}

/// A site whose answers, `body`, may be kept.
async fn cached_site(body: &'static str) -> Result<(Origin, SiteFile)> {
    let origin = Origin::start(move |_| Reply::ok(body).field("cache-control", "max-age=3600")).await?;
    let file = SiteFile::new().cached("shop", &[origin.endpoint()]);
    Ok((origin, file))
}

/// The `i`-th node answers each of `paths` with `body`.
async fn all_paths_answer(cluster: &Cluster, i: usize, paths: &[String], body: &str) -> Result<()> {
    for path in paths {
        let answer = fetch(cluster.nodes[i].at(Ports::HTTP), HOST, path).await?;
        ensure!(answer.body == body, "n{} answers {path} with {:?}, not with {body}", i + 1, answer.body);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_fetched_by_a_revision_on_trial_is_for_nobody_else() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let (old_origin, old) = cached_site("old").await?;
    let (new_origin, new) = cached_site("new").await?;
    cluster.put_in_force(&old).await?;
    let paths: Vec<_> = (0..60).map(|i| format!("/p{i}")).collect();
    all_paths_answer(&cluster, 0, &paths[..20], "old").await?;
    for end in ["abort", "confirm"] {
        cluster.apply_as(0, &new, &["--canary", "node=n2"]).await?.expect(0)?;
        wait_until("n2 tries it", SLACK, async || cluster.answers_with(1, "new").await).await?;
        // Each node owns a third of them, in both ways.
        all_paths_answer(&cluster, 1, &paths, "new").await?;
        all_paths_answer(&cluster, 0, &paths, "old").await?;
        all_paths_answer(&cluster, 2, &paths, "old").await?;
        // What n2 owns they keep for themselves.
        let fetched = old_origin.count_below("/p");
        all_paths_answer(&cluster, 0, &paths, "old").await?;
        ensure!(old_origin.count_below("/p") == fetched, "n1 has asked the origin again");
        cluster.nodes[0].shoal(&[end]).await?.expect(0)?;
        if end == "abort" {
            for i in 0..3 {
                all_paths_answer(&cluster, i, &paths, "old").await?;
            }
        }
    }
    // In force for good it shares what it fetches with all.
    let rounds = AtomicU64::new(0);
    wait_until("what three nodes answer is fetched once", SLACK, async || {
        let room = format!("/round{}/", rounds.fetch_add(1, Ordering::Relaxed));
        let paths: Vec<_> = (0..30).map(|i| format!("{room}{i}")).collect();
        for i in 0..3 {
            if all_paths_answer(&cluster, i, &paths, "new").await.is_err() {
                return false;
            }
        }
        new_origin.count_below(&room) == paths.len()
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_in_mid_wave_and_the_next_goes_on() -> Result<()> {
    let mut cluster = Cluster::start_of_regions(&["east", "east", "west"]).await?;
    let (_old_origin, old) = site("old", 0).await?;
    let (_new_origin, new) = site("new", 0).await?;
    cluster.apply(0, &old).await?;
    let leader = cluster.apply_past_the_leader(&new, "7s").await?;
    cluster.nodes[leader].kill9()?;
    let survivor = (leader + 1) % 3;
    let ended = wait_until_some("the next leader brings it to all", SLACK * 2, async || {
        let seen = rollout(&cluster, survivor).await.ok()?;
        (seen["rollout"].is_null() && seen["ended"]["waves"]["wave"].as_u64() >= Some(1)).then_some(seen)
    })
    .await?;
    ensure!(ended["ended"]["reverted_by"] == 0, "{ended}");
    cluster.restart(leader)?;
    cluster.answers(leader).await?;
    cluster.all_answer_with("new").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_stops_it_lets_it_go_on_and_takes_it_back() -> Result<()> {
    let cluster = Cluster::start_of_regions(&["east", "east", "west"]).await?;
    let (_old_origin, old) = site("old", 0).await?;
    let (_new_origin, new) = site("new", 0).await?;
    cluster.apply(0, &old).await?;
    cluster.nodes[0].shoal(&["rollout", "pause"]).await?.expect(4)?;
    cluster.apply_as(0, &new, &["--waves", "--bake", "5s"]).await?.expect(0)?;
    cluster.nodes[1].shoal(&["rollout", "pause"]).await?.expect(0)?;
    let paused_in = wave(&cluster, 2).await?;
    let rest = wait_until_some("the wave is over and nothing follows it", SLACK, async || {
        let seen = rollout(&cluster, 2).await.ok()?;
        let waves = &seen["rollout"]["waves"];
        (waves["watch"]["left_ms"] == 0).then(|| waves.clone())
    })
    .await?;
    ensure!(rest["wave"] == paused_in && rest["paused_by"] != "", "{rest}");
    let refused = cluster.apply_as(0, &old, &[]).await?.expect(4)?;
    ensure!(refused.stderr.contains("is being rolled out"), "{}", refused.stderr);
    let set = ["set", "route/shop", "hosts=[shop.example.com]", "--dry-run"];
    let planned = cluster.nodes[1].shoal(&set).await?.expect(0)?;
    ensure!(planned.stdout.contains("refused for now: revision 2 comes in waves"), "{}", planned.stdout);
    let hopeless =
        cluster.apply_as(0, &old, &["--waves", "--bake", "30s", "--confirm-timeout", "5s"]).await?;
    ensure!(hopeless.expect(1)?.stderr.contains("the first wave alone is watched for 30s"), "it is tried");
    cluster.apply_as(0, &old, &["--urgent"]).await?.expect(4)?;
    cluster.nodes[0].shoal(&["rollback", "--waves"]).await?.expect(4)?;
    // The next wave begins, and nothing follows that either.
    cluster.nodes[1].shoal(&["rollout", "promote"]).await?.expect(0)?;
    ensure!(wave(&cluster, 0).await? == paused_in + 1, "{}", rollout(&cluster, 0).await?);
    let aborted = cluster.nodes[2].shoal(&["rollout", "abort", "-m", "enough"]).await?.expect(0)?;
    ensure!(aborted.stdout.contains("applied on 3/3 nodes"), "{}", aborted.stdout);
    cluster.all_answer_with("old").await?;

    // By itself, once somebody lets it; what an operator took back is no harm.
    cluster.apply_as(0, &new, &["--waves", "--bake", "3s", "--checks", "2"]).await?.expect(0)?;
    cluster.nodes[1].shoal(&["rollout", "pause"]).await?.expect(0)?;
    cluster.nodes[1].shoal(&["rollout", "resume"]).await?.expect(0)?;
    let watched = cluster.nodes[0]
        .shoal(&["--timeout", "5m", "-o", "json", "rollout", "status", "--watch"])
        .await?
        .expect(0)?;
    let last: Value = serde_json::from_str(watched.stdout.lines().last().context("nothing was told")?)?;
    ensure!(last["rollout"].is_null() && last["ended"]["reverted_by"] == 0, "{last}");
    let passed = last["ended"]["waves"]["passed"].as_array().map_or(0, Vec::len);
    ensure!(passed == 1 && last["ended"]["waves"]["wave"] == 2, "{last}");
    cluster.all_answer_with("new").await?;

    // What the cluster does where nobody says, also for single objects; and what is urgent.
    cluster.nodes[0].shoal(&["rollout", "policy", "--waves", "--bake", "1h"]).await?.expect(0)?;
    let set = cluster.nodes[2].shoal(&["set", "route/shop", "hosts=[shop.example.com]"]).await?.expect(0)?;
    ensure!(set.stdout.contains("wave 1, one node: 1 of 3 nodes"), "{}", set.stdout);
    let all = cluster.nodes[0].shoal(&["rollout", "promote", "--all"]).await?.expect(0)?;
    ensure!(all.stdout.contains("applied on 3/3 nodes"), "{}", all.stdout);
    cluster.apply_as(0, &old, &["--at-once"]).await?.expect(0)?;
    ensure!(wave(&cluster, 0).await? == 0, "it was to come at once");
    cluster.nodes[0].shoal(&["rollback", "--urgent"]).await?.expect(0)?;
    wait_until("an urgent one is soon everywhere", SLACK, async || {
        wave(&cluster, 0).await.is_ok_and(|wave| wave == 0)
    })
    .await?;
    let audit = cluster.nodes[0].shoal(&["audit"]).await?.expect(0)?;
    for told in [&[", urgent as"][..], &["node n", " Rollout ", " stays, as the cluster"]] {
        let is_told = audit.stdout.lines().any(|line| told.iter().all(|part| line.contains(part)));
        ensure!(is_told, "{told:?} is missing: {}", audit.stdout);
    }
    cluster.all_answer_with("new").await?;

    // Every verb that changes the site takes it for a while.
    cluster.nodes[1].shoal(&["delete", "route/shop", "-y", "--confirm-timeout", "1h"]).await?.expect(0)?;
    cluster.nodes[1].shoal(&["abort"]).await?.expect(0)?;
    cluster.nodes[1].shoal(&["rollout", "status", "--watch"]).await?.expect(5)?;
    let quick = cluster.nodes[1].shoal(&["rollback", "--no-wait", "--to-revision", "1"]).await?.expect(0)?;
    ensure!(quick.stdout.contains("no node was waited for"), "{}", quick.stdout);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wave_whose_only_node_is_drained_goes_to_another_one() -> Result<()> {
    let cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let (_old_origin, old) = site("old", 0).await?;
    let (_new_origin, new) = site("new", 0).await?;
    cluster.apply(0, &old).await?;
    cluster.apply_as(0, &new, &["--waves", "--bake", "8s"]).await?.expect(0)?;
    cluster.nodes[1].shoal(&["rollout", "pause"]).await?.expect(0)?;
    let drained = cluster.tried_by(1).await?.concat();
    cluster.nodes[1].shoal(&["node", "drain", &drained]).await?.expect(0)?;
    cluster.nodes[1].shoal(&["rollout", "resume"]).await?.expect(0)?;
    let watch = ["--timeout", "5m", "-o", "json", "rollout", "status", "--watch"];
    let watched = cluster.nodes[1].shoal(&watch).await?.expect(0)?;
    let last: Value = serde_json::from_str(watched.stdout.lines().last().context("nothing was told")?)?;
    let waves = &last["ended"]["waves"];
    let evidence = waves["passed"][0]["evidence"].as_str().unwrap_or_default();
    ensure!(waves["wave"] == 2 && evidence.starts_with("every node of the wave is drained"), "{last}");
    cluster.nodes[1].shoal(&["node", "undrain", &drained]).await?.expect(0)?;
    cluster.all_answer_with("new").await?;

    // Where nobody else is left it is taken back, and may be tried again.
    cluster.apply_as(0, &old, &["--waves", "--bake", "8s"]).await?.expect(0)?;
    cluster.nodes[1].shoal(&["rollout", "pause"]).await?.expect(0)?;
    for node in &cluster.nodes {
        cluster.nodes[1].shoal(&["node", "drain", &node.name, "--force"]).await?.expect(0)?;
    }
    cluster.nodes[1].shoal(&["rollout", "resume"]).await?.expect(0)?;
    let watched = cluster.nodes[1].shoal(&watch).await?.expect(5)?;
    ensure!(watched.stdout.contains("and there is no other"), "{}", watched.stdout);
    for node in &cluster.nodes {
        cluster.nodes[1].shoal(&["node", "undrain", &node.name]).await?.expect(0)?;
    }
    cluster.apply_as(0, &old, &[]).await?.expect(0)?;
    cluster.all_answer_with("old").await
}

/// Whom the revision on its way leaves out, as the `i`-th node says: names and reasons.
async fn left_out(cluster: &Cluster, i: usize) -> Result<Vec<(String, String)>> {
    let seen = rollout(cluster, i).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = seen["rollout"]["left_out"].as_array().cloned().unwrap_or_default();
    Ok(list.iter().map(|node| (text(&node["node"]), text(&node["why"]))).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_sick_already_is_left_out_and_named() -> Result<()> {
    const OTHER: u16 = 8090;
    let cluster = Cluster::start_of_regions(&["east", "east", "west"]).await?;
    let (_old_origin, old) = site("old", 0).await?;
    let (_new_origin, new) = site("new", 0).await?;
    cluster.apply(0, &old).await?;
    let of_somebody_else = TcpListener::bind(cluster.nodes[2].at(OTHER))?;
    let with_other = |site: &SiteFile, port: u16| {
        site.clone().set("listeners", "other", json!({ "address": format!(":{port}"), "protocol": "http" }))
    };
    cluster.apply_as(0, &with_other(&old, OTHER), &["--force"]).await?.expect(5)?;

    // The only node of its region: it would be in the first wave or in the second.
    let refuses = format!("listener \"other\": cannot listen on {}", cluster.nodes[2].at(OTHER));
    for (round, site) in [&new, &old, &new].into_iter().enumerate() {
        let before = cluster.revision(0).await?;
        let begun =
            cluster.apply_as(0, &with_other(site, OTHER), &["--waves", "--bake", "3s"]).await?.expect(0)?;
        let told = format!("n3 is left out, since it refuses revision {before} already: {refuses}");
        ensure!(begun.stdout.contains(&told), "{told:?} is missing: {}", begun.stdout);
        let seen = left_out(&cluster, 1).await?;
        ensure!(matches!(&seen[..], [(name, why)] if name == "n3" && why.contains(&refuses)), "{seen:?}");
        let watched = cluster.nodes[1]
            .shoal(&["--timeout", "5m", "-o", "json", "rollout", "status", "--watch"])
            .await?
            .expect(0)?;
        let last: Value = serde_json::from_str(watched.stdout.lines().last().context("nothing was told")?)?;
        ensure!(last["ended"]["reverted_by"] == 0 && last["quarantine"] == json!([]), "{round}: {last}");
    }
    for (i, body) in ["new", "new", "old"].into_iter().enumerate() {
        wait_until("each answers what it can", SLACK, async || cluster.answers_with(i, body).await).await?;
    }

    // Who tries it because somebody wants it to does no harm with that, and is cured by what it can take.
    let for_a_while = ["--canary", "node=n1,n3", "--confirm-timeout", "1h"];
    cluster.apply_as(0, &with_other(&old, OTHER), &for_a_while).await?;
    wait_until("n1 tries it", SLACK, async || cluster.answers_with(0, "old").await).await?;
    let seen = left_out(&cluster, 1).await?;
    ensure!(matches!(&seen[..], [(name, _)] if name == "n3"), "{seen:?}");
    cluster.nodes[1].shoal(&["abort"]).await?.expect(5)?;
    let ended = rollout(&cluster, 1).await?["ended"].clone();
    ensure!(ended["waves"].is_null() && ended["reverted_by"].as_u64() > Some(0), "one of before: {ended}");
    let cure = with_other(&old, OTHER + 1);
    cluster.apply_as(0, &cure, &["--canary", "node=n3", "--confirm-timeout", "1h"]).await?.expect(0)?;
    ensure!(left_out(&cluster, 1).await?.is_empty(), "it serves it, and counts");
    cluster.nodes[1].shoal(&["confirm"]).await?.expect(0)?;
    cluster.all_answer_with("old").await?;

    // Who serves what is active has to take what follows.
    let taken_back = with_other(&new, OTHER);
    cluster.apply_as(0, &taken_back, &["--force", "--waves", "--bake", "2s"]).await?;
    let watched =
        cluster.nodes[1].shoal(&["--timeout", "5m", "rollout", "status", "--watch"]).await?.expect(5)?;
    ensure!(watched.stdout.contains("worse than what was before: n3 has refused it"), "{}", watched.stdout);
    drop(of_somebody_else);
    cluster.all_answer_with("old").await
}
