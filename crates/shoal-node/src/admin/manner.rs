//! How a revision comes into force: at once and for good, for a while, on some nodes first, or wave by wave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shoal_model::state::{
    CANARIES, LONGEST_BAKE, LONGEST_CONFIRM, MAX_CHECKS, Pace, ROLLOUTS, SHORTEST_BAKE, SHORTEST_CONFIRM,
    Terms, WAVES,
};
use shoal_model::{NodeId, Revision};
use shoal_policy::rollout::{Canary, CanaryError, bake_length, choose, first_wave};
use shoal_proto::admin;
use tonic::{Code, Status};

use super::failure::{Exit, with_exit};
use crate::node::Node;

/// A rollout in waves that takes longer is taken back: somebody has forgotten it.
const LEAST_WAVES_TIME: Duration = Duration::from_secs(86_400);
/// The same in waves: so many there may be, and then some.
const WAVES_TIME_IN_BAKES: u32 = 20;

/// How a revision comes into force.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    /// See [`Terms::confirm_within_ms`].
    confirm_within: Option<Duration>,
    spread: Spread,
}

/// Who serves it until it is in force for good.
#[derive(Clone, Debug)]
enum Spread {
    Everybody,
    Some(Canary),
    MoreAndMore(Pace),
}

impl Manner {
    /// At once and for good.
    pub(super) const AT_ONCE: Self = Self { confirm_within: None, spread: Spread::Everybody };

    /// What the cluster's policy is.
    pub(super) fn usual(node: &Node) -> Self {
        let (policy, active) =
            node.log.with_state(|state| (state.rollout_policy, state.revisions.active().0));
        // What nobody was served before cannot be worse.
        policy.filter(|_| active > Revision(0)).map_or(Self::AT_ONCE, Self::in_waves)
    }

    fn in_waves(pace: Pace) -> Self {
        let bakes = Duration::from_millis(pace.bake_ms).saturating_mul(WAVES_TIME_IN_BAKES);
        let within = bakes.max(LEAST_WAVES_TIME).min(LONGEST_CONFIRM);
        Self { confirm_within: Some(within), spread: Spread::MoreAndMore(pace) }
    }

    /// What somebody has asked for; what he leaves open is `usual`, and of waves as the `policy` has it.
    pub(super) fn of(
        asked: admin::Manner,
        policy: Option<Pace>,
        usual: impl FnOnce() -> Self,
    ) -> Result<Self, Status> {
        let admin::Manner { confirm_within_ms, canary, waves, at_once } = asked;
        let confirm_within = (confirm_within_ms > 0).then(|| Duration::from_millis(confirm_within_ms));
        if let Some(within) =
            confirm_within.filter(|within| !(SHORTEST_CONFIRM..=LONGEST_CONFIRM).contains(within))
        {
            return Err(invalid(format!(
                "{within:?} to confirm it: {SHORTEST_CONFIRM:?} to {LONGEST_CONFIRM:?} are possible"
            )));
        }
        let manner = match (canary, waves, at_once) {
            (None, None, true) if confirm_within.is_none() => return Ok(Self::AT_ONCE),
            (None, None, false) if confirm_within.is_none() => return Ok(usual()),
            (None, None, false) => Self::AT_ONCE,
            (None, Some(pace), false) => Self::in_waves(pace_of(pace, policy)?),
            (Some(canary), None, false) if confirm_within.is_some() => {
                Self { confirm_within, spread: Spread::Some(canary_of(canary)?) }
            }
            _ => {
                let why = "a revision is for a while, on a canary for a while, in waves, or at once: not several of these";
                return Err(invalid(why.to_owned()));
            }
        };
        let manner = Self { confirm_within: confirm_within.or(manner.confirm_within), ..manner };
        manner.check_time().map(|()| manner)
    }

    /// Fails where it could only be taken back.
    fn check_time(&self) -> Result<(), Status> {
        let (Spread::MoreAndMore(pace), Some(within)) = (&self.spread, self.confirm_within) else {
            return Ok(());
        };
        let first = bake_length(*pace, 1);
        match within > first {
            true => Ok(()),
            false => Err(invalid(format!(
                "{within:?} until it is everywhere: the first wave alone is watched for {first:?}"
            ))),
        }
    }

    /// Fails where somebody is named who is no member, also if there is nothing to try.
    pub(super) fn check_names(&self, node: &Node) -> Result<(), Status> {
        let Spread::Some(Canary::Nodes(names)) = &self.spread else { return Ok(()) };
        let members = node.members();
        let unknown = names.iter().find(|name| !members.values().any(|member| member.name == **name));
        unknown.map_or(Ok(()), |name| Err(invalid(CanaryError::NotThere(name.clone()).to_string())))
    }

    /// The revision may have to be taken back.
    pub(super) fn waits(&self) -> bool {
        self.confirm_within.is_some()
    }

    /// The terms for what follows `before`, with this content; it `overrides` one that waits to be confirmed, or there is none.
    pub(super) async fn terms(
        &self,
        node: &Arc<Node>,
        before: Revision,
        overrides: bool,
        content: Content,
    ) -> Result<Terms, Status> {
        self.check_known_by(node)?;
        let has_begun = node.log.with_state(|state| state.revisions.keeps_fingerprints());
        let knows_fingerprints = has_begun || node.members_without(WAVES).is_empty();
        let Content { fingerprint, despite_quarantine } = content;
        let (canary, waves) = match &self.spread {
            Spread::Everybody => (None, None),
            Spread::Some(canary) => (Some(choose_canary(node, canary, before).await?), None),
            Spread::MoreAndMore(pace) => {
                let first = first_wave(next(before), &node.candidates(before).await);
                if first.is_empty() {
                    let why = "no node is in service that could try it first";
                    return Err(with_exit(Code::FailedPrecondition, Exit::Remote, why));
                }
                (Some(first), Some(*pace))
            }
        };
        Ok(Terms {
            confirm_within_ms: self.confirm_within.map(|within| within.as_millis() as u64),
            canary,
            overrides,
            waves,
            fingerprint: if knows_fingerprints { fingerprint } else { String::new() },
            despite_quarantine: knows_fingerprints && despite_quarantine,
        })
    }

    /// Fails unless every member would know what it is about.
    fn check_known_by(&self, node: &Node) -> Result<(), Status> {
        let least = match (&self.spread, self.confirm_within) {
            (Spread::MoreAndMore(_), _) => WAVES,
            (Spread::Some(_), _) => CANARIES,
            (Spread::Everybody, Some(_)) => ROLLOUTS,
            (Spread::Everybody, None) => return Ok(()),
        };
        check_members_know(node, least, "would keep this one")
    }
}

/// What a revision consists of.
pub(super) struct Content {
    pub fingerprint: String,
    /// It is wanted whatever it has done before.
    pub despite_quarantine: bool,
}

/// Fails unless every member knows commands of this number; one that does not `does_instead`.
pub(super) fn check_members_know(node: &Node, command: u32, does_instead: &str) -> Result<(), Status> {
    let unaware = node.members_without(command);
    if unaware.is_empty() {
        return Ok(());
    }
    let why = format!(
        "a node that does not know of unconfirmed revisions {does_instead}, and so may {}: upgrade it, start it, or \
         remove it from the cluster",
        unaware.join(", ")
    );
    Err(with_exit(Code::FailedPrecondition, Exit::Remote, why))
}

/// How fast somebody wants waves to follow each other; what he leaves open is as the `policy` has it.
pub(super) fn pace_of(asked: admin::Pace, policy: Option<Pace>) -> Result<Pace, Status> {
    let admin::Pace { bake_ms, checks, urgent } = asked;
    let usual = policy.unwrap_or_default();
    let bake = Duration::from_millis(if bake_ms == 0 { usual.bake_ms } else { bake_ms });
    let checks = if checks == 0 { usual.checks } else { checks };
    if !(SHORTEST_BAKE..=LONGEST_BAKE).contains(&bake) {
        return Err(invalid(format!(
            "{bake:?} for each wave: {SHORTEST_BAKE:?} to {LONGEST_BAKE:?} are possible"
        )));
    }
    if checks > MAX_CHECKS {
        return Err(invalid(format!("{checks} checks of each wave: 1 to {MAX_CHECKS} are possible")));
    }
    Ok(Pace { bake_ms: bake.as_millis() as u64, checks, is_urgent: urgent })
}

/// Whom the caller wants to try it.
fn canary_of(canary: admin::Canary) -> Result<Canary, Status> {
    let admin::Canary { nodes, region, percent } = canary;
    match (nodes.is_empty(), region.is_empty(), percent) {
        (false, true, 0) => Ok(Canary::Nodes(nodes.into_iter().collect())),
        (true, false, 0) => Ok(Canary::Region(region)),
        (true, true, 1..=99) => Ok(Canary::Percent(percent as u8)),
        _ => Err(invalid("a canary is some nodes, a region, or 1 to 99 percent of the nodes".to_owned())),
    }
}

/// Those that try what follows `before`.
async fn choose_canary(
    node: &Arc<Node>,
    canary: &Canary,
    before: Revision,
) -> Result<BTreeSet<NodeId>, Status> {
    choose(canary, next(before), &node.candidates(before).await).map_err(|why| invalid(why.to_string()))
}

fn next(before: Revision) -> Revision {
    Revision(before.0 + 1)
}

fn invalid(why: String) -> Status {
    with_exit(Code::InvalidArgument, Exit::Local, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of it where the usual manner is in waves of 9 s.
    fn check(asked: admin::Manner, expected: Result<&str, &str>) {
        let policy = Pace { bake_ms: 9000, ..Pace::default() };
        let told = Manner::of(asked.clone(), Some(policy), || Manner::in_waves(policy)).map(
            |Manner { confirm_within, spread }| {
                let within = confirm_within.map_or(0, |within| within.as_secs());
                match spread {
                    Spread::Everybody => format!("all {within}"),
                    Spread::Some(_) => format!("some {within}"),
                    Spread::MoreAndMore(pace) => format!("waves of {} {within}", pace.bake_ms),
                }
            },
        );
        match (told, expected) {
            (Ok(told), Ok(expected)) => assert_eq!(told, expected, "{asked:?}"),
            (Err(status), Err(part)) => assert!(status.message().contains(part), "{status:?}"),
            (told, expected) => panic!("{asked:?}: {told:?} where {expected:?} was expected"),
        }
    }

    #[test]
    fn one_manner_is_asked_for_or_none() {
        let none = admin::Manner::default;
        let within = |ms| admin::Manner { confirm_within_ms: ms, ..none() };
        let canary = || Some(admin::Canary { percent: 10, ..admin::Canary::default() });
        let waves = |bake_ms, checks| Some(admin::Pace { bake_ms, checks, urgent: false });
        check(none(), Ok("waves of 9000 86400"));
        check(admin::Manner { at_once: true, ..none() }, Ok("all 0"));
        check(within(300_000), Ok("all 300"));
        check(within(4_999), Err("4.999s to confirm it"));
        check(admin::Manner { canary: canary(), ..within(5_000) }, Ok("some 5"));
        check(admin::Manner { canary: canary(), ..none() }, Err("not several"));
        check(admin::Manner { waves: waves(0, 0), ..none() }, Ok("waves of 9000 86400"));
        check(admin::Manner { waves: waves(7_200_000, 9), ..none() }, Ok("waves of 7200000 144000"));
        check(admin::Manner { waves: waves(86_400_000, 9), ..none() }, Ok("waves of 86400000 604800"));
        check(admin::Manner { waves: waves(5_000, 0), ..within(60_000) }, Ok("waves of 5000 60"));
        check(admin::Manner { waves: waves(60_000, 0), ..within(60_000) }, Err("the first wave alone"));
        let urgent = || Some(admin::Pace { urgent: true, ..admin::Pace::default() });
        check(admin::Manner { waves: urgent(), ..within(5_000) }, Err("is watched for 5s"));
        check(admin::Manner { waves: urgent(), ..within(6_000) }, Ok("waves of 9000 6"));
        check(admin::Manner { waves: waves(999, 0), ..none() }, Err("999ms for each wave"));
        check(admin::Manner { waves: waves(0, 101), ..none() }, Err("101 checks of each wave"));
        check(admin::Manner { waves: waves(0, 0), at_once: true, ..none() }, Err("not several"));
        check(admin::Manner { waves: waves(0, 0), canary: canary(), ..within(9_000) }, Err("not several"));
        check(admin::Manner { at_once: true, ..within(9_000) }, Err("not several"));
    }
}
