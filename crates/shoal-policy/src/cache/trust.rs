//! How far stored objects may be trusted on a node that may have missed a purge.

use shoal_model::site::PurgeUnverified;

use super::reuse::Reuse;

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
}
