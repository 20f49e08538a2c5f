//! How patient the nodes are with each other, and which profile this machine can keep up with.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How the nodes are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// One region: round trips of a few milliseconds.
    #[default]
    Lan,
    /// Several regions: round trips of up to 250 ms.
    Wan,
}

/// Heartbeats and elections. The rule: election ≥ 10 × the latency of an append and ≥ 4 × heartbeat.
///
/// Nobody asks for an election before the leader was silent for its lease (`election_max`) *and* an election timeout after
/// that: a leader is deposed after 1.0–1.2 s of silence on [`Timings::LAN`], after 2.25–2.5 s on [`Timings::SLOW_DISK`]. So
/// the timeouts are half of what they would be in a Raft that does not add the two. They are as short as that because of
/// the cache: an election longer than a lease less its renewal (2 s less 0.5 s) costs every node its lease. Two busy cores
/// keep up with it, since a follower that stalls by itself deposes nobody: the others, asked before the vote, have heard the
/// leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a voter asks for an election, at least.
    pub election_min: Duration,
    /// The same, at most; also the leader's lease.
    pub election_max: Duration,
}

/// An fsync slower than this (median) cannot keep [`Timings::LAN`].
const SLOW_FSYNC: Duration = Duration::from_millis(20);
/// How many fsyncs are measured.
const PROBES: usize = 3;

impl Timings {
    /// One region.
    pub const LAN: Self = Self::of_millis(100, 400, 600);
    /// One region, on small or shared machines whose disk is slow.
    pub const SLOW_DISK: Self = Self::of_millis(250, 1000, 1250);
    /// Three continents.
    pub const WAN: Self = Self::of_millis(500, 4000, 8000);

    const fn of_millis(heartbeat: u64, election_min: u64, election_max: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_max),
        }
    }

    /// The timings of `profile` on a disk with this median fsync.
    pub fn choose(profile: Profile, fsync: Duration) -> Self {
        match profile {
            Profile::Lan if fsync > SLOW_FSYNC => Self::SLOW_DISK,
            Profile::Lan => Self::LAN,
            Profile::Wan => Self::WAN,
        }
    }

    /// A leader that was silent for so long is as good as gone: at the latest now somebody asks for an election.
    pub fn silence(&self) -> Duration {
        self.election_max * 2
    }

    /// How long a proposal waits for a leader before it says that there is no quorum: an ordinary election, failed
    /// once, fits in.
    pub(crate) fn patience(&self) -> Duration {
        self.silence() * 3
    }
}

/// Median time of a small write and fsync in `dir`. Blocks.
pub(crate) fn measure_fsync(dir: &Path) -> io::Result<Duration> {
    let path = dir.join("fsync.probe");
    let mut file = std::fs::File::create(&path)?;
    let mut times = [Duration::ZERO; PROBES];
    for time in &mut times {
        let started = Instant::now();
        file.write_all(&[0; 512])?;
        file.sync_data()?;
        *time = started.elapsed();
    }
    std::fs::remove_file(&path)?;
    times.sort();
    Ok(times[PROBES / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_gets_patient_timings() {
        let check = |profile, fsync_ms, expected: Timings| {
            assert_eq!(Timings::choose(profile, Duration::from_millis(fsync_ms)), expected);
        };
        check(Profile::Lan, 3, Timings::LAN);
        check(Profile::Lan, 20, Timings::LAN);
        check(Profile::Lan, 21, Timings::SLOW_DISK);
        check(Profile::Wan, 3, Timings::WAN);
        check(Profile::Wan, 80, Timings::WAN);
    }

    #[test]
    fn every_profile_keeps_the_rule() {
        for timings in [Timings::LAN, Timings::SLOW_DISK, Timings::WAN] {
            assert!(timings.election_min >= timings.heartbeat * 4, "{timings:?}");
            assert!(timings.election_max > timings.election_min, "{timings:?}");
        }
    }

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert!(measure_fsync(dir.path()).unwrap() > Duration::ZERO);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
