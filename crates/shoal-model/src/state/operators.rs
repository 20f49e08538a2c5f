//! Who may call the cluster: the certificates that were given to operators, and whose are good no more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::command::LISTING_OPERATORS;
use super::{Refusal, Reply};

/// Certificates that are remembered, at most: those that have ended make room, nobody else does. From [`LISTING_OPERATORS`] on the
/// list is what is good, so that nothing leaves it before it has to: clocks are wrong at times.
const MAX_CERTIFICATES: usize = 2_000;
/// Names that were revoked and are remembered, at most.
const MAX_REVOKED: usize = 1_000;
/// Longest life of an operator's certificate, seconds.
pub const MAX_OPERATOR_SECONDS: u32 = 366 * 86_400;
/// For so long a revoked name is remembered: by then every certificate from before has ended, clocks that differ included.
const REMEMBER_MS: u64 = (MAX_OPERATOR_SECONDS as u64 + 86_400) * 1000;

/// A certificate that was given to an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// Whose it is.
    pub name: String,
    /// viewer, operator, admin.
    pub role: String,
    /// When it was given, Unix milliseconds.
    pub given_at_ms: u64,
    /// When it ends.
    pub ends_at_ms: u64,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operators {
    /// By serial number, hex.
    given: BTreeMap<String, OperatorRecord>,
    /// Names whose certificates are good for nothing, unless they were given since; and when they were revoked.
    revoked: BTreeMap<String, u64>,
    has_begun: bool,
    /// From then on, Unix milliseconds, every certificate that is good is on the list: what was given before everybody had to put
    /// it there has ended. `None` = nobody can say when that will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whole_from_ms: Option<u64>,
}

/// Why the bearer of a certificate that the authority has signed may not call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Its name was, and it was not given since.
    #[error("was revoked")]
    Revoked,
    /// The cluster has not given it to that name and role.
    #[error(
        "is not on the list of those that the cluster has given; see `shoal operator list` and `operator create`"
    )]
    Unlisted,
}

impl Operators {
    /// Those of a new cluster that begins at `level`: every certificate is going to be on the list where that is
    /// [`LISTING_OPERATORS`] or above.
    pub(super) fn of_new_cluster(level: u32) -> Self {
        Self { whole_from_ms: (level >= LISTING_OPERATORS).then_some(0), ..Self::default() }
    }

    /// Whether the bearer of a certificate that the authority has signed may call: the list decides. As long as there may be
    /// certificates of before it, one that is not on it is good as well, unless its name was revoked.
    pub fn admits(&self, name: &str, role: &str, serial: &str, now_ms: u64) -> Result<(), NotAdmitted> {
        let listed = self.given.get(serial);
        if listed.is_some_and(|given| given.name == name && given.role == role) {
            return Ok(());
        }
        if self.revoked.contains_key(name) {
            return Err(NotAdmitted::Revoked);
        }
        match listed.is_some() || self.whole_from_ms.is_some_and(|from_ms| now_ms >= from_ms) {
            true => Err(NotAdmitted::Unlisted),
            false => Ok(()),
        }
    }

    /// Those that had not ended at `now_ms`, by serial number.
    pub fn given(&self, now_ms: u64) -> impl Iterator<Item = (&String, &OperatorRecord)> {
        self.given.iter().filter(move |(_, given)| given.ends_at_ms > now_ms)
    }

    /// Names that were revoked, and when.
    pub fn revoked(&self) -> impl Iterator<Item = (&String, u64)> {
        self.revoked.iter().map(|(name, at_ms)| (name, *at_ms))
    }

    /// Something is remembered, or was.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// In a cluster at `level`.
    pub(super) fn give(&mut self, serial: String, record: OperatorRecord, level: u32) -> Reply {
        let now_ms = record.given_at_ms;
        if level < LISTING_OPERATORS {
            self.given.retain(|_, given| given.ends_at_ms > now_ms);
        } else if self.given.len() >= MAX_CERTIFICATES {
            let first = self.given.iter().min_by_key(|(_, given)| given.ends_at_ms);
            let ended =
                first.filter(|(_, given)| given.ends_at_ms <= now_ms).map(|(serial, _)| serial.clone());
            ended.map(|serial| self.given.remove(&serial));
        }
        if self.given.len() >= MAX_CERTIFICATES {
            return Reply::Refused(Refusal::TooManyOperators);
        }
        self.has_begun = true;
        if level >= LISTING_OPERATORS && self.whole_from_ms.is_none() {
            // By the clock that is ahead of all others so far: whoever gave the newest may be behind.
            let newest_ms = self.given.values().map(|given| given.given_at_ms).fold(now_ms, u64::max);
            self.whole_from_ms = Some(newest_ms.saturating_add(REMEMBER_MS));
        }
        self.given.insert(serial, record);
        Reply::Done
    }

    pub(super) fn revoke(&mut self, name: String, at_ms: u64) -> Reply {
        self.revoked.retain(|_, revoked_at_ms| revoked_at_ms.saturating_add(REMEMBER_MS) > at_ms);
        if self.revoked.len() >= MAX_REVOKED && !self.revoked.contains_key(&name) {
            return Reply::Refused(Refusal::TooManyOperators);
        }
        self.has_begun = true;
        self.given.retain(|_, given| given.name != name);
        self.revoked.insert(name, at_ms);
        Reply::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, given_at_ms: u64, ends_at_ms: u64) -> OperatorRecord {
        OperatorRecord { name: name.into(), role: "viewer".into(), given_at_ms, ends_at_ms }
    }

    const BEFORE: u32 = LISTING_OPERATORS - 1;

    #[test]
    fn a_revoked_name_begins_anew() {
        let mut operators = Operators::default();
        let good = Ok(());
        let (revoked, unlisted) = (Err(NotAdmitted::Revoked), Err(NotAdmitted::Unlisted));
        let check = |operators: &Operators, expected: [Result<(), NotAdmitted>; 5]| {
            let seen = [("ada", "1"), ("ada", "2"), ("ada", "old"), ("eve", "old"), ("eve", "1")];
            let seen = seen.map(|(name, serial)| operators.admits(name, "viewer", serial, u64::MAX));
            assert_eq!(seen, expected);
        };
        assert!(!operators.has_begun());
        operators.give("1".into(), record("ada", 1, 100), BEFORE);
        check(&operators, [good, good, good, good, unlisted]);
        operators.revoke("ada".into(), 5);
        check(&operators, [revoked, revoked, revoked, good, good]);
        operators.give("2".into(), record("ada", 6, 100), BEFORE);
        check(&operators, [revoked, good, revoked, good, good]);
        operators.revoke("eve".into(), 7);
        check(&operators, [revoked, good, revoked, revoked, revoked]);
        let serials = |now_ms| operators.given(now_ms).map(|(serial, _)| serial.as_str()).collect::<Vec<_>>();
        assert_eq!((serials(50), serials(100)), (vec!["2"], vec![]));
    }

    #[test]
    fn nobody_calls_with_what_is_not_on_a_whole_list() {
        let unlisted = Err(NotAdmitted::Unlisted);
        let check = |operators: &Operators, now_ms, old| {
            for (name, role, serial, expected) in [
                ("ada", "viewer", "1", Ok(())),
                ("ada", "admin", "1", unlisted),
                ("eve", "viewer", "1", unlisted),
                ("ada", "viewer", "2", old),
                ("eve", "admin", "2", old),
            ] {
                let told = operators.admits(name, role, serial, now_ms);
                assert_eq!(told, expected, "{name} {role} {serial} at {now_ms}");
            }
        };
        let mut new = Operators::of_new_cluster(LISTING_OPERATORS);
        assert_eq!(new.admits("ada", "viewer", "1", 0), unlisted, "it has given nothing yet");
        new.give("1".into(), record("ada", 1, 100), LISTING_OPERATORS);
        check(&new, 0, unlisted);

        let mut upgraded = Operators::of_new_cluster(BEFORE);
        upgraded.give("1".into(), record("ada", 1, u64::MAX), BEFORE);
        check(&upgraded, u64::MAX, Ok(()));
        for given_at_ms in [7, 9] {
            upgraded.give("3".into(), record("eve", given_at_ms, u64::MAX), LISTING_OPERATORS);
            check(&upgraded, 6 + REMEMBER_MS, Ok(()));
            check(&upgraded, 7 + REMEMBER_MS, unlisted);
        }
        let text = serde_json::to_string(&upgraded).unwrap();
        assert_eq!(serde_json::from_str::<Operators>(&text).unwrap(), upgraded);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut operators = Operators::default();
        let refused = Reply::Refused(Refusal::TooManyOperators);
        for n in 0..MAX_CERTIFICATES {
            assert_eq!(operators.give(n.to_string(), record("ada", 1, 10), BEFORE), Reply::Done);
        }
        assert_eq!(operators.give("more".into(), record("ada", 9, 100), BEFORE), refused);
        assert_eq!(
            operators.give("more".into(), record("ada", 10, 100), BEFORE),
            Reply::Done,
            "the others have ended"
        );
        let mut listed = Operators::of_new_cluster(LISTING_OPERATORS);
        let give = |operators: &mut Operators, n: usize, given_at_ms, ends_at_ms| {
            operators.give(n.to_string(), record("ada", given_at_ms, ends_at_ms), LISTING_OPERATORS)
        };
        for n in 0..MAX_CERTIFICATES {
            assert_eq!(give(&mut listed, n, 1, 10 + n as u64), Reply::Done);
        }
        assert_eq!(give(&mut listed, 9_000, 9, u64::MAX), refused);
        // However wrong the clock of who gives one is, one goes at most.
        assert_eq!(give(&mut listed, 9_000, u64::MAX - 1, u64::MAX), Reply::Done);
        assert_eq!(listed.admits("ada", "viewer", "0", 0), Err(NotAdmitted::Unlisted));
        assert_eq!(listed.admits("ada", "viewer", "1", 0), Ok(()));
        for n in 0..MAX_REVOKED {
            assert_eq!(operators.revoke(n.to_string(), 1), Reply::Done);
        }
        assert_eq!(operators.revoke("more".into(), REMEMBER_MS), refused);
        assert_eq!(operators.revoke("7".into(), REMEMBER_MS), Reply::Done);
        assert_eq!(operators.revoke("more".into(), REMEMBER_MS + 1), Reply::Done);
        assert_eq!(operators.revoked.len(), 2, "the others cannot have certificates any more");
    }
}
