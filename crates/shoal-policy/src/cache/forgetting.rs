//! How far the log may forget purges: as far as every node has checked what it has stored. Nothing depends on that but how
//! much has to be validated: what was not checked lies below the floor then, and is not used before the origin was asked.

use std::time::Duration;

/// Records of which so many are remembered are too many to wait for who is away.
const CROWDED_RECORDS: usize = shoal_model::state::MAX_PURGE_RECORDS / 4 * 3;
/// Fewer than that are not worth a look at all that is stored, nor an entry of the log, at once.
const WORTHWHILE_RECORDS: usize = 1000;
/// After so long they are.
const IDLE: Duration = Duration::from_secs(60);

/// A member, as far as the forgetting of purges depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The log index up to which it has checked what it has stored; 0 = it has not said so.
    pub checked_seq: u64,
    /// It knows the command.
    pub knows: bool,
    /// For how long it has not been heard; `None` = it is.
    pub away: Option<Duration>,
}

/// What the log remembers of purges.
#[derive(Clone, Copy, Debug)]
pub struct Remembered {
    /// How many records there are.
    pub records: usize,
    /// Up to where they were forgotten.
    pub floor: u64,
    /// The newest.
    pub newest: u64,
}

/// Up to where purges may be forgotten. Whoever is away for longer than `retention` is not waited for; nor is anybody who is
/// away when there are too many records. `None` = nothing, or not yet.
pub fn forgettable(members: &[Member], remembered: Remembered, retention: Duration) -> Option<u64> {
    if remembered.records == 0 || members.iter().any(|member| !member.knows) {
        return None;
    }
    let patience = if remembered.records > CROWDED_RECORDS { Duration::ZERO } else { retention };
    let counts = |member: &&Member| member.away.is_none_or(|away| away < patience);
    let checked = members.iter().filter(counts).map(|member| member.checked_seq).min();
    checked.map(|checked| checked.min(remembered.newest)).filter(|up_to| *up_to > remembered.floor)
}

/// So many records are worth a look at all that is stored, or an entry of the log, so long after the one before.
pub fn is_worthwhile(records: usize, since_last: Option<Duration>) -> bool {
    records >= WORTHWHILE_RECORDS || (records > 0 && since_last.is_none_or(|since| since >= IDLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Duration = Duration::from_secs(3600);

    fn check(members: &[(u64, bool, Option<u64>)], records: usize, floor: u64, expected: Option<u64>) {
        let member = |&(checked_seq, knows, away): &(u64, bool, Option<u64>)| Member {
            checked_seq,
            knows,
            away: away.map(Duration::from_secs),
        };
        let members: Vec<Member> = members.iter().map(member).collect();
        let remembered = Remembered { records, floor, newest: 90 };
        assert_eq!(forgettable(&members, remembered, RETENTION), expected, "{members:?} {remembered:?}");
    }

    #[test]
    fn what_all_have_checked_is_forgotten() {
        check(&[(50, true, None), (40, true, None)], 10, 0, Some(40));
        check(&[(50, true, None), (40, true, None)], 10, 40, None);
        check(&[(50, true, None), (0, true, None)], 10, 0, None);
        check(&[(500, true, None), (100, true, None)], 10, 0, Some(90));
        check(&[(50, true, None)], 0, 0, None);
        check(&[], 10, 0, None);
    }

    #[test]
    fn who_does_not_know_the_command_would_break_over_it() {
        check(&[(50, true, None), (50, false, None)], 10, 0, None);
        check(&[(50, true, None), (50, false, Some(99_999))], CROWDED_RECORDS + 1, 0, None);
    }

    #[test]
    fn who_is_away_is_waited_for_and_not_for_ever() {
        check(&[(50, true, None), (20, true, Some(0))], 10, 0, Some(20));
        check(&[(50, true, None), (20, true, Some(3599))], 10, 0, Some(20));
        check(&[(50, true, None), (20, true, Some(3600))], 10, 0, Some(50));
        check(&[(50, true, None), (20, true, Some(0))], CROWDED_RECORDS + 1, 0, Some(50));
        check(&[(20, true, Some(3600))], 10, 0, None);
    }

    #[test]
    fn entries_are_written_for_many_or_after_a_while() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (records, since_last, expected) in [
            (0, None, false),
            (1, None, true),
            (1, seconds(59), false),
            (1, seconds(60), true),
            (999, seconds(1), false),
            (1000, seconds(1), true),
        ] {
            assert_eq!(is_worthwhile(records, since_last), expected, "{records} {since_last:?}");
        }
    }
}
