//! Carrying it out, in the data directory of the node that is to go on.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;
use shoal_cluster::identity::Identity;
use shoal_configlog::{StoppedLog, Whose};
use shoal_model::state::{Asker, Command};
use shoal_model::{ClusterId, NodeId};
use shoal_policy::recovery::{LogEnd, LogPlace, may_go_on};

use crate::node::now_ms;
use crate::{data_dir, removed};

/// A node that is to go on alone, and has not yet: its directory is locked, and unchanged.
pub struct Prepared {
    dir: PathBuf,
    _lock: File,
    identity: Identity,
    log: StoppedLog,
    address: String,
    lost: Vec<String>,
    /// Why it should not.
    pub objection: Option<String>,
}

/// It may be started, and goes on.
#[derive(Clone, Debug, Serialize)]
pub struct Recovered {
    /// Its name.
    pub node: String,
    /// Which cluster.
    pub cluster_id: ClusterId,
    /// From now on; whoever is of a lower one is not heard.
    pub cluster_epoch: u64,
    /// The newest entry of its log that others have written.
    pub from: String,
    /// The newest entry now.
    pub to: String,
    /// The active revision.
    pub revision: u64,
    /// The nodes that are members no more, whether they are lost or not.
    pub expelled: Vec<String>,
}

/// Looks whether the node of `data_dir` may go on alone: it must not run, every other voter must be among `lost`, by its name
/// (or id, as `n7`), and its log must go as far as the plan said (`planned`).
///
/// # Errors
/// Why it cannot, whatever anybody says.
pub fn prepare(data_dir: &Path, lost: &[String], planned: LogPlace) -> anyhow::Result<Prepared> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let dir = data_dir.display();
    let identity = data_dir::look(data_dir)?.with_context(|| format!("{dir} is of no node"))?;
    let lock = data_dir::lock(data_dir).context("the node has to be stopped first")?;
    removed::refuse_to_start(data_dir)?;
    let (node_id, cluster_id) = (identity.node_id, identity.cluster_id);
    let log = StoppedLog::open(data_dir, Whose { node_id, cluster_id })?;
    let state = log.state();
    let Some(record) = state.nodes.get(&node_id) else {
        bail!("{dir} is of {node_id}, which is not a node of cluster {cluster_id} by its own log");
    };
    let address = record.cluster_addr.clone();
    let ids = lost.iter().map(|called| {
        let found = state.nodes.iter().find(|(id, node)| node.name == *called || id.to_string() == *called);
        let of_no_record = || log.end().voters.iter().copied().find(|id| id.to_string() == *called);
        let found = found.map(|(id, _)| *id).or_else(of_no_record);
        found.with_context(|| format!("there is no node called {called:?}"))
    });
    let ids: BTreeSet<NodeId> = ids.collect::<anyhow::Result<_>>()?;
    let name_of = |id: NodeId| state.nodes.get(&id).map_or_else(|| id.to_string(), |node| node.name.clone());
    let objection = may_go_on(node_id, log.end(), &ids, planned).err().map(|why| why.explain(name_of));
    let others = state.nodes.iter().filter(|(id, _)| **id != node_id).map(|(_, node)| node.name.clone());
    let expelled = others.collect();
    Ok(Prepared { dir: data_dir.to_owned(), _lock: lock, identity, log, address, lost: expelled, objection })
}

impl Prepared {
    /// Which node it is of.
    pub fn node(&self) -> &str {
        &self.identity.name
    }

    /// Which cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.identity.cluster_id
    }

    /// How far its log is.
    pub fn end(&self) -> &LogEnd {
        self.log.end()
    }

    /// Who will be a member no more.
    pub fn expelled(&self) -> &[String] {
        &self.lost
    }

    /// Makes it the only node, in an epoch of its own. There is no way back.
    ///
    /// # Errors
    /// Why not. It can be tried again.
    pub fn carry_out(self, anyway: bool) -> anyhow::Result<Recovered> {
        let Self { dir, _lock, mut identity, log, address, lost, objection } = self;
        let before = log.end().clone();
        let cluster_epoch = (before.epoch + 1).max(identity.cluster_epoch);
        let forced = if anyway && objection.is_some() { ", forced" } else { "" };
        let asker = Asker {
            by: "local".to_owned(),
            from: "shoal recover apply".to_owned(),
            node: identity.node_id,
            call: "Recover".to_owned(),
            what: format!(
                "{} ({}) alone from {}{forced}, epoch {cluster_epoch}; gone: {}",
                identity.name,
                identity.node_id,
                before.last,
                lost.join(", ")
            ),
            at_ms: now_ms(),
            ..Asker::default()
        };
        let command = Command::Recover { survivor: identity.node_id, cluster_epoch };
        // First of all it is to be heard by nobody else: if the rest is not done, it has lost nothing by that.
        identity.cluster_epoch = cluster_epoch;
        identity.save(&dir)?;
        let after = log.go_on_alone(&address, command.asked_by(vec![asker]))?;
        Ok(Recovered {
            node: identity.name,
            cluster_id: identity.cluster_id,
            cluster_epoch,
            from: before.last.to_string(),
            to: after.last.to_string(),
            revision: after.revision,
            expelled: lost,
        })
    }
}
