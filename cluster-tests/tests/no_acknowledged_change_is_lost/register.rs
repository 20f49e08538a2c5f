//! The site of a cluster as a register: one route of it says which value it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster_tests::Cluster;
use histories::{Answer, Asked, History, Operations};
use serde_json::{Value, json};
use shoal_ctl::{Client, Exit, Failure};
use shoal_proto::admin::{ApplyRequest, ShowRequest};
use tokio::task::JoinSet;

/// For one node to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// For so long a write of which it is not known what became of it is tried again, at one node after the other.
const PURSUIT: Duration = Duration::from_secs(8);
/// Between two things that one of those who ask does.
const PACE: Duration = Duration::from_millis(50);
/// Every so manieth write is over the revision that was read before it.
const SWAPS: u64 = 4;

/// A register, and everything that was asked of it.
pub struct Register {
    /// The way to each node: they can be asked whatever they hear of each other.
    nodes: Vec<Client>,
    history: History,
    next_value: AtomicU64,
    acknowledged: Mutex<Vec<Instant>>,
    ended: AtomicBool,
}

/// Those who read and write, two at each node.
pub struct Crowd {
    register: Arc<Register>,
    asking: JoinSet<Result<()>>,
}

impl Register {
    /// The register of `cluster`, whose site has one upstream, `shop`.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let local =
            |node: &cluster_tests::NodeProcess| Client::local(node.data_dir().join("admin.sock"), PATIENCE);
        let nodes: Vec<Client> = cluster.nodes.iter().map(local).collect();
        let began = nodes[0].apply(write_of(0, None)).await.map_err(in_words)?;
        Ok(Self {
            nodes,
            history: History::since(began.revision, 0),
            next_value: AtomicU64::new(1),
            acknowledged: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// Everything that was asked so far.
    pub fn operations(&self) -> Operations {
        self.history.operations()
    }

    /// When writes were acknowledged.
    pub fn acknowledged(&self) -> Vec<Instant> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A linearizable read at `node`: the revision, unless it does not say.
    pub async fn read(&self, node: usize) -> Option<u64> {
        let ticket = self.history.call(Asked::Read);
        let request = ShowRequest { revision: 0, consistent: true };
        let (revision, value) = self.show(node, request).await.ok()?;
        self.history.answer(ticket, Answer::Read { revision, value });
        Some(revision)
    }

    /// What `revision` says, as `node` has kept it.
    pub async fn value_of(&self, node: usize, revision: u64) -> Result<u64> {
        let request = ShowRequest { revision, consistent: false };
        self.show(node, request).await.map(|(_, value)| value)
    }

    async fn show(&self, node: usize, request: ShowRequest) -> Result<(u64, u64)> {
        let shown = self.nodes[node].show("get", request).await.map_err(in_words)?;
        let site: Value = serde_json::from_str(&shown.site_json)?;
        let host = site["routes"]["register"]["hosts"][0].as_str().context("the register is not there")?;
        let value = host.strip_prefix('v').and_then(|host| host.split('.').next()?.parse().ok());
        Ok((shown.revision, value.with_context(|| format!("{host:?} is no value"))?))
    }

    /// Writes the next value, at `node` first.
    pub async fn write(&self, node: usize, over: Option<u64>) -> Result<()> {
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        let request = write_of(value, over);
        let ticket = self.history.call(Asked::Write { value, over });
        let (since, mut may_be_done) = (Instant::now(), false);
        for turn in 0.. {
            let failure = match self.nodes[(node + turn) % self.nodes.len()].apply(request.clone()).await {
                Ok(applied) => {
                    self.history.answer(ticket, Answer::Wrote { revision: applied.revision });
                    self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let is_undone = match failure.exit {
                // The revision that it was to replace is gone for good.
                Exit::Conflict => true,
                // That is what the node says of this try; what became of one before it is another matter.
                Exit::NoQuorum => !may_be_done,
                Exit::Remote => false,
                _ => bail!("{}", failure.to_text()),
            };
            if is_undone {
                self.history.answer(ticket, Answer::Nothing);
                return Ok(());
            }
            may_be_done = true;
            if since.elapsed() > PURSUIT {
                break;
            }
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }
}

impl Crowd {
    /// From now on somebody reads and somebody writes at each node.
    pub fn gather(register: Register) -> Self {
        let (register, mut asking) = (Arc::new(register), JoinSet::new());
        for node in 0..register.nodes.len() {
            let reader = Arc::clone(&register);
            asking.spawn(async move {
                while !reader.ended.load(Ordering::Relaxed) {
                    reader.read(node).await;
                    tokio::time::sleep(PACE).await;
                }
                Ok(())
            });
            let writer = Arc::clone(&register);
            asking.spawn(async move {
                let mut writes = 0;
                while !writer.ended.load(Ordering::Relaxed) {
                    writes += 1;
                    let over = if writes % SWAPS == 0 { writer.read(node).await } else { None };
                    writer.write(node, over).await?;
                    tokio::time::sleep(PACE).await;
                }
                Ok(())
            });
        }
        Self { register, asking }
    }

    /// What they ask of.
    pub fn register(&self) -> &Register {
        &self.register
    }

    /// Lets everybody have his last answer.
    pub async fn leave(mut self) -> Result<Arc<Register>> {
        self.register.ended.store(true, Ordering::Relaxed);
        while let Some(left) = self.asking.join_next().await {
            left??;
        }
        Ok(self.register)
    }
}

/// Checks what was asked of a register: the order of it, and that what was acknowledged is kept. Says what there was.
pub async fn judge(register: &Register) -> Result<String> {
    for node in 0..register.nodes.len() {
        ensure!(register.read(node).await.is_some(), "n{} does not answer at the end", node + 1);
    }
    let operations = register.operations();
    let picture = match operations.verify() {
        Ok(picture) => picture,
        Err(violation) => {
            for operation in &operations.all {
                eprintln!("{operation:?}");
            }
            bail!("not linearizable: {violation}");
        }
    };
    for (n, operation) in operations.all.iter().enumerate() {
        if let (Asked::Write { value, .. }, Some((_, Answer::Wrote { revision }))) =
            (operation.asked, operation.answered)
        {
            let kept = register.value_of(n % register.nodes.len(), revision).await?;
            ensure!(kept == value, "revision {revision} was acknowledged as {value} and is {kept}");
        }
    }
    let histories::Picture { acknowledged, reads, unknown, unseen, .. } = picture;
    Ok(format!(
        "{acknowledged} writes acknowledged and kept, {reads} linearizable reads, {unknown} outcomes unknown ({unseen} of them \
         done and never read)"
    ))
}

fn write_of(value: u64, over: Option<u64>) -> ApplyRequest {
    let route = json!({ "hosts": [format!("v{value}.example.com")], "path_prefix": "/", "upstream": "shop" });
    ApplyRequest {
        site_json: json!({ "routes": { "register": route } }).to_string(),
        check_revision: over,
        request_id: format!("value-{value}"),
        timeout_ms: PATIENCE.as_millis() as u32,
        no_wait: true,
        ..ApplyRequest::default()
    }
}

fn in_words(failure: Failure) -> anyhow::Error {
    anyhow::anyhow!("{}", failure.to_text())
}
