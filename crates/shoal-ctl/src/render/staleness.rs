//! What is said where a node that answers has no quorum: it may not have heard of what is new.

use shoal_proto::admin::ShowResponse;

use super::units::{moment, span};

/// What is said of an answer that revisions come from.
pub(super) const LATER_REVISIONS: &str = "there may be later revisions than this node has";

/// The line before an answer of a node that has had no quorum for so long, where it says for how long; with one nothing.
pub(super) fn warning(quorum: bool, staleness_ms: u64, what: &str) -> String {
    if quorum { String::new() } else { format!("warning: {}\n", no_quorum(staleness_ms, what)) }
}

/// What is said beside the site of a revision; `None` = the node has a quorum.
pub fn possibly_old(shown: &ShowResponse) -> Option<String> {
    if shown.quorum {
        return None;
    }
    let text = no_quorum(shown.staleness_ms, LATER_REVISIONS);
    Some(match i64::try_from(shown.committed_at_ms / 1000) {
        Ok(at) if at > 0 => format!("{text}; revision {} was committed {}", shown.revision, moment(at)),
        _ => text,
    })
}

fn no_quorum(staleness_ms: u64, what: &str) -> String {
    match staleness_ms / 1000 {
        0 => format!("no quorum: {what}"),
        seconds => format!("no quorum for {}: {what}", span(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_for_how_long() {
        for (quorum, staleness_ms, expected) in [
            (true, 0, ""),
            (true, 300, ""),
            (false, 0, "warning: no quorum: look\n"),
            (false, 999, "warning: no quorum: look\n"),
            (false, 12_999, "warning: no quorum for 12s: look\n"),
            (false, 7_384_000, "warning: no quorum for 2h 3m: look\n"),
        ] {
            assert_eq!(warning(quorum, staleness_ms, "look"), expected);
        }
    }

    #[test]
    fn a_site_may_be_old() {
        let shown = |quorum, staleness_ms, committed_at_ms| ShowResponse {
            revision: 7,
            quorum,
            staleness_ms,
            committed_at_ms,
            ..ShowResponse::default()
        };
        let check = |shown, expected: Option<&str>| assert_eq!(possibly_old(&shown).as_deref(), expected);
        check(shown(true, 0, 1_772_368_620_000), None);
        check(shown(false, 0, 0), Some("no quorum: there may be later revisions than this node has"));
        check(
            shown(false, 12_000, 1_772_368_620_000),
            Some(
                "no quorum for 12s: there may be later revisions than this node has; revision 7 was committed \
                 2026-03-01 12:37:00Z",
            ),
        );
    }
}
