//! A downstream that does nothing wrong, at a modest rate, beside whatever else goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Request;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::KEEPALIVE;
use crate::client::{Answer, Connection, Speak, empty};

/// Whom it asks.
pub(super) const HOST: &str = "bystander.example";
/// Between two requests.
const PACE: Duration = Duration::from_millis(10);
/// After so many requests it comes anew.
const PER_CONNECTION: usize = 20;

/// It is at work until [`Bystander::finish`].
pub struct Bystander {
    stopping: Arc<AtomicBool>,
    task: JoinHandle<Result<Vec<Duration>>>,
}

/// How long the bystander's answers took, connecting included where it came anew.
pub struct Latencies(Vec<Duration>);

impl Bystander {
    /// Asks `address` for `path`, again and again; the first answer that is not 200 ends it.
    pub fn start(place: &Handle, address: SocketAddr, path: &'static str) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let task = place.spawn(ask(address, path, stopping.clone()));
        Self { stopping, task }
    }

    /// Err = something went wrong for it.
    pub async fn finish(self) -> Result<Latencies> {
        self.stopping.store(true, Relaxed);
        let mut latencies = self.task.await??;
        ensure!(!latencies.is_empty(), "the bystander got no answer");
        latencies.sort_unstable();
        Ok(Latencies(latencies))
    }
}

impl Latencies {
    /// As many per cent took no longer.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        self.percentile(100)
    }
}

async fn ask(address: SocketAddr, path: &str, stopping: Arc<AtomicBool>) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut again = None;
    while !stopping.load(Relaxed) {
        pace.tick().await;
        let mut began = again.take().unwrap_or_else(Instant::now);
        let mut connection = Connection::open(address, Speak::Http1).await?;
        // No later than the node's own clock has begun.
        let mut idle_since = began;
        for nth in 0..PER_CONNECTION {
            if nth > 0 {
                pace.tick().await;
                idle_since = std::mem::replace(&mut began, Instant::now());
            }
            let idle = idle_since.elapsed();
            let answer = match get(&mut connection, path).await {
                // On a busy machine it may come so late that the node has ended the connection by the time that it is sent:
                // whoever has a request that can be repeated comes anew then (RFC 9112 section 9.3.1), and has waited all
                // the while.
                Err(_) if idle >= KEEPALIVE / 2 => {
                    again = Some(began);
                    break;
                }
                answer => answer.with_context(|| format!("the bystander's request {nth} after {idle:?}"))?,
            };
            let text = String::from_utf8_lossy(&answer.body);
            ensure!(answer.status == 200, "the bystander got {} {text:.200}", answer.status);
            latencies.push(began.elapsed());
            if stopping.load(Relaxed) {
                break;
            }
        }
    }
    Ok(latencies)
}

async fn get(connection: &mut Connection, path: &str) -> Result<Answer> {
    connection.send(Request::get(path).header("host", HOST).body(empty())?).await
}
