//! How one authority of the cluster takes the place of another: everybody believes the new one before it signs anything, and the
//! old one until nobody needs it any more.

use serde::{Deserialize, Serialize};

use super::{ConfigState, Refusal, Reply};

/// Authorities that have retired and are remembered by their hashes, at most.
const MAX_RETIRED: usize = 16;

/// A step of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SuccessionStep {
    /// There is another authority, which everybody is to believe beside the one that signs.
    Begin {
        /// Its certificate, DER.
        certificate: Vec<u8>,
        /// Its private key, sealed with the cluster's secret.
        key_sealed: Vec<u8>,
        /// The same authority, certified by the one that signs.
        bridge: Vec<u8>,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// It signs from now on; everybody who is heard believes it.
    Switch {
        /// Index of the entry that began it.
        begun: u64,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// Nobody believes the old one any more.
    Retire {
        /// As above.
        begun: u64,
        /// SHA-256 of the old one's certificate, hex.
        sha256: String,
    },
    /// It was not meant: nothing has been signed yet.
    Abort {
        /// As above.
        begun: u64,
    },
}

/// While there are two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// Index of the entry that began it.
    pub begun: u64,
    /// The other certificate: of the authority to come, and after the switch of the one that was. DER.
    pub other: Vec<u8>,
    /// The private key of the one to come, sealed; after the switch nothing.
    key_sealed: Vec<u8>,
    /// The newer one, certified by the older one. DER.
    pub bridge: Vec<u8>,
    /// The new one signs.
    pub has_switched: bool,
    /// When it began, or has switched: Unix milliseconds.
    pub at_ms: u64,
}

impl ConfigState {
    pub(super) fn succeed(&mut self, index: u64, step: SuccessionStep) -> Reply {
        let begun = self.keys.succession.as_ref().map(|succession| succession.begun);
        let has_switched = self.keys.succession.as_ref().is_some_and(|succession| succession.has_switched);
        match step {
            SuccessionStep::Begin { certificate, key_sealed, bridge, at_ms } if begun.is_none() => {
                let other = certificate;
                let begun = index;
                self.keys.succession =
                    Some(Succession { begun, other, key_sealed, bridge, has_switched: false, at_ms });
            }
            SuccessionStep::Switch { begun: of, at_ms } if Some(of) == begun && !has_switched => {
                if let Some(succession) = &mut self.keys.succession {
                    std::mem::swap(&mut self.ca_certificate, &mut succession.other);
                    self.ca_key_sealed = std::mem::take(&mut succession.key_sealed);
                    (succession.has_switched, succession.at_ms) = (true, at_ms);
                }
            }
            SuccessionStep::Retire { begun: of, sha256 } if Some(of) == begun && has_switched => {
                self.keys.succession = None;
                self.keys.retired.push(sha256);
                let too_many = self.keys.retired.len().saturating_sub(MAX_RETIRED);
                self.keys.retired.drain(..too_many);
            }
            SuccessionStep::Abort { begun: of } if Some(of) == begun && !has_switched => {
                self.keys.succession = None;
            }
            SuccessionStep::Begin { .. }
            | SuccessionStep::Switch { .. }
            | SuccessionStep::Retire { .. }
            | SuccessionStep::Abort { .. } => return Reply::Refused(Refusal::Succession),
        }
        Reply::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> ConfigState {
        ConfigState { ca_certificate: vec![1], ca_key_sealed: vec![11], ..ConfigState::default() }
    }

    fn begin() -> SuccessionStep {
        SuccessionStep::Begin { certificate: vec![2], key_sealed: vec![22], bridge: vec![3], at_ms: 5 }
    }

    /// Which certificate signs, with which key, and which other one is believed.
    fn check(
        state: &mut ConfigState,
        index: u64,
        step: SuccessionStep,
        expected: (bool, u8, u8, Option<u8>),
    ) {
        let (done, signs, key, other) = expected;
        assert_eq!(state.succeed(index, step.clone()) == Reply::Done, done, "{step:?}");
        let believed = state.keys.succession.as_ref().map(|succession| succession.other[0]);
        assert_eq!(
            (state.ca_certificate[0], state.ca_key_sealed[0], believed),
            (signs, key, other),
            "{step:?}"
        );
    }

    #[test]
    fn one_after_the_other() {
        use SuccessionStep::{Abort, Retire, Switch};
        let mut state = state();
        let retire = |begun| Retire { begun, sha256: "old".into() };
        check(&mut state, 6, Switch { begun: 5, at_ms: 7 }, (false, 1, 11, None));
        check(&mut state, 6, Abort { begun: 0 }, (false, 1, 11, None));
        check(&mut state, 7, begin(), (true, 1, 11, Some(2)));
        check(&mut state, 8, begin(), (false, 1, 11, Some(2)));
        check(&mut state, 9, retire(7), (false, 1, 11, Some(2)));
        check(&mut state, 9, Switch { begun: 8, at_ms: 7 }, (false, 1, 11, Some(2)));
        check(&mut state, 9, Switch { begun: 7, at_ms: 7 }, (true, 2, 22, Some(1)));
        check(&mut state, 10, Switch { begun: 7, at_ms: 7 }, (false, 2, 22, Some(1)));
        check(&mut state, 10, Abort { begun: 7 }, (false, 2, 22, Some(1)));
        check(&mut state, 11, retire(7), (true, 2, 22, None));
        check(&mut state, 12, retire(7), (false, 2, 22, None));
        assert_eq!(state.keys.retired, ["old"]);
    }

    #[test]
    fn what_has_signed_nothing_is_taken_back() {
        let mut state = state();
        check(&mut state, 7, begin(), (true, 1, 11, Some(2)));
        check(&mut state, 8, SuccessionStep::Abort { begun: 7 }, (true, 1, 11, None));
        check(&mut state, 9, begin(), (true, 1, 11, Some(2)));
    }
}
