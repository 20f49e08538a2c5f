//! Plans, differences and applied revisions.

use std::fmt::Write as _;

use shoal_proto::admin::{
    AbsentNode, AckState, ApplyResponse, Change, ChangeAction, ConfirmResponse, DiffResponse, FieldChange,
    NodeAck, NodeVerdict, PlanResponse, Quarantined, Rollout,
};

use super::names::{MAX_NAMES, some};
use super::rollout::{left_out, unconfirmed};
use super::staleness::{LATER_REVISIONS, warning};
use crate::failure::one_line;
use crate::output::Style;

/// Longest value in a diff, in bytes; certificates are long and say little.
const MAX_VALUE_BYTES: usize = 200;

/// The difference by object and field; `+` is new, `-` goes, `~` differs.
pub fn plan(response: &PlanResponse, style: Style) -> String {
    let base = response.base_revision;
    let what = format!("compared with revision {base}, the newest this node has; it is possibly old");
    let mut text = warning(response.quorum, response.staleness_ms, &what);
    if response.changes.is_empty() {
        let _ = writeln!(text, "no changes to revision {}", response.base_revision);
    } else {
        let _ = writeln!(text, "changes to revision {}:", response.base_revision);
        push_changes(&mut text, &response.changes, style);
        push_verdicts(&mut text, &response.verdicts);
    }
    push_obstacles(&mut text, response);
    text
}

/// Why nothing of it would come into force now, whatever the nodes say.
fn push_obstacles(text: &mut String, response: &PlanResponse) {
    if let Some(Quarantined { revision, why, objects, .. }) = &response.quarantined {
        let why = one_line(why);
        let part = if objects.is_empty() { String::new() } else { format!("in {} ", objects.join(", ")) };
        let _ = writeln!(
            text,
            "refused without --force: {part}it is what revision {revision} was, which is in quarantine ({why})"
        );
    }
    if let Some(Rollout { revision, waves, .. }) = &response.rollout {
        let what = if waves.is_some() { "comes in waves" } else { "waits to be confirmed" };
        let _ = writeln!(
            text,
            "refused for now: revision {revision} {what}, and nothing else is applied until that has ended; see: shoal \
             rollout status"
        );
    }
}

/// `3/3 live nodes would take it`, and a line for each of the others.
fn push_verdicts(text: &mut String, verdicts: &[NodeVerdict]) {
    // An earlier version asks nobody.
    if verdicts.is_empty() {
        return;
    }
    let takers = verdicts.iter().filter(|verdict| verdict.verdict == "takes").count();
    let _ = writeln!(text, "{takers}/{} live nodes would take it", verdicts.len());
    for NodeVerdict { node, verdict, why, .. } in verdicts {
        let what = match verdict.as_str() {
            "takes" => continue,
            "refuses" => "would refuse it",
            "refuses_already" => "refuses the active revision, too",
            _ => "was not to be asked",
        };
        let _ = writeln!(text, "  {} {what}: {}", one_line(node), one_line(why));
    }
}

/// What differs between two revisions, in the same way.
pub fn difference(response: &DiffResponse, style: Style) -> String {
    let DiffResponse { from_revision, to_revision, changes, quorum, staleness_ms } = response;
    let mut text = warning(*quorum, *staleness_ms, LATER_REVISIONS);
    if changes.is_empty() {
        let _ = writeln!(text, "no changes from revision {from_revision} to {to_revision}");
        return text;
    }
    let _ = writeln!(text, "changes from revision {from_revision} to {to_revision}:");
    push_changes(&mut text, changes, style);
    text
}

fn push_changes(text: &mut String, changes: &[Change], style: Style) {
    for change in changes {
        let sign = sign_of(change.action());
        let line = format!("{sign} {} {}", one_line(&change.kind), one_line(&change.name));
        push_line(text, sign, &line, style);
        for field in &change.fields {
            push_field(text, field, style);
        }
    }
    let _ = writeln!(text, "{}", counts(changes));
}

/// A new revision, and on which nodes it is. Where there is none, its `message` is lost.
pub fn applied(response: &ApplyResponse, message: &str) -> String {
    let revision = response.revision;
    let same = match message {
        "" => "no changes",
        _ => "no changes; there is no new revision, so the message is not kept",
    };
    if response.unchanged && response.acks.is_empty() {
        return format!("revision {revision}: {same}\n");
    }
    let what = if response.unchanged {
        same.to_owned()
    } else {
        counts(&response.changes) + &gone(&response.changes)
    };
    let waits = response.rollout.as_ref().map(|rollout| unconfirmed(rollout) + "\n" + &left_out(rollout));
    let waits = waits.unwrap_or_default();
    if response.acks.is_empty() {
        let elapsed_ms = response.elapsed_ms;
        return format!(
            "revision {revision}: {what}\nagreed on in {elapsed_ms} ms; no node was waited for\n{waits}"
        );
    }
    let (acks, absent) = (&response.acks, &response.absent);
    let nodes = nodes_of(response.rollout.as_ref());
    let where_to = acknowledged_by(("applied on", nodes), acks, absent, response.elapsed_ms);
    format!("revision {revision}: {what}\n{where_to}{}{waits}", way_out(response))
}

/// What those are called that serve it until it is in force for good.
fn nodes_of(rollout: Option<&Rollout>) -> &'static str {
    match rollout {
        Some(Rollout { waves: Some(_), .. }) => "nodes of its wave",
        Some(Rollout { nodes, .. }) if !nodes.is_empty() => "nodes that try it",
        Some(_) | None => "nodes",
    }
}

/// The names of what is not there any more.
fn gone(changes: &[Change]) -> String {
    let removed = changes.iter().filter(|change| change.action() == ChangeAction::Remove);
    let names: Vec<String> = removed.map(|change| format!("{}/{}", change.kind, change.name)).collect();
    if names.is_empty() { String::new() } else { format!(": {}", some(&names)) }
}

/// A revision stays.
pub fn confirmed(response: &ConfirmResponse) -> String {
    let applied = acknowledged("applied on", &response.acks, &response.absent, response.elapsed_ms);
    format!("revision {} is confirmed: it stays in force\n{applied}", response.revision)
}

/// What to do where a node has refused the revision; nothing where none has.
fn way_out(response: &ApplyResponse) -> String {
    if !response.acks.iter().any(|ack| ack.state() == AckState::Refused) {
        return String::new();
    }
    let refused = response.acks.iter().filter(|ack| ack.state() == AckState::Refused);
    // What none of them serves they may have refused as well.
    let back = match refused.map(|ack| ack.serves).min() {
        None | Some(0) => String::new(),
        Some(serves) => format!(", or: shoal rollback --to-revision {serves}"),
    };
    format!(
        "the cluster has agreed on it, but who has refused it serves what was before; mend the file and apply it again{back}\n"
    )
}

/// `applied on 3/3 nodes in 84 ms`, who is away, and a line for each live node that is not among them.
pub(super) fn acknowledged(done: &str, acks: &[NodeAck], absent: &[AbsentNode], elapsed_ms: u32) -> String {
    acknowledged_by((done, "nodes"), acks, absent, elapsed_ms)
}

fn acknowledged_by(
    (done, nodes): (&str, &str),
    acks: &[NodeAck],
    absent: &[AbsentNode],
    elapsed_ms: u32,
) -> String {
    let (done_by, missing): (Vec<_>, Vec<_>) = acks.iter().partition(|ack| ack.state() == AckState::Applied);
    let live = if absent.is_empty() { "" } else { "live " };
    let mut text = format!("{done} {}/{} {live}{nodes} in {elapsed_ms} ms", done_by.len(), acks.len());
    if !absent.is_empty() {
        let _ = write!(text, " ({})", absences(absent));
    }
    text.push('\n');
    for ack in missing {
        let state = match ack.state() {
            AckState::Refused => "refused",
            AckState::Lapsed => "lapsed",
            AckState::Applied | AckState::Silent | AckState::Unspecified => "silent",
        };
        let _ = writeln!(text, "  {} {state}: {}", one_line(&ack.node), one_line(&ack.detail));
    }
    text
}

/// `node3 is dead and will catch up`.
fn absences(absent: &[AbsentNode]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for node in absent.iter().take(MAX_NAMES) {
        let state = match node.state.as_str() {
            "left" => "has left",
            "dead" => "is dead",
            "joining" => "is still joining",
            _ => "is not heard",
        };
        parts.push(format!("{} {state}", one_line(&node.node)));
    }
    if absent.len() > MAX_NAMES {
        parts.push(format!("{} more are not there", absent.len() - MAX_NAMES));
    }
    let what = parts.join(", ");
    if absent.len() == 1 {
        format!("{what} and will catch up")
    } else {
        format!("{what}; they will catch up")
    }
}

fn counts(changes: &[Change]) -> String {
    let count = |action| changes.iter().filter(|change| change.action() == action).count();
    let (added, changed, removed) =
        (count(ChangeAction::Add), count(ChangeAction::Change), count(ChangeAction::Remove));
    let total = changes.len();
    let plural = if total == 1 { "" } else { "s" };
    format!("{total} change{plural}: {added} added, {changed} changed, {removed} removed")
}

fn sign_of(action: ChangeAction) -> char {
    match action {
        ChangeAction::Add => '+',
        ChangeAction::Remove => '-',
        ChangeAction::Change => '~',
        ChangeAction::Unspecified => '?',
    }
}

fn push_field(text: &mut String, field: &FieldChange, style: Style) {
    let path = one_line(&field.path);
    let (sign, value) = match (field.old.as_str(), field.new.as_str()) {
        ("", new) => ('+', short(new)),
        (old, "") => ('-', short(old)),
        (old, new) => ('~', format!("{} → {}", short(old), short(new))),
    };
    let line =
        if path.is_empty() { format!("    {sign} {value}") } else { format!("    {sign} {path}: {value}") };
    push_line(text, sign, &line, style);
}

fn short(value: &str) -> String {
    let mut value = one_line(value);
    if value.len() > MAX_VALUE_BYTES {
        value.truncate(value.floor_char_boundary(MAX_VALUE_BYTES));
        value.push('…');
    }
    value
}

fn push_line(text: &mut String, sign: char, line: &str, style: Style) {
    let colour = match sign {
        _ if !style.colour => None,
        '+' => Some(32),
        '-' => Some(31),
        '~' => Some(33),
        _ => None,
    };
    let _ = match colour {
        Some(colour) => writeln!(text, "\u{1b}[{colour}m{line}\u{1b}[0m"),
        None => writeln!(text, "{line}"),
    };
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::Waves;

    use super::super::check_golden;
    use super::*;

    fn field(path: &str, old: &str, new: &str) -> FieldChange {
        FieldChange { path: path.into(), old: old.into(), new: new.into() }
    }

    fn change(action: ChangeAction, kind: &str, name: &str, fields: Vec<FieldChange>) -> Change {
        Change { action: action.into(), kind: kind.into(), name: name.into(), fields }
    }

    fn changes() -> Vec<Change> {
        vec![
            change(ChangeAction::Add, "route", "blog", vec![field("hosts", "", "[\"blog.example.com\"]")]),
            change(
                ChangeAction::Change,
                "upstream",
                "shop",
                vec![
                    field("balance", "", "\"p2c_ewma\""),
                    field("endpoints", "[\"10.0.0.1:9000\"]", "[\"10.0.0.2:9000\"]"),
                    field("health.interval", "\"5s\"", ""),
                ],
            ),
            change(ChangeAction::Remove, "listener", "old", vec![field("address", "\":81\"", "")]),
            change(
                ChangeAction::Change,
                "certificate",
                "shop",
                vec![field("chain_pem", "\"a\"", &"x".repeat(900))],
            ),
        ]
    }

    fn ack(node: &str, state: AckState, detail: &str) -> NodeAck {
        let serves = if state == AckState::Refused { 6 } else { 0 };
        NodeAck {
            node: node.into(),
            state: state.into(),
            detail: detail.into(),
            serves,
            ..NodeAck::default()
        }
    }

    #[test]
    fn a_plan_is_a_diff() {
        let mut response =
            PlanResponse { base_revision: 7, changes: changes(), quorum: true, ..PlanResponse::default() };
        check_golden("plan", &plan(&response, Style { colour: false, now: 0 }));
        let coloured = plan(&response, Style { colour: true, now: 0 });
        assert!(coloured.contains("\u{1b}[32m+ route blog\u{1b}[0m\n"), "{coloured}");
        let verdict = |node: &str, verdict: &str, why: &str| NodeVerdict {
            node_id: 1,
            node: node.into(),
            verdict: verdict.into(),
            why: why.into(),
        };
        response.verdicts = vec![
            verdict("n1", "takes", ""),
            verdict("n2", "refuses", "listener web: cannot listen on 10.0.0.2:80: Address already in use"),
            verdict("n3", "unknown", "it did not answer within 3 s"),
            verdict("n4", "refuses_already", "listener old: permission denied"),
        ];
        let told = plan(&response, Style { colour: false, now: 0 });
        let (_, told) = told.split_once("1 removed\n").unwrap();
        assert_eq!(
            told,
            "1/4 live nodes would take it\n  \
             n2 would refuse it: listener web: cannot listen on 10.0.0.2:80: Address already in use\n  \
             n3 was not to be asked: it did not answer within 3 s\n  \
             n4 refuses the active revision, too: listener old: permission denied\n"
        );
        let same = PlanResponse { base_revision: 7, quorum: true, ..PlanResponse::default() };
        assert_eq!(plan(&same, Style { colour: true, now: 0 }), "no changes to revision 7\n");
        let quarantined =
            Quarantined { revision: 4, why: "n3 died\nof it".into(), at_ms: 1, objects: Vec::new() };
        let objects = vec!["route/shop".to_owned(), "2 more".to_owned()];
        let in_part = Quarantined { objects, ..quarantined.clone() };
        let rollout = |waves| Rollout { revision: 8, waves, ..Rollout::default() };
        let told = |quarantined, waves| {
            let response = PlanResponse { quarantined, rollout: Some(rollout(waves)), ..same.clone() };
            plan(&response, Style { colour: false, now: 0 })
        };
        let after = "and nothing else is applied until that has ended; see: shoal rollout status\n";
        assert_eq!(
            told(Some(quarantined), None),
            format!(
                "no changes to revision 7\n\
                 refused without --force: it is what revision 4 was, which is in quarantine (n3 died; of it)\n\
                 refused for now: revision 8 waits to be confirmed, {after}"
            )
        );
        assert!(
            told(Some(in_part), None)
                .contains("--force: in route/shop, 2 more it is what revision 4 was, which")
        );
        assert!(
            told(None, Some(Default::default())).ends_with(&format!("revision 8 comes in waves, {after}"))
        );
        let alone = plan(&PlanResponse { quorum: false, ..same }, Style { colour: true, now: 0 });
        assert_eq!(
            alone,
            "warning: no quorum: compared with revision 7, the newest this node has; it is possibly old\n\
             no changes to revision 7\n"
        );
    }

    #[test]
    fn a_difference_is_shown_as_a_plan_is() {
        let mut response =
            DiffResponse { from_revision: 5, to_revision: 7, changes: vec![], quorum: true, staleness_ms: 0 };
        let style = Style { colour: false, now: 0 };
        assert_eq!(difference(&response, style), "no changes from revision 5 to 7\n");
        response.changes =
            vec![change(ChangeAction::Remove, "route", "old", vec![field("path", "\"/\"", "")])];
        let expected = "changes from revision 5 to 7:\n- route old\n    - path: \"/\"\n\
                        1 change: 0 added, 0 changed, 1 removed\n";
        assert_eq!(difference(&response, style), expected);
        let warned = "warning: no quorum for 12s: there may be later revisions than this node has\n";
        for (changes, rest) in [(vec![], "no changes"), (response.changes.clone(), "changes")] {
            let alone = DiffResponse { quorum: false, staleness_ms: 12_000, changes, ..response.clone() };
            let told = difference(&alone, style);
            assert!(told.starts_with(&format!("{warned}{rest} from revision 5 to 7")), "{told}");
        }
    }

    #[test]
    fn an_apply_says_where_it_is() {
        let mut response = ApplyResponse {
            revision: 8,
            unchanged: false,
            acks: vec![ack("node1", AckState::Applied, ""), ack("node2", AckState::Applied, "")],
            elapsed_ms: 84,
            changes: changes(),
            absent: vec![],
            rollout: None,
        };
        let expected = "revision 8: 4 changes: 1 added, 2 changed, 1 removed: listener/old\napplied on 2/2 nodes in 84 ms\n";
        assert_eq!(applied(&response, "why"), expected);
        response.acks.push(ack("node3", AckState::Refused, "listener web: address in use\u{7}"));
        response.acks.push(ack("node4", AckState::Silent, "no answer within 30 s"));
        check_golden("applied_in_part", &applied(&response, ""));
        let same = ApplyResponse { revision: 8, unchanged: true, ..ApplyResponse::default() };
        assert_eq!(applied(&same, ""), "revision 8: no changes\n");
        let told = "revision 8: no changes; there is no new revision, so the message is not kept\n";
        assert_eq!(applied(&same, "why"), told);
        let agreed = ApplyResponse { acks: vec![], ..response };
        let expected = "revision 8: 4 changes: 1 added, 2 changed, 1 removed: listener/old\n\
                        agreed on in 84 ms; no node was waited for\n";
        assert_eq!(applied(&agreed, ""), expected);
    }

    #[test]
    fn a_revision_that_waits_says_what_to_type() {
        let rollout = Rollout { revision: 8, before: 7, left_ms: 299_100, ..Rollout::default() };
        let response = ApplyResponse {
            revision: 8,
            acks: vec![ack("node1", AckState::Applied, "")],
            elapsed_ms: 84,
            changes: changes(),
            rollout: Some(rollout.clone()),
            ..ApplyResponse::default()
        };
        check_golden("applied_unconfirmed", &applied(&response, ""));
        let canary = Rollout { nodes: vec!["node2".into(), "node3".into()], ..rollout };
        check_golden("unconfirmed_canary", &(unconfirmed(&canary) + "\n"));
        let in_waves = Rollout { waves: Some(Waves::default()), ..canary.clone() };
        for (rollout, expected) in
            [(canary, "1/1 nodes that try it in"), (in_waves, "1/1 nodes of its wave in")]
        {
            let told = applied(&ApplyResponse { rollout: Some(rollout), ..response.clone() }, "");
            assert!(told.contains(&format!("\napplied on {expected} 84 ms\n")), "{told}");
        }
        let acks = vec![ack("node1", AckState::Applied, "")];
        let stays = ConfirmResponse { revision: 8, acks, elapsed_ms: 7, ..ConfirmResponse::default() };
        let expected = "revision 8 is confirmed: it stays in force\napplied on 1/1 nodes in 7 ms\n";
        assert_eq!(confirmed(&stays), expected);
    }

    #[test]
    fn nodes_that_are_away_are_named() {
        let check = |absent: &[(&str, &str)], expected: &str| {
            let absent: Vec<AbsentNode> = absent
                .iter()
                .map(|(node, state)| AbsentNode { node_id: 9, node: (*node).into(), state: (*state).into() })
                .collect();
            let acks = [ack("node1", AckState::Applied, ""), ack("node2", AckState::Applied, "")];
            assert_eq!(acknowledged("applied on", &acks, &absent, 84), expected);
        };
        check(&[], "applied on 2/2 nodes in 84 ms\n");
        check(&[("node3", "dead")], "applied on 2/2 live nodes in 84 ms (node3 is dead and will catch up)\n");
        check(
            &[("node3", "joining")],
            "applied on 2/2 live nodes in 84 ms (node3 is still joining and will catch up)\n",
        );
        check(
            &[("node3", "dead"), ("node4", "left"), ("node5", "unknown")],
            "applied on 2/2 live nodes in 84 ms (node3 is dead, node4 has left, node5 is not heard; they will catch up)\n",
        );
        check(
            &[("a", "dead"), ("b", "dead"), ("c", "dead"), ("d", "dead"), ("e", "dead"), ("f", "dead")],
            "applied on 2/2 live nodes in 84 ms (a is dead, b is dead, c is dead, d is dead, e is dead, \
             1 more are not there; they will catch up)\n",
        );
    }
}
