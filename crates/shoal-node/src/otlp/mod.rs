//! Sends spans to collectors, by OTLP/HTTP in JSON. On the control runtime: what a request leaves behind waits in a bounded
//! queue, and a worker neither sends nor is woken for it.

mod document;
mod post;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use shoal_model::view::CollectorView;
use shoal_proxy::RequestSpan;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Requests whose spans may wait; each has some KiB at most. More are dropped, and counted by the workers.
pub const MAX_WAITING: usize = 4096;
/// How often what waits is sent. Nobody waits for the queue meanwhile, so that filling it wakes nobody.
const SEND_EVERY: Duration = Duration::from_millis(500);
/// Requests in one message.
const MAX_BATCH: usize = 512;

/// What became of spans, by requests.
#[derive(Debug, Default)]
pub struct ExportFigures {
    sent: AtomicU64,
    failed: AtomicU64,
}

impl ExportFigures {
    /// Appends the figures as Prometheus text.
    pub fn render(&self, text: &mut String) {
        let name = "shoal_trace_requests_exported_total";
        let help = "Sampled requests whose spans a collector has taken, or not.";
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for (result, count) in [("sent", &self.sent), ("failed", &self.failed)] {
            _ = writeln!(text, "{name}{{result=\"{result}\"}} {}", count.load(Relaxed));
        }
    }
}

/// Sends what comes through `spans` until nobody can put anything there.
pub async fn export(mut spans: mpsc::Receiver<Box<RequestSpan>>, figures: Arc<ExportFigures>) {
    let mut ticks = interval(SEND_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut waiting: BTreeMap<Arc<CollectorView>, Vec<Box<RequestSpan>>> = BTreeMap::new();
        let mut ended = false;
        for _ in 0..MAX_WAITING {
            match spans.try_recv() {
                Ok(span) => waiting.entry(span.collector.clone()).or_default().push(span),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    ended = true;
                    break;
                }
            }
        }
        // One that hangs holds up the others for its timeout at most.
        let mut sending = JoinSet::new();
        for (collector, spans) in waiting {
            sending.spawn(send(collector, spans, figures.clone()));
        }
        sending.join_all().await;
        if ended {
            return;
        }
    }
}

/// Sends `spans` in batches. After one that failed the rest is not even tried: the next round may have more luck.
#[allow(clippy::vec_box, reason = "they come boxed, and are too large to be moved about")]
async fn send(collector: Arc<CollectorView>, spans: Vec<Box<RequestSpan>>, figures: Arc<ExportFigures>) {
    let mut left = spans.len();
    for batch in spans.chunks(MAX_BATCH) {
        let text = document::of(&collector.service_name, batch);
        match post::post(&collector, text).await {
            Ok(()) => figures.sent.fetch_add(batch.len() as u64, Relaxed),
            Err(error) => {
                let (host, port) = (&collector.host, collector.port);
                tracing::warn!(%host, port, %error, requests = left, "spans were not taken, and are lost");
                figures.failed.fetch_add(left as u64, Relaxed);
                return;
            }
        };
        left -= batch.len();
    }
}

#[cfg(test)]
mod tests;
