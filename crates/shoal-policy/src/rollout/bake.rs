//! Watching one wave of a rollout until it is known to be good, or bad.

use std::time::Duration;

use shoal_model::Revision;
use shoal_model::state::Pace;

use super::gate::ENOUGH_REQUESTS;
use super::trial::{Evidence, Seen, Sighting, Trial};

/// For so long a node of the wave may leave open whether it serves the revision, and how; and for so long there may be none
/// that could be watched.
const PATIENCE: Duration = Duration::from_secs(30);
/// Why a wave says nothing.
const NOBODY_IS_WATCHED: &str = "every node of the wave is drained, or refuses already what the others serve";
/// The first wave of an urgent revision.
const FIRST_URGENT_BAKE: Duration = Duration::from_secs(5);
/// The others.
const URGENT_BAKE: Duration = Duration::from_secs(2);
/// How often more time is given to a wave for requests to come.
const BAKES: u32 = 2;
/// Between two looks, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// At least.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// What passes between two looks counts as at most so many pauses.
const MOST_PAUSES: u32 = 3;

/// One wave, as whoever leads watches it: a new leader begins anew.
#[derive(Clone, Debug)]
pub struct Bake {
    trial: Trial,
    wave: u32,
    /// How long it takes at least.
    length: Duration,
    /// How often all of its nodes have to answer.
    checks: u32,
    /// More time is worth while where there are few requests.
    waits_for_requests: bool,
    /// For how long all of its nodes have served the revision.
    baked: Duration,
    /// How often all of them have answered.
    answered: u32,
    /// For how long somebody has been waited for.
    silence: Duration,
    /// For how long there has been nobody to wait for.
    unmanned: Duration,
}

/// What is known of a wave.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// Nothing yet.
    Open {
        /// How much longer it takes, at least.
        left: Duration,
        /// What can be said until now.
        so_far: String,
    },
    /// The next one may begin.
    Good(String),
    /// The revision is to go.
    Bad(Evidence),
    /// Another node has to take the place of those of the wave, none of which can be watched.
    Unmanned(String),
}

/// How long this wave is watched at least.
pub fn bake_length(pace: Pace, wave: u32) -> Duration {
    match (pace.is_urgent, wave) {
        (false, _) => Duration::from_millis(pace.bake_ms),
        (true, 1) => FIRST_URGENT_BAKE,
        (true, _) => URGENT_BAKE,
    }
}

impl Bake {
    /// Of this wave of a revision.
    pub fn new(trial: Trial, wave: u32, pace: Pace) -> Self {
        Self {
            trial,
            wave,
            length: bake_length(pace, wave),
            checks: if pace.is_urgent { 1 } else { pace.checks },
            waits_for_requests: !pace.is_urgent,
            baked: Duration::ZERO,
            answered: 0,
            silence: Duration::ZERO,
            unmanned: Duration::ZERO,
        }
    }

    /// It is of this wave.
    pub fn is_of(&self, revision: Revision, wave: u32) -> bool {
        self.trial.revision() == revision && self.wave == wave
    }

    /// Until the next look.
    pub fn pause(&self) -> Duration {
        (self.length / self.checks.max(1)).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }

    /// Takes note of all members, so long after the last look.
    pub fn judge(&mut self, sightings: &[Sighting], passed: Duration) -> Judgement {
        // Who looks was not there itself for the rest of it.
        let passed = passed.min(self.pause() * MOST_PAUSES);
        let seen = match self.trial.observe(sightings) {
            Ok(seen) => seen,
            Err(evidence) => return Judgement::Bad(evidence),
        };
        if seen.trying == 0 {
            (self.silence, self.unmanned) = (Duration::ZERO, self.unmanned + passed);
            return match PATIENCE.checked_sub(self.unmanned).filter(|left| !left.is_zero()) {
                Some(left) => {
                    let so_far = format!("{NOBODY_IS_WATCHED}; another one follows in {} s", left.as_secs());
                    Judgement::Open { left: self.length.saturating_sub(self.baked), so_far }
                }
                None => Judgement::Unmanned(NOBODY_IS_WATCHED.to_owned()),
            };
        }
        self.unmanned = Duration::ZERO;
        if let Some(awaited) = seen.awaited {
            self.silence += passed;
            if self.silence >= PATIENCE {
                return Judgement::Bad(Evidence::Silent(awaited, PATIENCE.as_secs()));
            }
            let so_far = format!("{awaited} has not said that it serves it");
            return Judgement::Open { left: self.length.saturating_sub(self.baked), so_far };
        }
        self.silence = Duration::ZERO;
        if self.answered > 0 {
            self.baked += passed;
        }
        self.answered += 1;
        let has_enough = seen.tried.now.all.requests.min(seen.others.now.all.requests) >= ENOUGH_REQUESTS;
        let bakes =
            if has_enough || !self.waits_for_requests || self.baked < self.length { 1 } else { BAKES };
        let left = (self.length * bakes).saturating_sub(self.baked);
        let so_far = told(&seen, has_enough);
        match left.is_zero() && self.answered >= self.checks {
            true => Judgement::Good(so_far),
            false if bakes > 1 => {
                Judgement::Open { left, so_far: so_far + ", so it is watched for twice the time" }
            }
            false => Judgement::Open { left, so_far },
        }
    }
}

fn told(seen: &Seen, has_enough: bool) -> String {
    let (tried, others) = (&seen.tried.now.all, &seen.others.now.all);
    let percent = |bad: u64, all: u64| if all == 0 { 0.0 } else { bad as f64 * 100.0 / all as f64 };
    let few = if has_enough { "" } else { "; too few to be sure" };
    format!(
        "{:.1} % of {} requests failed with it, {:.1} % of {} without it{few}",
        percent(tried.errors, tried.requests),
        tried.requests,
        percent(others.errors, others.requests),
        others.requests
    )
}

#[cfg(test)]
mod tests {
    use super::super::trial::tests::sightings;
    use super::*;

    fn trial() -> Trial {
        Trial::new(Revision(8), Revision(7))
    }

    fn pace(bake_s: u64, checks: u32) -> Pace {
        Pace { bake_ms: bake_s * 1000, checks, is_urgent: false }
    }

    /// Looks every second; what each says: seconds left, `good: …`, or `bad: …`.
    fn check(mut bake: Bake, looks: &[(&str, &str)]) {
        for (number, (text, expected)) in looks.iter().enumerate() {
            let said = match bake.judge(&sightings(text), Duration::from_secs(1)) {
                Judgement::Open { left, .. } => left.as_secs().to_string(),
                Judgement::Good(told) => format!("good: {told}"),
                Judgement::Bad(evidence) => format!("bad: {evidence}"),
                Judgement::Unmanned(why) => format!("unmanned: {why}"),
            };
            assert_eq!(said, *expected, "look {number}: {text}");
        }
    }

    #[test]
    fn a_wave_with_enough_requests_takes_its_time_and_no_more() {
        let good = "good: 0.0 % of 2000 requests failed with it, 0.1 % of 2000 without it";
        check(
            Bake::new(trial(), 1, pace(3, 2)),
            &[
                ("a:7:0/0 c:7:0/0", "3"), // it is still taken up
                ("a:8:0/0 c:7:0/0", "3"),
                ("a:8:500/0 c:7:500/2", "2"),
                ("a:8:1000/0 c:7:1000/2", "1"),
                ("a:8:2000/0 c:7:2000/2", good),
            ],
        );
    }

    #[test]
    fn few_requests_take_twice_the_time_and_it_is_said() {
        let few = "good: 0.0 % of 9 requests failed with it, 0.0 % of 0 without it; too few to be sure";
        let look = ("a:8:9/0 c:7:0/0", "0");
        let [two, one, four] = ["2", "1", "3"].map(|left| (look.0, left));
        check(
            Bake::new(trial(), 1, pace(3, 2)),
            &[("a:8:0/0 c:7:0/0", "3"), two, one, four, two, one, (look.0, few)],
        );
        let urgent = Pace { is_urgent: true, ..pace(60, 5) };
        check(Bake::new(trial(), 2, urgent), &[("a:8:0/0 c:7:0/0", "2"), one, (look.0, few)]);
    }

    #[test]
    fn checks_that_are_missing_are_waited_for() {
        let good = "good: 0.0 % of 0 requests failed with it, 0.0 % of 0 without it; too few to be sure";
        let look = "a:8:0/0 c:7:0/0";
        // Five looks in one second: of what passes between two, three quarters of a second count.
        check(
            Bake::new(trial(), 1, pace(1, 5)),
            &[(look, "1"), (look, "0"), (look, "0"), (look, "0"), (look, good)],
        );
    }

    #[test]
    fn who_says_nothing_for_long_is_reason_enough() {
        let silent = ("a:silent c:7:0/0", "60");
        let bad = "bad: a did not say within 30 s that it serves it, or how";
        let mut looks = vec![("a:8:0/0 c:7:0/0", "60")];
        looks.extend([silent; 29]);
        looks.push(("a:silent c:7:0/0", bad));
        check(Bake::new(trial(), 1, pace(60, 5)), &looks);
        check(
            Bake::new(trial(), 1, pace(60, 5)),
            &[("a:8:0/0 c:7:0/0", "60"), ("a:refused c:7:0/0", "bad: a has refused it: port in use")],
        );
    }

    #[test]
    fn a_wave_that_nobody_is_left_of_does_not_pass() {
        let unmanned =
            "unmanned: every node of the wave is drained, or refuses already what the others serve";
        let mut looks = vec![("a:8:0/0 c:7:0/0", "2"), ("a:8:9/0 c:7:9/0", "1")];
        looks.extend([("a:8:9/0! c:7:99/0", "1"); 29]);
        // It is back in time, and is watched for what was left.
        looks.extend([("a:8:9/0 c:7:99/0", "2"), ("a:8:9/0 c:7:99/0", "1")]);
        looks.extend([("a:8:9/0! c:7:99/0", "0"); 29]);
        looks.push(("a:8:9/0! c:7:99/0", unmanned));
        check(Bake::new(trial(), 1, pace(2, 1)), &looks);
        // That nobody was to answer is not the silence of who is back, nor the other way round.
        let mut looks = vec![("a:8:0/0 c:7:0/0", "60")];
        looks.extend([("a:8:0/0! c:7:0/0", "60"); 29]);
        looks.extend([("a:silent c:7:0/0", "60"); 29]);
        looks.extend([("a:8:0/0! c:7:0/0", "60"); 29]);
        looks.push(("a:8:0/0! c:7:0/0", unmanned));
        check(Bake::new(trial(), 1, pace(60, 5)), &looks);
    }

    #[test]
    fn who_watches_and_stands_still_has_seen_nothing_meanwhile() {
        let mut bake = Bake::new(trial(), 1, pace(60, 5));
        bake.judge(&sightings("a:8:0/0 c:7:0/0"), Duration::ZERO);
        let still = Duration::from_secs(300);
        let left = |judgement| match judgement {
            Judgement::Open { left, .. } => left.as_secs(),
            ended => panic!("{ended:?}"),
        };
        assert_eq!(left(bake.judge(&sightings("a:silent c:7:0/0"), still)), 60);
        assert_eq!(left(bake.judge(&sightings("a:8:0/0 c:7:0/0"), still)), 54);
    }

    #[test]
    fn looks_are_as_close_as_they_have_to_be() {
        for (bake_s, checks, expected_ms) in [(60, 5, 2000), (3, 5, 600), (1, 100, 250)] {
            let bake = Bake::new(trial(), 1, pace(bake_s, checks));
            assert_eq!(bake.pause(), Duration::from_millis(expected_ms), "{bake_s} {checks}");
        }
    }
}
