//! How much memory the process has, and how much it may have.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How often it is looked at, ms.
const LOOK_EVERY_MS: u64 = 500;
/// What the kernel says of a process is longer at no time.
const MAX_STATUS: usize = 8 << 10;
/// A limit from here on is none: what version 1 of control groups says where nothing was set.
const NO_LIMIT: u64 = 1 << 60;
const CGROUPS: &str = "/sys/fs/cgroup";

/// The memory of this process, for all workers: whoever comes first when it is time looks.
pub(crate) struct Memory {
    status: Option<File>,
    limit: Option<u64>,
    used: AtomicU64,
    looked_ms: AtomicU64,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            status: File::open("/proc/self/status").ok(),
            limit: group_limit(Path::new(CGROUPS), &groups),
            used: AtomicU64::new(0),
            looked_ms: AtomicU64::new(0),
        }
    }

    /// Bytes that are not mapped from files, up to half a second ago; 0 where the kernel does not say.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Bytes its control group may have.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Asks the kernel, if nobody has for a while.
    pub(crate) fn look(&self, now_ms: u64) {
        let looked = self.looked_ms.load(Relaxed);
        let is_time = looked == 0 || now_ms.saturating_sub(looked) >= LOOK_EVERY_MS;
        if !is_time || self.looked_ms.compare_exchange(looked, now_ms, Relaxed, Relaxed).is_err() {
            return;
        }
        let mut text = [0; MAX_STATUS];
        let read = self.status.as_ref().and_then(|status| status.read_at(&mut text, 0).ok());
        let text = read.and_then(|read| std::str::from_utf8(&text[..read]).ok());
        self.used.store(text.map_or(0, anonymous), Relaxed);
    }
}

/// Bytes that belong to the process alone, or to what it shares without a file.
fn anonymous(status: &str) -> u64 {
    let kib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    (kib("RssAnon:").unwrap_or(0) + kib("RssShmem:").unwrap_or(0)).saturating_mul(1024)
}

/// The least limit of the group and of all above it. `groups` is what the kernel says of the process, one hierarchy a line.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let limit_of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            named if named.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // In a container its own group may be the root, whatever it is called outside.
        let group = Path::new(group.trim_start_matches('/'));
        let limits = group.ancestors().map(|above| root.join(above).join(file));
        limits.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()).min()
    };
    groups.lines().filter_map(limit_of).min().filter(|limit| *limit < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let memory = Memory::new();
        memory.look(1);
        assert!(memory.used() > 100 << 10, "{}", memory.used());
    }

    #[test]
    fn reads_what_the_kernel_says_of_a_process() {
        let status =
            "Name:\tshoal\nVmRSS:\t  300 kB\nRssAnon:\t     100 kB\nRssFile:\t  7 kB\nRssShmem:\t 2 kB\n";
        assert_eq!(anonymous(status), 102 << 10);
        assert_eq!(anonymous("RssAnon:\tmuch\n"), 0);
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/memory.max", "5000\n");
        write("a/b/memory.max", "max\n");
        write("a/b/c/memory.max", "7000\n");
        write("d/memory.max", "max\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/v1/memory.limit_in_bytes", "300\n");
        let check = |groups: &str, expected| {
            assert_eq!(group_limit(root.path(), groups), expected, "{groups:?}");
        };
        check("0::/a/b/c\n", Some(5000));
        check("0::/a/b\n", Some(5000));
        check("0::/d\n", None);
        check("0::/\n", None);
        check("12:cpu,memory:/v1\n0::/a\n", Some(300));
        check("12:memory:/elsewhere\n3:cpu:/v1\n", None);
        check("nonsense", None);
        check("", None);
    }
}
