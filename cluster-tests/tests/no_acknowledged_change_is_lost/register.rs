//! The site of a cluster as a register: one route of it says which value it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster_tests::{Cluster, Crowd};
use histories::{Answer, Asked, History, Operations};
use serde_json::Value;
use shoal_ctl::{Client, Exit};
use shoal_proto::admin::{ApplyRequest, ShowRequest};

use crate::asking::{change_of, client_of, in_words};

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
}

impl Register {
    /// The register of `cluster`, whose site has one upstream, `shop`.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let nodes: Vec<Client> = cluster.nodes.iter().map(|node| client_of(node, PATIENCE)).collect();
        let began = nodes[0].apply(write_of(0, None)).await.map_err(in_words)?;
        Ok(Self { nodes, history: History::since(began.revision, 0), next_value: AtomicU64::new(1) })
    }

    /// Everything that was asked so far.
    pub fn operations(&self) -> Operations {
        self.history.operations()
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

    /// Writes the next value, at `node` first; was that acknowledged?
    pub async fn write(&self, node: usize, over: Option<u64>) -> Result<bool> {
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        let request = write_of(value, over);
        let ticket = self.history.call(Asked::Write { value, over });
        let (since, mut may_be_done) = (Instant::now(), false);
        for turn in 0.. {
            let failure = match self.nodes[(node + turn) % self.nodes.len()].apply(request.clone()).await {
                Ok(applied) => {
                    self.history.answer(ticket, Answer::Wrote { revision: applied.revision });
                    return Ok(true);
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
                return Ok(false);
            }
            may_be_done = true;
            if since.elapsed() > PURSUIT {
                break;
            }
            tokio::time::sleep(PACE).await;
        }
        Ok(false)
    }
}

/// From now on somebody reads and somebody writes at each node.
pub fn gather(register: &Arc<Register>) -> Crowd {
    let mut crowd = Crowd::at_pace(PACE);
    for node in 0..register.nodes.len() {
        let (reader, writer) = (Arc::clone(register), Arc::clone(register));
        crowd.join(move || {
            let reader = Arc::clone(&reader);
            async move {
                reader.read(node).await;
                Ok(false)
            }
        });
        let mut writes = 0;
        crowd.join(move || {
            writes += 1;
            let (writer, swaps) = (Arc::clone(&writer), writes % SWAPS == 0);
            async move {
                let over = if swaps { writer.read(node).await } else { None };
                writer.write(node, over).await
            }
        });
    }
    crowd
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
    ApplyRequest { check_revision: over, ..change_of("register", value, PATIENCE) }
}
