//! Where those run who take part in a flood. All share the CPUs of one machine, which in truth they would not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::runtime::{Builder, Handle, Runtime};

/// Of hostile downstreams: they get the CPU time that is left.
const FAR_NICENESS: i32 = 19;
/// Of the bystander and its origin, as far as this process may: what is measured is the node.
const NEAR_NICENESS: i32 = -10;

/// Whose threads tasks run on.
#[derive(Clone, Debug)]
pub struct Places {
    /// Of the bystander, and of its origin.
    pub near: Handle,
    /// Of those that flood.
    pub far: Handle,
}

impl Places {
    /// All in one, for those who want to know of bounds and not of latencies.
    pub fn here() -> Self {
        Self { near: Handle::current(), far: Handle::current() }
    }
}

/// Threads of their own for those near and those far away.
#[derive(Debug)]
pub struct Apart {
    near: Runtime,
    far: Runtime,
    goes_first: Arc<AtomicBool>,
}

impl Apart {
    /// Begins them.
    pub fn begin() -> io::Result<Self> {
        let goes_first = Arc::new(AtomicBool::new(true));
        let refused = goes_first.clone();
        let near = runtime(NEAR_NICENESS, move || refused.store(false, Relaxed))?;
        Ok(Self { near, far: runtime(FAR_NICENESS, || ())?, goes_first })
    }

    /// As places.
    pub fn places(&self) -> Places {
        Places { near: self.near.handle().clone(), far: self.far.handle().clone() }
    }

    /// The bystander could be put before everybody else; that takes CAP_SYS_NICE.
    pub fn goes_first(&self) -> bool {
        // Its thread has begun once something has run on it.
        _ = self.near.block_on(self.near.spawn(async {}));
        self.goes_first.load(Relaxed)
    }
}

fn runtime(niceness: i32, refused: impl Fn() + Send + Sync + 'static) -> io::Result<Runtime> {
    let begin = move || {
        // On Linux it is the thread's own.
        if rustix::process::setpriority_process(None, niceness).is_err() {
            refused();
        }
    };
    Builder::new_multi_thread().worker_threads(1).enable_all().on_thread_start(begin).build()
}
