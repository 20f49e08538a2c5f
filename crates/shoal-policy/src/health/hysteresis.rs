//! One checker's opinion of one endpoint: many observations in, few verdicts out.

use std::time::Duration;

use super::Reason;

/// From one check to the next while the verdict is being reconsidered.
pub const CHANGING_INTERVAL: Duration = Duration::from_millis(500);

/// What one check saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// It answered as it should.
    Healthy,
    /// It did not.
    Failing(Reason),
}

/// What a checker holds of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be used.
    Up,
    /// It may not.
    Down(Reason),
}

/// Turns observations into verdicts: `fall` failures in a row mean down, `rise` successes in a row mean up. The very
/// first observation decides at once, so that a restarted checker has an opinion after one round.
#[derive(Clone, Debug)]
pub struct Checker {
    rise: u32,
    fall: u32,
    verdict: Option<Verdict>,
    /// Observations in a row that contradict the verdict.
    contradictions: u32,
}

impl Checker {
    /// A checker that has seen nothing yet. Zero counts as one.
    pub fn new(rise: u32, fall: u32) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), verdict: None, contradictions: 0 }
    }

    /// What it holds; `None` = it has seen nothing yet.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Takes in one observation; answers the new verdict if this one changed it, or the reason for it.
    pub fn observe(&mut self, observation: Observation) -> Option<Verdict> {
        let seen = match observation {
            Observation::Healthy => Verdict::Up,
            Observation::Failing(reason) => Verdict::Down(reason),
        };
        let needed = match (self.verdict, seen) {
            (None, _) => 1,
            (Some(Verdict::Up), Verdict::Down(_)) => self.fall,
            (Some(Verdict::Down(_)), Verdict::Up) => self.rise,
            // Down for another reason: whoever looks for the cause is to find the present one.
            (Some(Verdict::Down(known)), Verdict::Down(reason)) if known != reason => self.fall,
            (Some(Verdict::Up), Verdict::Up) | (Some(Verdict::Down(_)), Verdict::Down(_)) => {
                self.contradictions = 0;
                return None;
            }
        };
        self.contradictions += 1;
        if self.contradictions < needed {
            return None;
        }
        self.contradictions = 0;
        self.verdict = Some(seen);
        Some(seen)
    }

    /// How long to wait before the next check: `interval` ± 10 %, so that checks do not march in step, and
    /// [`CHANGING_INTERVAL`] while the verdict is in doubt. `entropy` is any random number.
    pub fn next_check_in(&self, interval: Duration, entropy: u64) -> Duration {
        if self.contradictions > 0 {
            return interval.min(CHANGING_INTERVAL);
        }
        let percent = 90 + (entropy % 21) as u32;
        interval * percent / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `observations`: `.` healthy, `x` failing. The answer: after each, `U`/`D` on a change, `-` otherwise.
    fn replay(rise: u32, fall: u32, observations: &str) -> String {
        let mut checker = Checker::new(rise, fall);
        let step = |seen| {
            let observation = match seen {
                '.' => Observation::Healthy,
                _ => Observation::Failing(Reason::ConnectRefused),
            };
            match checker.observe(observation) {
                Some(Verdict::Up) => 'U',
                Some(Verdict::Down(_)) => 'D',
                None => '-',
            }
        };
        observations.chars().map(step).collect()
    }

    #[test]
    fn verdicts_need_observations_in_a_row() {
        let check = |rise, fall, observations, expected| {
            assert_eq!(replay(rise, fall, observations), expected, "rise {rise} fall {fall} {observations}");
        };
        check(2, 3, "......", "U-----");
        check(2, 3, "x", "D");
        check(2, 3, "x..", "D-U");
        check(2, 3, ".xx.xx.xxx", "U--------D");
        check(2, 3, ".xxx.x.x..", "U--D-----U");
        check(1, 1, ".x.x", "UDUD");
        check(0, 0, ".x.x", "UDUD");
    }

    #[test]
    fn checks_faster_while_in_doubt() {
        let check = |observations: &[Observation], interval_ms, entropy, expected_ms| {
            let mut checker = Checker::new(2, 3);
            for observation in observations {
                checker.observe(*observation);
            }
            let next = checker.next_check_in(Duration::from_millis(interval_ms), entropy);
            assert_eq!(next, Duration::from_millis(expected_ms), "{observations:?}");
        };
        let failing = Observation::Failing(Reason::ConnectTimeout);
        check(&[], 5000, 0, 4500);
        check(&[Observation::Healthy], 5000, 10, 5000);
        check(&[Observation::Healthy], 5000, 20, 5500);
        check(&[Observation::Healthy, failing], 5000, 3, 500);
        check(&[Observation::Healthy, failing], 200, 3, 200);
        check(&[Observation::Healthy, failing, failing, failing], 5000, 10, 5000);
    }
}
