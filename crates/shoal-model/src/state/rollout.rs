//! A revision on its way to being in force for good: on which terms it was published, and how the way ends.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CANARIES, NextWave, Pace, REFUSING_WHOLLY, ROLLOUTS, WAVES, Waves};
use crate::id::{NodeId, Revision};

/// The least time in which somebody can confirm a revision.
pub const SHORTEST_CONFIRM: Duration = Duration::from_secs(5);
/// The most: nothing else can be published meanwhile.
pub const LONGEST_CONFIRM: Duration = Duration::from_secs(7 * 86_400);

/// On which terms a revision is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// Unless it is confirmed so many milliseconds later, the cluster goes back to what was before. `None` = it stays.
    pub confirm_within_ms: Option<u64>,
    /// Until it is confirmed only these nodes serve it. `None` = all do. Only where every member knows
    /// [`CANARIES`](super::CANARIES).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<BTreeSet<NodeId>>,
    /// It may follow a revision that waits to be confirmed, which ends that.
    pub overrides: bool,
    /// It goes on from the nodes of `canary` to all, wave by wave. Only where every member knows [`WAVES`](super::WAVES), as
    /// what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waves: Option<Pace>,
    /// By which its content is known again; empty = it is not to be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// Also if its content is in quarantine, which ends that: at a level of [`REFUSING_WHOLLY`] and above once it stays.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub despite_quarantine: bool,
}

impl Terms {
    /// It stays, and follows only what stays.
    pub fn are_usual(&self) -> bool {
        *self == Self::default()
    }

    /// The least [`COMMANDS`](super::COMMANDS) of a node that knows all that is other than usual.
    pub(super) fn needs(&self) -> u32 {
        let Self { confirm_within_ms: _, canary, overrides: _, waves, fingerprint, despite_quarantine } =
            self;
        match () {
            () if self.are_usual() => 0,
            () if waves.is_some() || !fingerprint.is_empty() || *despite_quarantine => WAVES,
            () if canary.is_some() => CANARIES,
            () => ROLLOUTS,
        }
    }
}

/// The way of the active revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The active revision.
    pub revision: Revision,
    /// The one that the cluster goes back to.
    pub before: Revision,
    /// See [`Terms::confirm_within_ms`].
    pub confirm_within_ms: u64,
    /// See [`Terms::canary`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<BTreeSet<NodeId>>,
    /// How far it is on its way to all nodes; `None` = it goes no further until it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// Its content is in quarantine, until it stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lifts_quarantine: bool,
}

impl Rollout {
    /// `node` serves the revision already.
    pub fn includes(&self, node: NodeId) -> bool {
        self.canary.as_ref().is_none_or(|canary| canary.contains(&node))
    }
}

/// What becomes of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutStep {
    /// The revision stays.
    Confirm,
    /// What was before it becomes the next revision.
    Revert(RevertCause),
    /// More nodes serve it. Only where every member knows [`WAVES`](super::WAVES), as what follows.
    Advance(NextWave),
    /// No wave follows by itself.
    Pause,
    /// Waves follow again.
    Resume,
}

/// Why a revision does not stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevertCause {
    /// Nobody has confirmed it in time.
    NotConfirmed,
    /// Somebody has said so, or no node is left that could try it. It says nothing of the revision.
    Aborted,
    /// The nodes that have tried it did worse than the others.
    Worse,
    /// A node that has tried it was lost, silent or started anew: how it does, nobody can say. Only at a level of
    /// [`REFUSING_WHOLLY`] and above.
    Unwatched,
}

impl RevertCause {
    /// The least [`COMMANDS`](super::COMMANDS) of a node that knows it.
    pub(super) fn needs(self) -> u32 {
        match self {
            Self::NotConfirmed | Self::Aborted | Self::Worse => ROLLOUTS,
            Self::Unwatched => REFUSING_WHOLLY,
        }
    }

    /// The message of the revision that takes the place of `reverted`.
    pub(super) fn explain(self, reverted: Revision, message: &str) -> String {
        let colon = if message.is_empty() { "" } else { ": " };
        format!("revert of {reverted}: {self}{colon}{message}")
    }
}

impl fmt::Display for RevertCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotConfirmed => "not confirmed in time",
            Self::Aborted => "aborted",
            Self::Worse => "worse than what was before",
            Self::Unwatched => "it could not be watched to the end",
        })
    }
}

/// Whether a revision is, or was, in force for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevisionStanding {
    /// From the beginning.
    #[default]
    Final,
    /// Not yet.
    Unconfirmed,
    /// Since somebody has said so.
    Confirmed {
        /// Who.
        author: String,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// It never was.
    Reverted {
        /// What took its place.
        by: Revision,
    },
}

impl RevisionStanding {
    /// Nothing has to be said about it.
    pub fn is_final(&self) -> bool {
        *self == Self::Final
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Command, ConfigState, Refusal, Reply, SiteText};

    /// `publish SITE [5s] [over]`, `confirm N`, `time-out N`, `abort N`.
    fn command(text: &str) -> Command {
        let words: Vec<&str> = text.split(' ').collect();
        let (author, message) = ("ann".to_owned(), String::new());
        let confirm_within_ms = words.contains(&"5s").then_some(5000);
        let step = match words[0] {
            "confirm" => RolloutStep::Confirm,
            "time-out" => RolloutStep::Revert(RevertCause::NotConfirmed),
            "abort" => RolloutStep::Revert(RevertCause::Aborted),
            _ => {
                return Command::Publish {
                    request_id: String::new(),
                    expected: None,
                    site: SiteText::Inline(words[1].to_owned()),
                    author,
                    message,
                    at_ms: 1,
                    counts: [1, 2, 3],
                    terms: Terms {
                        confirm_within_ms,
                        overrides: words.contains(&"over"),
                        ..Terms::default()
                    },
                };
            }
        };
        let revision = Revision(words[1].parse().unwrap());
        Command::Rollout { request_id: String::new(), revision, step, author, message, at_ms: 7 }
    }

    fn standing(state: &ConfigState, revision: u64) -> RevisionStanding {
        state.revisions.record(Revision(revision)).unwrap().standing.clone()
    }

    /// Carries out `story`, whose last step answers `reply`; then `site` is active, and waits to be confirmed or not.
    fn check(story: &[&str], reply: Reply, site: &str, waits: bool) -> ConfigState {
        let mut state = ConfigState::default();
        let replies = story.iter().enumerate().map(|(n, step)| state.apply(n as u64 + 1, command(step)));
        assert_eq!(replies.last().unwrap(), reply, "{story:?}");
        assert_eq!(state.revisions.active().1.as_ref(), site, "{story:?}");
        assert_eq!(state.revisions.rollout().is_some(), waits, "{story:?}");
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<ConfigState>(&text).unwrap(), state, "{story:?}");
        state
    }

    #[test]
    fn an_unconfirmed_revision_ends_in_one_way() {
        use Refusal::{NotUnconfirmed, Unconfirmed};
        let r = Revision;
        let (refused, published) = (Reply::Refused, |n| Reply::Published(Revision(n)));
        let staged = ["publish a", "publish b 5s"];
        let then = |steps: &[&'static str]| [&staged[..], steps].concat();
        check(&staged, published(2), "b", true);
        check(&then(&["confirm 2"]), Reply::Confirmed(r(2)), "b", false);
        check(&then(&["confirm 1"]), refused(NotUnconfirmed(r(1))), "b", true);
        check(&then(&["time-out 2"]), published(3), "a", false);
        check(&then(&["abort 2"]), published(3), "a", false);
        // Whatever is first in the log counts.
        check(&then(&["confirm 2", "time-out 2"]), refused(NotUnconfirmed(r(2))), "b", false);
        check(&then(&["time-out 2", "confirm 2"]), refused(NotUnconfirmed(r(2))), "a", false);
        check(&then(&["time-out 2", "time-out 2"]), refused(NotUnconfirmed(r(2))), "a", false);
        // Nothing follows it but what ends it.
        check(&then(&["publish c"]), refused(Unconfirmed(r(2))), "b", true);
        check(&then(&["publish c 5s"]), refused(Unconfirmed(r(2))), "b", true);
        check(&then(&["publish c over"]), published(3), "c", false);
        check(&then(&["abort 2", "publish c"]), published(4), "c", false);
        check(&then(&["abort 2", "publish c 5s", "abort 4"]), published(5), "a", false);
        // Before the first revision there is the empty site.
        check(&["publish a 5s", "time-out 1"], published(2), "{}", false);
    }

    #[test]
    fn only_some_serve_what_is_tried() {
        let check = |state: &ConfigState, expected: [u64; 2]| {
            let served = [1, 2].map(|node| state.revisions.served_by(NodeId(node)));
            assert_eq!(served, expected.map(Revision));
            // Who has it before the others knows what those have.
            let [others, tries] = expected.map(Revision);
            let beside = [1, 2].map(|node| state.revisions.tried_beside(NodeId(node)));
            assert_eq!(beside, [None, (others != tries).then_some(others)]);
        };
        let mut state = ConfigState::default();
        check(&state, [0, 0]);
        let mut canary = command("publish b 5s");
        if let Command::Publish { terms, .. } = &mut canary {
            terms.canary = Some([NodeId(2)].into());
        }
        for (index, (step, expected)) in [
            (command("publish a"), [1, 1]),
            (canary.clone(), [1, 2]),
            (command("confirm 2"), [2, 2]),
            (canary, [2, 3]),
            (command("abort 3"), [4, 4]),
            (command("publish c 5s"), [5, 5]),
        ]
        .into_iter()
        .enumerate()
        {
            state.apply(index as u64 + 1, step);
            check(&state, expected);
        }
    }

    #[test]
    fn the_history_tells_how_it_ended() {
        let staged = ["publish a", "publish b 5s"];
        let state = check(&staged, Reply::Published(Revision(2)), "b", true);
        assert_eq!(
            (standing(&state, 1), standing(&state, 2)),
            (RevisionStanding::Final, RevisionStanding::Unconfirmed)
        );
        let steps = [&staged[..], &["confirm 2"]].concat();
        let state = check(&steps, Reply::Confirmed(Revision(2)), "b", false);
        assert_eq!(standing(&state, 2), RevisionStanding::Confirmed { author: "ann".into(), at_ms: 7 });
        let steps = [&staged[..], &["time-out 2"]].concat();
        let state = check(&steps, Reply::Published(Revision(3)), "a", false);
        assert_eq!(standing(&state, 2), RevisionStanding::Reverted { by: Revision(3) });
        let record = state.revisions.record(Revision(3)).unwrap();
        assert_eq!(record.message, "revert of 2: not confirmed in time");
        assert_eq!((record.counts, &record.standing), ([2, 1, 3], &RevisionStanding::Final));
        assert_eq!(RevertCause::Aborted.explain(Revision(2), "too slow"), "revert of 2: aborted: too slow");
    }

    #[test]
    fn what_was_written_before_there_were_rollouts_is_read() {
        let text = r#"{"Publish":{"request_id":"x","expected":null,"site":{"Inline":"{}"},"author":"ann",
            "message":"","at_ms":1,"counts":[1,0,0]}}"#;
        let command: Command = serde_json::from_str(text).unwrap();
        let Command::Publish { terms, .. } = &command else { panic!("{command:?}") };
        assert!(terms.are_usual());
        assert!(!serde_json::to_string(&command).unwrap().contains("terms"), "and reads what is written");
    }
}
