//! What a listener writes down of its requests, compiled.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::log_format::{LogFormat, LogSubject, parse_format};
use crate::site::{AccessLog, Otlp, Tracing, parse_endpoint};
use crate::units::Period;

/// A share of requests, as a number to compare random ones with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    fn of(share: f64) -> Self {
        // The conversion saturates: 1 is everything.
        Self((share * u64::MAX as f64) as u64)
    }

    /// Whether a request that drew `entropy` is among them.
    pub fn includes(self, entropy: u64) -> bool {
        self.0 == u64::MAX || entropy < self.0
    }
}

/// A compiled access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogView {
    /// How a line is written.
    pub format: LogFormat,
    /// The file; `None` = the node's standard error.
    pub path: Option<Arc<Path>>,
    /// Which requests have a line.
    pub sample: Share,
}

impl AccessLogView {
    pub(super) fn compile(log: &AccessLog, subject: LogSubject) -> Self {
        let format = log.format.as_deref().map(|format| parse_format(format, subject));
        Self {
            format: format.transpose().expect("validated").unwrap_or_default(),
            path: log.path.as_ref().map(|path| Path::new(path).into()),
            sample: Share::of(log.sample.unwrap_or(1.0)),
        }
    }
}

/// Compiled tracing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingView {
    /// For which requests without a trace one is begun.
    pub sample: Share,
    /// Who is sent the spans of sampled requests.
    pub collector: Option<Arc<CollectorView>>,
}

impl TracingView {
    pub(super) fn compile(tracing: &Tracing) -> Self {
        Self {
            sample: Share::of(tracing.sample.unwrap_or(0.0)),
            collector: tracing.otlp.as_ref().map(|otlp| Arc::new(CollectorView::compile(otlp))),
        }
    }
}

/// A compiled collector of spans.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CollectorView {
    /// Name or address, without brackets.
    pub host: Box<str>,
    /// Where it listens.
    pub port: u16,
    /// Where it takes traces.
    pub path: Box<str>,
    /// `service.name` of the spans.
    pub service_name: Box<str>,
    /// Time for one batch to be taken.
    pub timeout: Duration,
}

impl CollectorView {
    fn compile(otlp: &Otlp) -> Self {
        let address = parse_endpoint(&otlp.endpoint).expect("validated");
        Self {
            host: address.host.into(),
            port: address.port,
            path: address.path.into(),
            service_name: otlp.service_name.as_deref().unwrap_or("shoal").into(),
            timeout: otlp.timeout.unwrap_or(Period::seconds(5)).0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shares() {
        let check = |share: f64, entropy: u64, included: bool| {
            assert_eq!(Share::of(share).includes(entropy), included, "{share} {entropy}");
        };
        check(0.0, 0, false);
        check(0.5, u64::MAX / 2 - 1000, true);
        check(0.5, u64::MAX / 2 + 1000, false);
        check(1.0, u64::MAX, true);
    }
}
