//! How much YAML is read.

use serde_saphyr::Options;

/// Largest site file that is read, in bytes.
pub const MAX_SITE_BYTES: usize = 64 << 20;

/// Room for sites of 100,000 objects; the file's size is bounded before.
pub(super) fn reading_options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 20_000_000,
            max_nodes: 10_000_000,
            max_total_scalar_bytes: MAX_SITE_BYTES,
        },
        with_snippet: false,
    }
}
