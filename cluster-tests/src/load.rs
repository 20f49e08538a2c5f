//! A bounded closed loop of clients that checks every byte it gets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::HOST;
use crate::client::{Answer, Connection, Speak, empty};
use crate::cluster::Cluster;
use crate::node::Ports;

/// Between two requests of one client: a story measures faults, not speed, and shares two cores with its cluster.
const PACE: Duration = Duration::from_millis(15);
/// Faults whose text is kept.
const KEPT_FAULTS: usize = 20;

/// What the clients of a load speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tongue {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// The same, with unary calls of gRPC: what is expected is the message.
    Grpc,
}

/// A message as gRPC frames it: not compressed, and so long.
pub fn grpc_message(content: &[u8]) -> Bytes {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(content);
    framed.into()
}

/// What happened on one target.
#[derive(Debug, Default)]
pub struct TargetReport {
    /// Answers that were right.
    pub good: AtomicU64,
    /// Answers with a status other than 200.
    pub non_2xx: AtomicU64,
    /// Answers whose content was not what it should be.
    pub wrong_bytes: AtomicU64,
    /// Connections that broke after they had carried an answer.
    pub broken: AtomicU64,
    /// Connections that were opened and broke before their first answer: the kernel accepts for a process that is
    /// just dying.
    pub stillborn: AtomicU64,
    /// Connections that could not be opened.
    pub refused: AtomicU64,
    faults: Mutex<Vec<String>>,
}

/// What happened in all.
pub struct LoadReport {
    /// In the order of the targets given.
    pub targets: Vec<Arc<TargetReport>>,
}

/// Clients at work until [`Load::finish`].
pub struct Load {
    report: LoadReport,
    stopping: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

/// The content a path should have; none = do not look.
type Expected = dyn Fn(&str) -> Option<Bytes> + Send + Sync;

struct Client {
    targets: Vec<(SocketAddr, Arc<TargetReport>)>,
    home: usize,
    host: Arc<str>,
    paths: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
    expected: Arc<Expected>,
    stopping: Arc<AtomicBool>,
    tongue: Tongue,
}

impl Load {
    /// `clients` clients per target walk through `paths`. A client whose target refuses connections goes to the next
    /// target, as a browser does with a name of several addresses.
    pub fn start(
        targets: &[SocketAddr],
        clients: usize,
        host: &str,
        paths: Vec<String>,
        expected: impl Fn(&str) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Self {
        Self::start_in(Tongue::Http1, targets, clients, host, paths, expected)
    }

    /// Four clients of every node of `cluster` ask for `/` of [`HOST`], whatever the content is.
    pub fn on_all(cluster: &Cluster) -> Self {
        let targets: Vec<_> = cluster.nodes.iter().map(|node| node.at(Ports::HTTP)).collect();
        Self::start(&targets, 4, HOST, vec!["/".to_owned()], |_| None)
    }

    /// The same in another tongue. A request that the other side has not taken up, since it wants no more of them on this
    /// connection, is asked again.
    pub fn start_in(
        tongue: Tongue,
        targets: &[SocketAddr],
        clients: usize,
        host: &str,
        paths: Vec<String>,
        expected: impl Fn(&str) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Self {
        let reports: Vec<Arc<TargetReport>> = targets.iter().map(|_| Arc::default()).collect();
        let shared: Vec<_> = targets.iter().copied().zip(reports.iter().cloned()).collect();
        let (stopping, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (paths, expected): (_, Arc<Expected>) = (Arc::new(paths), Arc::new(expected));
        let mut tasks = JoinSet::new();
        for home in (0..targets.len()).cycle().take(clients * targets.len()) {
            let client = Client {
                targets: shared.clone(),
                home,
                host: host.into(),
                paths: paths.clone(),
                next: next.clone(),
                expected: expected.clone(),
                stopping: stopping.clone(),
                tongue,
            };
            tasks.spawn(client.run());
        }
        Self { report: LoadReport { targets: reports }, stopping, clients: tasks }
    }

    /// Right answers so far, over all targets.
    pub fn good(&self) -> u64 {
        self.report.good()
    }

    /// What happened so far.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// Lets every client end its exchange and says what happened.
    pub async fn finish(mut self) -> LoadReport {
        self.stopping.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        std::mem::replace(&mut self.report, LoadReport { targets: Vec::new() })
    }
}

impl Client {
    async fn run(mut self) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.stopping.load(Ordering::Relaxed) {
            let (address, report) = self.targets[self.home].clone();
            let speak = if self.tongue == Tongue::Http1 { Speak::Http1 } else { Speak::Http2 };
            match Connection::open(address, speak).await {
                Ok(connection) => self.use_up(connection, &report, &mut pace).await,
                Err(error) => {
                    report.refused.fetch_add(1, Ordering::Relaxed);
                    report.keep(format!("{address}: {error:#}"));
                    self.home = (self.home + 1) % self.targets.len();
                    pace.tick().await;
                }
            }
        }
    }

    /// Sends requests until the connection ends, politely (between two requests, which is no fault) or not.
    async fn use_up(&self, mut connection: Connection, report: &TargetReport, pace: &mut Interval) {
        let mut fault = &report.stillborn;
        while !self.stopping.load(Ordering::Relaxed) {
            pace.tick().await;
            if !connection.is_usable().await {
                return;
            }
            let path = &self.paths[self.next.fetch_add(1, Ordering::Relaxed) % self.paths.len()];
            let Ok(request) = self.request(path) else {
                return report.keep(format!("{path:?} is not a path"));
            };
            match connection.send(request).await {
                Ok(answer) => {
                    fault = &report.broken;
                    report.judge(path, &answer, self.expect(path));
                    if answer.field("connection").eq_ignore_ascii_case("close") {
                        return;
                    }
                }
                Err(error) if self.tongue != Tongue::Http1 && was_never_taken_up(&error) => return,
                Err(error) => {
                    fault.fetch_add(1, Ordering::Relaxed);
                    return report.keep(format!("{path}: {error:#}"));
                }
            }
        }
    }

    fn request(&self, path: &str) -> http::Result<Request<BoxBody<Bytes, anyhow::Error>>> {
        let host = &*self.host;
        match self.tongue {
            Tongue::Http1 => Request::get(path).header("host", host).body(empty()),
            Tongue::Http2 => Request::get(format!("http://{host}{path}")).body(empty()),
            Tongue::Grpc => {
                let message = Full::new(grpc_message(path.as_bytes())).map_err(|never| match never {});
                Request::post(format!("http://{host}{path}"))
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .body(message.boxed())
            }
        }
    }

    fn expect(&self, path: &str) -> Option<Bytes> {
        let expected = (self.expected)(path)?;
        Some(if self.tongue == Tongue::Grpc { grpc_message(&expected) } else { expected })
    }
}

/// The connection was told to end before the request was on it, or above the last stream that it takes: nobody has seen it, and
/// it may be asked again (RFC 9113 §6.8). What was taken up and then lost ends with another error.
fn was_never_taken_up(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let by_hyper = cause.downcast_ref::<hyper::Error>();
        let by_h2 = cause.downcast_ref::<h2::Error>();
        by_hyper.is_some_and(|error| error.is_canceled() || error.is_closed())
            || by_h2.is_some_and(|error| {
                error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
            })
    })
}

impl TargetReport {
    fn judge(&self, path: &str, answer: &Answer, expected: Option<Bytes>) {
        let counter = if answer.status != 200 {
            let text = String::from_utf8_lossy(&answer.body);
            self.keep(format!("{path}: {} {} {text:.200}", answer.status, answer.cache_status()));
            &self.non_2xx
        } else if answer.field("content-type") == "application/grpc"
            && answer.trailers.get("grpc-status").is_none_or(|status| status != "0")
        {
            self.keep(format!("{path}: ended with {:?}", answer.trailers));
            &self.wrong_bytes
        } else if expected.is_some_and(|expected| expected != answer.body) {
            self.keep(format!("{path}: {} other bytes ({})", answer.body.len(), answer.cache_status()));
            &self.wrong_bytes
        } else {
            &self.good
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps the text of the first faults, for the message of the story.
    fn keep(&self, fault: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < KEPT_FAULTS {
            faults.push(fault);
        }
    }

    /// Non-2xx and wrong bytes: what must never happen.
    pub fn wrong(&self) -> u64 {
        self.non_2xx.load(Ordering::Relaxed) + self.wrong_bytes.load(Ordering::Relaxed)
    }

    /// Requests were answered, and none otherwise than it should be.
    pub fn is_faultless(&self) -> bool {
        self.good.load(Ordering::Relaxed) > 0 && self.wrong() + self.connection_errors() == 0
    }

    /// Broken, stillborn and refused connections.
    pub fn connection_errors(&self) -> u64 {
        [&self.broken, &self.stillborn, &self.refused]
            .map(|counter| counter.load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    /// The first faults, one a line.
    pub fn faults(&self) -> String {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl LoadReport {
    /// Right answers, over all targets.
    pub fn good(&self) -> u64 {
        self.targets.iter().map(|target| target.good.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Origin, Reply, pattern};
    use crate::wait::wait_until;

    #[tokio::test]
    async fn faults_are_counted_where_they_happen() {
        let good = Origin::of_patterns(100, "no-store").await.unwrap();
        let bad = Origin::start(|_| Reply::ok("no").status(503)).await.unwrap();
        let wrong = Origin::start(|_| Reply::ok("other")).await.unwrap();
        let gone = Origin::start(|_| Reply::ok("")).await.unwrap().stop().await;
        let targets = [good.address(), bad.address(), wrong.address(), gone];
        let load = Load::start(&targets, 1, "o", vec!["/a".into()], |path| Some(pattern(path, 100)));
        wait_until("every target was asked", Duration::from_secs(10), async || {
            load.report().targets.iter().all(|target| {
                target.good.load(Ordering::Relaxed) + target.wrong() + target.connection_errors() > 0
            })
        })
        .await
        .unwrap();
        let report = load.finish().await.targets;
        assert_eq!((report[0].wrong(), report[0].connection_errors()), (0, 0), "{}", report[0].faults());
        assert!(report[1].non_2xx.load(Ordering::Relaxed) > 0);
        assert!(report[2].wrong_bytes.load(Ordering::Relaxed) > 0);
        assert!(report[3].refused.load(Ordering::Relaxed) > 0);
    }
}
