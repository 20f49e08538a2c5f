//! `shoal status`: one screen about the whole cluster, seen from this node.

use std::sync::Arc;

use shoal_cluster::{NodeState, NodeView};
use shoal_configlog::LogStatus;
use shoal_model::NodeId;
use shoal_model::state::MemberRecord;
use shoal_model::units::millis_u64;
use shoal_policy::health::Availability;
use shoal_proto::admin::{CertificateStatus, NodeStatus, StatusResponse, UpstreamStatus};

use super::look::{is_ejected_here, is_in_panic, name_failures};
use crate::drain::Phase;
use crate::everybody::ask_all;
use crate::node::Node;
use crate::report::{NodeReport, Wanted};
use crate::rollout::with_left_out;

/// Everything on one screen.
pub async fn status(node: &Arc<Node>) -> StatusResponse {
    let log = node.led_status();
    let reports = node.reports().await;
    let view = node.gossip.view().load_full();
    let members = node.members();
    let (revision, setup) = node.log.with_state(|state| (state.revisions.active().0, state.setup));
    // Where the own log is behind, or broken, others know better.
    let served = reports
        .iter()
        .filter_map(|(_, _, report)| report.as_ref())
        .map(|report| report.active_revision)
        .max();
    let silent = reports.iter().filter(|(_, _, report)| report.is_none());
    let unreachable = node.why_unreachable(silent.map(|(id, name, _)| (*id, name.clone())).collect()).await;
    let nodes = members.iter().map(|(id, member)| {
        let report =
            reports.iter().find(|(reported, _, _)| reported == id).and_then(|(_, _, report)| report.as_ref());
        let mut status = node_status(*id, member, view.node(*id), report, &log, node.id());
        status.problems.extend(unreachable.iter().filter(|(of, _)| of == id).map(|(_, why)| why.clone()));
        NodeStatus { standing: node.standing_name(*id), may_vote: Some(node.may_vote(*id)), ..status }
    });
    StatusResponse {
        cluster_id: node.identity.cluster_id.to_string(),
        node_id: node.id().0,
        node: node.identity.name.clone(),
        quorum: log.quorum,
        leader_id: log.leader.map_or(0, |leader| leader.0),
        term: log.term,
        revision: revision.0.max(node.activation.borrow().active.0).max(served.unwrap_or_default()),
        nodes: nodes.collect(),
        certificates: certificates(node),
        upstreams: upstreams(node),
        name_failures: name_failures(node, |_| true),
        committed_index: log.committed,
        rollout: node.rollout_message().map(|rollout| with_left_out(rollout, &reports)),
        timing: setup.timing_name(),
        max_voters: setup.max_voters.into(),
        waiting: waiting(node),
        staleness_ms: millis_u64(log.staleness),
    }
}

/// What somebody has begun and may have forgotten.
fn waiting(node: &Node) -> Vec<String> {
    node.log.with_state(|state| {
        let succession = state.keys.succession.as_ref().map(|succession| match succession.has_switched {
            true => "the authority before is still believed; once nobody needs it: shoal cluster rotate ca --retire",
            false => "a new authority is on its way; see: shoal cluster keys",
        });
        let held = state.level.held.as_ref().map(|hold| {
            let why = Some(format!(" ({})", hold.message)).filter(|_| !hold.message.is_empty());
            format!(
                "the level of the cluster is held by {}{}; to have it raised: shoal upgrade hold --release",
                hold.by,
                why.unwrap_or_default()
            )
        });
        succession.map(str::to_owned).into_iter().chain(held).collect()
    })
}

pub(super) fn node_status(
    id: NodeId,
    member: &MemberRecord,
    seen: Option<&NodeView>,
    report: Option<&NodeReport>,
    log: &LogStatus,
    local: NodeId,
) -> NodeStatus {
    let state = match seen {
        _ if id == local && seen.is_none() => "alive",
        None => "unknown",
        Some(seen) => match seen.state {
            NodeState::Left => "left",
            _ if !seen.alive && id != local => "dead",
            NodeState::Draining if report.is_some_and(is_drained) => "drained",
            NodeState::Draining => "draining",
            NodeState::Cordoned => "cordoned",
            NodeState::Joining => "joining",
            NodeState::Ready => "alive",
        },
    };
    let figures = report.cloned().unwrap_or_default();
    NodeStatus {
        node_id: id.0,
        node: member.name.clone(),
        region: member.region.clone(),
        zone: member.zone.clone(),
        cluster_addr: seen.map_or_else(|| member.cluster_addr.clone(), |seen| seen.cluster_addr.to_string()),
        admin_addr: seen.map_or_else(|| member.admin_addr.clone(), |seen| seen.admin_addr.clone()),
        state: state.to_owned(),
        role: role_of(id, log).to_owned(),
        active_revision: report
            .map_or_else(|| seen.map_or(0, |seen| seen.active_revision), |r| r.active_revision),
        applied_index: report.map_or_else(|| seen.map_or(0, |seen| seen.applied_index), |r| r.applied_index),
        refused: figures.refused,
        log_broken: figures.log_broken,
        twin: figures.twin,
        problems: figures.problems,
        standing: String::new(),
        may_vote: None,
        drain_phase: figures.drain.phase,
        timing: figures.timing,
        version: report.map_or_else(
            || seen.map_or_else(String::new, |seen| seen.version.to_string()),
            |r| r.version.clone(),
        ),
        uptime_seconds: figures.uptime_seconds,
        cache: Some(figures.cache.into()),
        requests: figures.requests,
        open_connections: figures.open_connections,
        reported: report.is_some(),
        certificate_not_after_unix: figures.certificate_not_after,
    }
}

/// Its part in the log's decisions.
pub(super) fn role_of(id: NodeId, log: &LogStatus) -> &'static str {
    match () {
        () if log.leader == Some(id) => "leader",
        () if log.voters.contains(&id) => "voter",
        () if log.learners.contains(&id) => "learner",
        () => "none",
    }
}

fn is_drained(report: &NodeReport) -> bool {
    report.drain.phase == Phase::Drained.name()
}

fn certificates(node: &Node) -> Vec<CertificateStatus> {
    let certificates = node.certificates.of(&node.config.load());
    let status = certificates.iter().map(|certificate| CertificateStatus {
        name: certificate.name.clone(),
        dns_names: certificate.dns_names.clone(),
        not_after_unix: certificate.not_after,
    });
    status.collect()
}

fn upstreams(node: &Node) -> Vec<UpstreamStatus> {
    let config = node.config.load_full();
    let view = node.gossip.view().load_full();
    let found = node.proxy.names().upstreams(&config);
    let upstreams = found.iter().map(|upstream| {
        let usable = upstream.endpoints.iter().filter(|endpoint| {
            view.availability(endpoint.id) != Availability::Down && !is_ejected_here(node, endpoint.id)
        });
        UpstreamStatus {
            name: upstream.name.to_string(),
            endpoints: upstream.endpoints.len() as u32,
            available: usable.count() as u32,
            panic: is_in_panic(upstream, &view),
        }
    });
    upstreams.collect()
}

impl Node {
    /// The log as seen from here; who led before the quorum was lost leads nobody now.
    pub(super) fn led_status(&self) -> LogStatus {
        let log = self.log.status();
        LogStatus { leader: log.leader.filter(|_| log.quorum), ..log }
    }

    /// What operators want of `member`, unless it is that it takes part in everything.
    pub(super) fn standing_name(&self, member: NodeId) -> String {
        let standing = self.log.with_state(|state| state.standing(member)).standing;
        if standing.is_active() { String::new() } else { standing.name().to_owned() }
    }

    /// Operators let `member` vote.
    pub(crate) fn may_vote(&self, member: NodeId) -> bool {
        self.log.with_state(|state| state.may_vote(member))
    }

    /// So they do, and it is in service: where a vote is free, it may get it.
    pub(crate) fn may_be_given_a_vote(&self, member: NodeId) -> bool {
        self.log.with_state(|state| state.may_vote(member) && state.standing(member).standing.is_active())
    }

    /// Every live member's report, asked for at once.
    pub(super) async fn reports(self: &Arc<Self>) -> Vec<(NodeId, String, Option<NodeReport>)> {
        self.ask_reports(Wanted::default()).await
    }

    /// The same, with what else is wanted.
    pub(crate) async fn ask_reports(
        self: &Arc<Self>,
        wanted: Wanted,
    ) -> Vec<(NodeId, String, Option<NodeReport>)> {
        let asked = ask_all(self.live_members(), |id, _| {
            let node = self.clone();
            async move { node.report_of(id, wanted).await }
        });
        asked.await.into_iter().map(|asked| (asked.id, asked.name, asked.answer.ok().flatten())).collect()
    }
}
