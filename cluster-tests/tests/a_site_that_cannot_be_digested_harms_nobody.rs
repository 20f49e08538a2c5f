//! A site that nodes cannot digest, or die of, is served by nobody twice, and takes no other site's place where it cannot be.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, Load, Origin, Ports, Reply, SiteFile, fetch, wait_until, wait_until_some};
use serde_json::{Value, json};

/// A debug build on a shared machine elects slowly; what a node is to do follows a moment later.
const SLACK: Duration = Duration::from_secs(60);

/// A site that answers with `body`.
async fn site(body: &'static str) -> Result<(Origin, SiteFile)> {
    let origin = Origin::start(move |_| Reply::ok(body)).await?;
    let file = SiteFile::new().proxy("shop", &[origin.endpoint()]);
    Ok((origin, file))
}

/// What `shoal rollout status` says at the first node to be in quarantine.
async fn quarantine(cluster: &Cluster) -> Result<Value> {
    Ok(cluster.nodes[0].told(&["rollout", "status"]).await?["quarantine"].clone())
}

/// Under which nodes that are started with it cannot digest certain sites.
const POISON: &str = "SHOAL_PLANT_POISON";

/// The `i`-th node is started anew as one of them.
async fn plant(cluster: &mut Cluster, i: usize) -> Result<()> {
    cluster.nodes[i].kill9()?;
    cluster.nodes[i].set_environment(POISON, "1");
    cluster.restart(i)?;
    cluster.answers(i).await
}

/// The first site has proven itself: nodes go back to it.
async fn proven(cluster: &Cluster) -> Result<()> {
    wait_until("the site has proven itself everywhere", SLACK, async || {
        cluster.nodes.iter().all(|node| node.log().contains("the revision has proven itself here"))
    })
    .await
    .map(drop)
}

/// `site` and a route that asks for nothing but trouble.
fn poisoned(site: &SiteFile, route: &str) -> SiteFile {
    site.clone().route(route, json!({ "hosts": ["poison.example.com"], "upstream": "shop" }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_digest_is_refused_at_the_door() -> Result<()> {
    let cluster = Cluster::start_planted(3, POISON).await?;
    let (_first_origin, first) = site("first").await?;
    let (_second_origin, second) = site("second").await?;
    cluster.apply(0, &second).await?;
    let load = Load::on_all(&cluster);
    for round in 0..20 {
        let (good, body) = if round % 2 == 0 { (&first, "first") } else { (&second, "second") };
        let refused = cluster.apply_as(0, &poisoned(good, "planted-panic"), &["--force"]).await?.expect(1)?;
        ensure!(refused.stderr.contains("nothing was changed: compiling it panicked"), "{}", refused.stderr);
        cluster.apply_as(0, good, &[]).await?.expect(0)?;
        cluster.all_answer_with(body).await?;
    }
    for (node, seen) in cluster.nodes.iter().zip(load.finish().await.targets) {
        ensure!(seen.is_faultless(), "{}: {}", node.name, seen.faults());
    }
    // It takes ten seconds of a CPU, of which those who serve leave little.
    let slow =
        cluster.apply_as(0, &poisoned(&second, "planted-toil"), &["--timeout", "2m"]).await?.expect(1)?;
    ensure!(
        slow.stderr.contains("nothing was changed: compiling it takes longer than 10s"),
        "{}",
        slow.stderr
    );

    // At a limit, one above, and ten times as much.
    let pattern = |length: usize| {
        let route = json!({ "path_regex": format!("^/{}$", "a".repeat(length - 3)), "upstream": "shop" });
        second.clone().route("pattern", route)
    };
    for (length, code) in [(1024, 0), (1025, 1), (10_240, 1), (1024, 0)] {
        let said = cluster.apply_as(0, &pattern(length), &[]).await?.expect(code)?;
        ensure!(code == 0 || said.stderr.contains("routes.pattern.path_regex"), "{}", said.stderr);
    }
    cluster.all_answer_with("second").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_digest_it_keeps_what_it_has() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let (_old_origin, old) = site("old").await?;
    let (_new_origin, new) = site("new").await?;
    cluster.apply(0, &old).await?;
    plant(&mut cluster, 2).await?;
    cluster.all_answer_with("old").await?;

    for (route, why) in
        [("planted-panic", "compiling it panicked"), ("planted-toil", "compiling it takes longer than 10s")]
    {
        let poison = poisoned(&new, route);
        let errors = cluster.metric(2, "shoal_config_apply_errors_total", "").await?;
        let applied = cluster.apply_as(0, &poison, &["--timeout", "2m"]).await?.expect(5)?;
        ensure!(applied.stdout.contains(&format!("n3 refused: {why}")), "{}", applied.stdout);
        let errors = cluster.metric(2, "shoal_config_apply_errors_total", "").await? - errors;
        ensure!(errors >= 1.0, "{errors} refusals were counted");
        for (i, body) in ["new", "new", "old"].into_iter().enumerate() {
            ensure!(cluster.answers_with(i, body).await, "n{} does not answer {body}", i + 1);
        }
        let (_, told) = cluster.readyz(2).await?;
        ensure!(told.contains(why), "{told}");
        let told = format!("n3 has refused it: {why}");
        wait_until("the cluster has heard of it", SLACK, async || {
            quarantine(&cluster).await.is_ok_and(|seen| seen[0]["why"] == told.as_str())
        })
        .await?;
        cluster.apply(0, &old).await?;
        let again = cluster.apply_as(0, &poison, &[]).await?.expect(1)?;
        ensure!(again.stderr.contains(&told), "{}", again.stderr);
        cluster.all_answer_with("old").await?;
    }
    Ok(())
}

/// Every process of the nodes `places` that `poison` is planted in dies of it, once as it comes and once as it starts.
async fn die_twice(cluster: &mut Cluster, places: &[usize], poison: &SiteFile) -> Result<()> {
    // Whoever leads may die before it answers.
    cluster.apply_as(0, poison, &["--no-wait", "--timeout", "10s"]).await?;
    for _ in 0..2 {
        for i in places {
            cluster.nodes[*i].ended(SLACK).await?;
        }
        for i in places {
            cluster.restart(*i)?;
        }
    }
    for i in places {
        cluster.answers(*i).await?;
        wait_until("it serves what was before, and says why", SLACK, async || {
            let says_why = cluster
                .readyz(*i)
                .await
                .is_ok_and(|(_, told)| told.contains("2 processes of this node have died within"));
            says_why && cluster.answers_with(*i, "old").await
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_dies_of_and_the_others_do_not_is_not_to_blame() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--crash-guard", "5s"]).await?;
    let (_old_origin, old) = site("old").await?;
    let (_new_origin, new) = site("new").await?;
    cluster.apply(0, &old).await?;
    proven(&cluster).await?;
    plant(&mut cluster, 2).await?;
    let poison = poisoned(&new, "planted-death");
    die_twice(&mut cluster, &[2], &poison).await?;
    wait_until("it knows that the others live with it", SLACK, async || {
        cluster.nodes[2].log().contains("this node has died of what others live with")
    })
    .await?;
    ensure!(quarantine(&cluster).await? == json!([]), "it is in quarantine");
    for i in 0..2 {
        ensure!(cluster.answers_with(i, "new").await, "n{} has gone back", i + 1);
    }
    cluster.apply(0, &old).await?;
    cluster.all_answer_with("old").await?;

    // Two are no accident.
    plant(&mut cluster, 1).await?;
    let poison = poison.upstream("other", json!({ "endpoints": ["127.0.0.1:9"] }));
    die_twice(&mut cluster, &[1, 2], &poison).await?;
    wait_until("the cluster has heard of it", SLACK, async || {
        quarantine(&cluster).await.is_ok_and(|seen| {
            let why = seen[0]["why"].as_str().unwrap_or_default();
            why.contains(" has refused it: 2 processes of this node have died")
        })
    })
    .await?;
    wait_until("n1 lives with it", SLACK, async || cluster.answers_with(0, "new").await).await?;
    cluster.apply(0, &old).await?;
    cluster.all_answer_with("old").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_worker_hangs_ends_and_serves_what_it_had() -> Result<()> {
    let mut cluster = Cluster::start_planted(3, POISON).await?;
    let (_old_origin, old) = site("old").await?;
    let (_new_origin, new) = site("new").await?;
    cluster.apply(0, &old).await?;
    let load = Load::on_all(&cluster);
    let waves = ["--waves", "--bake", "1h"];
    cluster.apply_as(0, &poisoned(&new, "planted-hang"), &waves).await?.expect(0)?;
    let hung = wait_until_some("the node of the first wave says that it hangs", SLACK, async || {
        for (i, node) in cluster.nodes.iter().enumerate() {
            let said = fetch(node.at(Ports::OPS), "ops", "/livez").await;
            if said.is_ok_and(|said| said.status == 503 && said.body.starts_with(b"worker-0 hangs: ")) {
                return Some(i);
            }
        }
        None
    })
    .await?;
    let ended = cluster.nodes[hung].ended(SLACK).await?;
    ensure!(ended.code().is_none(), "it ended as if somebody had wanted it to: {ended}");
    let log = cluster.nodes[hung].log();
    ensure!(log.contains("worker-0 hangs: ") && log.contains("; this process ends"), "it does not say why");

    // Who is lost in a wave takes the revision with it.
    let survivor = (hung + 1) % 3;
    wait_until("it is taken back", SLACK, async || {
        let seen = cluster.nodes[survivor].told(&["rollout", "status"]).await;
        seen.is_ok_and(|seen| seen["ended"]["reverted_by"].as_u64() > Some(0))
    })
    .await?;
    // Where its log takes long to open it would go on, and hang, with what it has served last.
    cluster.nodes[hung].unset_environment(POISON);
    cluster.restart(hung)?;
    cluster.answers(hung).await?;
    cluster.all_answer_with("old").await?;
    for (i, seen) in load.finish().await.targets.iter().enumerate() {
        ensure!(i == hung || seen.is_faultless(), "{}: {}", cluster.nodes[i].name, seen.faults());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_twice_serves_what_was_good_before() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--watchdog", "3s", "--crash-guard", "20s"]).await?;
    let (_old_origin, old) = site("old").await?;
    let (_new_origin, new) = site("new").await?;
    cluster.apply(0, &old).await?;
    proven(&cluster).await?;
    plant(&mut cluster, 2).await?;
    cluster.all_answer_with("old").await?;
    die_twice(&mut cluster, &[2], &poisoned(&new, "planted-hang")).await?;
    for i in 0..2 {
        ensure!(cluster.answers_with(i, "new").await, "n{} does not live with it", i + 1);
    }
    Ok(())
}
