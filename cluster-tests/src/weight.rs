//! What the processes of a node take of the machine, as the kernel shows it.

use std::fs;
use std::path::Path;

use anyhow::Result;

/// A flag of nodes that are weighed: the descriptors of others are counted by root alone.
pub const WEIGHED: &str = "--enable-core-dump";

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weight {
    /// Its number.
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub started: u64,
    /// Memory that is in use.
    pub rss_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Weight {
    /// The processes that run on a data directory, oldest first: two while one takes the other's place.
    pub fn of_node(data_dir: &Path) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(command) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let mut words = command.split(|byte| *byte == 0).skip(1);
            let is_run = words.next() == Some(b"run");
            if is_run && words.any(|word| word == data_dir.as_os_str().as_encoded_bytes()) {
                found.extend(weigh(pid));
            }
        }
        found.sort_by_key(|weight| weight.started);
        Ok(found)
    }
}

/// `None` = it has just gone.
fn weigh(pid: u32) -> Option<Weight> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name in parentheses; the 22nd field of all (proc(5)).
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Weight { pid, started, rss_kib: number("VmRSS:")?, descriptors, threads: number("Threads:")? })
}
