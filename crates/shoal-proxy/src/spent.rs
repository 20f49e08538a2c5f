//! What was served before, until nobody reads it any more.
//!
//! Whoever has the last reference to a site frees it. One of ten thousand routes takes milliseconds, which no worker has to
//! spare for it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use shoal_model::ConfigView;

/// Between two looks at who still reads it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Who reads it for longer frees it himself. Workers and checks of health look several times a second for a newer one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Frees `site` once nobody else has it, on a thread of its own.
pub(crate) fn let_go(site: Arc<ConfigView>) {
    // Where there can be no thread it is freed here, or by whoever reads it last.
    _ = thread::Builder::new().name("spent site".to_owned()).spawn(move || {
        let started = Instant::now();
        while Arc::strong_count(&site) > 1 && started.elapsed() < PATIENCE {
            thread::sleep(LOOK_EVERY);
        }
    });
}
