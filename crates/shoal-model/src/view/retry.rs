//! When a request is sent again, with the defaults filled in.

use std::time::Duration;

use crate::site::{RetryOn, RetryRule};

/// Tries of one request, the first included, where nothing else is written.
const DEFAULT_ATTEMPTS: u32 = 3;
/// How much of a body is kept where a rule is written, bytes.
const DEFAULT_REPLAY_BYTES: usize = 64 << 10;

/// A compiled rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryView {
    /// When no connection came about.
    pub on_connect_failure: bool,
    /// When the connection was lost before the answer began.
    pub on_reset: bool,
    /// When the answer has one of these; in order.
    pub on_status: Vec<u16>,
    /// Tries of one request, the first included.
    pub attempts: u32,
    /// From the start of a try to its response head.
    pub per_try_timeout: Option<Duration>,
    /// Methods that may be sent twice; `None` = the idempotent ones.
    pub methods: Option<Vec<Box<str>>>,
    /// How much of a request body is kept for another try, bytes.
    pub max_replay_bytes: usize,
}

impl RetryView {
    /// `rule` with the defaults filled in.
    pub fn compile(rule: Option<&RetryRule>) -> Self {
        let max_replay_bytes = if rule.is_some() { DEFAULT_REPLAY_BYTES } else { 0 };
        let rule = rule.cloned().unwrap_or_default();
        let on = rule.on.unwrap_or_else(|| vec![RetryOn::ConnectFailure, RetryOn::Reset]);
        let mut on_status = Vec::new();
        for on in &on {
            match on {
                RetryOn::GatewayError => on_status.extend(502..=504),
                RetryOn::Status(status) => on_status.push(*status),
                RetryOn::ConnectFailure | RetryOn::Reset => {}
            }
        }
        on_status.sort_unstable();
        on_status.dedup();
        Self {
            on_connect_failure: on.contains(&RetryOn::ConnectFailure),
            on_reset: on.contains(&RetryOn::Reset),
            on_status,
            attempts: rule.attempts.unwrap_or(DEFAULT_ATTEMPTS),
            per_try_timeout: rule.per_try_timeout.map(|period| period.0),
            methods: rule.methods.map(|methods| methods.into_iter().map(Into::into).collect()),
            max_replay_bytes: rule.max_replay_bytes.map_or(max_replay_bytes, |size| size.0 as usize),
        }
    }
}
