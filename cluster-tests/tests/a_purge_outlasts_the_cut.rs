//! A node that is cut off from the others, while those who ask it are not, serves nothing of a purge once that is
//! acknowledged: not while it is cut off, not when it is back, not after a crash, from what it has on disk. The same goes for
//! what a request has changed, once that is answered, be it the URL itself or what the origin names with its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Answer, Bar, Cluster, HOST, Network, Origin, Ports, Reply, SiteFile, Speak, VerbOutput, empty, fetch,
    send, wait_until,
};
use futures_util::future::try_join_all;
use http::{Method, Request};
use serde_json::json;
use tokio::task::JoinHandle;

/// Objects, each with a little of the cluster to live on.
const OBJECTS: usize = 12;
const LEASE: Duration = Duration::from_secs(2);
/// A lease, and half a second for an acknowledgement that waits for it. An election takes less, and is over before.
const ONE_LEASE: Duration = Duration::from_millis(2020 + 500);
/// That of the first purge. An election that has to be held twice is not over within a lease.
const ACKNOWLEDGED: Bar = Bar::of_ms(2_520, 2_500);
/// For so long an answer waits until nobody serves the groups that it names. What takes longer is not promised.
const GROUPS_PATIENCE: Duration = Duration::from_secs(12);
/// An object that nobody asks for without a pause.
const QUIET: &str = "/quiet";
/// Not one of the objects: what is posted to changes all of them.
const STOCK: &str = "/stock";
/// Deadline of anything that takes a moment.
const MOMENT: Duration = Duration::from_secs(60);
/// Requests at the node that is cut off, at least, between two turns of a story.
const REQUESTS: usize = 100;

/// Three nodes with an origin of which there are versions.
struct Parted {
    network: Network,
    cluster: Cluster,
    origin: Origin,
    version: Arc<AtomicUsize>,
}

/// Asks a node without a pause, and holds it to what was purged.
struct Watch {
    /// What is older is not to be answered any more, by what was asked since.
    oldest: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    asking: JoinHandle<Result<()>>,
}

impl Parted {
    async fn start(mut network: Network) -> Result<Self> {
        let cluster =
            Cluster::start_in(&mut network, 3, &["--cache-disk", "64MiB", "--timing", "lan"]).await?;
        let version = Arc::new(AtomicUsize::new(1));
        let current = version.clone();
        let origin = Origin::start_at((Network::HERE, 0).into(), move |seen| {
            let version = current.load(Ordering::SeqCst);
            let reply = Reply::ok(version.to_string()).field("cache-control", "max-age=3600");
            match (&seen.method, &*seen.path) {
                (&Method::POST, STOCK) => reply.field("cache-group-invalidation", "\"stock\""),
                _ => reply.field("cache-groups", "\"shelf\", \"stock\""),
            }
        })
        .await?;
        let mut site = SiteFile::new().cached("shop", &[origin.endpoint()]);
        for policy in ["serve", "fail"] {
            let cache = json!({ "purge_unverified": policy });
            let path = format!("/{policy}");
            site = site.route(policy, json!({ "path_prefix": path, "upstream": "shop", "cache": cache }));
        }
        cluster.put_in_force(&site).await?;
        Ok(Self { network, cluster, origin, version })
    }

    /// The version that the origin has.
    fn newest(&self) -> usize {
        self.version.load(Ordering::SeqCst)
    }

    async fn fetch(&self, node: usize, path: &str) -> Result<Answer> {
        fetch(self.cluster.nodes[node].at(Ports::HTTP), HOST, path).await
    }

    /// Every node has every object, and what belongs on disk is there.
    async fn warm(&self, far: usize) -> Result<()> {
        for path in (0..OBJECTS).map(object).chain(["/serve", "/fail", QUIET].map(str::to_owned)) {
            wait_until("it is a hit at the node that is to be cut off", MOMENT, async || {
                self.fetch(far, &path).await.is_ok_and(|answer| answer.is_hit())
            })
            .await?;
        }
        Ok(())
    }

    /// The origin changes, and everything is purged at `node`.
    async fn purge(&self, node: usize) -> Result<VerbOutput> {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.cluster.nodes[node].shoal(&["cache", "purge", "--all", "-o", "json"]).await
    }

    /// The origin changes, and so does every object, by requests to `node`; says how long the answers took.
    async fn write(&self, node: usize) -> Result<Duration> {
        self.post(node, (0..OBJECTS).map(object)).await
    }

    /// The same, by one request for something else: its answer names the group that all objects are in.
    async fn change_stock(&self, node: usize) -> Result<Duration> {
        self.post(node, [STOCK.to_owned()]).await
    }

    async fn post(&self, node: usize, paths: impl IntoIterator<Item = String>) -> Result<Duration> {
        self.version.fetch_add(1, Ordering::SeqCst);
        let (web, started) = (self.cluster.nodes[node].at(Ports::HTTP), Instant::now());
        let writes = paths.into_iter().map(async |path| {
            let request = Request::post(path).header("host", HOST).body(empty())?;
            send(web, Speak::Http1, request).await
        });
        let answers = try_join_all(writes).await?;
        ensure!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        Ok(started.elapsed())
    }

    /// Who is to be cut off, the leader or another one, and who is asked then; the first has everything and is watched.
    async fn watched(&self, is_leader: bool) -> Result<(usize, usize, Watch)> {
        let leader = self.cluster.leader_seen_by(0).await?;
        let far = if is_leader { leader } else { (leader + 1) % 3 };
        self.warm(far).await?;
        let watch = self.watch(far);
        watch.goes_on().await?;
        Ok((far, (far + 1) % 3, watch))
    }

    /// Who was cut off is back, and may answer from what it has.
    async fn rejoin(&self, far: usize, watch: &Watch) -> Result<()> {
        self.network.rejoin(far)?;
        self.cluster.holds_lease(far).await?;
        watch.goes_on().await
    }

    fn watch(&self, node: usize) -> Watch {
        let web = self.cluster.nodes[node].at(Ports::HTTP);
        let (oldest, asked, ended) =
            (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let asking = {
            let (oldest, asked, ended) = (oldest.clone(), asked.clone(), ended.clone());
            tokio::spawn(async move {
                while !ended.load(Ordering::SeqCst) {
                    let path = object(asked.load(Ordering::SeqCst) % OBJECTS);
                    let at_least = oldest.load(Ordering::SeqCst);
                    // It may be dead just now.
                    if let Ok(answer) = fetch(web, HOST, &path).await
                        && answer.status == 200
                    {
                        let version: usize = std::str::from_utf8(&answer.body)?.parse()?;
                        ensure!(version >= at_least, "{path}: {version}, {at_least} at least: {answer:?}");
                        asked.fetch_add(1, Ordering::SeqCst);
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
                Ok(())
            })
        };
        Watch { oldest, asked, ended, asking }
    }
}

impl Watch {
    /// What was purged is not to be seen by whoever asks from now on.
    fn expect(&self, version: usize) {
        self.oldest.store(version, Ordering::SeqCst);
    }

    /// Enough was asked since this was called.
    async fn goes_on(&self) -> Result<()> {
        let before = self.asked.load(Ordering::SeqCst);
        wait_until("it answers those who ask it", MOMENT, async || {
            self.asking.is_finished() || self.asked.load(Ordering::SeqCst) >= before + REQUESTS
        })
        .await
        .map(drop)
    }

    async fn end(self) -> Result<()> {
        self.ended.store(true, Ordering::SeqCst);
        self.asking.await?
    }
}

fn object(n: usize) -> String {
    format!("/objects/{n}")
}

fn took(purge: &VerbOutput) -> Result<Duration> {
    let told = purge.json()?;
    Ok(Duration::from_millis(told["elapsed_ms"].as_u64().with_context(|| told.to_string())?))
}

#[test]
fn while_it_lasts_and_when_it_is_over() -> Result<()> {
    Network::around("while_it_lasts_and_when_it_is_over", async |network| {
        let parted = Parted::start(network).await?;
        for is_leader in [false, true] {
            let (far, asked, watch) = parted.watched(is_leader).await?;

            parted.network.isolate(far)?;
            let purge = parted.purge(asked).await?;
            watch.expect(parted.newest());
            let took = took(&purge)?;
            println!("purge with {} cut off:", if is_leader { "the leader" } else { "a follower" });
            ACKNOWLEDGED.hold("it is acknowledged", took)?;
            watch.goes_on().await?;
            policies_hold(&parted, far).await?;
            let again = parted.purge(asked).await?;
            watch.expect(parted.newest());
            let again = self::took(&again)?;
            println!("the next one: {again:?}");
            ensure!(again < LEASE, "it was waited for again: {again:?}");
            watch.goes_on().await?;

            parted.rejoin(far, &watch).await?;
            watch.end().await?;
            parted.cluster.settle().await?;
        }
        Ok(())
    })
}

/// What a node does with hits that it cannot vouch for is each route's to say.
async fn policies_hold(parted: &Parted, far: usize) -> Result<()> {
    // Requests of one moment share what the origin is asked for.
    let fetches = parted.origin.count(QUIET);
    let validated = parted.fetch(far, QUIET).await?;
    ensure!(validated.body == parted.newest().to_string() && !validated.is_hit(), "{validated:?}");
    ensure!(parted.origin.count(QUIET) > fetches, "the origin was not asked");
    // What it does not own is not here any more: then it is fetched once more, which is a miss.
    parted.fetch(far, "/serve").await?;
    let served = parted.fetch(far, "/serve").await?;
    ensure!(served.is_hit() && served.cache_status().ends_with("; detail=purge-unverified"), "{served:?}");
    wait_until("hits are refused where the route says so", MOMENT, async || {
        parted.fetch(far, "/fail").await.is_ok_and(|answer| answer.status == 504)
    })
    .await
    .map(drop)
}

#[test]
fn after_a_crash_with_what_is_on_disk() -> Result<()> {
    Network::around("after_a_crash_with_what_is_on_disk", async |network| {
        let mut parted = Parted::start(network).await?;
        for is_dead_before in [false, true] {
            let (far, asked, watch) = parted.watched(false).await?;
            parted.network.isolate(far)?;
            if is_dead_before {
                parted.cluster.nodes[far].kill9()?;
            }
            parted.purge(asked).await?;
            watch.expect(parted.newest());
            if !is_dead_before {
                parted.cluster.nodes[far].kill9()?;
            }
            parted.cluster.restart(far)?;
            // It hears of nobody, and serves what it served last.
            watch.goes_on().await?;
            parted.rejoin(far, &watch).await?;
            watch.end().await?;
            parted.cluster.settle().await?;
        }
        Ok(())
    })
}

#[test]
fn a_write_is_answered_once_nobody_serves_what_it_changed() -> Result<()> {
    Network::around("a_write_is_answered_once_nobody_serves_what_it_changed", async |network| {
        let parted = Parted::start(network).await?;
        let (far, asked, watch) = parted.watched(false).await?;
        let healthy = parted.write(asked).await?;
        watch.expect(parted.newest());
        watch.goes_on().await?;
        parted.warm(far).await?;

        parted.network.isolate(far)?;
        let first = parted.write(asked).await?;
        watch.expect(parted.newest());
        watch.goes_on().await?;
        wait_until("the others notice that it is silent", MOMENT, async || {
            parted.write(asked).await.is_ok_and(|took| took < ONE_LEASE / 2)
        })
        .await?;
        watch.expect(parted.newest());
        watch.goes_on().await?;
        println!("writes: {healthy:?}, with a node just cut off {first:?}");

        parted.rejoin(far, &watch).await?;
        watch.end().await
    })
}

/// What is promised of groups (RFC 9875) is what is promised of purges, as long as the answer that names them goes on within
/// its 12 s: so it does wherever those who are left elect a leader. Without a majority, and beyond those 12 s, a node that
/// is cut off may serve what is old until its lease has run out; that is not told here.
#[test]
fn a_group_that_an_origin_names_is_gone_everywhere() -> Result<()> {
    Network::around("a_group_that_an_origin_names_is_gone_everywhere", async |network| {
        let mut parted = Parted::start(network).await?;
        for is_leader in [false, true] {
            let (far, asked, watch) = parted.watched(is_leader).await?;

            parted.network.isolate(far)?;
            let took = parted.change_stock(asked).await?;
            watch.expect(parted.newest());
            println!(
                "a group with {} cut off: {took:?}",
                if is_leader { "the leader" } else { "a follower" }
            );
            ensure!(took < GROUPS_PATIENCE, "it took {took:?}: nothing is promised then");
            watch.goes_on().await?;
            // It is known to be silent by now, or will be soon.
            let again = parted.change_stock(asked).await?;
            watch.expect(parted.newest());
            ensure!(again < GROUPS_PATIENCE, "it took {again:?}: nothing is promised then");
            if is_leader {
                parted.cluster.nodes[far].kill9()?;
                parted.cluster.restart(far)?;
            }
            watch.goes_on().await?;

            parted.rejoin(far, &watch).await?;
            all_is_new(&parted, far).await?;
            watch.end().await?;
            parted.cluster.settle().await?;
        }
        Ok(())
    })
}

/// Every node answers with the objects of now, the one that was cut off by hits.
async fn all_is_new(parted: &Parted, far: usize) -> Result<()> {
    parted.warm(far).await?;
    for path in (0..OBJECTS).map(object) {
        for node in 0..3 {
            let answer = parted.fetch(node, &path).await?;
            ensure!(answer.body == parted.newest().to_string(), "{path} at {node}: {answer:?}");
        }
    }
    Ok(())
}
