//! Readiness that a single look does not change.

use std::num::NonZeroU32;
use std::str::FromStr;

/// How many looks it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Good looks in a row until it is ready.
    pub rise: NonZeroU32,
    /// Bad ones in a row until it is not.
    pub fall: NonZeroU32,
}

/// Most looks that either may take.
const MOST_LOOKS: u32 = 1000;

impl Default for Rule {
    fn default() -> Self {
        let looks = |count| NonZeroU32::new(count).expect("the defaults are not 0");
        Self { rise: looks(3), fall: looks(2) }
    }
}

/// `RISE/FALL`.
impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let looks = |text: &str| text.parse().ok().filter(|looks: &NonZeroU32| looks.get() <= MOST_LOOKS);
        let read = text
            .split_once('/')
            .and_then(|(rise, fall)| Some(Self { rise: looks(rise)?, fall: looks(fall)? }));
        read.ok_or_else(|| format!("{text:?} is no RISE/FALL: two numbers from 1 to {MOST_LOOKS}, as in 3/2"))
    }
}

/// What one look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing stands in the way.
    Good,
    /// Something does.
    Bad,
    /// It is meant to have no traffic, or could not serve any: nothing to wait for.
    Out,
}

/// Readiness in one scope. Times are milliseconds of any clock that does not go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steady {
    ready_since: Option<u64>,
    /// Looks in a row that say otherwise.
    otherwise: u32,
    /// How often it has changed.
    changes: u64,
}

impl Steady {
    /// It is ready since then, as somebody else has found.
    pub const fn ready_at(since_ms: u64) -> Self {
        Self { ready_since: Some(since_ms), otherwise: 0, changes: 0 }
    }

    /// Takes in what a look at `now_ms` has found.
    #[must_use]
    pub fn observe(self, finding: Finding, rule: Rule, now_ms: u64) -> Self {
        let (is_ready, otherwise) = (self.is_ready(), self.otherwise.saturating_add(1));
        match finding {
            Finding::Good if is_ready => Self { otherwise: 0, ..self },
            Finding::Bad if !is_ready => Self { otherwise: 0, ..self },
            Finding::Out if !is_ready => Self { otherwise: 0, ..self },
            Finding::Good if otherwise >= rule.rise.get() => self.become_ready(Some(now_ms)),
            Finding::Bad if otherwise >= rule.fall.get() => self.become_ready(None),
            Finding::Out => self.become_ready(None),
            Finding::Good | Finding::Bad => Self { otherwise, ..self },
        }
    }

    fn become_ready(self, ready_since: Option<u64>) -> Self {
        Self { ready_since, otherwise: 0, changes: self.changes + 1 }
    }

    /// Whether it is ready.
    pub const fn is_ready(self) -> bool {
        self.ready_since.is_some()
    }

    /// Since when.
    pub const fn ready_since(self) -> Option<u64> {
        self.ready_since
    }

    /// How often it has become ready or ceased to be so.
    pub const fn changes(self) -> u64 {
        self.changes
    }

    /// Looks in a row that have found otherwise.
    pub const fn otherwise(self) -> u32 {
        self.otherwise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` and `-` are looks, `!` one that finds it out of service; in the answer, whether it is ready after each.
    fn check(rule: &str, looks: &str, expected: &str) {
        let rule = rule.parse().unwrap();
        let mut steady = Steady::default();
        let mut seen = String::new();
        for (at, look) in looks.chars().enumerate() {
            let finding = match look {
                '+' => Finding::Good,
                '-' => Finding::Bad,
                _ => Finding::Out,
            };
            steady = steady.observe(finding, rule, at as u64);
            seen.push(if steady.is_ready() { 'r' } else { '.' });
        }
        assert_eq!(seen, expected, "{looks}");
    }

    #[test]
    fn it_takes_some_looks_in_a_row() {
        check("3/2", "+++++", "..rrr");
        check("3/2", "++-++-+++", "........r");
        check("3/2", "+++-+-+--+", "..rrrrrr..");
        check("3/2", "+++--+++", "..rr...r");
        check("1/1", "+-+-", "r.r.");
        check("3/2", "+++!+++", "..r...r");
        check("3/2", "!!+++", "....r");
        check("2/3", "++---++", ".rrr..r");
    }

    #[test]
    fn since_when_is_remembered() {
        let rule = Rule::default();
        let good = |steady: Steady, at| steady.observe(Finding::Good, rule, at);
        let ready = good(good(good(good(Steady::default(), 10), 20), 30), 40);
        assert_eq!((ready.ready_since(), ready.changes()), (Some(30), 1));
        let shaken = ready.observe(Finding::Bad, rule, 50);
        assert_eq!((shaken.ready_since(), shaken.otherwise()), (Some(30), 1));
        assert_eq!(good(shaken, 60).ready_since(), Some(30));
        assert_eq!(shaken.observe(Finding::Bad, rule, 60).changes(), 2);
    }

    #[test]
    fn rules_are_two_numbers() {
        assert_eq!("3/2".parse(), Ok(Rule::default()));
        for wrong in ["", "3", "0/2", "3/0", "3/2/1", "-1/2", "1001/1", "a/b"] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }
}
