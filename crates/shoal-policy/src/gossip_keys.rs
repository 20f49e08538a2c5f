//! When the keys that seal the gossip change: each day, and when somebody who knows them is not trusted any more. Nobody seals
//! with a key that a node which is heard has not got, so that none falls silent.

use std::time::Duration;

/// How long one is used.
pub const LIFE: Duration = Duration::from_secs(24 * 3600);

/// What the log says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Index of the entry that brought the newest.
    pub newest: u64,
    /// When that was made, Unix milliseconds; 0 = with the cluster.
    pub made_at_ms: u64,
    /// The one that is sealed with.
    pub in_use: u64,
    /// Index of the entry since which it is.
    pub in_use_since: u64,
    /// Somebody who is not trusted knows one that is still believed beside the newest.
    pub is_known_outside: bool,
    /// Somebody was revoked who knows the newest.
    pub is_betrayed: bool,
}

/// What the leader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// How long it has been running: of a key that is as old as the cluster nobody knows its age.
    pub uptime: Duration,
    /// What every node that is heard has applied.
    pub applied_by_all: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// Make another key.
    Make,
    /// Seal with the newest.
    Use,
    /// Believe no other than that.
    Drop,
}

/// The next step.
pub fn next_step(keys: &Keys, scene: &Scene) -> Step {
    if keys.newest != keys.in_use {
        return if scene.applied_by_all >= keys.newest { Step::Use } else { Step::Wait };
    }
    let age = match keys.made_at_ms {
        0 => scene.uptime,
        made_at_ms => Duration::from_millis(scene.now_ms.saturating_sub(made_at_ms)),
    };
    match () {
        () if keys.is_betrayed || age >= LIFE => Step::Make,
        () if keys.is_known_outside && scene.applied_by_all >= keys.in_use_since => Step::Drop,
        () => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn each_step_waits_for_all_that_are_heard() {
        let usual = Keys {
            newest: 50,
            made_at_ms: 10 * DAY_MS,
            in_use: 50,
            in_use_since: 52,
            is_known_outside: false,
            is_betrayed: false,
        };
        let first = Keys { newest: 0, made_at_ms: 0, in_use: 0, in_use_since: 0, ..usual };
        let waiting = Keys { newest: 60, ..usual };
        let outside = Keys { is_known_outside: true, ..usual };
        let betrayed = Keys { is_betrayed: true, ..usual };
        let at = |days: u64, uptime_days: u64, applied_by_all| Scene {
            now_ms: days * DAY_MS,
            uptime: Duration::from_millis(uptime_days * DAY_MS),
            applied_by_all,
        };
        for (keys, scene, expected) in [
            (usual, at(10, 9, 70), Step::Wait),
            (usual, at(11, 9, 70), Step::Make),
            (usual, at(9, 9, 70), Step::Wait), // the clock was set back
            (first, at(10, 0, 70), Step::Wait),
            (first, at(10, 1, 70), Step::Make),
            (waiting, at(20, 9, 59), Step::Wait),
            (waiting, at(20, 9, 60), Step::Use),
            (betrayed, at(10, 0, 0), Step::Make),
            (Keys { newest: 60, ..betrayed }, at(10, 0, 60), Step::Use),
            (outside, at(10, 0, 51), Step::Wait),
            (outside, at(10, 0, 52), Step::Drop),
            (Keys { is_betrayed: true, ..outside }, at(10, 0, 52), Step::Make),
        ] {
            assert_eq!(next_step(&keys, &scene), expected, "{keys:?} {scene:?}");
        }
    }
}
