//! What became of a revision, as the history tells.

use shoal_proto::admin::{EndedRollout, RevisionInfo};

use crate::failure::Failure;

/// Every revision that is remembered.
pub(super) const ALL_REVISIONS: u32 = u32::MAX;

/// How far a revision is on its way to being in force for good.
#[derive(Debug, PartialEq)]
pub(super) enum Course {
    /// It may be taken back.
    Open,
    /// It stays, or was taken back.
    Ended(Box<EndedRollout>),
    /// No revision that is remembered was ever on its way.
    Nothing,
}

/// The one of `revision`, or of the newest one that did not come at once; with all that is known of it if it is the one that
/// `ended` tells of. `history` is newest first.
pub(super) fn course(
    history: &[RevisionInfo],
    ended: Option<&EndedRollout>,
    revision: Option<u64>,
) -> Result<Course, Failure> {
    let is_meant = |info: &&RevisionInfo| match revision {
        Some(revision) => info.revision == revision,
        None => !info.standing.is_empty(),
    };
    let Some(info) = history.iter().find(is_meant) else {
        let Some(revision) = revision else { return Ok(Course::Nothing) };
        let why = format!("there is no revision {revision} in the history");
        return Err(Failure::local("rollout status", why).try_command("shoal history"));
    };
    if let Some(ended) = ended.filter(|ended| ended.revision == info.revision) {
        return Ok(Course::Ended(Box::new(ended.clone())));
    }
    let (why, at_ms) = match info.standing.as_str() {
        "unconfirmed" => return Ok(Course::Open),
        "confirmed" => (format!("confirmed by {}", info.confirmed_by), info.confirmed_at_ms),
        "reverted" => {
            let successor = history.iter().find(|successor| successor.revision == info.reverted_by);
            successor.map(|successor| (successor.message.clone(), successor.at_ms)).unwrap_or_default()
        }
        _ => ("it came to all nodes at once".to_owned(), info.at_ms),
    };
    let (revision, reverted_by) = (info.revision, info.reverted_by);
    Ok(Course::Ended(Box::new(EndedRollout { revision, waves: None, reverted_by, why, at_ms })))
}

/// The newest revision before the active one that stayed: what was taken back, or did harm, is nothing to go back to.
pub(super) fn last_that_stayed(history: &[RevisionInfo]) -> Option<u64> {
    let stayed =
        |info: &&RevisionInfo| info.standing != "reverted" && info.quarantined.is_empty() && info.restorable;
    history.iter().skip(1).find(stayed).map(|info| info.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(revision: u64, standing: &str, reverted_by: u64) -> RevisionInfo {
        RevisionInfo {
            revision,
            at_ms: revision * 1_000,
            message: format!("message of {revision}"),
            restorable: true,
            standing: standing.into(),
            confirmed_by: "ann".into(),
            confirmed_at_ms: 99,
            reverted_by,
            ..RevisionInfo::default()
        }
    }

    fn history() -> Vec<RevisionInfo> {
        vec![
            info(7, "unconfirmed", 0),
            info(6, "", 0),
            info(5, "confirmed", 0),
            info(4, "", 0),
            info(3, "reverted", 4),
            info(2, "", 0),
        ]
    }

    #[test]
    fn a_revision_ends_as_the_history_says() {
        let check = |skipped: usize, revision: Option<u64>, expected: Option<(u64, u64, &str, u64)>| {
            let ended =
                EndedRollout { revision: 3, reverted_by: 4, why: "waves".into(), ..Default::default() };
            let history = &history()[skipped..];
            match (course(history, Some(&ended), revision), expected) {
                (Ok(Course::Ended(ended)), Some(expected)) => {
                    let told = (ended.revision, ended.reverted_by, ended.why.as_str(), ended.at_ms);
                    assert_eq!(told, expected, "{revision:?}");
                }
                (Ok(Course::Open), None) => {}
                (other, _) => panic!("{revision:?}: {other:?}"),
            }
        };
        check(0, Some(7), None);
        check(0, None, None);
        check(0, Some(6), Some((6, 0, "it came to all nodes at once", 6_000)));
        check(0, Some(5), Some((5, 0, "confirmed by ann", 99)));
        check(0, Some(3), Some((3, 4, "waves", 0)));
        check(1, None, Some((5, 0, "confirmed by ann", 99)));
        check(3, None, Some((3, 4, "waves", 0)));
        let taken_back = course(&history(), None, Some(3)).unwrap();
        let expected = EndedRollout {
            revision: 3,
            waves: None,
            reverted_by: 4,
            why: "message of 4".into(),
            at_ms: 4_000,
        };
        assert_eq!(taken_back, Course::Ended(Box::new(expected)));
        assert_eq!(course(&history()[5..], None, None).unwrap(), Course::Nothing);
        let failure = course(&history(), None, Some(8)).unwrap_err();
        assert_eq!(failure.why, "there is no revision 8 in the history");
    }

    #[test]
    fn nobody_goes_back_to_what_did_not_stay() {
        let check = |history: &[RevisionInfo], expected: Option<u64>| {
            assert_eq!(last_that_stayed(history), expected, "{history:?}");
        };
        let all = history();
        check(&all, Some(6));
        check(&all[3..], Some(2)); // what 4 went back from
        check(&all[5..], None);
        let quarantined = RevisionInfo { quarantined: "n3 died of it".into(), ..info(5, "", 0) };
        let dropped = RevisionInfo { restorable: false, ..info(4, "", 0) };
        check(&[info(6, "", 0), quarantined, dropped, info(3, "confirmed", 0)], Some(3));
    }
}
