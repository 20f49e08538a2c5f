//! How far stored objects may be trusted on a node that may have missed a purge.

use std::time::Duration;

use shoal_model::site::PurgeUnverified;

use super::reuse::Reuse;

/// Thu, 01 Jan 2026 00:00:00 GMT: no clock that is right says less, Unix milliseconds.
const EARLIEST_MS: u64 = 1_767_225_600_000;

/// The wall clock may be right. Until it is, nobody knows how old anything is (RFC 9111 §4).
pub const fn is_plausible(now_ms: u64) -> bool {
    now_ms >= EARLIEST_MS
}

/// Whether stored objects may answer without the origin's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// They may: every purge is known that was committed a moment ago.
    Verified,
    /// Purges may be missing. They may all the same, since the route puts availability first.
    Unverified,
    /// Purges may be missing. They may not.
    Doubted,
}

impl Trust {
    /// `has_lease`: the node knows of every purge. `policy` is the route's, for when it does not.
    pub const fn of(has_lease: bool, policy: PurgeUnverified) -> Self {
        match (has_lease, policy) {
            (true, _) => Self::Verified,
            (false, PurgeUnverified::Serve) => Self::Unverified,
            (false, PurgeUnverified::Revalidate | PurgeUnverified::Fail) => Self::Doubted,
        }
    }

    /// Stored objects may answer.
    pub const fn allows_hits(self) -> bool {
        match self {
            Self::Verified | Self::Unverified => true,
            Self::Doubted => false,
        }
    }

    /// What becomes of an object that could be used as `reuse` says, but for purges.
    pub const fn limit(self, reuse: Reuse) -> Reuse {
        match reuse {
            Reuse::Fresh | Reuse::Stale { .. } if !self.allows_hits() => Reuse::Unverified,
            Reuse::Fresh
            | Reuse::Stale { .. }
            | Reuse::Validate
            | Reuse::ValidateOnRequest
            | Reuse::Unverified => reuse,
        }
    }
}

/// For so long requests share what the origin was asked for, on a node that may have missed a purge: none is said to be
/// complete sooner after its commit while somebody has not heard of it (see [`super::lease::lapse_left`]).
pub const SHARED_UNVERIFIED: Duration = Duration::from_millis(200);

/// A moment by two clocks, in milliseconds. One is set now and then, the other stands still while the machine sleeps: what
/// is long ago by either is long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Unix time.
    pub wall_ms: u64,
    /// By a clock that nobody sets.
    pub steady_ms: u64,
}

impl Moment {
    /// How long before `now` it was at least; `None` = one of the clocks went back.
    const fn age_ms(self, now: Self) -> Option<u64> {
        match (now.wall_ms.checked_sub(self.wall_ms), now.steady_ms.checked_sub(self.steady_ms)) {
            (Some(wall), Some(steady)) => Some(if wall > steady { wall } else { steady }),
            _ => None,
        }
    }
}

/// How far a running fill has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nobody was asked yet.
    NotYet,
    /// Another node was asked, and may have begun before.
    Elsewhere,
    /// The origin was asked.
    At(Moment),
}

/// A request that comes now may have what a running fill brings, as far as purges are concerned that this node has not
/// heard of. With `trust` there is none that was acknowledged. Without it, one that was acknowledged by now was committed
/// more than [`SHARED_UNVERIFIED`] ago: what the origin was asked for since is of after it.
pub const fn may_join(trust: Trust, begun: Begun, now: Moment) -> bool {
    match begun {
        _ if trust.allows_hits() => true,
        Begun::NotYet => true,
        Begun::Elsewhere => false,
        Begun::At(asked) => match asked.age_ms(now) {
            Some(age_ms) => age_ms < SHARED_UNVERIFIED.as_millis() as u64,
            None => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_lease_the_route_decides_about_hits_only() {
        let check = |has_lease, policy, reuse, expected| {
            assert_eq!(
                Trust::of(has_lease, policy).limit(reuse),
                expected,
                "{has_lease} {policy:?} {reuse:?}"
            );
        };
        let hits = [Reuse::Fresh, Reuse::Stale { revalidate: true }, Reuse::Stale { revalidate: false }];
        let asks = [Reuse::Validate, Reuse::ValidateOnRequest];
        for policy in [PurgeUnverified::Revalidate, PurgeUnverified::Serve, PurgeUnverified::Fail] {
            hits.iter().chain(&asks).for_each(|&reuse| check(true, policy, reuse, reuse));
            asks.iter().for_each(|&reuse| check(false, policy, reuse, reuse));
        }
        for reuse in hits {
            check(false, PurgeUnverified::Serve, reuse, reuse);
            check(false, PurgeUnverified::Revalidate, reuse, Reuse::Unverified);
            check(false, PurgeUnverified::Fail, reuse, Reuse::Unverified);
        }
    }

    #[test]
    fn without_a_lease_only_what_began_a_moment_ago_is_shared() {
        let at = |wall_ms, steady_ms| Begun::At(Moment { wall_ms, steady_ms });
        let now = Moment { wall_ms: 10_000, steady_ms: 500 };
        let check = |trust, begun, expected| assert_eq!(may_join(trust, begun, now), expected, "{begun:?}");
        for begun in [Begun::NotYet, Begun::Elsewhere, at(0, 0), at(9_999, 499), at(11_000, 400)] {
            check(Trust::Verified, begun, true);
            check(Trust::Unverified, begun, true);
        }
        check(Trust::Doubted, Begun::NotYet, true);
        check(Trust::Doubted, Begun::Elsewhere, false);
        check(Trust::Doubted, at(10_000, 500), true);
        check(Trust::Doubted, at(9_801, 301), true);
        // Longer ago by both clocks; the machine slept; somebody set the clock back, for a bit less than has passed, and for more.
        check(Trust::Doubted, at(9_800, 300), false);
        check(Trust::Doubted, at(9_000, 400), false);
        check(Trust::Doubted, at(9_900, 100), false);
        check(Trust::Doubted, at(10_001, 400), false);
        check(Trust::Doubted, at(9_900, 501), false);
    }
}
