//! A node that goes out of service, or comes back.

use std::fmt::Write as _;

use shoal_proto::admin::{StandingProgress, StandingVerb};

use crate::failure::one_line;

/// A line about how far a node is, if that is news; `before` is what was known.
pub fn progress(before: Option<&StandingProgress>, now: &StandingProgress) -> Option<String> {
    let is_news = before.is_none_or(|before| {
        before.phase != now.phase
            || (now.phase == "connections" && before.open_connections != now.open_connections)
    });
    // What is done is said in the end.
    if !is_news || now.done {
        return None;
    }
    let what = match now.phase.as_str() {
        "hook" => "not ready any more; the hook withdraws what leads to it".to_owned(),
        "grace" => format!("withdrawn, and still accepting; {} connections", now.open_connections),
        "connections" => format!("accepts no more; {} connections", now.open_connections),
        "cache" => format!("no connections; {} cached objects go to their next owners", now.cached_objects),
        "vote" => "somebody else gets to lead and to vote".to_owned(),
        "drained" => "drained".to_owned(),
        "serving" => "serves; waits until the others have heard of it".to_owned(),
        "silent" => "does not answer".to_owned(),
        other => one_line(other),
    };
    Some(format!("{}: {what}\n", one_line(&now.node)))
}

/// What has come of it, and what was noteworthy.
pub fn standing(verb: StandingVerb, last: &StandingProgress) -> String {
    let node = one_line(&last.node);
    let seconds = f64::from(last.elapsed_ms / 100) / 10.0;
    let mut text = match (verb, last.done) {
        (StandingVerb::Drain, true) if last.phase == "left" => {
            format!("{node} is drained and has left ({seconds} s)\n")
        }
        (StandingVerb::Drain, true) => format!("{node} is drained ({seconds} s)\n"),
        (StandingVerb::Undrain, true) => format!("{node} is in service ({seconds} s)\n"),
        (StandingVerb::Cordon, true) => format!("{node} is cordoned ({seconds} s)\n"),
        (StandingVerb::Uncordon | StandingVerb::Unspecified, true) => {
            format!("{node} does its part again ({seconds} s)\n")
        }
        (_, false) => format!(
            "{node} says nothing: it is in the log, and the node follows when it hears of it; see: shoal node describe {node}\n"
        ),
    };
    for note in &last.notes {
        let _ = writeln!(text, "note: {}", one_line(note));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: &str, open_connections: u64) -> StandingProgress {
        StandingProgress {
            node: "n2".into(),
            phase: phase.into(),
            open_connections,
            cached_objects: 300,
            ..StandingProgress::default()
        }
    }

    #[test]
    fn every_step_is_a_line() {
        let steps = [
            at("serving", 9),
            at("hook", 9),
            at("grace", 9),
            at("grace", 8),
            at("connections", 7),
            at("connections", 7),
            at("connections", 2),
            at("cache", 0),
            at("vote", 0),
            StandingProgress { done: true, ..at("drained", 0) },
        ];
        let mut before = None;
        let lines = steps.iter().filter_map(|step| progress(before.replace(step), step));
        let text: String = lines.collect();
        let expected = "\
n2: serves; waits until the others have heard of it
n2: not ready any more; the hook withdraws what leads to it
n2: withdrawn, and still accepting; 9 connections
n2: accepts no more; 7 connections
n2: accepts no more; 2 connections
n2: no connections; 300 cached objects go to their next owners
n2: somebody else gets to lead and to vote
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_end_says_what_was_noteworthy() {
        let drained = StandingProgress {
            done: true,
            elapsed_ms: 6_240,
            notes: vec!["it keeps its vote: there is no other node that could have it".into()],
            ..at("drained", 0)
        };
        let text = standing(StandingVerb::Drain, &drained);
        assert_eq!(
            text,
            "n2 is drained (6.2 s)\nnote: it keeps its vote: there is no other node that could have it\n"
        );
        let silent = standing(StandingVerb::Drain, &at("silent", 0));
        assert!(silent.starts_with("n2 says nothing: it is in the log"), "{silent}");
    }
}
