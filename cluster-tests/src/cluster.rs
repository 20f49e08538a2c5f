//! A cluster under test: n nodes, each on a loopback address of its own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::HOST;
use crate::address::LoopbackBlock;
use crate::client::fetch;
use crate::network::Network;
use crate::node::{NodeProcess, Ports, copy_directory};
use crate::site::SiteFile;
use crate::verb::VerbOutput;
use crate::wait::{wait_until, wait_until_some};

/// For a node to answer after its start, on a busy machine and in a debug build.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// For membership to settle: joiners are promoted one at a time.
const SETTLE_DEADLINE: Duration = Duration::from_secs(90);

/// Nodes `n1`, `n2`, …; `n1` made the cluster, the others joined it.
pub struct Cluster {
    /// The nodes, in order of their names.
    pub nodes: Vec<NodeProcess>,
    block: LoopbackBlock,
    dir: TempDir,
}

impl Cluster {
    /// Starts `n` nodes and waits until each of them sees all of them alive and, from three on, voting.
    pub async fn start(n: usize) -> Result<Self> {
        Self::start_with(n, &[]).await
    }

    /// The same with further arguments for every `shoal run`.
    pub async fn start_with(n: usize, extra: &[&str]) -> Result<Self> {
        let mut cluster = Self::planned()?;
        for i in 1..=n {
            cluster.plan_node(cluster.block.ip(10 + i as u8), Vec::new(), extra);
        }
        cluster.assemble().await
    }

    /// The same with a node in each of these regions.
    pub async fn start_of_regions(regions: &[&str]) -> Result<Self> {
        let mut cluster = Self::planned()?;
        for (i, region) in regions.iter().enumerate() {
            cluster.plan_node(cluster.block.ip(11 + i as u8), Vec::new(), &["--region", region]);
        }
        cluster.assemble().await
    }

    /// The same with `name` set in the environment of every node.
    pub async fn start_planted(n: usize, name: &str) -> Result<Self> {
        let mut cluster = Self::planned()?;
        for i in 1..=n {
            cluster.plan_node(cluster.block.ip(10 + i as u8), Vec::new(), &[]);
        }
        cluster.nodes.iter_mut().for_each(|node| node.set_environment(name, "1"));
        cluster.assemble().await
    }

    /// The same with each node in a place of its own: the first one in the first.
    pub async fn start_in(network: &mut Network, n: usize, extra: &[&str]) -> Result<Self> {
        Self::planned_in(network, n, extra)?.assemble().await
    }

    /// The same with `name` set in the environment of every node.
    pub async fn start_planted_in(network: &mut Network, n: usize, name: &str) -> Result<Self> {
        let mut cluster = Self::planned_in(network, n, &[])?;
        cluster.nodes.iter_mut().for_each(|node| node.set_environment(name, "1"));
        cluster.assemble().await
    }

    /// The same in regions far apart, one of these for each node; `founding` are further arguments of the first.
    pub async fn start_in_regions(
        network: &mut Network,
        regions: &[&str],
        founding: &[&str],
        extra: &[&str],
    ) -> Result<Self> {
        let mut cluster = Self::planned()?;
        let mut known: Vec<&str> = Vec::new();
        for (n, region) in regions.iter().enumerate() {
            let number = known.iter().position(|other| other == region).unwrap_or(known.len());
            if number == known.len() {
                known.push(region);
            }
            let (ip, entering) = network.add_place_in(number)?;
            let founding = if n == 0 { founding } else { &[] };
            let all = [&["--region", region], founding, extra].concat();
            cluster.plan_node(ip, entering, &all);
        }
        cluster.assemble().await
    }

    /// The same, of which all but the first join at once: it is for the story to wait for what it wants of them.
    pub async fn start_at_once(n: usize, extra: &[&str]) -> Result<Self> {
        let mut cluster = Self::planned()?;
        for i in 1..=n {
            cluster.plan_node(cluster.block.ip(10 + i as u8), Vec::new(), extra);
        }
        cluster.nodes[0].start(None)?;
        cluster.answers(0).await?;
        let uses = n.to_string();
        let token = cluster.nodes[0].shoal(&["token", "create", "--uses", &uses]).await?.expect(0)?;
        let address = cluster.nodes[0].at(Ports::CLUSTER);
        for node in &mut cluster.nodes[1..] {
            node.start(Some((address, token.stdout.trim())))?;
        }
        Ok(cluster)
    }

    fn planned() -> Result<Self> {
        crate::install_crypto();
        let dir = tempfile::Builder::new().prefix("shoal-story-").tempdir()?;
        Ok(Self { nodes: Vec::new(), block: LoopbackBlock::claim()?, dir })
    }

    fn planned_in(network: &mut Network, n: usize, extra: &[&str]) -> Result<Self> {
        let mut cluster = Self::planned()?;
        for _ in 0..n {
            let (ip, entering) = network.add_place()?;
            cluster.plan_node(ip, entering, extra);
        }
        Ok(cluster)
    }

    fn plan_node(&mut self, ip: IpAddr, entering: Vec<String>, extra: &[&str]) {
        let name = format!("n{}", self.nodes.len() + 1);
        let mut node = NodeProcess::new(&name, ip, &self.dir.path().join(&name), extra);
        node.enter_by(entering);
        self.nodes.push(node);
    }

    async fn assemble(mut self) -> Result<Self> {
        self.nodes[0].start(None)?;
        self.answers(0).await?;
        for i in 1..self.nodes.len() {
            self.let_join(i).await?;
        }
        for i in 1..self.nodes.len() {
            self.answers(i).await?;
        }
        self.settle().await?;
        Ok(self)
    }

    /// A token with which one more node may join.
    pub async fn token(&self) -> Result<String> {
        let output = self.nodes[0].shoal(&["token", "create"]).await?.expect(0)?;
        Ok(output.stdout.trim().to_owned())
    }

    /// The `i`-th node, which has nothing on its disk, starts and joins by the first one.
    pub async fn let_join(&mut self, i: usize) -> Result<()> {
        let (token, address) = (self.token().await?, self.nodes[0].at(Ports::CLUSTER));
        self.nodes[i].start(Some((address, &token)))
    }

    /// The `i`-th node answers operators.
    pub async fn answers(&mut self, i: usize) -> Result<()> {
        let node = &mut self.nodes[i];
        let what = format!("{} answers operators", node.name);
        wait_until(&what, START_DEADLINE, async || {
            node.runs() && node.shoal(&["status"]).await.is_ok_and(|output| output.code == 0)
        })
        .await
        .map(drop)
    }

    /// Every running node sees every node alive; a quorum is there; three and more nodes have three voters.
    pub async fn settle(&self) -> Result<()> {
        let n = self.nodes.len();
        let voters = if n < 3 { 1 } else { 3 };
        for i in 0..n {
            let what = format!("{} sees {n} nodes alive and {voters} voters", self.nodes[i].name);
            wait_until(&what, SETTLE_DEADLINE, async || {
                let Ok(status) = self.status(i).await else { return false };
                let alive = count_nodes(&status, |node| node["state"] == "alive");
                let voting = count_nodes(&status, |node| node["role"] == "leader" || node["role"] == "voter");
                alive == n && voting >= voters && status["quorum"] == true
            })
            .await?;
        }
        Ok(())
    }

    /// `shoal status` of the `i`-th node, as JSON.
    pub async fn status(&self, i: usize) -> Result<Value> {
        self.nodes[i].told(&["status"]).await
    }

    /// The active revision as the `i`-th node sees it.
    pub async fn revision(&self, i: usize) -> Result<u64> {
        self.status(i).await?["revision"].as_u64().context("status has no revision")
    }

    /// What the `i`-th node knows of the one called `name`.
    pub async fn node_seen_by(&self, i: usize, name: &str) -> Result<Value> {
        let status = self.status(i).await?;
        let node = status["nodes"].as_array().into_iter().flatten().find(|node| node["node"] == name);
        node.cloned().with_context(|| format!("there is no {name}"))
    }

    /// The `i`-th node may answer from what it has stored.
    pub async fn holds_lease(&self, i: usize) -> Result<()> {
        wait_until(&format!("{} holds a lease", self.nodes[i].name), SETTLE_DEADLINE, async || {
            self.metric(i, "shoal_cache_lease", "").await.is_ok_and(|lease| lease == 1.0)
        })
        .await
        .map(drop)
    }

    /// The index of the leader, as the `i`-th node sees it.
    pub async fn leader_seen_by(&self, i: usize) -> Result<usize> {
        let status = self.status(i).await?;
        let name = status["nodes"].as_array().into_iter().flatten().find(|node| node["role"] == "leader");
        let name = name.and_then(|node| node["node"].as_str()).context("no node leads")?;
        self.place_of(name)
    }

    /// The index of the node called `name`.
    pub fn place_of(&self, name: &str) -> Result<usize> {
        self.nodes.iter().position(|node| node.name == name).with_context(|| format!("who is {name}?"))
    }

    /// Applies `site` on the `i`-th node and expects every node to run it.
    pub async fn apply(&self, i: usize, site: &SiteFile) -> Result<VerbOutput> {
        self.try_apply(i, site).await?.expect(0)
    }

    /// Applies `site` on the first node, and waits until every node answers for [`HOST`] by it.
    pub async fn put_in_force(&self, site: &SiteFile) -> Result<()> {
        self.apply(0, site).await?;
        self.serves(HOST, "/").await
    }

    /// Applies `site` on the `i`-th node, whatever comes of it.
    pub async fn try_apply(&self, i: usize, site: &SiteFile) -> Result<VerbOutput> {
        self.apply_as(i, site, &[]).await
    }

    /// The same with these arguments.
    pub async fn apply_as(&self, i: usize, site: &SiteFile, how: &[&str]) -> Result<VerbOutput> {
        let file = tempfile::Builder::new().prefix("site-").suffix(".json").tempfile_in(self.dir.path())?;
        site.write(file.path())?;
        self.nodes[i].shoal(&[&["apply", "--prune", "-f", path_text(file.path())], how].concat()).await
    }

    /// Names of the nodes that try the revision on its way, as the `i`-th node says.
    pub async fn tried_by(&self, i: usize) -> Result<Vec<String>> {
        let seen = self.nodes[i].told(&["rollout", "status"]).await?;
        let names = seen["rollout"]["nodes"].as_array().context("nothing is on its way")?;
        Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    }

    /// Applies `site` in waves that last for `bake`, until the first of them is without the leader, whose index this is: who
    /// goes first changes with the revision.
    pub async fn apply_past_the_leader(&self, site: &SiteFile, bake: &str) -> Result<usize> {
        wait_until_some("a first wave without the leader", 2 * SETTLE_DEADLINE, async || {
            self.apply_as(0, site, &["--waves", "--bake", bake]).await.ok()?.expect(0).ok()?;
            let (leader, tried) = (self.leader_seen_by(0).await, self.tried_by(0).await);
            if let (Ok(leader), Ok(tried)) = (leader, tried)
                && !tried.contains(&self.nodes[leader].name)
            {
                return Some(leader);
            }
            self.nodes[0].shoal(&["rollout", "abort"]).await.ok();
            None
        })
        .await
    }

    /// The `i`-th node answers downstream for [`HOST`] with `body`.
    pub async fn answers_with(&self, i: usize, body: &str) -> bool {
        fetch(self.nodes[i].at(Ports::HTTP), HOST, "/").await.is_ok_and(|answer| answer.body == body)
    }

    /// Waits until every node does.
    pub async fn all_answer_with(&self, body: &str) -> Result<()> {
        for (i, node) in self.nodes.iter().enumerate() {
            let what = format!("{} answers {body:?}", node.name);
            wait_until(&what, SETTLE_DEADLINE, async || self.answers_with(i, body).await).await?;
        }
        Ok(())
    }

    /// Every node answers `path` on the clear-text listener with 200: endpoints are known, listeners open.
    pub async fn serves(&self, host: &str, path: &str) -> Result<()> {
        for i in 0..self.nodes.len() {
            self.node_serves(i, host, path).await?;
        }
        Ok(())
    }

    /// The same of the `i`-th node.
    pub async fn node_serves(&self, i: usize, host: &str, path: &str) -> Result<()> {
        let node = &self.nodes[i];
        wait_until(&format!("{} serves {path}", node.name), START_DEADLINE, async || {
            fetch(node.at(Ports::HTTP), host, path).await.is_ok_and(|answer| answer.status == 200)
        })
        .await
        .map(drop)
    }

    /// Status and text of `/readyz?verbose` of the `i`-th node.
    pub async fn readyz(&self, i: usize) -> Result<(u16, String)> {
        let answer = fetch(self.nodes[i].at(Ports::OPS), "ops", "/readyz?verbose").await?;
        Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// The value of one series of `/metrics` on the `i`-th node; the sum over labels that contain `labels`.
    pub async fn metric(&self, i: usize, name: &str, labels: &str) -> Result<f64> {
        let answer = fetch(self.nodes[i].at(Ports::OPS), "ops", "/metrics").await?;
        ensure!(answer.status == 200, "/metrics answered {}", answer.status);
        Ok(sum_of(&String::from_utf8_lossy(&answer.body), name, labels))
    }

    /// The first and the second owner of the object of `url`, and a node that owns nothing of it, if there is one.
    pub async fn owners_of(&self, url: &str) -> Result<(usize, usize, Option<usize>)> {
        let owners = self.eventually("the object has two owners", async || {
            let located =
                self.nodes[0].shoal(&["-o", "json", "cache", "locate", url]).await.ok()?.json().ok()?;
            let node = |role: &str| {
                let mut locations = located["locations"].as_array()?.iter();
                let name = locations.find(|location| location["role"] == role)?["node"].as_str()?;
                self.nodes.iter().position(|node| node.name == name)
            };
            Some((node("primary")?, node("secondary")?))
        });
        let (primary, second) = owners.await?;
        let stranger = (0..self.nodes.len()).find(|node| ![primary, second].contains(node));
        Ok((primary, second, stranger))
    }

    /// Starts the `i`-th node again on what it has on disk.
    pub fn restart(&mut self, i: usize) -> Result<()> {
        self.nodes[i].start(None)
    }

    /// Where a copy is of everything that the `i`-th node has on disk; it was killed for that, and is back.
    pub async fn copy_disk(&mut self, i: usize) -> Result<PathBuf> {
        self.nodes[i].kill9()?;
        let copy = self.dir.path().join(format!("{}-copy", self.nodes[i].name));
        copy_directory(&self.nodes[i].data_dir(), &copy.join("data"))?;
        self.restart(i)?;
        self.answers(i).await?;
        self.settle().await?;
        Ok(copy)
    }

    /// Waits for any result of `look`, with the cluster's own patience.
    pub async fn eventually<T, F: AsyncFnMut() -> Option<T>>(&self, what: &str, look: F) -> Result<T> {
        wait_until_some(what, START_DEADLINE, look).await
    }

    /// A directory of this story.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file of this story.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let file = self.dir.path().join(name);
        std::fs::write(&file, content)?;
        Ok(file)
    }

    /// The addresses of this cluster.
    pub fn block(&self) -> &LoopbackBlock {
        &self.block
    }
}

/// What each node said last: the test runner captures it, and shows it only when the story failed.
impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            eprintln!("{}", node.tail());
        }
    }
}

fn count_nodes(status: &Value, is: impl Fn(&Value) -> bool) -> usize {
    status["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(|node| is(node)).count())
}

/// Adds up the samples of `name` in Prometheus text format whose labels contain `labels`.
fn sum_of(text: &str, name: &str, labels: &str) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (shown, value) =
            if rest.starts_with('{') { rest.rsplit_once("} ")? } else { ("", rest.strip_prefix(' ')?) };
        shown.contains(labels).then(|| value.split_whitespace().next()?.parse::<f64>().ok())?
    });
    samples.sum()
}

/// A path of a story as an argument.
///
/// # Panics
/// Where stories are told in a directory whose name is not UTF-8.
pub fn path_text(path: &Path) -> &str {
    path.to_str().expect("paths of stories are UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_label() {
        let text = "# TYPE a counter\na{route=\"x\"} 3\na{route=\"y\"} 4 1700000000\nab 9\nb 5\n";
        for (name, labels, expected) in
            [("a", "", 7.0), ("a", "route=\"y\"", 4.0), ("ab", "", 9.0), ("b", "", 5.0), ("c", "", 0.0)]
        {
            assert_eq!(sum_of(text, name, labels), expected, "{name} {labels}");
        }
    }
}
