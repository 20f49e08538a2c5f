//! Who may call the cluster: the certificates that were given to operators, and whose are good no more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, Reply};

/// Certificates that are remembered, at most: those that have ended make room, nobody else does.
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
}

impl Operators {
    /// Whether the bearer of a certificate that is otherwise good may call. Of a name that was never revoked every one may:
    /// there are certificates of before they were remembered.
    pub fn admits(&self, name: &str, serial: &str) -> bool {
        !self.revoked.contains_key(name) || self.given.get(serial).is_some_and(|given| given.name == name)
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

    pub(super) fn give(&mut self, serial: String, record: OperatorRecord) -> Reply {
        let now_ms = record.given_at_ms;
        self.given.retain(|_, given| given.ends_at_ms > now_ms);
        if self.given.len() >= MAX_CERTIFICATES {
            return Reply::Refused(Refusal::TooManyOperators);
        }
        self.has_begun = true;
        self.given.insert(serial, record);
        Reply::Done
    }

    pub(super) fn revoke(&mut self, name: String, at_ms: u64) -> Reply {
        self.revoked.retain(|_, revoked_at_ms| *revoked_at_ms + REMEMBER_MS > at_ms);
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

    #[test]
    fn a_revoked_name_begins_anew() {
        let mut operators = Operators::default();
        let check = |operators: &Operators, expected: [bool; 4]| {
            let seen = [("ada", "1"), ("ada", "2"), ("ada", "old"), ("eve", "1")];
            assert_eq!(seen.map(|(name, serial)| operators.admits(name, serial)), expected);
        };
        assert!(!operators.has_begun());
        operators.give("1".into(), record("ada", 1, 100));
        check(&operators, [true; 4]);
        operators.revoke("ada".into(), 5);
        check(&operators, [false, false, false, true]);
        operators.give("2".into(), record("ada", 6, 100));
        check(&operators, [false, true, false, true]);
        operators.revoke("eve".into(), 7);
        // Of another name than it was given to.
        check(&operators, [false, true, false, false]);
        let serials = |now_ms| operators.given(now_ms).map(|(serial, _)| serial.as_str()).collect::<Vec<_>>();
        assert_eq!((serials(50), serials(100)), (vec!["2"], vec![]));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut operators = Operators::default();
        let refused = Reply::Refused(Refusal::TooManyOperators);
        for n in 0..MAX_CERTIFICATES {
            assert_eq!(operators.give(n.to_string(), record("ada", 1, 10)), Reply::Done);
        }
        assert_eq!(operators.give("more".into(), record("ada", 9, 100)), refused);
        assert_eq!(
            operators.give("more".into(), record("ada", 10, 100)),
            Reply::Done,
            "the others have ended"
        );
        for n in 0..MAX_REVOKED {
            assert_eq!(operators.revoke(n.to_string(), 1), Reply::Done);
        }
        assert_eq!(operators.revoke("more".into(), REMEMBER_MS), refused);
        assert_eq!(operators.revoke("7".into(), REMEMBER_MS), Reply::Done);
        assert_eq!(operators.revoke("more".into(), REMEMBER_MS + 1), Reply::Done);
        assert_eq!(operators.revoked.len(), 2, "the others cannot have certificates any more");
    }
}
