//! One node's disk is full, or fails, or is slow; its clock is wrong; it hardly gets to run; it is heard on one channel only. It
//! serves all the same, the others change what they want, and no request fails anywhere.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Belief, Channel, Cluster, FaultShim, Faults, HOST, Load, Network, Origin, Ports, Reply, SiteFile,
    SmallDisk, Starved, fetch, path_text, pattern, skip, wait_until,
};
use serde_json::{Map, Value, json};

const BODY: usize = 2000;
/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(60);
/// Requests that are answered while something ails a node, at least.
const ENOUGH: u64 = 150;
/// Routes of a change that needs room on the disk.
const HEAVY: u32 = 200;
/// Such changes that a log of the stories has room for without a larger file, and more.
const CHANGES_UNTIL_FULL: u32 = 40;
/// What a node says whose disk is full.
const NO_ROOM: &str = "its log waits for room on the disk";
/// Nobody waits longer for such a node, and half a minute for one that says nothing.
const AT_ONCE: Duration = Duration::from_secs(15);
/// For a start that waits for nobody; the log of others would be waited for for 10 s.
const START: Duration = Duration::from_secs(8);
/// The number of "input/output error".
const EIO: i64 = 5;

/// Routes of 1 KiB each: more than what is free in the log's file already.
fn heavy_routes(host: &str, number: u32) -> Map<String, Value> {
    let route = |n| json!({ "hosts": [host], "path_prefix": format!("/{n:01000}"), "upstream": "shop" });
    (0..number).map(|n| (format!("heavy{n}"), route(n))).collect()
}

/// Three nodes that serve one site, and the origin of it.
struct Scene {
    cluster: Cluster,
    _origin: Origin,
    changes: u32,
    /// Routes that every change makes anew.
    weight: u32,
}

impl Scene {
    async fn set(network: &mut Network) -> Result<Self> {
        let cluster = Cluster::start_in(network, 3, &[]).await?;
        let origin = Origin::start_at((Network::HERE, 0).into(), |seen| {
            let fresh = if seen.path.starts_with("/kept") { "max-age=600" } else { "no-store" };
            Reply::ok(pattern(&seen.path, BODY)).field("cache-control", fresh)
        })
        .await?;
        let site = SiteFile::new().cached("shop", &[origin.endpoint()]);
        cluster.put_in_force(&site).await?;
        Ok(Self { cluster, _origin: origin, changes: 0, weight: 0 })
    }

    /// Every node is asked for things until `while_` is over; none of it fails.
    async fn serving<T>(
        &mut self,
        what: &str,
        while_: impl AsyncFnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let all: Vec<_> = self.cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
        let paths = (0..20).flat_map(|n| [format!("/{n}"), format!("/kept/{n}")]).collect();
        let load = Load::start(&all, 1, HOST, paths, |path| Some(pattern(path, BODY)));
        let done = while_(self).await.with_context(|| what.to_owned())?;
        wait_until("enough is asked for", MOMENT, async || load.good() > ENOUGH).await?;
        let report = load.finish().await;
        for (node, target) in report.targets.iter().enumerate() {
            let failed = target.wrong() + target.connection_errors();
            ensure!(failed == 0, "{what}: {failed} requests failed on n{}: {}", node + 1, target.faults());
        }
        Ok(done)
    }

    /// The site is changed at node `at`, whoever else runs it. How long that took.
    async fn change(&mut self, at: usize) -> Result<Duration> {
        let file = self.next_site()?;
        let words = ["apply", "--no-wait", "-f", path_text(&file)];
        let since = Instant::now();
        self.cluster.nodes[at].shoal(&words).await?.expect(0)?;
        Ok(since.elapsed())
    }

    /// The same, and all are waited for; one of them says why it does not have it yet.
    async fn change_without(&mut self, at: usize, why: &str) -> Result<Duration> {
        let file = self.next_site()?;
        let since = Instant::now();
        let applied = self.cluster.nodes[at].shoal(&["apply", "-f", path_text(&file)]).await?.expect(5)?;
        let (text, took) = (applied.text(), since.elapsed());
        ensure!(text.contains("2/3 nodes") && text.contains(why), "no {why:?} in {text}");
        ensure!(took < AT_ONCE, "{took:?} for a change beside a node that cannot take it: {text}");
        Ok(took)
    }

    /// The site of the next change.
    fn next_site(&mut self) -> Result<PathBuf> {
        self.changes += 1;
        let host = format!("v{}.example.com", self.changes);
        let mut routes = heavy_routes(&host, self.weight);
        routes.insert("change".to_owned(), json!({ "hosts": [host], "upstream": "shop" }));
        self.cluster.file("change.json", json!({ "routes": routes }).to_string())
    }

    /// A node that takes no part refuses changes, and says why.
    async fn refuses(&self, at: usize, why: &str) -> Result<()> {
        let words = ["set", "upstream/shop", "slow_start=1s"];
        wait_until(&format!("n{} refuses changes: {why}", at + 1), MOMENT, async || {
            let refused = self.cluster.nodes[at].shoal(&words).await;
            refused.is_ok_and(|refused| refused.code == 2 && refused.stderr.contains(why))
        })
        .await
        .map(drop)
    }

    /// All nodes run the newest site.
    async fn agrees(&self) -> Result<()> {
        wait_until("all nodes run the same", MOMENT, async || {
            let mut revisions = Vec::new();
            for node in 0..self.cluster.nodes.len() {
                revisions.push(self.cluster.metric(node, "shoal_config_applied_version", "").await.ok());
            }
            revisions.iter().all(|revision| revision.is_some() && *revision == revisions[0])
        })
        .await
        .map(drop)
    }

    /// `/readyz` of a node says this, and that it is ready.
    async fn says(&self, node: usize, what: &str) -> Result<()> {
        wait_until(&format!("n{} says {what:?}", node + 1), MOMENT, async || {
            self.cluster.readyz(node).await.is_ok_and(|(status, text)| status == 200 && text.contains(what))
        })
        .await
        .map(drop)
    }

    async fn term(&self, node: usize) -> Result<f64> {
        self.cluster.metric(node, "shoal_raft_term", "").await
    }

    /// A node stops, something is done to it, and it is back.
    async fn restarted(&mut self, node: usize, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.cluster.nodes[node].term()?;
        self.cluster.nodes[node].ended(MOMENT).await?;
        change(self)?;
        self.cluster.restart(node)?;
        self.cluster.answers(node).await?;
        self.cluster.settle().await?;
        self.cluster.serves(HOST, "/").await
    }

    /// From now on a node's clock and disk are what the story says.
    async fn give_faults(&mut self, shim: &FaultShim, node: usize) -> Result<Faults> {
        let mut faults = None;
        self.restarted(node, |scene| {
            faults = Some(shim.stand_before(&mut scene.cluster.nodes[node])?);
            Ok(())
        })
        .await?;
        faults.context("the shim was not put in place")
    }

    async fn leader(&self) -> Result<usize> {
        self.cluster.leader_seen_by(0).await
    }
}

#[test]
fn its_disk_is_full() -> Result<()> {
    Network::around("its_disk_is_full", async |mut network| {
        let mut scene = Scene::set(&mut network).await?;
        let mut disks = Vec::new();
        for node in 0..3 {
            scene
                .restarted(node, |scene| {
                    disks.push(SmallDisk::under(&scene.cluster.nodes[node], 64)?);
                    Ok(())
                })
                .await?;
        }
        scene.weight = HEAVY;
        for fallen in ["follower", "leader"] {
            let leader = scene.leader().await?;
            let full = if fallen == "leader" { leader } else { (leader + 1) % 3 };
            scene
                .serving(&format!("the disk of a {fallen} is full"), async |scene| {
                    disks[full].fill()?;
                    let mut took = Duration::ZERO;
                    // What is free in its files is used up first.
                    for _ in 0..CHANGES_UNTIL_FULL {
                        took = took.max(scene.change((full + 1) % 3).await?);
                        if scene.cluster.metric(full, "shoal_raft_out_of_space", "").await? == 1.0 {
                            break;
                        }
                    }
                    scene.says(full, NO_ROOM).await?;
                    let next = scene.change_without((full + 2) % 3, NO_ROOM).await?;
                    eprintln!(
                        "disk of a {fallen} full: changes took {took:?}, and {next:?} for all the others"
                    );
                    // Who led has nothing to write as soon as another one leads.
                    if full != leader {
                        scene.refuses(full, NO_ROOM).await?;
                    }
                    let full_now = scene.cluster.metric(full, "shoal_raft_out_of_space", "").await?;
                    ensure!(full_now == 1.0, "shoal_raft_out_of_space is {full_now}");
                    disks[full].free()?;
                    let since = Instant::now();
                    scene.agrees().await?;
                    eprintln!("disk of a {fallen}: all the same {:?} after there was room", since.elapsed());
                    wait_until("it has nothing to say any more", MOMENT, async || {
                        scene.cluster.readyz(full).await.is_ok_and(|(_, text)| !text.contains("room"))
                    })
                    .await?;
                    Ok(())
                })
                .await?;
        }
        Ok(())
    })
}

/// Whoever stays alone with that file learns of it before, and it is as ready as any.
#[test]
fn what_it_serves_cannot_be_kept() -> Result<()> {
    Network::around("what_it_serves_cannot_be_kept", async |mut network| {
        let mut scene = Scene::set(&mut network).await?;
        let in_the_way = scene.cluster.nodes[0].data_dir().join("last-known-good.tmp");
        fs::create_dir(&in_the_way)?;
        scene.change(1).await?;
        scene.says(0, "could not be written to").await?;
        let failed = scene.cluster.metric(0, "shoal_config_last_known_good_failed", "").await?;
        ensure!(failed == 1.0, "shoal_config_last_known_good_failed is {failed}");
        let status = scene.cluster.nodes[1].shoal(&["status"]).await?.text();
        ensure!(status.contains("last-known-good.json"), "{status}");
        fs::remove_dir(&in_the_way)?;
        scene.change(1).await?;
        wait_until("it has nothing to say any more", MOMENT, async || {
            let failed = scene.cluster.metric(0, "shoal_config_last_known_good_failed", "").await;
            failed.is_ok_and(|failed| failed == 0.0)
        })
        .await
        .map(drop)
    })
}

/// There is no room for what it has missed: it serves what it has, without waiting, and takes the rest when there is.
#[test]
fn it_starts_on_a_full_disk() -> Result<()> {
    Network::around("it_starts_on_a_full_disk", async |mut network| {
        let mut scene = Scene::set(&mut network).await?;
        let node = (scene.leader().await? + 1) % 3;
        scene.cluster.nodes[node].term()?;
        scene.cluster.nodes[node].ended(MOMENT).await?;
        let disk = SmallDisk::under(&scene.cluster.nodes[node], 64)?;
        disk.fill()?;
        scene.weight = HEAVY;
        for _ in 0..CHANGES_UNTIL_FULL {
            scene.change((node + 1) % 3).await?;
        }
        scene.cluster.restart(node)?;
        let since = Instant::now();
        scene.cluster.node_serves(node, HOST, "/").await?;
        let took = since.elapsed();
        eprintln!("started on a full disk: it serves after {took:?}");
        ensure!(took < START, "{took:?} until it serves what it has");
        scene.says(node, NO_ROOM).await?;
        disk.free()?;
        scene.agrees().await
    })
}

/// Alone it cannot acknowledge anything, says why, and does what was asked when it can.
#[test]
fn the_disk_of_the_only_node_is_full() -> Result<()> {
    Network::around("the_disk_of_the_only_node_is_full", async |mut network| {
        let mut cluster = Cluster::start_in(&mut network, 1, &[]).await?;
        cluster.nodes[0].term()?;
        cluster.nodes[0].ended(MOMENT).await?;
        let disk = SmallDisk::under(&cluster.nodes[0], 64)?;
        cluster.restart(0)?;
        cluster.answers(0).await?;
        cluster.settle().await?;

        disk.fill()?;
        let mut site = SiteFile::new().proxy("shop", &["127.0.0.1:9".into()]);
        for (name, route) in heavy_routes("shop.example.com", HEAVY) {
            site = site.route(&name, route);
        }
        let site = cluster.file("site.json", site.text())?;
        let apply = ["apply", "-f", path_text(&site)];
        for expected in ["the outcome is unknown", "its log waits for room"] {
            let refused = cluster.nodes[0].shoal(&apply).await?.expect(2)?;
            for said in [expected, "no space left on device; free space for its data directory"] {
                ensure!(refused.stderr.contains(said), "no {said:?} in {}", refused.text());
            }
        }
        disk.free()?;
        cluster
            .eventually("what was asked for is done", async || {
                (cluster.revision(0).await.ok()? > 0).then_some(())
            })
            .await?;
        cluster.nodes[0].shoal(&["set", "upstream/other", "endpoints=[\"127.0.0.1:9\"]"]).await?.expect(0)?;
        Ok(())
    })
}

#[test]
fn its_disk_fails() -> Result<()> {
    Network::around("its_disk_fails", async |mut network| {
        let mut scene = Scene::set(&mut network).await?;
        let Some(shim) = FaultShim::build(scene.cluster.dir())? else {
            skip("its_disk_fails", "there is no C compiler");
            return Ok(());
        };
        for fallen in ["follower", "leader"] {
            let leader = scene.leader().await?;
            let node = if fallen == "leader" { leader } else { (leader + 1) % 3 };
            let faults = scene.give_faults(&shim, node).await?;
            if fallen == "leader" {
                lead(&mut scene, node).await?;
            }
            scene
                .serving(&format!("flushes of a {fallen} take 2 s"), async |scene| {
                    let slow = Belief { flush_delay: Duration::from_secs(2), ..Belief::default() };
                    faults.believe(slow)?;
                    let mut took = Vec::new();
                    for n in 0..6 {
                        took.push(scene.change((node + n) % 3).await?);
                    }
                    eprintln!("slow disk of a {fallen}: changes took {took:?}");
                    faults.believe(Belief::default())?;
                    scene.agrees().await
                })
                .await?;
            scene
                .serving(&format!("a flush of a {fallen} fails"), async |scene| {
                    faults.believe(Belief { flush_error: EIO, ..Belief::default() })?;
                    let took = scene.change((node + 1) % 3).await?;
                    scene.says(node, "its log cannot be written: input/output error").await?;
                    faults.believe(Belief::default())?;
                    let next = scene.change((node + 2) % 3).await?;
                    eprintln!("failed flush of a {fallen}: changes took {took:?} and {next:?}");
                    // It may work again; what is on the disk is unknown all the same.
                    scene.says(node, "its log cannot be written").await
                })
                .await?;
            scene.restarted(node, |_| Ok(())).await?;
            scene.change(node).await?;
            scene.agrees().await?;
        }
        Ok(())
    })
}

/// `node` leads from now on.
async fn lead(scene: &mut Scene, node: usize) -> Result<()> {
    while scene.leader().await? != node {
        let leader = scene.leader().await?;
        scene.restarted(leader, |_| Ok(())).await?;
    }
    Ok(())
}

#[test]
fn its_clock_is_wrong() -> Result<()> {
    Network::around("its_clock_is_wrong", async |mut network| {
        let mut scene = Scene::set(&mut network).await?;
        let Some(shim) = FaultShim::build(scene.cluster.dir())? else {
            skip("its_clock_is_wrong", "there is no C compiler");
            return Ok(());
        };
        let node = (scene.leader().await? + 1) % 3;
        let faults = scene.give_faults(&shim, node).await?;
        let term = scene.term(0).await?;
        for ahead in [3600, -2 * 3600, 10 * 366 * 86_400] {
            scene
                .serving(&format!("the clock of a node is {ahead} s ahead"), async |scene| {
                    faults.believe(Belief { clock_ahead: ahead, ..Belief::default() })?;
                    for at in [node, (node + 1) % 3, (node + 2) % 3] {
                        scene.change(at).await?;
                    }
                    scene.agrees().await?;
                    let mut aged = 0;
                    for n in 0..20 {
                        let path = format!("/kept/{n}");
                        let kept = fetch(scene.cluster.nodes[node].at(Ports::HTTP), HOST, &path);
                        let age = kept.await?.field("age").to_owned();
                        // What is fetched just now has none.
                        let is_sane = age.is_empty() || age.parse::<u32>().is_ok_and(|age| age < 600);
                        ensure!(is_sane, "something is {age:?} s old");
                        aged += u32::from(!age.is_empty());
                    }
                    ensure!(aged > 0, "nothing came from the cache");
                    Ok(())
                })
                .await?;
            faults.believe(Belief::default())?;
        }
        let after = scene.term(0).await?;
        ensure!(after == term, "there was an election: term {term}, then {after}");
        // It starts while certificates that were made an hour ago are of the future: it believes nobody, serves what it has,
        // and is back when the clock is.
        scene.cluster.nodes[node].term()?;
        scene.cluster.nodes[node].ended(MOMENT).await?;
        faults.believe(Belief { clock_ahead: -2 * 3600, ..Belief::default() })?;
        scene.cluster.restart(node)?;
        scene.cluster.answers(node).await?;
        scene.cluster.serves(HOST, "/").await?;
        scene.change((node + 1) % 3).await?;
        faults.believe(Belief::default())?;
        scene.cluster.settle().await?;
        scene.change(node).await?;
        scene.agrees().await
    })
}

#[test]
fn it_hardly_gets_to_run() -> Result<()> {
    Network::around("it_hardly_gets_to_run", async |mut network| {
        let mut scene = Scene::set(&mut network).await?;
        for fallen in ["follower", "leader"] {
            let leader = scene.leader().await?;
            let node = if fallen == "leader" { leader } else { (leader + 1) % 3 };
            let others = [(node + 1) % 3, (node + 2) % 3];
            scene
                .serving(&format!("a {fallen} has a fifth of a CPU"), async |scene| {
                    let starved = Starved::node(&scene.cluster.nodes[node])?;
                    let mut took = Vec::new();
                    for n in 0..10 {
                        took.push(scene.change(others[n % 2]).await?);
                        for other in others {
                            let dead = scene.cluster.metric(other, "shoal_gossip_dead_members", "").await?;
                            ensure!(dead == 0.0, "n{} takes {dead} nodes for dead", other + 1);
                        }
                    }
                    eprintln!("a fifth of a CPU for a {fallen}: changes took {took:?}");
                    drop(starved);
                    scene.agrees().await
                })
                .await?;
        }
        Ok(())
    })
}

#[test]
fn it_is_heard_on_one_channel_only() -> Result<()> {
    Network::around("it_is_heard_on_one_channel_only", async |mut network| {
        let mut scene = Scene::set(&mut network).await?;
        for channel in [Channel::Gossip, Channel::Calls] {
            let node = (scene.leader().await? + 1) % 3;
            let others = [(node + 1) % 3, (node + 2) % 3];
            scene
                .serving(&format!("a node is heard only beside {channel:?}"), async |scene| {
                    network.silence(node, channel)?;
                    let mut took = Vec::new();
                    for n in 0..4 {
                        took.push(scene.change(others[n % 2]).await?);
                    }
                    eprintln!("no {channel:?}: changes took {took:?}");
                    network.let_speak(node, channel)?;
                    scene.agrees().await
                })
                .await?;
            scene.cluster.settle().await?;
            scene.change(node).await?;
            scene.agrees().await?;
        }
        Ok(())
    })
}
