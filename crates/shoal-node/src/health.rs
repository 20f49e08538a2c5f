//! From the checkers' events to the facts this node gossips: exceptions only, each with its beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use shoal_cluster::gossip::Gossip;
use shoal_model::view::UpstreamView;
use shoal_model::{ConfigView, EndpointId};
use shoal_policy::health::{Fact, FactState, Reason, Verdict};
use shoal_proxy::{Checker, HealthEvent, Names};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::node::now_ms;

/// How often facts are repeated when nothing happens: silence would mean that nobody checks.
const REPEAT: Duration = Duration::from_secs(5);

/// What this node found out about endpoints.
#[derive(Debug, Default)]
struct Findings {
    verdicts: BTreeMap<EndpointId, (Verdict, u32)>,
    ejected: BTreeMap<EndpointId, u32>,
}

impl Findings {
    fn note(&mut self, event: HealthEvent, now: u32) {
        match event {
            HealthEvent::Verdict { endpoint, verdict } => {
                // Down for another reason is down since it was first.
                let since = match (self.verdicts.get(&endpoint), verdict) {
                    (Some((Verdict::Down(_), since)), Verdict::Down(_)) => *since,
                    _ => now,
                };
                self.verdicts.insert(endpoint, (verdict, since));
            }
            HealthEvent::Unassigned { endpoint } => _ = self.verdicts.remove(&endpoint),
            HealthEvent::Ejected { endpoint } => _ = self.ejected.insert(endpoint, now),
            HealthEvent::Readmitted { endpoint } => _ = self.ejected.remove(&endpoint),
        }
    }

    /// Forgets endpoints that are in none of `upstreams`: nobody tells when traffic to them has ended.
    fn keep_known(&mut self, upstreams: impl FnOnce() -> Vec<Arc<UpstreamView>>) {
        if self.ejected.is_empty() {
            return;
        }
        let upstreams = upstreams();
        let endpoints = upstreams.iter().flat_map(|upstream| &upstream.endpoints);
        let known: BTreeSet<EndpointId> = endpoints.map(|endpoint| endpoint.id).collect();
        self.ejected.retain(|endpoint, _| known.contains(endpoint));
    }

    /// One fact per endpoint: a failed check says more than failed traffic.
    fn facts(&self) -> impl Iterator<Item = Fact> {
        let down = self.verdicts.iter().filter_map(|(endpoint, (verdict, since))| match verdict {
            Verdict::Up => None,
            Verdict::Down(reason) => {
                Some(Fact { endpoint: *endpoint, state: FactState::Down, since: *since, reason: *reason })
            }
        });
        let is_down =
            |endpoint: &EndpointId| matches!(self.verdicts.get(endpoint), Some((Verdict::Down(_), _)));
        let ejected =
            self.ejected.iter().filter(move |(endpoint, _)| !is_down(endpoint)).map(|(endpoint, since)| {
                Fact {
                    endpoint: *endpoint,
                    state: FactState::Ejected,
                    since: *since,
                    reason: Reason::GatewayErrors,
                }
            });
        down.chain(ejected)
    }
}

/// Gossips what the checkers and the workers report, until they are gone.
pub async fn publish(
    gossip: Arc<Gossip>,
    config: Arc<ArcSwap<ConfigView>>,
    names: Arc<Names>,
    mut events: mpsc::Receiver<HealthEvent>,
) {
    let mut findings = Findings::default();
    let mut repeat = tokio::time::interval(REPEAT);
    repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            received = events.recv_many(&mut batch, 256) => {
                if received == 0 {
                    return;
                }
            }
            _ = repeat.tick() => {}
        }
        let now = (now_ms() / 1000) as u32;
        let (view, config) = (gossip.view().load_full(), config.load_full());
        for event in batch.drain(..) {
            tell(event, || names.upstreams(&config));
            findings.note(event, now);
        }
        findings.keep_known(|| names.upstreams(&config));
        let decided = Checker::assigned(&config, &names, &view)
            .all(|endpoint| findings.verdicts.contains_key(&endpoint));
        gossip.publish_facts(findings.facts(), decided.then_some(view.placement_id));
    }
}

/// What this node's own traffic has shown. Verdicts are told when all nodes have agreed on them.
fn tell(event: HealthEvent, upstreams: impl FnOnce() -> Vec<Arc<UpstreamView>>) {
    let (HealthEvent::Ejected { endpoint: id } | HealthEvent::Readmitted { endpoint: id }) = event else {
        return;
    };
    for upstream in upstreams() {
        for endpoint in upstream.endpoints.iter().filter(|endpoint| endpoint.id == id) {
            let (upstream, endpoint) = (&upstream.name, &endpoint.text);
            match event {
                HealthEvent::Ejected { .. } => {
                    tracing::warn!(%upstream, %endpoint, "an endpoint is ejected here: too many requests failed there");
                }
                _ => tracing::info!(%upstream, %endpoint, "an ejected endpoint is used again here"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fact_per_exception() {
        let mut findings = Findings::default();
        let (a, b, c) = (EndpointId(1), EndpointId(2), EndpointId(3));
        let down = Verdict::Down(Reason::ConnectRefused);
        for event in [
            HealthEvent::Verdict { endpoint: a, verdict: Verdict::Up },
            HealthEvent::Verdict { endpoint: b, verdict: down },
            HealthEvent::Ejected { endpoint: b },
            HealthEvent::Ejected { endpoint: c },
        ] {
            findings.note(event, 7);
        }
        let states: Vec<_> = findings.facts().map(|fact| (fact.endpoint, fact.state)).collect();
        assert_eq!(states, [(b, FactState::Down), (c, FactState::Ejected)]);

        findings.note(HealthEvent::Readmitted { endpoint: c }, 8);
        findings.note(HealthEvent::Unassigned { endpoint: b }, 8);
        let states: Vec<_> = findings.facts().map(|fact| (fact.endpoint, fact.state)).collect();
        assert_eq!(states, [(b, FactState::Ejected)]);

        findings.keep_known(Vec::new);
        assert_eq!(findings.facts().count(), 0, "an ejection ends with its endpoint");
    }
}
