//! A node that hardly gets to run: stopped for 80 ms and let go on for 20, again and again, as a quota of CPU has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};

use crate::node::NodeProcess;

const STANDS: Duration = Duration::from_millis(80);
const RUNS: Duration = Duration::from_millis(20);

/// A fifth of a CPU, at most, until this is dropped.
pub struct Starved {
    is_over: Arc<AtomicBool>,
    pacing: Option<JoinHandle<()>>,
}

impl Starved {
    /// `node` hardly gets to run from now on.
    pub fn node(node: &NodeProcess) -> Result<Self> {
        let (pid, is_over) = (node.pid()?, Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&is_over);
        Ok(Self { is_over, pacing: Some(spawn(move || pace(pid, &ends))) })
    }
}

fn pace(pid: Pid, is_over: &AtomicBool) {
    // Whoever is gone needs no more pacing.
    while !is_over.load(Ordering::Relaxed) && kill_process(pid, Signal::STOP).is_ok() {
        sleep(STANDS);
        let _ = kill_process(pid, Signal::CONT);
        sleep(RUNS);
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(pacing) = self.pacing.take() {
            let _ = pacing.join();
        }
    }
}
