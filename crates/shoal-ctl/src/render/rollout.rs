//! A revision on its way from wave to wave.

use std::fmt::Write as _;

use shoal_proto::admin::{EndedRollout, GetRolloutResponse, Pace, Rollout, Waves};

use super::names::some;
use super::staleness::warning;
use super::units::{moment, span};
use crate::failure::one_line;

/// Contents in quarantine that are shown.
const MAX_QUARANTINED: usize = 10;

/// Nodes that do not count that are shown.
const MAX_LEFT_OUT: usize = 20;

/// How far it is, wave by wave, and what is not applied again.
pub fn rollout(response: &GetRolloutResponse) -> String {
    let what = "this is what this node knows, and it is possibly old";
    let mut text = warning(response.quorum, response.staleness_ms, what);
    match (&response.rollout, &response.ended) {
        (Some(rollout), _) => push_rollout(&mut text, rollout),
        (None, None) => text.push_str("no revision is on its way\n"),
        (None, Some(ended)) => {
            text.push_str("no revision is on its way; the last one that did not come at once:\n");
            push_ended(&mut text, ended);
        }
    }
    text.push_str(&rollout_policy(response.policy.as_ref()));
    push_quarantine(&mut text, response);
    text
}

/// The same in a line, for somebody who watches.
pub fn rollout_line(response: &GetRolloutResponse) -> String {
    match (&response.rollout, &response.ended) {
        (Some(rollout), _) => match &rollout.waves {
            Some(waves) => format!("revision {}: {}\n", rollout.revision, now(waves)),
            None => unconfirmed(rollout) + "\n",
        },
        (None, Some(ended)) => outcome(ended) + "\n",
        (None, None) => "no revision is on its way\n".to_owned(),
    }
}

/// How revisions come into force where nobody says.
pub fn rollout_policy(policy: Option<&Pace>) -> String {
    match policy {
        None => "policy: revisions come to all nodes at once unless --waves is given\n".to_owned(),
        Some(pace) => {
            format!("policy: revisions come in waves, {}, unless --at-once is given\n", pace_text(pace))
        }
    }
}

/// How long a revision may wait, and what to type.
pub(super) fn unconfirmed(rollout: &Rollout) -> String {
    if let Some(waves) = &rollout.waves {
        return in_waves(rollout, waves);
    }
    let (revision, before, left) = (rollout.revision, rollout.before, span(rollout.left_ms.div_ceil(1000)));
    let (by, keep) = match rollout.nodes.len() {
        0 => (String::new(), "to keep it"),
        _ => (format!(", and served by {} alone", some(&rollout.nodes)), "to have it everywhere"),
    };
    format!(
        "revision {revision} is not confirmed{by}: the cluster goes back to revision {before} in {left}; {keep}, type: \
         shoal confirm {revision}, to go back now: shoal abort {revision}"
    )
}

/// What is to be known of a revision in waves when it was just published.
fn in_waves(rollout: &Rollout, waves: &Waves) -> String {
    let Rollout { revision, before, .. } = rollout;
    format!(
        "revision {revision} comes in waves: {}; others serve revision {before} until it is their turn; to see how far it is, \
         type: shoal rollout status --watch, to go back now: shoal rollout abort {revision}",
        now(waves)
    )
}

fn push_rollout(text: &mut String, rollout: &Rollout) {
    let Rollout { revision, before, author, message, at_ms, .. } = rollout;
    let Some(waves) = &rollout.waves else {
        text.push_str(&(unconfirmed(rollout) + "\n"));
        text.push_str(&left_out(rollout));
        return;
    };
    let colon = if message.is_empty() { "" } else { ": " };
    let _ = writeln!(
        text,
        "revision {revision} by {} at {}{colon}{}",
        one_line(author),
        at(*at_ms),
        one_line(message)
    );
    push_passed(text, waves);
    let _ = writeln!(text, "  {}", now(waves));
    let names: Vec<String> = rollout.nodes.iter().take(20).map(|name| one_line(name)).collect();
    let more = if rollout.nodes.len() > names.len() { ", …" } else { "" };
    let _ = writeln!(text, "served by {}{more}; the others serve revision {before}", names.join(", "));
    text.push_str(&left_out(rollout));
    if let Some(pace) = &waves.pace {
        let left = span(rollout.left_ms.div_ceil(1000));
        let _ = writeln!(text, "pace: {}; taken back unless it is everywhere in {left}", pace_text(pace));
    }
}

/// A line for each node that does not count.
pub(super) fn left_out(rollout: &Rollout) -> String {
    let mut text = String::new();
    for left_out in rollout.left_out.iter().take(MAX_LEFT_OUT) {
        let (node, before, why) = (one_line(&left_out.node), rollout.before, one_line(&left_out.why));
        let _ = writeln!(text, "{node} is left out, since it refuses revision {before} already: {why}");
    }
    if let Some(more @ 1..) = rollout.left_out.len().checked_sub(MAX_LEFT_OUT) {
        let _ = writeln!(text, "{more} more nodes are left out");
    }
    text
}

fn push_ended(text: &mut String, ended: &EndedRollout) {
    if let Some(waves) = &ended.waves {
        push_passed(text, waves);
    }
    let _ = writeln!(text, "  {}", outcome(ended));
}

fn outcome(ended: &EndedRollout) -> String {
    let EndedRollout { revision, reverted_by, why, at_ms, .. } = ended;
    let wave = ended.waves.as_ref().map(|waves| waves.wave);
    let colon = if why.is_empty() { "" } else { ": " };
    let what = match (reverted_by, wave) {
        (0, Some(wave)) => format!("revision {revision} is everywhere after wave {wave}"),
        (0, None) => format!("revision {revision} stays"),
        (by, Some(wave)) => format!("revision {revision} was taken back in wave {wave} by revision {by}"),
        (by, None) => format!("revision {revision} was taken back by revision {by}"),
    };
    format!("{what}, {}{colon}{}", at(*at_ms), one_line(why))
}

fn push_passed(text: &mut String, waves: &Waves) {
    for (place, passed) in waves.passed.iter().enumerate() {
        let (number, nodes) = (place + 1, passed.nodes);
        let plural = if nodes == 1 { "" } else { "s" };
        let (stage, evidence) = (one_line(&passed.stage), one_line(&passed.evidence));
        let _ = writeln!(
            text,
            "  wave {number}, {stage}: {nodes} node{plural}, until {}: {evidence}",
            at(passed.at_ms)
        );
    }
}

/// The wave that it is in.
fn now(waves: &Waves) -> String {
    let Waves { wave, stage, nodes, members, paused_by, watch, .. } = waves;
    let mut text = format!("wave {wave}, {}: {nodes} of {members} nodes", one_line(stage));
    if let Some(watch) = watch {
        let _ = write!(text, "; {}", one_line(&watch.evidence));
    }
    match (paused_by.as_str(), watch) {
        ("", Some(watch)) => _ = write!(text, "; {} left", span(watch.left_ms.div_ceil(1000))),
        ("", None) => {}
        (by, _) => _ = write!(text, "; paused by {}", one_line(by)),
    }
    text
}

fn push_quarantine(text: &mut String, response: &GetRolloutResponse) {
    if response.quarantine.is_empty() {
        return;
    }
    let told = response.ended.as_ref().filter(|_| response.rollout.is_none());
    text.push_str("in quarantine, and not applied again without --force, what was:\n");
    for quarantined in response.quarantine.iter().take(MAX_QUARANTINED) {
        let revision = quarantined.revision;
        let is_told = told.is_some_and(|ended| (ended.revision, &ended.why) == (revision, &quarantined.why));
        let why = if is_told { "as said above".to_owned() } else { one_line(&quarantined.why) };
        let _ = writeln!(text, "  revision {revision}, since {}: {why}", at(quarantined.at_ms));
    }
    if let Some(more @ 1..) = response.quarantine.len().checked_sub(MAX_QUARANTINED) {
        let _ = writeln!(text, "  and {more} more");
    }
}

fn pace_text(pace: &Pace) -> String {
    match pace.urgent {
        true => "urgent: one node for 5s, then a region every 2s".to_owned(),
        false => format!("{} and {} checks each", span(pace.bake_ms.div_ceil(1000)), pace.checks),
    }
}

fn at(unix_ms: u64) -> String {
    moment(i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::{LeftOutNode, PassedWave, Quarantined, WaveWatch};

    use super::super::check_golden;
    use super::*;

    fn waves() -> Waves {
        let passed = PassedWave {
            stage: "one node".into(),
            nodes: 1,
            evidence: "0.1 % of 2041 requests failed with it, 0.1 % of 15882 without it".into(),
            at_ms: 1_772_368_560_000,
        };
        Waves {
            wave: 2,
            stage: "one node of each region".into(),
            passed: vec![passed],
            pace: Some(Pace { bake_ms: 60_000, checks: 5, urgent: false }),
            nodes: 3,
            members: 9,
            watch: Some(WaveWatch {
                left_ms: 11_400,
                evidence: "0.0 % of 212 requests failed with it, 0.0 % of 371 without it; too few to be sure"
                    .into(),
            }),
            ..Waves::default()
        }
    }

    fn response() -> GetRolloutResponse {
        let rollout = Rollout {
            revision: 8,
            before: 7,
            author: "ann@desk (ann)".into(),
            message: "new hosts".into(),
            at_ms: 1_772_368_496_000,
            left_ms: 86_000_000,
            nodes: vec!["n1".into(), "n4".into(), "n8".into()],
            waves: Some(waves()),
            left_out: vec![LeftOutNode {
                node_id: 5,
                node: "n5".into(),
                why: "listener \"web\": cannot listen on 127.0.0.5:8080: Address already in use".into(),
            }],
            ..Rollout::default()
        };
        GetRolloutResponse { rollout: Some(rollout), quorum: true, ..GetRolloutResponse::default() }
    }

    #[test]
    fn a_rollout_is_shown_wave_by_wave() {
        let mut seen = response();
        check_golden("rollout", &rollout(&seen));
        let line = rollout_line(&seen);
        assert!(
            line.starts_with("revision 8: wave 2, one node of each region: 3 of 9 nodes; 0.0 %"),
            "{line}"
        );
        assert!(line.ends_with("; 12s left\n"), "{line}");
        if let Some(Rollout { waves: Some(waves), .. }) = &mut seen.rollout {
            waves.paused_by = "bob\u{1b}".into();
        }
        assert!(rollout_line(&seen).ends_with("; paused by bob\u{fffd}\n"));
        assert!(rollout(&GetRolloutResponse { quorum: false, ..seen }).starts_with("warning: no quorum"));
    }

    #[test]
    fn the_last_one_and_the_quarantine_are_shown() {
        let ended = EndedRollout {
            revision: 8,
            waves: Some(waves()),
            reverted_by: 9,
            why: "revert of 8: worse than what was before: 2.0 % of 900 requests failed with it".into(),
            at_ms: 1_772_368_620_000,
        };
        let quarantined = |why: &str| Quarantined {
            revision: 8,
            why: why.into(),
            at_ms: 1_772_368_620_000,
            objects: Vec::new(),
        };
        let mut quarantine = vec![quarantined("n3 died of it"); 12];
        quarantine[1] = quarantined(&ended.why);
        let policy = Some(Pace { bake_ms: 300_000, checks: 9, urgent: false });
        let ended = Some(ended);
        let seen =
            GetRolloutResponse { ended, quarantine, policy, quorum: true, ..GetRolloutResponse::default() };
        check_golden("rollout_ended", &rollout(&seen));
        let told = |waves, reverted_by, why: &str| {
            let at_ms = 1_772_368_620_000;
            outcome(&EndedRollout { revision: 8, waves, reverted_by, why: why.into(), at_ms })
        };
        assert_eq!(told(Some(waves()), 0, ""), "revision 8 is everywhere after wave 2, 2026-03-01 12:37:00Z");
        assert_eq!(
            told(None, 0, "confirmed by ann"),
            "revision 8 stays, 2026-03-01 12:37:00Z: confirmed by ann"
        );
        assert_eq!(
            told(None, 9, "rollback to revision 7"),
            "revision 8 was taken back by revision 9, 2026-03-01 12:37:00Z: rollback to revision 7"
        );
        let none = GetRolloutResponse { quorum: true, ..GetRolloutResponse::default() };
        assert_eq!(
            rollout(&none),
            "no revision is on its way\npolicy: revisions come to all nodes at once unless --waves is given\n"
        );
    }
}
