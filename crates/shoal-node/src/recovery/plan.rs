//! The plan: how far the log of everybody is who answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_model::NodeId;
use shoal_policy::recovery::{LogEnd, recovery};
use shoal_proto::admin::{LogOfNode, RecoverPlanRequest, RecoverPlanResponse};
use tonic::{Code, Status};

use crate::admin::failure::{Exit, check_log, with_exit};
use crate::node::Node;
use crate::report::Wanted;

/// Asks every member, and says who may go on alone where the ones in the request are lost. Changes nothing.
pub async fn plan(node: &Arc<Node>, request: &RecoverPlanRequest) -> Result<RecoverPlanResponse, Status> {
    check_log(&node.log).map_err(|why| with_ways_on(node, why))?;
    let members = node.members();
    let named = |name: &String| members.iter().find(|(_, member)| member.name == *name).map(|(id, _)| *id);
    let mut lost = BTreeSet::new();
    for name in &request.lost {
        let id = named(name).ok_or_else(|| {
            with_exit(Code::NotFound, Exit::Local, format!("there is no node called {name:?}"))
        })?;
        lost.insert(id);
    }
    let asked: Vec<_> = members.keys().copied().map(|id| (id, ask(node, id))).collect();
    let mut ends: BTreeMap<NodeId, LogEnd> = BTreeMap::new();
    for (id, answer) in asked {
        if let Ok(Some(end)) = answer.await {
            ends.insert(id, end);
        }
    }
    let name_of = |id: NodeId| members.get(&id).map_or_else(|| id.to_string(), |member| member.name.clone());
    let voters: BTreeSet<NodeId> = ends.values().flat_map(|end| end.voters.iter().copied()).collect();
    let logs = members.keys().chain(voters.iter().filter(|voter| !members.contains_key(voter))).map(|id| {
        let end = ends.get(id);
        let state = match (end, lost.contains(id)) {
            (Some(_), _) => "answers",
            (None, true) => "lost",
            (None, false) => "silent",
        };
        let LogEnd { last, vote_term, vote_for, committed, revision, epoch, unknown, .. } =
            end.cloned().unwrap_or_default();
        let unknown = unknown.map(|unknown| (unknown.place.to_string(), unknown.why));
        let (unknown, unknown_why) = unknown.unwrap_or_default();
        LogOfNode {
            node_id: id.0,
            node: name_of(*id),
            state: state.to_owned(),
            votes: voters.contains(id),
            last_term: last.term,
            last_index: last.index,
            vote_term,
            vote_for: vote_for.0,
            committed,
            revision,
            cluster_epoch: epoch,
            unknown,
            unknown_why,
        }
    });
    let logs = logs.collect();
    let (survivor, may_lose, refused) = match recovery(&ends, &lost) {
        Ok(found) => (name_of(found.survivor), found.may_lose, String::new()),
        Err(why) => (String::new(), false, why.explain(name_of)),
    };
    let last = ends.values().map(|end| end.last).max().unwrap_or_default();
    Ok(RecoverPlanResponse {
        cluster_id: node.identity.cluster_id.to_string(),
        logs,
        survivor,
        last: last.to_string(),
        may_lose,
        refused,
    })
}

/// A log that only a later version can use can be cut.
fn with_ways_on(node: &Node, why: Status) -> Status {
    let end = node.log.end().unwrap_or_default();
    let Some(unknown) = end.unknown else { return why };
    let why = format!(
        "{unknown}; or, if there is none and a majority is lost for good, stop this node, copy its directory, and have it go on \
         without that entry and what follows it: shoal recover apply --data-dir DIR --at {} --without {}, with --lost for every \
         other voter",
        end.last, unknown.place
    );
    with_exit(Code::Unavailable, Exit::Remote, why)
}

fn ask(node: &Arc<Node>, id: NodeId) -> tokio::task::JoinHandle<Option<LogEnd>> {
    let node = node.clone();
    tokio::spawn(async move { node.report_of(id, Wanted::DETAILS).await?.details?.log })
}
