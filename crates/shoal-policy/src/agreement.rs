//! Whether the state of a node is that of the others, by what each says of its own after the same entry of the log.

use std::fmt;
use std::str::FromStr;

use shoal_model::NodeId;

/// What a node says of its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// The state after this entry of the log.
    pub index: u64,
    /// What a state is made of in the version of the node: only those of one shape can be compared.
    pub shape: u32,
    /// The beginning of the SHA-256 of its document.
    pub digest: u64,
}

/// As nodes gossip it.
impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}-{:016x}", self.index, self.shape, self.digest)
    }
}

impl FromStr for StateHash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut fields = text.split('-');
        let mut next = || fields.next().ok_or(());
        let (index, shape, digest) = (next()?, next()?, next()?);
        let hash = Self {
            index: index.parse().map_err(drop)?,
            shape: u32::from_str_radix(shape, 16).map_err(drop)?,
            digest: u64::from_str_radix(digest, 16).map_err(drop)?,
        };
        if fields.next().is_none() { Ok(hash) } else { Err(()) }
    }
}

/// How the state of a node stands to that of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Not enough of them have said so far what theirs is after that entry.
    Unknown,
    /// It is that of as many as can be wrong at once.
    Same,
    /// So many others have one state, and it is another.
    Differs {
        /// How many.
        others: usize,
    },
}

/// How the state with `own` hash stands to those of the others that are heard, `said` by those who say something; `leader` =
/// who leads.
///
/// More than half of all have to say the same. Where the halves are equal, which takes everybody's word, the leader is right:
/// what it acknowledges follows from its state.
pub fn agreement(
    own: StateHash,
    said: &[(NodeId, StateHash)],
    heard: usize,
    leader: Option<NodeId>,
) -> Agreement {
    let all = heard + 1;
    let comparable = || said.iter().filter(|(_, hash)| hash.index == own.index && hash.shape == own.shape);
    let count = |digest: u64| comparable().filter(|(_, hash)| hash.digest == digest).count();
    let same = count(own.digest) + 1;
    let other = comparable().map(|(_, hash)| hash.digest).filter(|digest| *digest != own.digest);
    let Some(other) = other.max_by_key(|digest| count(*digest)) else {
        return if same * 2 > all { Agreement::Same } else { Agreement::Unknown };
    };
    let others = count(other);
    let leads_there = || comparable().any(|(node, hash)| Some(*node) == leader && hash.digest == other);
    if same * 2 > all {
        Agreement::Same
    } else if others * 2 > all || (others * 2 == all && same + others == all && leads_there()) {
        Agreement::Differs { others }
    } else {
        Agreement::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_are_right() {
        let hash = |digest| StateHash { index: 9, shape: 1, digest };
        let check = |others: &[u64], heard, leader: u64, expected| {
            let said: Vec<_> = (2..).map(NodeId).zip(others.iter().copied().map(hash)).collect();
            let found = agreement(hash(7), &said, heard, Some(NodeId(leader)));
            assert_eq!(found, expected, "7 against {others:?} of {heard}, {leader} leads");
        };
        use Agreement::{Differs, Same, Unknown};
        check(&[], 0, 1, Same); // alone
        check(&[], 2, 1, Unknown);
        check(&[7], 2, 2, Same);
        check(&[7, 8], 2, 3, Same); // whoever leads
        check(&[8], 2, 2, Unknown); // the third has not said anything
        check(&[8, 8], 2, 1, Differs { others: 2 });
        check(&[8, 9], 2, 2, Unknown);
        check(&[8], 1, 1, Unknown); // of two, the leader is right, and this is it
        check(&[8], 1, 2, Differs { others: 1 });
        check(&[7, 8, 8], 3, 2, Unknown);
        check(&[7, 8, 8], 3, 3, Differs { others: 2 });
        check(&[8, 8], 3, 2, Unknown); // the last one is not heard of yet
        check(&[8, 8, 8], 4, 1, Differs { others: 3 });
    }

    #[test]
    fn only_what_is_alike_is_compared() {
        let own = StateHash { index: 9, shape: 1, digest: 7 };
        for other in [StateHash { index: 8, digest: 8, ..own }, StateHash { shape: 2, digest: 8, ..own }] {
            let said = [(NodeId(2), other), (NodeId(3), other)];
            assert_eq!(agreement(own, &said, 2, Some(NodeId(2))), Agreement::Unknown);
        }
    }

    #[test]
    fn is_read_as_it_is_written() {
        let hash = StateHash { index: 12, shape: 0xab, digest: u64::MAX };
        assert_eq!(hash.to_string(), "12-000000ab-ffffffffffffffff");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for text in ["", "12", "12-a", "12-a-b-c", "x-a-b", "12-g-1", "1-1-11111111111111111"] {
            assert_eq!(text.parse::<StateHash>(), Err(()), "{text}");
        }
    }
}
