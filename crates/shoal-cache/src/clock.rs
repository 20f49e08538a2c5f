//! The clocks.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use shoal_model::units::millis_u64;
use shoal_policy::cache::trust::Moment;

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1000 + u64::from(since.subsec_millis())
}

/// Milliseconds by a clock that nobody sets.
pub(crate) fn steady_ms() -> u64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    millis_u64(BEGIN.elapsed())
}

/// Now, by both.
pub(crate) fn moment() -> Moment {
    Moment { wall_ms: now_ms(), steady_ms: steady_ms() }
}
