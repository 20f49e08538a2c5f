//! When a runtime counts as hung: none of its threads was kept from ticking, and it has not ticked.
//!
//! The clock alone says nothing. A process may have been stopped, its machine may stand still or be busy with others: who
//! looks was held up as well then, and what wants a CPU and gets none is not to blame. What counts is time in which a thread
//! had a CPU, or wanted none.

use std::time::Duration;

/// Between two looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A look that comes later than that was held up itself: counting begins anew.
const MOST_LATE: Duration = Duration::from_millis(250);
/// The shortest limit: what ticks several times a second is late with a few of them now and then.
pub const SHORTEST_LIMIT: Duration = Duration::from_secs(2);

/// What a thread has done since the look before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It waits for something other than a CPU.
    Sleeps,
    /// It has a CPU, or waits for one; for so long it had one.
    Runs(Duration),
    /// It waits for a disk, or was stopped, or cannot be seen.
    IsHeld,
}

impl Doing {
    /// For how long it could have ticked, of the time `since` the look before.
    fn could_tick(self, since: Duration) -> Duration {
        match self {
            Self::Sleeps => since,
            Self::Runs(on_cpu) => on_cpu.min(since),
            Self::IsHeld => Duration::ZERO,
        }
    }
}

/// What the silence of a runtime means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Well,
    /// For the time of two looks: it is open what comes of it.
    Silent,
    /// Half of its time is over.
    Suspect,
    /// All of it is.
    Hung,
}

/// For how long a runtime has not ticked, though it could have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Silence(pub Duration);

impl Silence {
    /// Takes note of a look, so long `since` the one before: whether it `has_ticked` in between, and what its `threads` do. One
    /// that is not there, or not any more, has none.
    pub fn look(&mut self, since: Duration, has_ticked: bool, threads: &[Doing]) {
        let is_late = since > LOOK_EVERY + MOST_LATE;
        // Any of them could have ticked for the others.
        let could_tick = threads.iter().map(|doing| doing.could_tick(since)).min();
        self.0 = match could_tick.filter(|_| !has_ticked && !is_late) {
            Some(more) => self.0 + more,
            None => Duration::ZERO,
        };
    }

    /// What it means where so much of it is allowed.
    pub fn verdict(self, limit: Duration) -> Verdict {
        match self.0 {
            silence if silence >= limit => Verdict::Hung,
            silence if silence >= limit / 2 => Verdict::Suspect,
            silence if silence >= 2 * LOOK_EVERY => Verdict::Silent,
            _ => Verdict::Well,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Looks in words, each half a second after the one before: `tick`, `late` (by 300 ms), `gone`; else a letter for each
    /// thread: `s`leeps, `r`uns and has had a CPU all the time, `w`aits for one and had it for a hundredth of a second, is
    /// `h`eld. Before it, how often.
    fn check(looks: &str, expected: Verdict) {
        let mut silence = Silence::default();
        let mut verdict = Verdict::Well;
        for word in looks.split_whitespace() {
            let letters = word.trim_start_matches(|letter: char| letter.is_ascii_digit());
            let times = word[..word.len() - letters.len()].parse::<u32>().unwrap_or(1);
            let since = if letters == "late" { LOOK_EVERY + Duration::from_millis(300) } else { LOOK_EVERY };
            let doing = |letter| match letter {
                's' => Doing::Sleeps,
                'r' => Doing::Runs(since),
                'w' => Doing::Runs(Duration::from_millis(10)),
                _ => Doing::IsHeld,
            };
            let threads: Vec<_> = match letters {
                "gone" => Vec::new(),
                "tick" | "late" => vec![Doing::Sleeps],
                letters => letters.chars().map(doing).collect(),
            };
            for _ in 0..times {
                silence.look(since, letters == "tick", &threads);
                verdict = silence.verdict(LIMIT);
            }
        }
        assert_eq!(verdict, expected, "{looks:?}: {silence:?}");
    }

    #[test]
    fn who_could_tick_and_does_not_is_hung() {
        use Verdict::{Hung, Silent, Suspect, Well};
        check("", Well);
        check("s", Well);
        check("2s", Silent);
        check("4s", Silent);
        check("5s", Suspect);
        check("9s", Suspect);
        check("10s", Hung); // it waits for ever
        check("10r", Hung); // it is in an endless loop
        check("5r 5s", Hung);
        check("9r tick", Well);
        check("9r tick 9r", Suspect);
        check("9s gone", Well); // it was drained
        check("1000gone", Well);
        check("10ss", Hung);
        check("10rs", Hung);
    }

    #[test]
    fn who_is_kept_from_it_is_not() {
        use Verdict::{Hung, Silent, Suspect, Well};
        check("99w", Well); // others have the CPUs
        check("200w", Silent);
        check("500w", Hung); // but not for ever: these were five seconds of one
        check("1000h", Well);
        check("9s late", Well); // the process was stopped
        check("9s late 9s", Suspect);
        check("1000late", Well);
        check("9s 20h s", Hung);
        check("99sw", Well); // the one that would tick waits for a CPU
        check("200sw", Silent);
        check("1000sh", Well);
    }

    #[test]
    fn nobody_has_had_a_cpu_for_longer_than_there_was() {
        let mut silence = Silence::default();
        silence.look(LOOK_EVERY, false, &[Doing::Runs(LIMIT)]);
        assert_eq!(silence.0, LOOK_EVERY);
    }
}
