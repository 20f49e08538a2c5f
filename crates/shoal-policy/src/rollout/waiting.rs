//! How long a revision may still wait to be confirmed, as one node counts.
//!
//! Every node counts for itself, so that whoever leads when the time is over knows it. A node that was in touch with the
//! cluster when the revision came counts from then on by its steady clock alone: nobody can set that one, and clocks of
//! different nodes are not compared. One that was not (it was cut off, stopped, or has just been started) cannot know how
//! late it is but by the time of day in the log; where that lies in the future, by a wrong clock, nothing is over yet.

use std::time::Duration;

/// A look at the log that is older says nothing of what happened meanwhile.
const RECENT: Duration = Duration::from_secs(2);

/// The look at the log before the one that has found the revision.
#[derive(Clone, Copy, Debug)]
pub struct LastLook {
    /// How long ago, by the steady clock.
    pub ago: Duration,
    /// The leader was heard then, or was this node, and a majority heard it.
    pub in_touch: bool,
}

/// How much time was over when a node first saw a revision that was `written_ms` (Unix milliseconds), it being `now_ms`.
pub fn missed(last_look: Option<LastLook>, written_ms: u64, now_ms: u64) -> Duration {
    match last_look {
        Some(look) if look.in_touch && look.ago <= RECENT => Duration::ZERO,
        Some(_) | None => Duration::from_millis(now_ms.saturating_sub(written_ms)),
    }
}

/// What is left of `within`, so much of which was [`missed`] by a node that has counted for `seen_for` since.
pub fn left(within: Duration, missed: Duration, seen_for: Duration) -> Duration {
    within.saturating_sub(missed).saturating_sub(seen_for)
}

/// Whether a node goes back by itself from a revision of whose time so much is left: nobody has confirmed it as far as it
/// knows, and for so long there was no leader to tell. `silence` = how long an election may take.
pub fn is_overdue(left: Duration, unled_for: Duration, silence: Duration) -> bool {
    left.is_zero() && has_lost_touch(unled_for, silence)
}

/// Nobody has led for so long that it is no election any more. A node that has got a revision before the others leaves it then:
/// who watches over it may have taken it back.
pub fn has_lost_touch(unled_for: Duration, silence: Duration) -> bool {
    unled_for >= silence * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_not_there_asks_the_time_of_day() {
        let check = |last_look: Option<(u64, bool)>, written: u64, now: u64, expected: u64| {
            let last_look =
                last_look.map(|(ago_ms, in_touch)| LastLook { ago: Duration::from_millis(ago_ms), in_touch });
            let missed = missed(last_look, written * 1000, now * 1000);
            assert_eq!(missed, Duration::from_secs(expected), "{last_look:?} {written} {now}");
        };
        check(Some((500, true)), 100, 100, 0);
        check(Some((500, true)), 100, 900, 0); // one of the clocks is wrong: no matter which
        check(Some((500, true)), 900, 100, 0);
        check(Some((2000, true)), 100, 130, 0);
        check(Some((2001, true)), 100, 130, 30); // it was stopped
        check(Some((500, false)), 100, 130, 30); // it was cut off
        check(None, 100, 130, 30); // it was restarted
        check(None, 100, 99, 0);
    }

    #[test]
    fn who_hears_of_nobody_goes_back_alone() {
        for (left, unled_for, expected) in [(0, 0, false), (0, 1, false), (0, 2, true), (1, 9, false)] {
            let seconds = Duration::from_secs;
            let overdue = is_overdue(seconds(left), seconds(unled_for), seconds(1));
            assert_eq!(overdue, expected, "{left} {unled_for}");
        }
    }

    #[test]
    fn time_runs_out_once() {
        let check = |within, missed, seen_for, expected| {
            let [within, missed, seen_for, expected] =
                [within, missed, seen_for, expected].map(Duration::from_secs);
            assert_eq!(left(within, missed, seen_for), expected, "{within:?} {missed:?} {seen_for:?}");
        };
        check(300, 0, 0, 300);
        check(300, 0, 299, 1);
        check(300, 0, 300, 0);
        check(300, 100, 150, 50);
        check(300, 900, 0, 0);
        check(300, 300, 300, 0);
    }
}
