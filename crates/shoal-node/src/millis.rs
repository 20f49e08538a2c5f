//! Lengths of time as messages tell them: whole milliseconds, and the most there are where a length does not fit.

use std::time::Duration;

/// For a field of 32 bits: 49 days at the most.
pub fn millis_u32(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// For a field of 64 bits.
pub fn millis_u64(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
