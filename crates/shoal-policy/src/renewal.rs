//! When a certificate of the cluster's own authority is renewed, who is told that it was not, and for how long after its end
//! it still may be.

use std::time::Duration;

/// The part of a life after which it is renewed at the earliest, percent.
const FIRST_SHARE: u64 = 50;
/// The part after which it is at the latest, percent: in between by chance, so that the nodes of a cluster do not all ask at
/// once, nor ever again after a time when none could.
const LAST_SHARE: u64 = 80;
/// For so long after its end is a certificate renewed for the sake of its key, which the log knows.
pub const GRACE: Duration = Duration::from_secs(72 * 3600);
/// Tries that fail are repeated after this part of a life at first, then after twice as long each time.
const FIRST_RETRY_SHARE: u32 = 500;
/// The same at the latest.
const LAST_RETRY_SHARE: u32 = 30;
/// Bounds of all that, for lives that are very long or very short.
const SHORTEST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10 * 60);

/// From when to when a certificate is good, Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it was given.
    pub from_ms: u64,
    /// When it ends.
    pub to_ms: u64,
}

/// How urgent a renewal that has not come yet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// More than half of the life is left.
    #[default]
    None,
    /// At most half of it is: any moment now.
    Half,
    /// At most a fifth: it should have been.
    Fifth,
    /// At most a tenth.
    Tenth,
    /// Nothing is left.
    Ended,
}

impl Life {
    /// How long it is.
    pub fn length(self) -> Duration {
        Duration::from_millis(self.to_ms.saturating_sub(self.from_ms))
    }

    /// The same, ended where it would be had it been given for `length` at most.
    pub fn no_longer_than(self, length: Duration) -> Self {
        Self { to_ms: self.to_ms.min(self.from_ms.saturating_add(length.as_millis() as u64)), ..self }
    }

    /// What is left of it at `now_ms`.
    pub fn left(self, now_ms: u64) -> Duration {
        Duration::from_millis(self.to_ms.saturating_sub(now_ms)).min(self.length())
    }

    /// When it is renewed, Unix milliseconds; `entropy` is any number.
    pub fn renewed_at_ms(self, entropy: u64) -> u64 {
        let length = self.to_ms.saturating_sub(self.from_ms);
        let steps = (LAST_SHARE - FIRST_SHARE) * 1000;
        let share = FIRST_SHARE * 1000 + entropy % (steps + 1);
        self.from_ms.saturating_add((u128::from(length) * u128::from(share) / 100_000) as u64)
    }

    /// How urgent a renewal is at `now_ms`.
    pub fn alarm(self, now_ms: u64) -> Alarm {
        let (left, length) = (self.left(now_ms), self.length());
        match () {
            () if left.is_zero() => Alarm::Ended,
            () if left <= length / 10 => Alarm::Tenth,
            () if left <= length / 5 => Alarm::Fifth,
            () if left <= length / 2 => Alarm::Half,
            () => Alarm::None,
        }
    }

    /// How long to wait after the `failures`-th try in a row that failed; `entropy` is any number.
    pub fn retry_after(self, failures: u32, entropy: u64) -> Duration {
        let longest = (self.length() / LAST_RETRY_SHARE).clamp(SHORTEST_RETRY, LONGEST_RETRY);
        let first = (self.length() / FIRST_RETRY_SHARE).clamp(SHORTEST_RETRY, longest);
        let wait = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
        // Half of it at least, so that those who failed together do not try together.
        wait / 2 + wait.mul_f64((entropy % 1000) as f64 / 2000.0)
    }

    /// Whether it is renewed at `now_ms` by nothing but its key: it has ended, and not too long ago.
    pub fn is_renewed_late(self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.to_ms) <= GRACE.as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life { from_ms: 1_000_000, to_ms: 2_000_000 };

    #[test]
    fn renewed_between_half_and_four_fifths_of_a_life() {
        for (entropy, expected) in [(0, 1_500_000), (15_000, 1_650_000), (30_000, 1_800_000)] {
            assert_eq!(LIFE.renewed_at_ms(entropy), expected);
        }
        for entropy in [1, 29_999, 30_001, u64::MAX / 3, u64::MAX] {
            assert!((1_500_000..=1_800_000).contains(&LIFE.renewed_at_ms(entropy)), "{entropy}");
        }
        assert_eq!(Life { from_ms: 5, to_ms: 1 }.renewed_at_ms(7), 5, "none at all");
    }

    #[test]
    fn alarms_by_what_is_left() {
        for (now_ms, expected) in [
            (0, Alarm::None),
            (1_499_999, Alarm::None),
            (1_500_000, Alarm::Half),
            (1_799_999, Alarm::Half),
            (1_800_000, Alarm::Fifth),
            (1_899_999, Alarm::Fifth),
            (1_900_000, Alarm::Tenth),
            (1_999_999, Alarm::Tenth),
            (2_000_000, Alarm::Ended),
            (u64::MAX, Alarm::Ended),
        ] {
            assert_eq!(LIFE.alarm(now_ms), expected, "{now_ms}");
        }
    }

    #[test]
    fn tries_become_rarer() {
        let week = Life { from_ms: 0, to_ms: 7 * 86_400_000 };
        let seconds = Life { from_ms: 0, to_ms: 10_000 };
        for (life, failures, least_ms, most_ms) in [
            (LIFE, 1, 1_000, 2_000),
            (LIFE, 2, 2_000, 4_000),
            (LIFE, 5, 16_000, 33_334),
            (LIFE, 99, 16_000, 33_334),
            (week, 1, 300_000, 600_000),
            (week, 99, 300_000, 600_000),
            (seconds, 1, 100, 200),
            (seconds, 99, 160, 334),
        ] {
            for entropy in [0, 500, 999, u64::MAX] {
                let wait = life.retry_after(failures, entropy).as_millis() as u64;
                assert!((least_ms..=most_ms).contains(&wait), "{life:?} {failures} {entropy}: {wait} ms");
            }
        }
    }

    #[test]
    fn retries_keep_the_pace_of_the_life_agreed_on() {
        let week = Life { from_ms: 5_000, to_ms: 5_000 + 7 * 86_400_000 };
        let (minute, century) = (Duration::from_secs(60), Duration::from_secs(100 * 365 * 86_400));
        assert_eq!(week.no_longer_than(minute), Life { from_ms: 5_000, to_ms: 65_000 });
        assert_eq!(week.no_longer_than(century), week);
        for failures in [1, 99] {
            assert!(week.no_longer_than(minute).retry_after(failures, u64::MAX) <= Duration::from_secs(2));
        }
    }

    #[test]
    fn late_is_not_for_ever() {
        let days = |days: u64| LIFE.to_ms + days * 86_400_000;
        for (now_ms, expected) in [(days(0), true), (days(3), true), (days(3) + 1, false), (0, true)] {
            assert_eq!(LIFE.is_renewed_late(now_ms), expected, "{now_ms}");
        }
    }
}
