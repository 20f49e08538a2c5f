//! When requests of a listener are refused, with the defaults.

use std::time::Duration;

use crate::site::Overload;
use crate::units::Period;

/// Compiled limits of what a node takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverloadView {
    /// How long what is ready to go on may wait for its worker; zero = for ever.
    pub max_queue_delay: Duration,
    /// Bytes of memory; `None` = what the control group may have.
    pub max_memory: Option<u64>,
}

impl OverloadView {
    pub(super) fn compile(written: Option<&Overload>) -> Self {
        let written = written.cloned().unwrap_or_default();
        Self {
            max_queue_delay: written.max_queue_delay.unwrap_or(Period::seconds(1)).0,
            max_memory: written.max_memory.map(|size| size.0),
        }
    }
}
