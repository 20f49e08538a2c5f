//! Verbs about the cluster's own certificates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::identity::{IdentityError, not_after, sha256_hex};
use shoal_model::NodeId;
use shoal_model::state::{Command, KEEPING_KEYS, KeyOrder, OperatorRecord, Succession, SuccessionStep};
use shoal_model::units::Period;
use shoal_proto::admin::{KeepKeysRequest, KeysResponse, NodeCertificate};
use tonic::{Code, Status};

use super::base::{linearizable_base, put};
use super::failure::{self, Exit, with_exit};
use super::{operators, tokens};
use crate::node::{Node, now_ms};
use crate::report::NodeReport;

/// Certificates of nodes last so many seconds from now on.
const NODE_LIFE: &str = "node-life";
/// The gossip is sealed with another key.
const ROTATE_GOSSIP_KEY: &str = "rotate-gossip-key";
/// Another authority signs, and is believed beside the one before.
const ROTATE_CA: &str = "rotate-ca";
/// The one before is not believed any more.
const RETIRE_CA: &str = "retire-ca";
/// The other one does not come.
const ABORT_CA: &str = "abort-ca";
/// A life that is shorter than this many seconds is nobody's mistake: a renewed certificate has a fifth of it left at times, and
/// whose clock is ahead by that much sees none that is good.
const SHORT_LIFE: u32 = 3600;
/// Between two looks at who shows what.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Longest wait for that.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Which there are, and until when they are good.
pub async fn look(node: &Arc<Node>) -> KeysResponse {
    let reports = node.reports().await;
    let (authority, keys) = node.log.with_state(|state| (state.ca_certificate.clone(), state.keys.clone()));
    let (newest, used) =
        (keys.gossip.newest().id, keys.gossip.believed().into_iter().next().unwrap_or_default());
    let other = keys.succession.as_ref().map_or_else(String::new, |succession| sha256_hex(&succession.other));
    let nodes = node.members().into_iter().map(|(id, member)| {
        let report = reports.iter().find(|(of, _, _)| *of == id).and_then(|(_, _, report)| report.as_ref());
        NodeCertificate {
            node_id: id.0,
            node: member.name,
            reported: report.is_some(),
            given_at_unix: report.map_or(0, |report| report.certificate_given),
            not_after_unix: report.map_or(0, |report| report.certificate_not_after),
            authority_sha256: report.map_or_else(String::new, |report| report.authority.clone()),
            believes_other: report.is_some_and(|report| report.believes.contains(&other)),
        }
    });
    KeysResponse {
        authority_sha256: sha256_hex(&authority),
        authority_not_after_unix: not_after(&authority).unwrap_or_default(),
        other_authority_sha256: other.clone(),
        has_switched: keys.succession.as_ref().is_some_and(|succession| succession.has_switched),
        operators_before: operators_before(node),
        tokens_before: match &keys.succession {
            Some(succession) if succession.has_switched => tokens::naming(node, &other),
            Some(_) | None => Vec::new(),
        },
        node_seconds: keys.node_seconds(),
        nodes: nodes.collect(),
        gossip_key: used.id,
        gossip_key_made_at_unix: i64::try_from(used.made_at_ms / 1000).unwrap_or_default(),
        next_gossip_key: if newest == used.id { 0 } else { newest },
    }
}

/// Has them kept otherwise.
pub async fn keep(node: &Arc<Node>, request: &KeepKeysRequest, caller: &str) -> Result<KeysResponse, Status> {
    linearizable_base(node).await?;
    let patience = Duration::from_millis(request.timeout_ms.into()).min(MAX_WAIT);
    match request.order.as_str() {
        NODE_LIFE => {
            check_life(request.seconds, request.force)?;
            let is_known = node.log.with_state(|state| state.keys.is_node_life_agreed());
            if !is_known && !node.members_without(KEEPING_KEYS).is_empty() {
                return Err(not_known());
            }
            agree(node, KeyOrder::NodeLife { seconds: request.seconds }).await?;
        }
        ROTATE_GOSSIP_KEY => {
            rotate_gossip_key(node, patience).await?;
        }
        ROTATE_CA => rotate_authority(node, patience).await?,
        RETIRE_CA => retire_authority(node, request.force, patience).await?,
        ABORT_CA => abort_authority(node).await?,
        other => {
            let why =
                format!("this node knows no order {other:?}: it may run an older version; ask another one");
            return Err(with_exit(Code::InvalidArgument, Exit::Local, why));
        }
    }
    tracing::info!(order = request.order, seconds = request.seconds, by = caller, "keys are kept otherwise");
    Ok(look(node).await)
}

fn check_life(seconds: u32, force: bool) -> Result<(), Status> {
    if seconds >= SHORT_LIFE || force {
        return Ok(());
    }
    let why = format!(
        "nothing was changed: where certificates last less than {}, a node whose clock differs from that of the others by \
         some minutes is shut out; --force does it all the same",
        Period::seconds(SHORT_LIFE.into())
    );
    Err(with_exit(Code::FailedPrecondition, Exit::Local, why))
}

fn not_known() -> Status {
    let why =
        "a member has not said that it knows what that means: upgrade all of them, or wait until it is heard";
    with_exit(Code::FailedPrecondition, Exit::Remote, why)
}

/// Another key, and waits until the leader has everybody use it.
async fn rotate_gossip_key(node: &Arc<Node>, patience: Duration) -> Result<(), Status> {
    if !node.knows_gossip_keys() {
        return Err(not_known());
    }
    let before = node.log.with_state(|state| state.keys.gossip.in_use());
    node.propose_gossip_key(node.next_gossip_key()).await.map_err(failure::propose)?;
    let mut applied = node.log.applied();
    let is_used = || node.log.with_state(|state| state.keys.gossip.in_use() != before);
    let used = async { while !is_used() && applied.changed().await.is_ok() {} };
    if tokio::time::timeout(patience, used).await.is_err() {
        let why = "the key is made, but not every node that is heard knows it yet; the leader has it used once they do";
        return Err(with_exit(Code::DeadlineExceeded, Exit::Unacknowledged, why));
    }
    Ok(())
}

fn succession(node: &Node) -> Option<Succession> {
    node.log.with_state(|state| state.keys.succession.clone())
}

/// Puts it into the log, and waits until this node has applied it.
async fn agree(node: &Node, order: KeyOrder) -> Result<(), Status> {
    put(node, Command::KeepKeys(order)).await?;
    linearizable_base(node).await.map(drop)
}

/// What was begun is forgotten, as long as the authority before it signs.
async fn abort_authority(node: &Node) -> Result<(), Status> {
    linearizable_base(node).await?;
    let why = match succession(node) {
        Some(Succession { has_switched: false, begun, .. }) => {
            return agree(node, KeyOrder::Authority(SuccessionStep::Abort { begun })).await;
        }
        Some(_) => "the new authority has signed already: go on to `shoal cluster rotate ca --retire`",
        None => "no authority is on its way; `shoal cluster rotate ca` begins",
    };
    Err(with_exit(Code::FailedPrecondition, Exit::Local, why))
}

/// Names of operators of whom somebody shows what the authority before has signed.
fn operators_before(node: &Node) -> Vec<String> {
    let Some(switched_ms) = succession(node).filter(|s| s.has_switched).map(|succession| succession.at_ms)
    else {
        return Vec::new();
    };
    node.log
        .with_state(|state| left_behind(operators::believed(state).map(|(_, record)| record), switched_ms))
}

/// Names with more certificates of before the switch than were given since in the same role: nobody can say which one took the
/// place of which.
fn left_behind<'a>(given: impl Iterator<Item = &'a OperatorRecord>, switched_ms: u64) -> Vec<String> {
    let mut left: BTreeMap<(&str, &str), i32> = BTreeMap::new();
    for record in given {
        let of_these = left.entry((record.name.as_str(), record.role.as_str())).or_default();
        *of_these += if record.given_at_ms < switched_ms { 1 } else { -1 };
    }
    let behind = left.into_iter().filter(|(_, left)| *left > 0);
    let mut names: Vec<String> = behind.map(|((name, _), _)| name.to_owned()).collect();
    names.dedup();
    names
}

/// Another authority, or the one that is on its way already; waits until all that are heard show what it has signed.
async fn rotate_authority(node: &Arc<Node>, patience: Duration) -> Result<(), Status> {
    if !node.knows_successions() {
        return Err(not_known());
    }
    if succession(node).is_none() {
        let internal = |error: IdentityError| with_exit(Code::Internal, Exit::Remote, error.to_string());
        let (next, bridge) = node.authority().and_then(|now| now.successor()).map_err(internal)?;
        let begin = SuccessionStep::Begin {
            certificate: next.certificate().to_vec(),
            key_sealed: next.seal_key(&node.identity.secret),
            bridge: bridge.to_vec(),
            at_ms: now_ms(),
        };
        agree(node, KeyOrder::Authority(begin)).await?;
    }
    let awaited = newest_authority(node).0;
    let all_show_it = async {
        loop {
            let (newest, signs) = newest_authority(node);
            if newest != awaited {
                return Some(taken_back());
            }
            let shown = |(_, _, report): &(NodeId, String, Option<NodeReport>)| {
                report.as_ref().is_some_and(|report| report.authority == awaited)
            };
            if signs && node.reports().await.iter().all(shown) {
                return None;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    match tokio::time::timeout(patience, all_show_it).await {
        Ok(None) => Ok(()),
        Ok(Some(refusal)) => Err(refusal),
        Err(_) => {
            let why = "it goes on: not every node that is heard has a certificate of the new authority yet; see `shoal cluster keys`";
            Err(with_exit(Code::DeadlineExceeded, Exit::Unacknowledged, why))
        }
    }
}

/// The hash of the authority that came last, and whether it signs.
fn newest_authority(node: &Node) -> (String, bool) {
    node.log.with_state(|state| match &state.keys.succession {
        Some(succession) if !succession.has_switched => (sha256_hex(&succession.other), false),
        _ => (sha256_hex(&state.ca_certificate), true),
    })
}

fn taken_back() -> Status {
    let why = "somebody else has taken it back, or begun another, meanwhile; see `shoal cluster keys` and `shoal audit`";
    with_exit(Code::Aborted, Exit::Conflict, why)
}

/// The end of the authority before, unless somebody would be shut out by that; waits until nobody that is heard believes it, but
/// for those that are shut out.
async fn retire_authority(node: &Arc<Node>, force: bool, patience: Duration) -> Result<(), Status> {
    let not_yet = |why: &str| Err(with_exit(Code::FailedPrecondition, Exit::Local, why));
    let succession = match succession(node) {
        Some(succession) if succession.has_switched => succession,
        Some(_) => {
            return not_yet(
                "the new authority has signed nothing yet: wait until every node that is heard believes it, or take it back \
                 with `shoal cluster rotate ca --abort`",
            );
        }
        None => return not_yet("no authority waits to be retired; `shoal cluster rotate ca` begins"),
    };
    let now = node.log.with_state(|state| sha256_hex(&state.ca_certificate));
    let nodes = node.members_of_others(&now, &node.reports().await);
    let operators = operators_before(node);
    let sha256 = sha256_hex(&succession.other);
    let shuts_out = !nodes.is_empty() || !operators.is_empty();
    if shuts_out && !force {
        return not_yet(&shutting_out(&nodes, &operators, &tokens::naming(node, &sha256)));
    }
    let retire = SuccessionStep::Retire { begun: succession.begun, sha256: sha256.clone() };
    agree(node, KeyOrder::Authority(retire)).await?;
    let mut believers = Vec::new();
    let all_have_dropped_it = async {
        loop {
            believers = believers_of(&sha256, &nodes, node.reports().await);
            if believers.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(patience, all_have_dropped_it).await.is_err() {
        let why = format!(
            "it has retired, but nodes that are heard have not said yet that they do not believe it any more: {}; see `shoal \
             cluster keys` and `shoal status`",
            believers.join(", ")
        );
        return Err(with_exit(Code::DeadlineExceeded, Exit::Unacknowledged, why));
    }
    Ok(())
}

/// Why it is not retired, and which tokens end with it, though they are in nobody's way.
fn shutting_out(nodes: &[String], operators: &[String], tokens: &[String]) -> String {
    let of = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!("; {what}: {}", names.join(", ")),
    };
    format!(
        "some would be shut out, who have no certificate of the new authority{}{}: wait for the nodes, have the operators renew \
         (`shoal operator renew FILE`), or give --force; a node that is shut out gets back with `--join` and a new `--token`, \
         and an operator by `operator renew` on a node's socket{}",
        of("nodes", nodes),
        of("operators", operators),
        of("tokens for nodes that end with the old one, and are in nobody's way", tokens)
    )
}

/// Nodes that are not known to have dropped the authority with this hash. Of those that are `shut_out` with it nobody will
/// hear any more.
fn believers_of(
    sha256: &str,
    shut_out: &[String],
    reports: Vec<(NodeId, String, Option<NodeReport>)>,
) -> Vec<String> {
    let believers = reports.into_iter().filter(|(_, name, report)| match report {
        Some(report) => report.believes.iter().any(|believed| believed == sha256),
        None => !shut_out.contains(name),
    });
    believers.map(|(_, name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_life_is_somebodys_will() {
        let check = |seconds, force, is_fine| {
            let checked = check_life(seconds, force);
            assert_eq!(checked.is_ok(), is_fine, "{seconds} {force}: {checked:?}");
        };
        check(3600, false, true);
        check(7 * 86_400, false, true);
        check(3599, false, false);
        check(10, false, false);
        check(10, true, true);
    }

    #[test]
    fn each_certificate_of_before_needs_another_one() {
        // Each as `NAME ROLE GIVEN`; they switch at 5.
        let check = |given: &[&str], expected: &[&str]| {
            let record = |text: &&str| {
                let mut words = text.split(' ').map(str::to_owned);
                let (name, role) = (words.next().unwrap(), words.next().unwrap());
                let given_at_ms = words.next().unwrap().parse().unwrap();
                OperatorRecord { name, role, given_at_ms, ends_at_ms: 9 }
            };
            let given: Vec<OperatorRecord> = given.iter().map(record).collect();
            assert_eq!(left_behind(given.iter(), 5), expected, "{given:?}");
        };
        check(&[], &[]);
        check(&["ada admin 5"], &[]);
        check(&["ada admin 4"], &["ada"]);
        check(&["ada admin 4", "ada admin 5"], &[]);
        check(&["carl viewer 1", "carl viewer 2", "carl viewer 7"], &["carl"]);
        check(&["carl viewer 1", "carl viewer 2", "carl viewer 7", "carl viewer 8"], &[]);
        check(&["carl viewer 1", "carl admin 6"], &["carl"]);
        check(&["carl viewer 1", "carl admin 1", "bob viewer 1"], &["bob", "carl"]);
    }

    #[test]
    fn what_merely_ends_is_not_among_who_is_shut_out() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let told = shutting_out(&[], &names(&["ada", "carl"]), &names(&["710a"]));
        assert!(told.contains("of the new authority; operators: ada, carl: wait for"), "{told}");
        let ending =
            "a node's socket; tokens for nodes that end with the old one, and are in nobody's way: 710a";
        assert!(told.ends_with(ending), "{told}");
        let told = shutting_out(&names(&["n3"]), &[], &[]);
        assert!(told.contains("of the new authority; nodes: n3: wait for"), "{told}");
        assert!(told.ends_with("on a node's socket"), "{told}");
    }

    #[test]
    fn who_was_shut_out_is_not_waited_for() {
        let believing = |authority: &str| {
            Some(NodeReport { believes: vec![authority.to_owned()], ..NodeReport::default() })
        };
        let check = |shut_out: &[&str], n2: Option<NodeReport>, expected: &[&str]| {
            let reports = [("n1", believing("new")), ("n2", n2)];
            let reports = reports.map(|(name, report)| (NodeId(1), name.to_owned(), report));
            let shut_out: Vec<String> = shut_out.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(believers_of("old", &shut_out, reports.into()), expected, "{shut_out:?}");
        };
        check(&[], believing("new"), &[]);
        check(&[], believing("old"), &["n2"]);
        check(&[], None, &["n2"]);
        check(&["n2"], None, &[]);
        check(&["n2"], believing("old"), &["n2"]); // it can be called still
    }
}
