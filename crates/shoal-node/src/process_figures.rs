//! What the kernel says of this process, under the names that every exporter uses.

use std::fmt::Write;
use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What the kernel says of this process; what it does not say is missing from the page, too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// CPU time used, of all threads, in user and system mode.
    pub cpu_seconds: Option<f64>,
    /// Unix time of the start.
    pub start_time_seconds: Option<f64>,
    /// Memory in use.
    pub resident_bytes: Option<u64>,
    /// Descriptors open now.
    pub open_fds: Option<u64>,
    /// Descriptors that may be open.
    pub max_fds: Option<u64>,
}

impl ProcessFigures {
    /// Reads them. Blocks for as long as it takes to count the open descriptors.
    pub fn read() -> Self {
        let ticks = clock_ticks_per_second() as f64;
        let times = read("/proc/self/stat").and_then(|text| times_of(&text));
        let booted = read("/proc/stat").and_then(|text| boot_time_of(&text));
        let resident = read("/proc/self/statm").and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        // One of them is open only because they are counted.
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1));
        Self {
            cpu_seconds: times.map(|(cpu, _)| cpu as f64 / ticks),
            start_time_seconds: booted.zip(times).map(|(booted, (_, start))| booted + start as f64 / ticks),
            resident_bytes: resident.map(|pages| pages * page_size() as u64),
            open_fds,
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }

    /// Appends them as Prometheus text.
    pub fn render(&self, text: &mut String) {
        let mut family = |name: &str, form: &str, help: &str, value: Option<f64>| {
            if let Some(value) = value {
                _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {form}\n{name} {value}");
            }
        };
        let resident = self.resident_bytes.map(|bytes| bytes as f64);
        let start = self.start_time_seconds;
        let help = "CPU time used by the process, in user and system mode.";
        family("process_cpu_seconds_total", "counter", help, self.cpu_seconds);
        family("process_start_time_seconds", "gauge", "Unix seconds at which the process started.", start);
        family("process_resident_memory_bytes", "gauge", "Memory of the process that is in RAM.", resident);
        let open_fds = self.open_fds.map(|count| count as f64);
        family("process_open_fds", "gauge", "File descriptors that are open.", open_fds);
        let max_fds = self.max_fds.map(|count| count as f64);
        family("process_max_fds", "gauge", "File descriptors that may be open.", max_fds);
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Ticks of CPU used, and ticks between the boot and the start, of a `/proc/PID/stat`.
fn times_of(stat: &str) -> Option<(u64, u64)> {
    // The name of the program is in brackets, and may hold spaces and brackets itself.
    let (_, after_name) = stat.rsplit_once(") ")?;
    // The first of these fields is the third of the file.
    let field = |number: usize| after_name.split(' ').nth(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(22)?))
}

/// Unix seconds of the boot, of a `/proc/stat`.
fn boot_time_of(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let check = |stat: &str, expected| assert_eq!(times_of(stat), expected, "{stat:?}");
        let fields = "S 1 7 7 0 -1 4194560 1 2 3 4 250 50 5 6 20 0 3 0 9100 1 2";
        check(&format!("7 (shoal) {fields}"), Some((300, 9_100)));
        check(&format!("7 (a ) (b) {fields}"), Some((300, 9_100)));
        check("7 (shoal) S 1", None);
        check("", None);
        assert_eq!(boot_time_of("cpu  1 2\nbtime 1760000000\nprocesses 9\n"), Some(1_760_000_000.0));
        assert_eq!(boot_time_of("cpu  1 2\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_figures() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{figures:?}");
        assert!(figures.open_fds.is_some_and(|count| count >= 3), "{figures:?}");
        assert!(figures.max_fds >= figures.open_fds, "{figures:?}");
        let started =
            std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() - figures.start_time_seconds.unwrap();
        assert!((-2.0..86_400.0).contains(&started), "started {started} s ago");
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let mut text = String::new();
        ProcessFigures { open_fds: Some(12), ..ProcessFigures::default() }.render(&mut text);
        assert!(text.ends_with("# TYPE process_open_fds gauge\nprocess_open_fds 12\n"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
