//! Who may go on once a majority of the voters is lost.

use std::fmt::Write as _;

use shoal_proto::admin::RecoverPlanResponse;

use super::table::Columns;
use crate::failure::one_line;

/// How far the log of every node is, who may go on alone and how; `lost` = the nodes that were named as lost.
pub fn recovery_plan(plan: &RecoverPlanResponse, lost: &[String]) -> String {
    let heading = ["NODE", "ID", "ANSWER", "VOTES", "LOG ENDS", "COMMITTED", "FOLLOWS", "REVISION", "EPOCH"];
    let mut columns = Columns::new(heading);
    for log in &plan.logs {
        let answers = log.state == "answers";
        let told = |text: String| if answers { text } else { "-".to_owned() };
        columns.row([
            log.node.clone(),
            format!("n{}", log.node_id),
            log.state.clone(),
            if log.votes { "yes" } else { "no" }.to_owned(),
            told(format!("{}.{}", log.last_term, log.last_index)),
            told(log.committed.to_string()),
            told(format!("n{} in {}", log.vote_for, log.vote_term)),
            told(log.revision.to_string()),
            told(log.cluster_epoch.to_string()),
        ]);
    }
    let mut text = format!("cluster {}\n{}\n", plan.cluster_id, columns.text());
    for log in plan.logs.iter().filter(|log| !log.unknown.is_empty()) {
        let (unknown, why) = (&log.unknown, one_line(&log.unknown_why));
        _ = writeln!(
            text,
            "{} does not know entry {unknown}, and applies nothing from there on: {why}",
            log.node
        );
    }
    if plan.survivor.is_empty() {
        _ = writeln!(text, "nobody may go on alone: {}", plan.refused);
        return text;
    }
    let others = plan.logs.iter().map(|log| log.node.as_str()).filter(|name| *name != plan.survivor);
    let others = others.collect::<Vec<_>>().join(", ");
    let flags: String = lost.iter().map(|name| format!(" --lost {name}")).collect();
    let (survivor, last) = (&plan.survivor, &plan.last);
    _ = writeln!(text, "{survivor} may go on alone: of those that answer its log goes furthest, to {last}");
    if plan.may_lose {
        let lost = lost.join(", ");
        _ = writeln!(
            text,
            "lost are changes that {lost} have acknowledged together after that, if there are any"
        );
    }
    let unknown = plan.logs.iter().find(|log| log.node == *survivor).map_or("", |log| log.unknown.as_str());
    let way = match unknown {
        "" => format!("On the machine of {survivor}:"),
        _ => format!("On the machine of {survivor}, once it runs the version that knows entry {unknown}:"),
    };
    let apply = format!("shoal recover apply --data-dir DIR{flags} --at {last}");
    _ = write!(
        text,
        "
{way}
  1. shoal --socket DIR/admin.sock snapshot save
  2. stop the node; the others serve meanwhile
  3. {apply}
  4. start it again
"
    );
    if !unknown.is_empty() {
        _ = write!(
            text,
            "\
Or, where there is no such version, with the one that it runs, and without that entry and what follows it:
  1. stop the node; the others serve meanwhile
  2. cp -a DIR DIR.before
  3. {apply} --without {unknown}
  4. start it again
"
        );
    }
    _ = writeln!(
        text,
        "Everywhere else ({others}): stop the node, move its directory away, and let it join again with a new token."
    );
    text
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::LogOfNode;

    use super::super::check_golden;
    use super::*;

    #[test]
    fn says_who_goes_on_and_how_or_why_nobody_does() {
        let log = |id: u64, state: &str| LogOfNode {
            node_id: id,
            node: format!("n{id}"),
            state: state.to_owned(),
            votes: true,
            last_term: 3,
            last_index: 120,
            vote_term: 3,
            vote_for: 2,
            committed: 119,
            revision: 7,
            cluster_epoch: 0,
            unknown: String::new(),
            unknown_why: String::new(),
        };
        let plan = RecoverPlanResponse {
            cluster_id: "00000000000000ab".to_owned(),
            logs: vec![log(1, "answers"), log(2, "lost"), log(3, "lost")],
            survivor: "n1".to_owned(),
            last: "3.120".to_owned(),
            may_lose: true,
            refused: String::new(),
        };
        let lost = ["n2".to_owned(), "n3".to_owned()];
        let refused = RecoverPlanResponse {
            logs: vec![log(1, "answers"), log(2, "lost"), log(3, "silent")],
            survivor: String::new(),
            refused: "voters that do not answer may live, and may know more: n3".to_owned(),
            ..plan.clone()
        };
        let later = LogOfNode {
            unknown: "3.118".to_owned(),
            unknown_why:
                "its log has a command (set level) of level 14, and this version knows up to level 13"
                    .to_owned(),
            ..log(1, "answers")
        };
        let unknown =
            RecoverPlanResponse { logs: vec![later, log(2, "lost"), log(3, "lost")], ..plan.clone() };
        let texts = [(&plan, &lost[..]), (&refused, &lost[..1]), (&unknown, &lost[..])];
        let text = texts.map(|(plan, lost)| recovery_plan(plan, lost)).join("\n");
        check_golden("recovery_plan", &text);
    }
}
