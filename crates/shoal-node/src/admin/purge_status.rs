//! `shoal cache purge-status`: who has applied a purge, when, and how long the others may serve what it forgets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_model::NodeId;
use shoal_policy::cache::lease::{lapse_of, lease_said};
use shoal_proto::admin::{PurgeAck, PurgeInfo, PurgeStatusRequest, PurgeStatusResponse};
use tonic::{Code, Status};

use super::failure::{Exit, with_exit};
use crate::node::{Node, now_ms};
use crate::purge_history::PurgeSeen;
use crate::report::{NodeReport, Wanted};

/// Purges told of when the caller names no number.
const DEFAULT_LIMIT: u32 = 10;
/// Purges told of at most.
const MAX_LIMIT: u32 = 1000;

/// A member, and what it told of itself.
struct Witness {
    id: NodeId,
    name: String,
    has_left: bool,
    /// How long its leases may be.
    lease: Duration,
    report: Option<NodeReport>,
}

/// Asks every member that is there.
pub async fn status(node: &Arc<Node>, request: &PurgeStatusRequest) -> Result<PurgeStatusResponse, Status> {
    let purges = match request.limit {
        0 => DEFAULT_LIMIT,
        limit => limit.min(MAX_LIMIT),
    };
    let wanted = Wanted { purges, purge_seq: request.seq, ..Wanted::default() };
    let mut reports: BTreeMap<NodeId, NodeReport> = BTreeMap::new();
    for (id, _, report) in node.ask_reports(wanted).await {
        reports.extend(report.map(|report| (id, report)));
    }
    let witness = |(id, member): (NodeId, shoal_model::state::MemberRecord)| Witness {
        id,
        name: member.name,
        has_left: node.has_left(id),
        lease: lease_said(member.purge_lease_ms),
        report: reports.remove(&id),
    };
    let witnesses: Vec<Witness> = node.members().into_iter().map(witness).collect();
    let seen = first_seen(&witnesses);
    if request.seq != 0 {
        let newest = witnesses.iter().filter_map(|witness| Some(witness.report.as_ref()?.cache.purge_seq));
        if newest.max().unwrap_or(0) < request.seq {
            let why = format!("there is no purge {} yet", request.seq);
            return Err(with_exit(Code::NotFound, Exit::Local, why));
        }
        if !seen.contains_key(&request.seq) {
            let why = format!("no node remembers a purge {}: it is none, or too long ago", request.seq);
            return Err(with_exit(Code::NotFound, Exit::Local, why));
        }
    }
    let now_ms = now_ms();
    let told = seen.values().rev().take(purges as usize).map(|first| info(first, &witnesses, now_ms));
    Ok(PurgeStatusResponse { purges: told.collect() })
}

/// Each purge as the first node saw it.
fn first_seen(witnesses: &[Witness]) -> BTreeMap<u64, PurgeSeen> {
    let mut seen: BTreeMap<u64, PurgeSeen> = BTreeMap::new();
    let told =
        witnesses.iter().filter_map(|witness| witness.report.as_ref()).flat_map(|report| &report.purges);
    for purge in told {
        let first = seen.entry(purge.seq).or_insert_with(|| purge.clone());
        first.applied_ms = first.applied_ms.min(purge.applied_ms);
        for (node, lapse_ms) in &purge.lapses {
            let known = first.lapses.entry(*node).or_insert(*lapse_ms);
            *known = (*known).min(*lapse_ms);
        }
    }
    seen
}

fn info(first: &PurgeSeen, witnesses: &[Witness], now_ms: u64) -> PurgeInfo {
    PurgeInfo {
        seq: first.seq,
        kind: if first.soft { "soft" } else { "hard" }.to_owned(),
        scopes: first.scopes,
        at_ms: first.applied_ms,
        acks: witnesses.iter().map(|witness| ack(first, witness, now_ms)).collect(),
    }
}

fn ack(first: &PurgeSeen, witness: &Witness, now_ms: u64) -> PurgeAck {
    let longest_ms = lapse_of(witness.lease).as_millis() as u64;
    let lapse_ms = first.lapses.get(&witness.id).map_or(longest_ms, |known_ms| longest_ms.min(*known_ms));
    let lease_until_ms = first.applied_ms + lapse_ms;
    let (state, at_ms, lease_until_ms) = match &witness.report {
        Some(report) if report.applied_index >= first.seq => {
            let own = report.purges.iter().find(|own| own.seq == first.seq);
            ("acknowledged", own.map_or(0, |own| own.applied_ms), 0)
        }
        Some(_) if now_ms < lease_until_ms => ("behind", 0, lease_until_ms),
        Some(_) => ("behind", 0, 0),
        None if witness.has_left => ("left", 0, 0),
        None if now_ms < lease_until_ms => ("silent", 0, lease_until_ms),
        None => ("lapsed", 0, 0),
    };
    PurgeAck {
        node_id: witness.id.0,
        node: witness.name.clone(),
        state: state.to_owned(),
        at_ms,
        lease_until_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_so_until_its_lease_has_run_out() {
        let first = PurgeSeen { seq: 42, scopes: 1, applied_ms: 10_000, ..PurgeSeen::default() };
        let check = |report: Option<(u64, u64)>, has_left, now_ms, expected: (&str, u64, u64)| {
            let report = report.map(|(applied_index, applied_ms)| NodeReport {
                applied_index,
                purges: vec![PurgeSeen { applied_ms, ..first.clone() }],
                ..NodeReport::default()
            });
            let lease = Duration::from_secs(2);
            let witness = Witness { id: NodeId(1), name: "a".into(), has_left, lease, report };
            let ack = ack(&first, &witness, now_ms);
            assert_eq!((&*ack.state, ack.at_ms, ack.lease_until_ms), expected);
        };
        let until = 12_020;
        check(Some((42, 10_007)), false, 10_100, ("acknowledged", 10_007, 0));
        check(Some((41, 0)), false, 10_100, ("behind", 0, until));
        check(Some((41, 0)), false, until, ("behind", 0, 0));
        check(None, false, until - 1, ("silent", 0, until));
        check(None, false, until, ("lapsed", 0, 0));
        check(None, true, 10_100, ("left", 0, 0));
    }

    #[test]
    fn who_was_silent_before_is_known_to_whom_the_leader_told() {
        let seen = |applied_ms, lapses: &[(u64, u64)]| PurgeSeen {
            seq: 42,
            applied_ms,
            lapses: lapses.iter().map(|(node, ms)| (NodeId(*node), *ms)).collect(),
            ..PurgeSeen::default()
        };
        let witness = |id, seen: Option<PurgeSeen>| {
            let report = |seen| NodeReport { applied_index: 42, purges: vec![seen], ..NodeReport::default() };
            let lease = Duration::from_secs(2);
            Witness { id: NodeId(id), name: "a".into(), has_left: false, lease, report: seen.map(report) }
        };
        let told = seen(10_005, &[(1, 1900), (3, 202)]);
        let witnesses =
            [witness(1, Some(seen(10_000, &[]))), witness(2, Some(told)), witness(3, None), witness(4, None)];
        let first = &first_seen(&witnesses)[&42];
        let acks: Vec<_> = info(first, &witnesses, 10_202).acks.into_iter().map(|ack| ack.state).collect();
        assert_eq!(acks, ["acknowledged", "acknowledged", "lapsed", "silent"]);
    }
}
