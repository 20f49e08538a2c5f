//! File descriptors: as many as the system allows, how many of them are for downstreams, and a word about it when they are
//! few.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is kept at least for endpoints and for the node itself: listeners, the log, operators, the other nodes.
const RESERVE: u64 = 512;
/// Connections that a listener may have by default.
const AMPLE: u64 = 16_384;

/// Raises what this process may open to the most it could be allowed, and tells when that is not much.
///
/// The limit that a shell or a service manager gives is low for the sake of programs that look at descriptors one by
/// one (`select`); there is none in here.
pub fn claim() {
    let allowed = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: allowed.maximum, maximum: allowed.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::debug!(%error, "cannot raise the limit of descriptors");
    }
    if let Some(descriptors) = getrlimit(Resource::Nofile).current
        && let Some(connections) = room_of(descriptors)
    {
        tracing::warn!(
            descriptors,
            connections,
            "few file descriptors: more connections than these are closed at once; raise the limit \
             (LimitNOFILE=, ulimit -Hn, podman run --ulimit nofile=)"
        );
    }
}

/// How many connections downstreams may have before the rest runs out of descriptors. `None` = no fewer than listeners
/// allow by default.
pub fn room_for_connections() -> Option<usize> {
    getrlimit(Resource::Nofile).current.and_then(room_of).and_then(|room| usize::try_from(room).ok())
}

/// Three quarters of what is `allowed`, unless that is too little for the rest: most downstreams are idle, and share
/// connections to endpoints when they are not.
fn room_of(allowed: u64) -> Option<u64> {
    let reserve = (allowed / 4).max(RESERVE.min(allowed / 2));
    Some(allowed - reserve).filter(|room| *room < AMPLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_leave_room_for_few_connections() {
        let check = |allowed, expected| assert_eq!(room_of(allowed), expected, "{allowed:?}");
        check(1_048_576, None);
        check(21_846, None);
        check(20_000, Some(15_000));
        check(4096, Some(3072));
        check(1024, Some(512));
        check(256, Some(128));
        check(0, Some(0));
    }

    #[test]
    fn what_may_be_open_is_claimed() {
        claim();
        let allowed = getrlimit(Resource::Nofile);
        assert_eq!(allowed.current, allowed.maximum);
    }
}
