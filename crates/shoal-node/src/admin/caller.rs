//! What a caller says beside what it wants: who it is, why, and how long it waits.

use std::time::{Duration, Instant};

use shoal_model::is_deceptive;
use shoal_model::units::millis_u32;
use tonic::Status;

use super::failure;

/// Wait for acknowledgements when the caller names no time.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// What is left for acknowledgements at least, however long it took to get the change into the log.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Bytes of a message: the history keeps a thousand.
const MAX_MESSAGE: usize = 4096;

/// For how long: as the caller says; 0 = it does not.
pub(super) fn wait_of(timeout_ms: u32) -> Duration {
    if timeout_ms == 0 { DEFAULT_WAIT } else { Duration::from_millis(timeout_ms.into()) }
}

/// What the caller calls itself, and who it is proven to be.
pub(super) fn author_of(claimed: &str, proven: &str) -> String {
    let claimed: String = claimed.chars().filter(|c| !is_deceptive(*c)).take(100).collect();
    if claimed.is_empty() { proven.to_owned() } else { format!("{claimed} ({proven})") }
}

/// What is kept with a change is short.
pub(super) fn check_message(message: &str) -> Result<(), Status> {
    failure::check_length("the message", message, MAX_MESSAGE)
}

/// How long the caller of a change waits, from when it asked.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    started: Instant,
    /// The whole of it.
    pub wait: Duration,
}

impl Patience {
    /// From now on, as long as the caller says; 0 = it does not.
    pub fn of(timeout_ms: u32) -> Self {
        Self { started: Instant::now(), wait: wait_of(timeout_ms) }
    }

    /// How much longer: what was spent on the way to the log is gone.
    pub fn left(&self) -> Duration {
        self.wait.saturating_sub(self.started.elapsed()).max(SHORTEST_WAIT)
    }

    /// Nothing is to be tried again.
    pub fn is_over(&self) -> bool {
        self.started.elapsed() >= self.wait
    }

    /// What has passed of it.
    pub fn elapsed_ms(&self) -> u32 {
        millis_u32(self.started.elapsed())
    }
}
