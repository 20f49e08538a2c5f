//! A revision that comes to more and more nodes, wave by wave: at which pace, and how far it is.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Refusal, Reply, Revisions};
use crate::id::{NodeId, Revision};

/// For how long a wave is watched when nobody says.
pub const DEFAULT_BAKE: Duration = Duration::from_secs(60);
/// The least time for which a wave is watched.
pub const SHORTEST_BAKE: Duration = Duration::from_secs(1);
/// The most.
pub const LONGEST_BAKE: Duration = Duration::from_secs(86_400);
/// How often the nodes of a wave are looked at with all of them answering, at least, when nobody says.
pub const DEFAULT_CHECKS: u32 = 5;
/// The most that somebody may ask for.
pub const MAX_CHECKS: u32 = 100;
/// Of one rollout, waves whose outcome is remembered: the first ones.
const MAX_PASSED: usize = 64;

/// How fast a revision goes from wave to wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// For how long a wave is watched, milliseconds; an urgent one has its own times.
    pub bake_ms: u64,
    /// How often its nodes have to answer within that time, all of them.
    pub checks: u32,
    /// One node for a moment, then a region at a time.
    pub is_urgent: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bake_ms: DEFAULT_BAKE.as_millis() as u64, checks: DEFAULT_CHECKS, is_urgent: false }
    }
}

/// Whom a wave brings a revision to. What follows the last wave is everybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// One node.
    OneNode,
    /// One node of each region.
    OnePerRegion,
    /// So many of all nodes.
    FivePercent,
    /// All nodes of this region.
    OneRegion(String),
    /// So many of all nodes.
    TwentyFivePercent,
    /// All nodes of this region, as the next one of an urgent revision.
    NextRegion(String),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneNode => f.write_str("one node"),
            Self::OnePerRegion => f.write_str("one node of each region"),
            Self::FivePercent => f.write_str("5 % of the nodes"),
            Self::OneRegion(region) | Self::NextRegion(region) => write!(f, "the region {region:?}"),
            Self::TwentyFivePercent => f.write_str("25 % of the nodes"),
        }
    }
}

/// How far a revision is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waves {
    /// How fast it goes.
    pub pace: Pace,
    /// Which wave it is in, from 1.
    pub wave: u32,
    /// Whom that one has brought it to.
    pub stage: Stage,
    /// Who has stopped it there, until somebody says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
    /// The waves before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<PassedWave>,
}

/// A wave that went well, or that somebody did not wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedWave {
    /// Whom it had brought the revision to.
    pub stage: Stage,
    /// Nodes that served the revision then.
    pub nodes: u32,
    /// Why it was over.
    pub evidence: String,
    /// When: Unix milliseconds.
    pub at_ms: u64,
}

/// A rollout in waves that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedRollout {
    /// Of this revision.
    pub revision: Revision,
    /// Its last wave.
    pub waves: Waves,
    /// What took its place; `None` = it stays.
    pub reverted_by: Option<Revision>,
    /// Why it has ended.
    pub why: String,
    /// When: Unix milliseconds.
    pub at_ms: u64,
}

/// The next wave of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextWave {
    /// Counts the waves, from 1.
    pub wave: u32,
    /// Whom it brings the revision to.
    pub stage: Stage,
    /// Those that do not serve it yet.
    pub nodes: BTreeSet<NodeId>,
}

impl Waves {
    /// The first one.
    pub(super) fn first(pace: Pace) -> Self {
        Self { pace, wave: 1, stage: Stage::OneNode, paused_by: None, passed: Vec::new() }
    }

    fn pass(&mut self, nodes: usize, evidence: String, at_ms: u64) {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        let passed = PassedWave { stage: self.stage.clone(), nodes, evidence, at_ms };
        if self.passed.len() < MAX_PASSED {
            self.passed.push(passed);
        }
    }
}

impl Revisions {
    /// `next` begins, if `revision` is in the wave before it.
    pub(super) fn advance(
        &mut self,
        revision: Revision,
        next: NextWave,
        evidence: String,
        at_ms: u64,
    ) -> Reply {
        let Some(rollout) = self.rollout_of(revision) else { return not_in_waves(revision) };
        let (Some(waves), Some(serving)) = (&mut rollout.waves, &mut rollout.canary) else {
            return not_in_waves(revision);
        };
        if next.wave != waves.wave + 1 {
            return Reply::Refused(Refusal::WaveOver { revision, wave: waves.wave });
        }
        waves.pass(serving.len(), evidence, at_ms);
        (waves.wave, waves.stage) = (next.wave, next.stage);
        serving.extend(next.nodes);
        Reply::Done
    }

    /// No further wave begins by itself, or they do again.
    pub(super) fn pause(&mut self, revision: Revision, by: Option<String>) -> Reply {
        match self.rollout_of(revision).and_then(|rollout| rollout.waves.as_mut()) {
            Some(waves) => {
                waves.paused_by = by;
                Reply::Done
            }
            None => not_in_waves(revision),
        }
    }
}

fn not_in_waves(revision: Revision) -> Reply {
    Reply::Refused(Refusal::NotInWaves(revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        Command, ConfigState, REFUSING_WHOLLY, RevertCause, RevisionStanding, RolloutStep, SiteText, Terms,
    };

    /// `publish SITE [waves] [despite] [over]`; `wave N NODE`, `pause`, `resume`, `confirm`, `worse`, `unwatched`, `poison`, of
    /// revision 2; the same of 4, as `unwatched-4`, and `abort-4`.
    fn command(text: &str) -> Command {
        let words: Vec<&str> = text.split(' ').collect();
        let (author, at_ms) = ("ann".to_owned(), 7);
        let (verb, revision) = words[0].split_once('-').unwrap_or((words[0], "2"));
        let revision = Revision(revision.parse().unwrap());
        let step = match verb {
            "wave" => {
                let nodes = [NodeId(words[2].parse().unwrap())].into();
                RolloutStep::Advance(NextWave {
                    wave: words[1].parse().unwrap(),
                    stage: Stage::OnePerRegion,
                    nodes,
                })
            }
            "pause" => RolloutStep::Pause,
            "resume" => RolloutStep::Resume,
            "confirm" => RolloutStep::Confirm,
            "worse" => RolloutStep::Revert(RevertCause::Worse),
            "unwatched" => RolloutStep::Revert(RevertCause::Unwatched),
            "abort" => RolloutStep::Revert(RevertCause::Aborted),
            "poison" => return Command::Quarantine { revision, why: "n3 dies of it".to_owned(), at_ms },
            _ => {
                let waves = words.contains(&"waves").then(Pace::default);
                let terms = Terms {
                    confirm_within_ms: waves.map(|_| 5000),
                    canary: waves.map(|_| [NodeId(1)].into()),
                    waves,
                    fingerprint: format!("f{}", words[1]),
                    despite_quarantine: words.contains(&"despite"),
                    overrides: words.contains(&"over"),
                };
                return Command::Publish {
                    request_id: String::new(),
                    expected: None,
                    site: SiteText::Inline(words[1].to_owned()),
                    author,
                    message: String::new(),
                    at_ms,
                    counts: [0; 3],
                    terms,
                };
            }
        };
        let (request_id, message) = (String::new(), "7 of 9".to_owned());
        Command::Rollout { request_id, revision, step, author, message, at_ms }
    }

    /// Carries out `story`, whose last step answers `reply`.
    fn check(story: &[&str], reply: Reply) -> ConfigState {
        check_at(REFUSING_WHOLLY, story, reply)
    }

    fn check_at(level: u32, story: &[&str], reply: Reply) -> ConfigState {
        let mut state = ConfigState::default();
        state.level.number = level;
        let replies = story.iter().enumerate().map(|(n, step)| state.apply(n as u64 + 1, command(step)));
        assert_eq!(replies.last().unwrap(), reply, "{story:?}");
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<ConfigState>(&text).unwrap(), state, "{story:?}");
        state
    }

    const BEGUN: [&str; 2] = ["publish a", "publish b waves"];

    fn then(steps: &[&'static str]) -> Vec<&'static str> {
        [&BEGUN[..], steps].concat()
    }

    #[test]
    fn a_wave_follows_the_one_before_it_and_no_other() {
        let served = |state: &ConfigState| [1, 2, 3].map(|node| state.revisions.served_by(NodeId(node)).0);
        let over = |wave| Reply::Refused(Refusal::WaveOver { revision: Revision(2), wave });
        assert_eq!(served(&check(&BEGUN, Reply::Published(Revision(2)))), [2, 1, 1]);
        let state = check(&then(&["wave 2 3"]), Reply::Done);
        assert_eq!(served(&state), [2, 1, 2]);
        let waves = state.revisions.rollout().unwrap().waves.as_ref().unwrap();
        let passed = PassedWave { stage: Stage::OneNode, nodes: 1, evidence: "7 of 9".to_owned(), at_ms: 7 };
        assert_eq!((waves.wave, &waves.stage, &waves.passed[..]), (2, &Stage::OnePerRegion, &[passed][..]));
        check(&then(&["wave 2 3", "wave 2 2"]), over(2));
        check(&then(&["wave 3 3"]), over(1));
        check(&then(&["confirm", "wave 2 3"]), Reply::Refused(Refusal::NotInWaves(Revision(2))));
        let state = check(&then(&["wave 2 3", "confirm"]), Reply::Confirmed(Revision(2)));
        assert_eq!(served(&state), [2, 2, 2]);
        let ended = state.revisions.ended_rollout().unwrap();
        assert_eq!((ended.waves.wave, ended.reverted_by, &*ended.why), (2, None, "7 of 9"));
    }

    #[test]
    fn somebody_may_stop_it_where_it_is() {
        let paused_by = |state: &ConfigState| {
            state.revisions.rollout().and_then(|rollout| rollout.waves.as_ref()?.paused_by.clone())
        };
        assert_eq!(paused_by(&check(&then(&["pause"]), Reply::Done)).as_deref(), Some("ann"));
        assert_eq!(paused_by(&check(&then(&["pause", "resume"]), Reply::Done)), None);
        check(&["publish a", "publish b", "pause"], Reply::Refused(Refusal::NotInWaves(Revision(2))));
    }

    #[test]
    fn what_did_harm_is_not_applied_again() {
        let state = check(&then(&["wave 2 3", "worse"]), Reply::Published(Revision(3)));
        let ended = state.revisions.ended_rollout().unwrap();
        assert_eq!((ended.waves.wave, ended.reverted_by), (2, Some(Revision(3))));
        assert_eq!(
            state.revisions.record(Revision(2)).unwrap().standing,
            RevisionStanding::Reverted { by: Revision(3) }
        );
        let why = "revert of 2: worse than what was before: 7 of 9".to_owned();
        let refused =
            |why: &str| Reply::Refused(Refusal::Quarantined { revision: Revision(2), why: why.to_owned() });
        check(&then(&["worse", "publish b"]), refused(&why));
        check(&then(&["worse", "publish b waves"]), refused(&why));
        check(&then(&["worse", "publish c"]), Reply::Published(Revision(4)));
        check(
            &then(&["worse", "publish b despite", "publish c", "publish b"]),
            Reply::Published(Revision(6)),
        );
        check(&["publish a", "publish b", "poison", "publish c", "publish b"], refused("n3 dies of it"));
        let why = "revert of 2: it could not be watched to the end: 7 of 9".to_owned();
        check(&then(&["unwatched", "publish b"]), refused(&why));
        // All have lived with it: one that dies on the way says nothing about it.
        let stayed = ["publish b", "publish c", "publish d", "publish b waves", "unwatched-4", "publish b"];
        check(&stayed, Reply::Published(Revision(6)));
        check(
            &then(&["confirm", "publish c", "publish b waves", "unwatched-4", "publish b"]),
            Reply::Published(Revision(6)),
        );
        // What is tried despite that stays where it is, until it is in force for good.
        let tried = then(&["worse", "publish b waves despite"]);
        let tried = |steps: &[&'static str]| [&tried[..], steps].concat();
        let published = |revision| Reply::Published(Revision(revision));
        let why = "revert of 2: worse than what was before: 7 of 9";
        check(&tried(&["abort-4", "publish b"]), refused(why));
        check(&tried(&["publish c over", "publish b"]), refused(why));
        check(&tried(&["unwatched-4", "publish b despite", "publish c", "publish b"]), published(8));
        check(&tried(&["confirm-4", "publish c", "publish b"]), published(6));
        let why_again = "revert of 4: worse than what was before: 7 of 9".to_owned();
        let refused_again = Refusal::Quarantined { revision: Revision(4), why: why_again };
        check(&tried(&["worse-4", "publish b"]), Reply::Refused(refused_again));
        let poisoned = Refusal::Quarantined { revision: Revision(4), why: "n3 dies of it".to_owned() };
        check(&tried(&["poison-4", "confirm-4", "publish c", "publish b"]), Reply::Refused(poisoned));
        let before = REFUSING_WHOLLY - 1;
        check_at(before, &tried(&["abort-4", "publish b"]), published(6));
        // What is not known by its content is not known again.
        let old = Command::Quarantine { revision: Revision(9), why: String::new(), at_ms: 1 };
        let mut state = ConfigState::default();
        assert_eq!(state.apply(1, old), Reply::Done);
        assert!(state.revisions.quarantine().is_empty());
    }
}
