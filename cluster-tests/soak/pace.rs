//! How fast all clients together ask: turns at even distances, taken in order by whoever is free.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Turns that were missed are not made up for beyond this: a stall must not end in a burst.
const MOST_BEHIND: Duration = Duration::from_millis(200);

/// Shared by all clients.
pub struct Pace {
    apart: Option<Duration>,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// `per_second` turns.
    pub fn new(per_second: u64) -> Self {
        Self { apart: Some(Duration::from_secs(1) / per_second.max(1) as u32), next: Mutex::new(None) }
    }

    /// As fast as it goes.
    pub fn none() -> Self {
        Self { apart: None, next: Mutex::new(None) }
    }

    /// Waits for a turn.
    pub async fn turn(&self) {
        let Some(apart) = self.apart else { return };
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let turn = next.map_or(now, |next| next.max(now - MOST_BEHIND));
            *next = Some(turn + apart);
            turn
        };
        sleep_until(turn).await;
    }
}
