//! Refusing work early and cheaply when there is more than can be done, so that what was begun comes to its end.
//!
//! A worker looks at each tick how long its own queue lets things wait, and how much memory is left; what follows from that
//! for each of its listeners is decided by [`shoal_policy::shedding`]. A request reads one cell.

mod memory;
mod queue;

use std::cell::Cell;
use std::time::Duration;

use shoal_model::view::OverloadView;
use shoal_policy::failure::Failure;
use shoal_policy::shedding::{MemoryLevel, Shedding, memory_level};

pub(crate) use memory::Memory;
pub(crate) use queue::QueueProbe;

use crate::metrics::ShedCause;
use crate::worker::Worker;

/// What one worker refuses of what comes to one listener.
#[derive(Default)]
pub(crate) struct Valve {
    state: Cell<(Shedding, MemoryLevel)>,
}

impl Valve {
    /// Takes in one look at the queue and at the memory.
    pub(crate) fn observe(&self, now_ms: u64, queue_delay: Duration, memory: &Memory, limits: &OverloadView) {
        let (shedding, _) = self.state.get();
        let shedding = shedding.observe(now_ms, queue_delay, limits.max_queue_delay);
        let limit = limits.max_memory.or(memory.limit());
        self.state.set((shedding, memory_level(memory.used(), limit)));
    }

    /// How much memory is left.
    pub(crate) fn memory(&self) -> MemoryLevel {
        self.state.get().1
    }

    /// Lets a new request pass, or counts that it may not.
    pub(crate) fn pass(&self, worker: &Worker) -> Result<(), Failure> {
        let (shedding, memory) = self.state.get();
        if shedding.is_idle() && memory != MemoryLevel::Full {
            return Ok(());
        }
        let cause = match memory {
            MemoryLevel::Full => ShedCause::Memory,
            MemoryLevel::Ample | MemoryLevel::Short if shedding.refuses(worker.entropy()) => ShedCause::Queue,
            MemoryLevel::Ample | MemoryLevel::Short => return Ok(()),
        };
        worker.metrics.shed(cause);
        Err(Failure::Overload)
    }
}
