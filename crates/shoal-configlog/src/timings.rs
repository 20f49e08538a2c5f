//! How patient the nodes are with each other, and which timing this machine can keep up with.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use shoal_model::state::Timing;

/// Heartbeats and elections. The rule: election ≥ 10 × the latency of an append and ≥ 4 × heartbeat, heartbeat ≥ the longest
/// round trip.
///
/// Nobody asks for an election before the leader was silent for its lease (`election_max`) *and* an election timeout after
/// that: a leader is deposed after 1.0–1.2 s of silence on [`Timings::LAN`], after 2.25–2.5 s on [`Timings::SMALL`], after
/// 5–6 s on [`Timings::WAN`]. So the timeouts are half of what they would be in a Raft that does not add the two. They are as
/// short as that because of the cache: an election longer than a lease less its renewal (2 s less 0.5 s, and at most 8 s less
/// 0.5 s where operators choose) costs every node its lease. Two busy cores keep up with it, since a follower that stalls by
/// itself deposes nobody: the others, asked before the vote, have heard the leader.
///
/// Nodes whose timings differ, as while a cluster changes them, are no danger: who may lead and what is committed depends on
/// terms and majorities alone, reads are confirmed by a majority each time, and leases of the cache by one after the
/// other. A node that is less patient asks for a vote too early at most, and is told by the others that they hear the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a voter asks for an election, at least.
    pub election_min: Duration,
    /// The same, at most; also the leader's lease.
    pub election_max: Duration,
    /// How long a node was heard before it takes the place of a voter.
    pub stable: Duration,
}

/// An fsync slower than this (median) cannot keep [`Timings::LAN`].
const SLOW_FSYNC: Duration = Duration::from_millis(20);
/// Whoever asks for a change learns within that time that it is not possible.
const LONGEST_PATIENCE: Duration = Duration::from_secs(8);
/// How many fsyncs are measured.
const PROBES: usize = 3;

impl Timings {
    /// One region.
    pub const LAN: Self = Self::of_millis(100, 400, 600, 10_000);
    /// One region, on small or shared machines whose disk is slow.
    pub const SMALL: Self = Self::of_millis(250, 1000, 1250, 10_000);
    /// Three continents: twice the longest round trip (250 ms) between two heartbeats, and ten heartbeats lost before
    /// somebody asks for an election.
    pub const WAN: Self = Self::of_millis(500, 2000, 3000, 30_000);

    const fn of_millis(heartbeat: u64, election_min: u64, election_max: u64, stable: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_max),
            stable: Duration::from_millis(stable),
        }
    }

    /// What `timing` comes to.
    pub const fn of(timing: Timing) -> Self {
        match timing {
            Timing::Lan => Self::LAN,
            Timing::Small => Self::SMALL,
            Timing::Wan => Self::WAN,
        }
    }

    /// Which timing comes to these; `None` = none does.
    pub fn timing(self) -> Option<Timing> {
        Timing::ALL.into_iter().find(|timing| Self::of(*timing) == self)
    }

    /// A leader that was silent for so long is as good as gone: at the latest now somebody asks for an election.
    pub fn silence(&self) -> Duration {
        self.election_max * 2
    }

    /// How long a proposal waits for a leader before it says that there is no quorum: an ordinary election fits in, and in one
    /// region one that failed before it.
    pub(crate) fn patience(&self) -> Duration {
        (self.silence() * 3).min(LONGEST_PATIENCE)
    }

    /// Whether a proposal that has waited for so long waits on, nobody having led for `lost_for` by now. Where that was longer
    /// than its patience when it was made, and no majority takes part in an election (`may_elect`), there is nothing to wait
    /// for but the next attempt at one: who is back answers it, and a leader that is there all the same gets through again.
    pub(crate) fn waits_on(&self, waited: Duration, lost_for: Duration, may_elect: bool) -> bool {
        let patience = self.patience();
        let is_in_vain = lost_for.saturating_sub(waited) > patience && !may_elect;
        waited < if is_in_vain { self.election_max + self.heartbeat } else { patience }
    }
}

/// Which timing of one region the disk under `dir` can keep up with. Blocks.
pub fn suited_timing(dir: &Path) -> io::Result<Timing> {
    let fsync = measure_fsync(dir)?;
    let timing = timing_for(fsync);
    tracing::debug!(?fsync, %timing, "measured the disk");
    Ok(timing)
}

fn timing_for(fsync: Duration) -> Timing {
    if fsync > SLOW_FSYNC { Timing::Small } else { Timing::Lan }
}

/// Median time of a small write and fsync in `dir`. Blocks.
fn measure_fsync(dir: &Path) -> io::Result<Duration> {
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
    fn a_slow_disk_gets_a_patient_timing() {
        let check = |fsync_ms, expected| assert_eq!(timing_for(Duration::from_millis(fsync_ms)), expected);
        check(3, Timing::Lan);
        check(20, Timing::Lan);
        check(21, Timing::Small);
    }

    #[test]
    fn every_timing_keeps_the_rule() {
        for timings in Timing::ALL.map(Timings::of) {
            assert!(timings.election_min >= timings.heartbeat * 4, "{timings:?}");
            assert!(timings.election_max > timings.election_min, "{timings:?}");
            assert!(timings.stable > timings.silence(), "{timings:?}");
            assert!(timings.patience() > timings.silence() + timings.heartbeat * 2, "{timings:?}");
            assert!(timings.waits_on(timings.silence(), timings.silence() * 2, false), "{timings:?}");
            assert!(timings.election_max + timings.heartbeat < timings.silence(), "{timings:?}");
        }
        let longest_round_trip = Duration::from_millis(250);
        assert!(Timings::WAN.heartbeat >= longest_round_trip);
        assert!(Timings::WAN.silence() >= longest_round_trip * 10);
    }

    #[test]
    fn only_a_loss_that_is_fresh_is_waited_out() {
        let check = |waited_ms: u64, lost_for_ms: u64, expected: bool| {
            let [waited, lost_for] = [waited_ms, lost_for_ms].map(Duration::from_millis);
            let waits_on = |may_elect| Timings::LAN.waits_on(waited, lost_for, may_elect);
            assert_eq!(waits_on(false), expected, "{waited_ms} {lost_for_ms}");
            // While others vote it is always worth a wait.
            assert_eq!(waits_on(true), waited_ms < 3600, "{waited_ms} {lost_for_ms}");
        };
        check(0, 0, true);
        check(3599, 0, true); // who leads changes all the time
        check(3600, 0, false);
        check(3599, 3599, true); // lost when it was made
        check(3600, 3600, false);
        check(3500, 7100, true); // an election may have failed
        check(3600, 7200, false);
        check(0, 3601, true);
        check(699, 4300, true);
        check(700, 4301, false);
        check(0, 1_000_000, true);
        check(700, 1_000_000, false);
    }

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert!(measure_fsync(dir.path()).unwrap() > Duration::ZERO);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
