//! Names of endpoints, and what they lead to now: looked up on the control runtime, once for all workers.

mod look_up;
mod watch;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustc_hash::{FxHashMap, FxHashSet};
use shoal_model::ConfigView;
use shoal_model::view::{EndpointAddress, EndpointView, ResolverView, UpstreamView};
use shoal_policy::discovery::{Part, Settled, expand, next_look_up, settle};
use tokio::runtime::Handle;
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;

use crate::metrics;

/// A name does not lead anywhere: it was asked for, and has no address.
#[derive(Debug, thiserror::Error)]
#[error("a name leads nowhere: {0}")]
pub(crate) struct Nowhere(String);

/// A name that is looked up in some way.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    wanted: Wanted,
    resolver: Arc<ResolverView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    /// Its addresses.
    Host(Box<str>),
    /// Its hosts, their ports and their addresses.
    Service(Box<str>),
}

impl Question {
    /// What has to be asked for `address`, if anything.
    fn of(address: &EndpointAddress, resolver: &Arc<ResolverView>) -> Option<Self> {
        let wanted = match address {
            EndpointAddress::Name { host, .. } => Wanted::Host(host.clone()),
            EndpointAddress::Service(name) => Wanted::Service(name.clone()),
            EndpointAddress::Socket(_) | EndpointAddress::Unix(_) | EndpointAddress::Found { .. } => {
                return None;
            }
        };
        Some(Self { wanted, resolver: resolver.clone() })
    }

    fn name(&self) -> &str {
        match &self.wanted {
            Wanted::Host(name) | Wanted::Service(name) => name,
        }
    }
}

/// What is known of a name.
#[derive(Default)]
struct Finding {
    settled: Settled,
    /// Look-ups that have ended: well, and not well.
    ended: [u64; 2],
    /// Look-ups in a row that did not end well.
    failures: u32,
    failing_since_unix: u64,
}

impl Finding {
    fn is_answered(&self) -> bool {
        self.ended != [0, 0]
    }
}

/// A name that cannot be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameFailure {
    /// The upstream that it is an endpoint of.
    pub upstream: Arc<str>,
    /// The endpoint, as written.
    pub endpoint: Arc<str>,
    /// What went wrong last.
    pub why: String,
    /// Since when, Unix seconds.
    pub since_unix: u64,
    /// Addresses that are used all the same, because they were good once.
    pub kept: usize,
}

/// What the names of endpoints lead to. Read by every worker and by the health checks.
#[derive(Default)]
pub struct Names {
    findings: Mutex<FxHashMap<Question, Finding>>,
    /// Grows when a name leads somewhere else.
    generation: AtomicU64,
    /// Fires when a look-up has ended.
    ended: Sender<()>,
    /// Which address is next, where one is wanted.
    turn: AtomicUsize,
}

impl Names {
    /// The upstreams of `config` with the endpoints that their names lead to.
    pub fn upstreams(&self, config: &ConfigView) -> Vec<Arc<UpstreamView>> {
        config.upstreams.iter().map(|upstream| self.expand(upstream)).collect()
    }

    /// Every name of `config` that cannot be looked up.
    pub fn failures(&self, config: &ConfigView) -> Vec<NameFailure> {
        let mut failures = Vec::new();
        self.each_name(config, |upstream, endpoint, finding| {
            if let Some(why) = &finding.settled.trouble {
                failures.push(NameFailure {
                    upstream: upstream.name.clone(),
                    endpoint: endpoint.text.clone(),
                    why: why.clone(),
                    since_unix: finding.failing_since_unix,
                    kept: finding.settled.records.len(),
                });
            }
        });
        failures
    }

    /// Changes when any name leads somewhere else.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// `upstream` with the endpoints that its names lead to; itself if it has none. A name that was not found yet stays.
    pub(crate) fn expand(&self, upstream: &Arc<UpstreamView>) -> Arc<UpstreamView> {
        if !has_names(upstream) {
            return upstream.clone();
        }
        let findings = self.findings();
        let endpoints = expand(upstream, |address| {
            let question = Question::of(address, &upstream.resolver);
            let finding = question.and_then(|question| findings.get(&question));
            finding.map_or_else(Vec::new, |finding| finding.settled.records.clone())
        });
        drop(findings);
        Arc::new(UpstreamView { endpoints, ..UpstreamView::clone(upstream) })
    }

    /// One of the addresses that the name of `address` leads to; several take turns. Waits for the end of its first look-up,
    /// and for nothing else.
    pub(crate) async fn address_of(
        &self,
        address: &EndpointAddress,
        resolver: &Arc<ResolverView>,
    ) -> Result<SocketAddr, Nowhere> {
        let Some(question) = Question::of(address, resolver) else {
            return Err(Nowhere("it is no name".to_owned()));
        };
        let mut ended = self.ended.subscribe();
        loop {
            if let Some(led) = self.lead(&question, address) {
                return led;
            }
            if ended.changed().await.is_err() {
                return Err(Nowhere("nobody looks it up".to_owned()));
            }
        }
    }

    /// Where the name leads; `None` = that is not known yet.
    fn lead(&self, question: &Question, address: &EndpointAddress) -> Option<Result<SocketAddr, Nowhere>> {
        let findings = self.findings();
        let finding = findings.get(question).filter(|finding| finding.is_answered())?;
        let records = &finding.settled.records;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let Some(record) = records.get(turn % records.len().max(1)) else {
            return Some(Err(Nowhere(finding.settled.trouble.clone().unwrap_or_default())));
        };
        let port = match address {
            EndpointAddress::Name { port, .. } => *port,
            _ => record.port.unwrap_or_default(),
        };
        Some(Ok(SocketAddr::new(record.ip, port)))
    }

    /// Takes in the end of a look-up; answers with the time until the next one. `None` = nobody wants to know any more.
    fn learn(&self, question: &Question, parts: Vec<Part>, entropy: u64) -> Option<Duration> {
        let mut findings = self.findings();
        let finding = findings.get_mut(question)?;
        let settled = settle(&finding.settled.records, parts);
        let moved = !finding.is_answered() || settled.records != finding.settled.records;
        let is_well = settled.trouble.is_none();
        tell(question, finding, &settled);
        finding.ended[usize::from(!is_well)] += 1;
        if finding.failures == 0 {
            finding.failing_since_unix = unix_now();
        }
        finding.failures = if is_well { 0 } else { finding.failures.saturating_add(1) };
        let pause = next_look_up(&settled, finding.failures, &question.resolver, entropy);
        finding.settled = settled;
        drop(findings);
        if moved {
            self.generation.fetch_add(1, Ordering::Release);
        }
        self.ended.send_replace(());
        Some(pause)
    }

    /// Appends what is known of every name in `config`.
    pub(crate) fn render(&self, config: &ConfigView, out: &mut String) {
        let (mut addresses, mut failing, mut look_ups) = (Vec::new(), Vec::new(), Vec::new());
        self.each_name(config, |upstream, endpoint, finding| {
            let (upstream, name) = (metrics::escape(&upstream.name), metrics::escape(&endpoint.text));
            let labels = format!("upstream=\"{upstream}\",endpoint=\"{name}\"");
            for (outcome, count) in ["ok", "failed"].into_iter().zip(finding.ended) {
                look_ups.push((format!("{labels},outcome=\"{outcome}\""), count));
            }
            failing.push((labels.clone(), u64::from(finding.failures > 0)));
            addresses.push((labels, finding.settled.records.len() as u64));
        });
        for (metric, form, help, lines) in [
            ("shoal_name_addresses", "gauge", "Addresses that the name of an endpoint leads to.", addresses),
            ("shoal_name_failing", "gauge", "1 while the name of an endpoint cannot be looked up.", failing),
            ("shoal_name_look_ups_total", "counter", "Look-ups of the name of an endpoint.", look_ups),
        ] {
            metrics::head(out, metric, form, help);
            for (labels, value) in lines {
                metrics::line(out, metric, &labels, value);
            }
        }
    }

    fn each_name(&self, config: &ConfigView, mut see: impl FnMut(&UpstreamView, &EndpointView, &Finding)) {
        let findings = self.findings();
        for upstream in &config.upstreams {
            for endpoint in &upstream.endpoints {
                let question = Question::of(&endpoint.address, &upstream.resolver);
                if let Some(finding) = question.and_then(|question| findings.get(&question)) {
                    see(upstream, endpoint, finding);
                }
            }
        }
    }

    fn findings(&self) -> MutexGuard<'_, FxHashMap<Question, Finding>> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some endpoint of it has to be looked up.
pub(crate) fn has_names(upstream: &UpstreamView) -> bool {
    upstream.endpoints.iter().any(|endpoint| endpoint.address.is_name())
}

/// One line for each change: it cannot be looked up, it can again, it leads elsewhere.
fn tell(question: &Question, before: &Finding, settled: &Settled) {
    let (name, kept) = (question.name(), settled.records.len());
    match (&settled.trouble, before.failures > 0) {
        (Some(why), false) if kept == 0 => {
            tracing::warn!(name, why, "a name cannot be looked up, and leads nowhere");
        }
        (Some(why), false) => {
            tracing::warn!(
                name,
                why,
                kept,
                "a name cannot be looked up: its last good addresses stay in use"
            );
        }
        (None, true) => tracing::info!(name, addresses = kept, "a name can be looked up again"),
        (None, false) if before.is_answered() && settled.records != before.settled.records => {
            tracing::info!(
                name,
                addresses = kept,
                before = before.settled.records.len(),
                "a name leads elsewhere"
            );
        }
        _ => {}
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The look-ups of a node. They end when it is dropped.
pub(crate) struct Discovery {
    names: Arc<Names>,
    runtime: Handle,
    running: Mutex<FxHashMap<Question, Running>>,
}

/// Ends when dropped.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Discovery {
    /// Look-ups that run on `runtime`; none yet.
    pub(crate) fn on(runtime: Handle) -> Self {
        Self { names: Arc::default(), runtime, running: Mutex::default() }
    }

    pub(crate) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Looks up the names of `config` at once, though their answers are not old, and answers how many there are.
    pub(crate) fn look_up_again(&self, config: &ConfigView) -> usize {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.follow(config);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Looks up the names of `config` from now on, and no others. What was known before stays known.
    pub(crate) fn follow(&self, config: &ConfigView) {
        let questions = config.upstreams.iter().flat_map(|upstream| {
            upstream
                .endpoints
                .iter()
                .filter_map(|endpoint| Question::of(&endpoint.address, &upstream.resolver))
        });
        let wanted: FxHashSet<Question> = questions.collect();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|question, _| wanted.contains(question));
        self.names.findings().retain(|question, _| wanted.contains(question));
        for question in wanted {
            running.entry(question.clone()).or_insert_with(|| {
                self.names.findings().entry(question.clone()).or_default();
                Running(self.runtime.spawn(watch::watch(question, self.names.clone())))
            });
        }
    }
}
