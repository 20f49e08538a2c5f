//! Three regions of three nodes, 80 ms from each other: whichever is lost, the others go on, and it comes to the same state when
//! it is back. A bad wire between them kills nobody.

mod asking;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Bar, Cluster, Crowd, HOST, Load, Network, Origin, Ports, SiteFile, Wire, pattern, wait_until,
};
use shoal_ctl::{Client, Exit, Failure};
use shoal_proto::admin::{ApplyRequest, ShowRequest, StatusResponse};

use asking::{change_of, client_of, in_words};

const BODY: usize = 2000;
/// From one region to another and back.
const ROUND_TRIP: Duration = Duration::from_millis(80);
/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(60);
/// Until five nodes vote: those that are not among the first three have to be heard for 30 s.
const UNTIL_FIVE_VOTE: Duration = Duration::from_secs(180);
/// For one node to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// For a change from the region with one vote, half of the time.
const CHANGED: Bar = Bar::of_median_ms(400, 465);
/// For one at the leader over a bad wire, half of the time, and all but one of a hundred times.
const CHANGED_BADLY: Bar = Bar::of_median_ms(240, 340);
const CHANGED_AT_WORST: Bar = Bar::of_ms(240, 1650);
/// For how long nothing may be acknowledged when the region of the leader is lost.
const GAP: Bar = Bar::of_ms(10_000, 6_400);
/// For a node that has no leader to say so.
const REFUSED: Bar = Bar::of_ms(8_000, 8_100);
/// The same once it has known that for longer: one more attempt at an election.
const REFUSED_AGAIN: Bar = Bar::of_ms(4_000, 3_700);
/// For so long is a region cut off at least.
const CUT: Duration = Duration::from_secs(15);
/// For a region that is back to have what the others have.
const HEALED: Bar = Bar::of_ms(5_000, 3_030);
/// For so long do nodes bear with a bad wire.
const WATCH: Duration = Duration::from_secs(30);
/// Changes whose time is taken.
const CHANGES: usize = 50;
/// Between two of one writer.
const PACE: Duration = Duration::from_millis(50);

#[test]
fn a_region_is_cut_off() -> Result<()> {
    Network::of_regions("a_region_is_cut_off", async |mut network| {
        network.lay_wire(Wire { delay: ROUND_TRIP / 2, ..Wire::default() });
        let regions = ["eu", "eu", "eu", "us", "us", "us", "ap", "ap", "ap"];
        let cluster = Cluster::start_in_regions(&mut network, &regions, &["--timing", "wan"], &[]).await?;
        let origin = Origin::of_patterns_in_network(BODY, "no-store").await?;
        cluster.put_in_force(&SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
        let town = Town::of(&cluster);

        let formed = wait_until("no region has most of five votes", UNTIL_FIVE_VOTE, async || {
            town.votes(0)
                .await
                .is_ok_and(|votes| votes == [2, 2, 1] || votes == [2, 1, 2] || votes == [1, 2, 2])
        });
        let (formed, votes) = (formed.await?, town.votes(0).await?);
        eprintln!("five nodes vote, {votes:?} of each region, {formed:?} after the others");

        let poor = votes.iter().position(|votes| *votes == 1).context("no region has one vote")?;
        let (acknowledged, everywhere) =
            (town.changes(3 * poor, true).await?, town.changes(3 * poor, false).await?);
        eprintln!(
            "a change from the region with one vote: acknowledged {acknowledged}, on all nodes {everywhere}"
        );
        CHANGED.hold("half of the changes from that region", acknowledged.median)?;

        let lost = town.leader(0).await? / 3;
        let inside: Vec<usize> = (3 * lost..3 * lost + 3).collect();
        let outside: Vec<usize> = (0..9).filter(|node| !inside.contains(node)).collect();
        let asked = [inside[0], outside[0], outside[3]].map(|node| cluster.nodes[node].at(Ports::HTTP));
        let paths = (0..20).map(|n| format!("/{n}")).collect();
        let load = Load::start(&asked, 2, HOST, paths, |path| Some(pattern(path, BODY)));
        wait_until("requests are answered", MOMENT, async || load.good() > 50).await?;
        let crowd = town.crowd(&[outside[0], outside[3]]);
        wait_until("changes are acknowledged", MOMENT, async || crowd.acknowledged() > 5).await?;

        let happened = Instant::now();
        network.cut_region(lost);
        let refused = wait_until(
            "the lost region refuses a change",
            MOMENT,
            async || matches!(town.change(inside[1], true).await, Err(failure) if failure.exit == Exit::NoQuorum),
        );
        REFUSED.hold("the lost region refuses a change", refused.await?)?;
        for node in &inside {
            let asked = Instant::now();
            let again = town.change(*node, true).await;
            let took = asked.elapsed();
            ensure!(
                matches!(&again, Err(failure) if failure.exit == Exit::NoQuorum),
                "a change was not refused"
            );
            REFUSED_AGAIN.hold("one of its nodes refuses another one", took)?;
        }
        town.revision(inside[1]).await.context("a read of what is there")?;
        wait_until("changes are acknowledged again", MOMENT, async || {
            happened.elapsed() > CUT && crowd.goes_on(Duration::from_secs(1))
        })
        .await?;
        let gap = crowd.longest_gap(happened);
        let report = load.finish().await;
        for (what, target) in ["the lost region", "another", "the third"].iter().zip(&report.targets) {
            let failed = target.wrong() + target.connection_errors();
            ensure!(failed == 0, "{failed} requests failed in {what}: {}", target.faults());
        }
        eprintln!("{} requests meanwhile in all three regions, none failed", report.good());
        ensure!(report.good() > 200, "{} requests in all", report.good());
        crowd.leave().await?;

        let newest = town.revision(outside[0]).await?;
        ensure!(town.revision(inside[0]).await? < newest, "the lost region has what it cannot have");
        network.rejoin_region(lost);
        let healed = wait_until("all regions have the newest revision", MOMENT, async || {
            for node in 0..9 {
                if town.revision(node).await.ok() != Some(newest) {
                    return false;
                }
            }
            true
        });
        let healed = healed.await?;
        eprintln!("{:?}", network.carried());
        GAP.hold("the region of the leader was lost, and nothing acknowledged", gap)?;
        HEALED.hold("the region is back, and has not caught up", healed)?;
        cluster.settle().await
    })
}

#[test]
fn a_bad_wire_kills_nobody() -> Result<()> {
    Network::of_regions("a_bad_wire_kills_nobody", async |mut network| {
        let good = Wire { delay: ROUND_TRIP / 2, ..Wire::default() };
        network.lay_wire(good);
        let cluster =
            Cluster::start_in_regions(&mut network, &["eu", "us", "ap"], &["--timing", "wan"], &[]).await?;
        let site = SiteFile::new().proxy("shop", &["127.0.0.1:9".to_owned()]);
        cluster.apply(0, &site).await?;
        let town = Town::of(&cluster);
        let leader = town.leader(0).await?;
        let before = town.status(leader).await?;
        let quiet = town.changes(leader, true).await?;

        network.lay_wire(Wire { late: 0.25, lost: 0.05, doubled: 0.05, damaged: 0.01, ..good });
        let (began, mut took) = (Instant::now(), Vec::new());
        while began.elapsed() < WATCH {
            took.extend(town.changes(leader, true).await?.all);
            for node in 0..3 {
                let status = town.status(node).await?;
                ensure!(
                    identities(&status) == identities(&before),
                    "somebody believed something else: {status:?}"
                );
                let dead = status.nodes.iter().find(|other| other.state != "alive");
                ensure!(dead.is_none(), "n{} takes somebody for dead: {dead:?}", node + 1);
            }
        }
        let after = town.status(leader).await?;
        let (noisy, carried) = (Times::of(took), network.carried());
        eprintln!("a change at the leader: {quiet}; over a bad wire {noisy}");
        eprintln!("nobody was taken for dead; {} elections; {carried:?}", after.term - before.term);
        network.lay_wire(good);

        let mut unauthentic = 0.0;
        for node in 0..3 {
            let label = "reason=\"unauthentic\"";
            unauthentic += cluster.metric(node, "shoal_gossip_dropped_total", label).await?;
            ensure!(!cluster.nodes[node].log().contains("panicked"), "n{} panicked", node + 1);
        }
        eprintln!("{} datagrams were damaged, {unauthentic} refused for it", carried.damaged);
        ensure!(carried.damaged > 0 && unauthentic > 0.0, "nothing was damaged");
        CHANGED_BADLY.hold("half of the changes over a bad wire", noisy.median)?;
        CHANGED_AT_WORST.hold("99 of 100 changes over a bad wire", noisy.late)?;
        let newest = town.revision(leader).await?;
        wait_until("all nodes have the newest revision", MOMENT, async || {
            town.revision((leader + 1) % 3).await.ok() == Some(newest)
                && town.revision((leader + 2) % 3).await.ok() == Some(newest)
        })
        .await
        .map(drop)
    })
}

#[test]
fn a_region_leaves_service_and_comes_back() -> Result<()> {
    Network::of_regions("a_region_leaves_service_and_comes_back", async |mut network| {
        let (regions, extra) = (["eu", "eu", "us"], ["--drain-delay", "1s", "--zone", "zone-of-{name}"]);
        let cluster = Cluster::start_in_regions(&mut network, &regions, &[], &extra).await?;
        let origin = Origin::of_patterns_in_network(BODY, "no-store").await?;
        cluster.put_in_force(&SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;
        let asked = [0, 1, 2].map(|node| cluster.nodes[node].at(Ports::HTTP));
        let paths = (0..20).map(|n| format!("/{n}")).collect();
        let load = Load::start(&asked, 2, HOST, paths, |path| Some(pattern(path, BODY)));
        wait_until("requests are answered", MOMENT, async || load.good() > 50).await?;

        let refused = [
            (["zone", "drain", "eu/a"], "zones are: eu/zone-of-n1, eu/zone-of-n2, us/zone-of-n3"),
            (["zone", "drain", "us/zone-of-n3"], "no node of another zone of the region \"us\" serves"),
            (["region", "drain", "asia"], "no node is in the region \"asia\"; regions are: eu, us"),
        ];
        for (verb, why) in refused {
            let refused = cluster.nodes[2].shoal(&verb).await?.expect(1)?;
            ensure!(refused.stderr.contains(why), "{refused:?}");
        }
        let drained = cluster.nodes[2].shoal(&["zone", "drain", "eu/zone-of-n1"]).await?.expect(0)?.stdout;
        ensure!(drained.contains("n1 is drained (") && !drained.contains("n2 is"), "{drained}");
        let back = cluster.nodes[1].shoal(&["zone", "undrain", "eu/zone-of-n1"]).await?.expect(0)?.stdout;
        ensure!(back.contains("n1 is in service (") && !back.contains("n2 is"), "{back}");

        let drained = cluster.nodes[0].shoal(&["region", "drain", "eu"]).await?.expect(0)?.stdout;
        let is_drained = |name: &str| drained.find(&format!("{name} is drained ("));
        ensure!(is_drained("n1").is_some() && is_drained("n2").is_some(), "{drained}");
        // Again is nothing new, and nobody but the other region serves now.
        cluster.nodes[2].shoal(&["region", "drain", "eu"]).await?.expect(0)?;
        let last = cluster.nodes[1].shoal(&["region", "drain", "us"]).await?.expect(1)?;
        ensure!(last.stderr.contains("no node of another region than \"us\" serves"), "{last:?}");
        let before = load.good();
        wait_until("the other region answers", MOMENT, async || load.good() > before + 50).await?;

        let back = cluster.nodes[2].shoal(&["region", "undrain", "eu"]).await?.expect(0)?;
        ensure!(back.stdout.matches(" is in service (").count() == 2, "{back:?}");
        cluster.serves(HOST, "/").await?;
        for target in load.finish().await.targets {
            let lost = target.broken.load(Ordering::Relaxed) + target.stillborn.load(Ordering::Relaxed);
            ensure!(target.wrong() + lost == 0, "{lost} requests were lost: {}", target.faults());
        }
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_grows_beyond_its_region_is_made_more_patient() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["--timing", "lan"]).await?;
    cluster.nodes[1].shoal(&["cluster", "setup", "--max-voters", "4"]).await?.expect(1)?;
    let changed =
        cluster.nodes[1].told(&["cluster", "setup", "--timing", "wan", "--max-voters", "7"]).await?;
    ensure!(changed["timing"] == "wan" && changed["max_voters"] == 7, "it was not changed: {changed:#}");
    let names = |setup: &serde_json::Value| setup["until_restarted"].as_array().map_or(0, Vec::len);
    ensure!(names(&changed) == 3, "a node goes by it without a restart: {changed:#}");
    for i in 0..3 {
        let file = cluster.nodes[i].data_dir().join("setup.json");
        wait_until("it is on disk", MOMENT, async || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.contains("wan"))
        })
        .await?;
        cluster.nodes[i].kill9()?;
        cluster.restart(i)?;
        cluster.answers(i).await?;
        cluster.settle().await?;
        let shown = cluster.nodes[i].told(&["cluster", "setup"]).await?;
        ensure!(names(&shown) == 2 - i, "after {} restarts: {shown:#}", i + 1);
        ensure!(cluster.nodes[i].log().contains("this one goes by what it has agreed on"), "--timing lan");
    }
    Ok(())
}

/// What nodes are to know of each other, whatever was damaged on the way.
fn identities(status: &StatusResponse) -> Vec<(u64, &str, &str, &str)> {
    let nodes = status.nodes.iter();
    nodes.map(|node| (node.node_id, &*node.node, &*node.region, &*node.cluster_addr)).collect()
}

/// The nodes of a cluster, to be asked whatever they hear of each other.
#[derive(Clone)]
struct Town {
    nodes: Arc<Vec<Client>>,
    /// No two changes are the same.
    values: Arc<AtomicU64>,
}

impl Town {
    fn of(cluster: &Cluster) -> Self {
        let nodes = cluster.nodes.iter().map(|node| client_of(node, PATIENCE)).collect();
        Self { nodes: Arc::new(nodes), values: Arc::default() }
    }

    async fn status(&self, node: usize) -> Result<StatusResponse> {
        self.nodes[node].status().await.map_err(in_words)
    }

    /// The place of the leader, as `node` sees it.
    async fn leader(&self, node: usize) -> Result<usize> {
        let status = self.status(node).await?;
        let leader = status.nodes.iter().find(|node| node.role == "leader").context("no node leads")?;
        let number = leader.node.strip_prefix('n').and_then(|number| number.parse::<usize>().ok());
        Ok(number.with_context(|| format!("who is {}?", leader.node))? - 1)
    }

    /// How many nodes of each region vote, as `node` sees it.
    async fn votes(&self, node: usize) -> Result<Vec<usize>> {
        let status = self.status(node).await?;
        let votes = |region: &str| {
            let voters = status.nodes.iter().filter(|node| node.role == "leader" || node.role == "voter");
            voters.filter(|node| node.region == region).count()
        };
        Ok(["eu", "us", "ap"].map(votes).to_vec())
    }

    /// The revision that `node` has.
    async fn revision(&self, node: usize) -> Result<u64> {
        let request = ShowRequest { revision: 0, consistent: false };
        self.nodes[node].show("get", request).await.map(|shown| shown.revision).map_err(in_words)
    }

    /// Changes a route at `node`; `no_wait` = it is acknowledged when it is in the log for good.
    async fn change(&self, node: usize, no_wait: bool) -> Result<u64, Failure> {
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let request = ApplyRequest { no_wait, ..change_of("changed", value, PATIENCE) };
        self.nodes[node].apply(request).await.map(|applied| applied.revision)
    }

    /// Those who change something all the time, one at each of these nodes.
    fn crowd(&self, nodes: &[usize]) -> Crowd {
        let mut crowd = Crowd::at_pace(PACE);
        for &node in nodes {
            let town = self.clone();
            crowd.join(move || {
                let town = town.clone();
                async move { Ok(town.change(node, true).await.is_ok()) }
            });
        }
        crowd
    }

    /// How long each of some changes at `node` took.
    async fn changes(&self, node: usize, no_wait: bool) -> Result<Times> {
        let mut all = Vec::new();
        for _ in 0..CHANGES {
            let since = Instant::now();
            self.change(node, no_wait).await.map_err(in_words)?;
            all.push(since.elapsed());
        }
        Ok(Times::of(all))
    }
}

/// How long things took.
struct Times {
    median: Duration,
    /// The 99th percentile.
    late: Duration,
    all: Vec<Duration>,
}

impl Times {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        let at = |share: usize| all.get(all.len() * share / 100).copied().unwrap_or_default();
        Self { median: at(50), late: at(99), all }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0?}, at the 99th percentile of {} {:.0?}", self.median, self.all.len(), self.late)
    }
}
