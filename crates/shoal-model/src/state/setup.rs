//! What holds for the cluster as a whole: how patient its nodes are with each other, and how many of them vote.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the nodes are connected, which is how patient they have to be with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// One region: round trips of a few milliseconds.
    Lan,
    /// The same on small or shared machines, or with slow disks.
    Small,
    /// Several regions: round trips of up to 250 ms.
    Wan,
}

impl Timing {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Lan, Self::Small, Self::Wan];

    /// As operators write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Small => "small",
            Self::Wan => "wan",
        }
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No such timing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a timing is lan, small or wan, not {0:?}")]
pub struct UnknownTiming(String);

impl FromStr for Timing {
    type Err = UnknownTiming;

    fn from_str(text: &str) -> Result<Self, UnknownTiming> {
        let known = Self::ALL.into_iter().find(|timing| timing.name() == text);
        known.ok_or_else(|| UnknownTiming(text.chars().take(80).collect()))
    }
}

/// No such limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster has 3, 5 or 7 voters at most, not {0:?}")]
pub struct UnknownLimit(String);

/// Reads how many voters a cluster may be limited to: it survives the loss of one, two or three of them.
pub fn voter_limit(text: &str) -> Result<u8, UnknownLimit> {
    let limit = text.parse().ok().filter(|limit| matches!(limit, 3 | 5 | 7));
    limit.ok_or_else(|| UnknownLimit(text.chars().take(80).collect()))
}

/// What was agreed for the whole cluster when it was founded, or since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSetup {
    /// `None` = the cluster is of before there was a choice: each node goes by the speed of its own disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// How many nodes vote at most, where there are so many: see [`voter_limit`].
    pub max_voters: u8,
}

impl Default for ClusterSetup {
    fn default() -> Self {
        Self { timing: None, max_voters: 5 }
    }
}

/// What an operator wants of it; `None` = as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupOrder {
    /// See [`ClusterSetup::timing`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// See [`ClusterSetup::max_voters`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_voters: Option<u8>,
}

/// An order that no cluster can follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// See there.
    #[error(transparent)]
    Timing(#[from] UnknownTiming),
    /// See there.
    #[error(transparent)]
    Limit(#[from] UnknownLimit),
}

impl SetupOrder {
    /// As messages carry it: empty and 0 = as it is.
    pub fn read(timing: &str, max_voters: u32) -> Result<Self, OrderError> {
        let timing = (!timing.is_empty()).then(|| timing.parse()).transpose()?;
        let max_voters = (max_voters > 0).then(|| voter_limit(&max_voters.to_string())).transpose()?;
        Ok(Self { timing, max_voters })
    }

    /// Whether a cluster can follow it, wherever it was read.
    pub(super) fn check(self) -> Result<(), UnknownLimit> {
        self.max_voters.map_or(Ok(()), |limit| voter_limit(&limit.to_string()).map(|_| ()))
    }

    /// Nothing is wanted.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl ClusterSetup {
    /// [`Self::timing`] by its name; empty = there is none.
    pub fn timing_name(self) -> String {
        self.timing.map_or_else(String::new, |timing| timing.to_string())
    }

    /// The same with what is wanted.
    pub fn with(self, order: SetupOrder) -> Self {
        Self { timing: order.timing.or(self.timing), max_voters: order.max_voters.unwrap_or(self.max_voters) }
    }

    /// What of an order is not so, in words: empty = it asks for what there is. A cluster without a timing of its own suits
    /// everybody.
    pub fn contradicts(self, order: SetupOrder) -> String {
        let timing = self.timing.zip(order.timing).filter(|(own, wanted)| own != wanted);
        let timing = timing.map(|(own, wanted)| format!("the timing of this cluster is {own}, not {wanted}"));
        let voters = order.max_voters.filter(|wanted| *wanted != self.max_voters);
        let voters =
            voters.map(|wanted| format!("at most {} of its nodes vote, not {wanted}", self.max_voters));
        timing.into_iter().chain(voters).collect::<Vec<_>>().join(", and ")
    }

    /// As it is where nobody has said anything.
    pub(super) fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// `timing wan, at most 5 voters`.
impl fmt::Display for ClusterSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.timing {
            Some(timing) => write!(f, "timing {timing}, ")?,
            None => f.write_str("timing as each disk is, ")?,
        }
        write!(f, "at most {} voters", self.max_voters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_read_as_they_are_shown() {
        for timing in Timing::ALL {
            assert_eq!(timing.to_string().parse(), Ok(timing));
            assert_eq!(serde_json::to_string(&timing).unwrap(), format!("\"{timing}\""));
        }
        let message = "WAN".parse::<Timing>().unwrap_err().to_string();
        assert_eq!(message, "a timing is lan, small or wan, not \"WAN\"");
    }

    #[test]
    fn an_order_is_compared_with_what_there_is() {
        let setup = |timing| ClusterSetup { timing, max_voters: 5 };
        let check = |setup: ClusterSetup, timing, max_voters, expected: &str| {
            let order = SetupOrder { timing, max_voters };
            assert_eq!(setup.contradicts(order), expected);
            assert_eq!(setup.with(order).contradicts(order), "");
        };
        check(setup(Some(Timing::Lan)), None, None, "");
        check(setup(Some(Timing::Lan)), Some(Timing::Lan), Some(5), "");
        check(setup(None), Some(Timing::Wan), None, "");
        let other = "the timing of this cluster is lan, not wan";
        check(setup(Some(Timing::Lan)), Some(Timing::Wan), None, other);
        let both = format!("{other}, and at most 5 of its nodes vote, not 7");
        check(setup(Some(Timing::Lan)), Some(Timing::Wan), Some(7), &both);
    }

    #[test]
    fn orders_are_read_as_messages_carry_them() {
        let wanted = SetupOrder { timing: Some(Timing::Wan), max_voters: Some(7) };
        assert_eq!(SetupOrder::read("wan", 7), Ok(wanted));
        assert!(SetupOrder::read("", 0).unwrap().is_empty());
        let message = SetupOrder::read("", 4).unwrap_err().to_string();
        assert_eq!(message, "a cluster has 3, 5 or 7 voters at most, not \"4\"");
        assert!(SetupOrder::read("near", 0).is_err());
    }

    #[test]
    fn clusters_of_before_there_was_a_choice_are_read() {
        assert_eq!(
            serde_json::from_str::<ClusterSetup>("{\"max_voters\":5}").unwrap(),
            ClusterSetup::default()
        );
        assert_eq!(ClusterSetup::default().to_string(), "timing as each disk is, at most 5 voters");
    }
}
