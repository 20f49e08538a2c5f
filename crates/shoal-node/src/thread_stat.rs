//! What the kernel says of a thread of this process (proc_pid_stat(5)).

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

/// What it says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadStat {
    /// `R` = it runs, or would; `S` = it sleeps; others: it is held.
    pub state: char,
    /// How long it has had a CPU, to a hundredth of a second.
    pub on_cpu: Duration,
}

impl ThreadStat {
    /// As it is now; `None` = there is no such thread, or it cannot be seen.
    pub fn read(thread: Pid) -> Option<Self> {
        let path = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
        Self::of(&fs::read_to_string(path).ok()?, rustix::param::clock_ticks_per_second())
    }

    fn of(stat: &str, ticks_per_second: u64) -> Option<Self> {
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        // utime and stime, the 14th and 15th of all; the state is the third.
        let user: u64 = fields.nth(10)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let on_cpu = Duration::from_millis((user + system) * 1000 / ticks_per_second.max(1));
        Some(Self { state, on_cpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let check = |stat: &str, expected: Option<(char, u64)>| {
            let expected =
                expected.map(|(state, ms)| ThreadStat { state, on_cpu: Duration::from_millis(ms) });
            assert_eq!(ThreadStat::of(stat, 100), expected, "{stat:?}");
        };
        let fields = "1 7 7 0 -1 4194560 1 2 3 4 250 50 5 6 20 0 3 0 9100 1 2";
        check(&format!("7 (worker-0) R {fields}"), Some(('R', 3_000)));
        check(&format!("7 (a ) (b) S {fields}"), Some(('S', 3_000)));
        check("7 (worker-0) S 1", None);
        check("", None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_thread_runs() {
        assert_eq!(ThreadStat::read(rustix::thread::gettid()).map(|stat| stat.state), Some('R'));
    }
}
