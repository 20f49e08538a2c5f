//! Carrying it out, in the data directory of the node that is to go on.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use shoal_cluster::identity::Identity;
use shoal_configlog::{LeftOut, StoppedLog, Whose};
use shoal_model::state::{Asker, Command};
use shoal_model::{ClusterId, NodeId};
use shoal_policy::recovery::{Cut, LogEnd, LogPlace, may_go_on};

use crate::last_known_good::LastKnownGood;
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
    /// What its log ends with and this version does not know.
    pub left_out: Option<LeftOut>,
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
    /// What followed in its log.
    pub left_out: Option<LeftOut>,
    /// The nodes that are members no more, whether they are lost or not.
    pub expelled: Vec<String>,
}

/// Looks whether the node of `data_dir` may go on alone: it must not run, every other voter must be among `lost`, by its name
/// (or id, as `n7`), and its log must go as far as the plan said (`planned`). What a later version has written at its end is left
/// out from the entry `without` on.
///
/// # Errors
/// Why it cannot, whatever anybody says.
pub fn prepare(
    data_dir: &Path,
    lost: &[String],
    planned: LogPlace,
    without: Option<LogPlace>,
) -> anyhow::Result<Prepared> {
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
    let mut objections: Vec<String> = may_go_on(node_id, log.end(), &ids, planned)
        .err()
        .map(|why| why.explain(name_of))
        .into_iter()
        .collect();
    let others = state.nodes.iter().filter(|(id, _)| **id != node_id).map(|(_, node)| node.name.clone());
    let expelled = others.collect();
    let (log, left_out) = match (without, &log.end().unknown) {
        (Some(from), _) => {
            let (log, left_out, cut) = log.without(from)?;
            check_not_served(data_dir, &log)?;
            if cut == Cut::Committed {
                objections
                    .push(format!("entry {from} is known to be committed, and may have been acknowledged"));
            }
            (log, Some(left_out))
        }
        (None, Some(unknown)) => bail!("{}", unknown.explain()),
        (None, None) => (log, None),
    };
    let objection = (!objections.is_empty()).then(|| objections.join("; "));
    let dir = data_dir.to_owned();
    Ok(Prepared { dir, _lock: lock, identity, log, address, lost: expelled, left_out, objection })
}

/// Another revision would get the number of one that this node has served, and not be taken up.
fn check_not_served(data_dir: &Path, log: &StoppedLog) -> anyhow::Result<()> {
    let served = LastKnownGood::in_dir(data_dir).load(None).map_or(0, |(revision, _)| revision.0);
    let kept = log.end().revision;
    ensure!(
        served <= kept,
        "this node has served revision {served}, and without that entry and what follows it revision {kept} is the last: \
         start the version that has written them"
    );
    Ok(())
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
        let Self { dir, _lock, mut identity, log, address, lost, left_out, objection } = self;
        let before = log.end().clone();
        let cluster_epoch = (before.epoch + 1).max(identity.cluster_epoch);
        let forced = if anyway && objection.is_some() { ", forced" } else { "" };
        let without = left_out.as_ref().map(|left_out| format!(" without {left_out}")).unwrap_or_default();
        let asker = Asker {
            by: "local".to_owned(),
            from: "shoal recover apply".to_owned(),
            node: identity.node_id,
            call: "Recover".to_owned(),
            what: format!(
                "{} ({}) alone from {}{without}{forced}, epoch {cluster_epoch}; gone: {}",
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
            left_out,
            expelled: lost,
        })
    }
}
