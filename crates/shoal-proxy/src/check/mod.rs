//! Active health checks: for the endpoints this node is one of the checkers of, and no others.

mod grpc;
mod probe;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use shoal_cluster::{ClusterView, NodeState, NodeView};
use shoal_model::view::{EndpointView, HealthView};
use shoal_model::{ConfigView, EndpointId};
use shoal_policy::health::{CHECKERS_PER_ENDPOINT, Candidate, assign};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use watch::watch;

use crate::health_event::HealthEvent;
use crate::names::Names;

const USER_AGENT: &str = "shoal-health";
/// Largest head of an answer, bytes.
const MAX_HEAD: usize = 16 << 10;
/// How often the views are looked at for changes; comparing two pointers is all it costs.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a [`Checker`] is built from.
pub struct CheckerSettings {
    /// The site.
    pub config: Arc<ArcSwap<ConfigView>>,
    /// Who else checks.
    pub cluster: Arc<ArcSwap<ClusterView>>,
    /// Where the names of endpoints lead.
    pub names: Arc<Names>,
    /// Where verdicts go.
    pub events: mpsc::Sender<HealthEvent>,
}

/// The health checks of this node. They run on the runtime it was started on, until it is dropped.
pub struct Checker {
    supervisor: JoinHandle<()>,
}

impl Checker {
    /// Starts to check. Must be called on the control runtime.
    pub fn start(settings: CheckerSettings) -> Self {
        Self { supervisor: tokio::spawn(supervise(settings)) }
    }

    /// The endpoints that the local node of `cluster` checks.
    pub fn assigned(
        config: &ConfigView,
        names: &Names,
        cluster: &ClusterView,
    ) -> impl Iterator<Item = EndpointId> + use<> {
        duties(config, names, cluster).into_keys()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// What is checked, and how: a check is only restarted when this changes.
#[derive(Clone, PartialEq)]
struct Duty {
    /// The one that it is checked for; it may be an endpoint of others, too.
    upstream: Arc<str>,
    endpoint: EndpointView,
    health: HealthView,
}

struct Running {
    duty: Duty,
    /// Ends when dropped.
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn supervise(settings: CheckerSettings) {
    let mut running: FxHashMap<EndpointId, Running> = FxHashMap::default();
    let names = &settings.names;
    let mut seen: Option<(Arc<ConfigView>, Arc<ClusterView>, u64)> = None;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let (config, cluster) = (settings.config.load_full(), settings.cluster.load_full());
        let generation = names.generation();
        let same = seen
            .as_ref()
            .is_some_and(|(c, n, g)| Arc::ptr_eq(c, &config) && Arc::ptr_eq(n, &cluster) && *g == generation);
        if same {
            continue;
        }
        let mut duties = duties(&config, names, &cluster);
        seen = Some((config, cluster, generation));
        let gone: Vec<EndpointId> = running.keys().filter(|id| !duties.contains_key(id)).copied().collect();
        for endpoint in gone {
            running.remove(&endpoint);
            if settings.events.send(HealthEvent::Unassigned { endpoint }).await.is_err() {
                return;
            }
        }
        duties.retain(|id, duty| running.get(id).is_none_or(|running| running.duty != *duty));
        for (id, duty) in duties {
            let task = tokio::spawn(watch(duty.clone(), names.clone(), settings.events.clone()));
            running.insert(id, Running { duty, task });
        }
    }
}

/// The endpoints this node checks: one duty each, however many routes lead there.
fn duties(config: &ConfigView, names: &Names, cluster: &ClusterView) -> FxHashMap<EndpointId, Duty> {
    let local = cluster.node(cluster.local);
    let region = local.map(|node| node.region.clone());
    let in_region = |node: &&NodeView| node.is_serving() && Some(&node.region) == region.as_ref();
    let candidates: Vec<Candidate<'_>> = cluster
        .nodes
        .iter()
        .filter(in_region)
        .map(|node| Candidate { id: node.id, zone: &node.zone })
        .collect();
    // A node nobody knows of yet checks for itself; one that was taken out believes the others.
    let is_relieved =
        local.is_some_and(|node| matches!(node.state, NodeState::Cordoned | NodeState::Draining));
    let alone = match is_relieved {
        true => candidates.is_empty(),
        false => candidates.iter().all(|candidate| candidate.id != cluster.local),
    };
    let mut duties = FxHashMap::default();
    for upstream in &names.upstreams(config) {
        let Some(health) = &upstream.health else { continue };
        for endpoint in &upstream.endpoints {
            let checkers = assign(endpoint.id, &candidates, CHECKERS_PER_ENDPOINT);
            if alone || checkers.contains(&cluster.local) {
                let (upstream, health) = (upstream.name.clone(), health.clone());
                duties.insert(endpoint.id, Duty { upstream, endpoint: endpoint.clone(), health });
            }
        }
    }
    duties
}

#[cfg(test)]
mod tests {
    use shoal_model::{NodeId, Revision};

    use super::*;

    fn node(id: u64, region: &str) -> NodeView {
        NodeView { region: region.into(), ..NodeView::serving(NodeId(id)) }
    }

    /// How many checkers the thirty endpoints have in all.
    fn checks(nodes: &[NodeView], health: &str) -> usize {
        let endpoints: Vec<String> = (1..=30).map(|n| format!("\"10.0.0.{n}:80\"")).collect();
        let text = format!(
            "listeners: {{ web: {{ address: \":80\", protocol: http }} }}\n\
             routes: {{ all: {{ upstream: app }} }}\n\
             upstreams: {{ app: {{ endpoints: [{}]{health} }} }}\n",
            endpoints.join(", ")
        );
        let site = shoal_model::site::read_site("site.yaml", &text).unwrap();
        let config = ConfigView::compile(Revision(1), &site).unwrap();
        let view = |local| ClusterView { local, nodes: nodes.to_vec(), ..ClusterView::default() };
        nodes.iter().map(|node| duties(&config, &Names::default(), &view(node.id)).len()).sum()
    }

    #[test]
    fn each_endpoint_has_three_checkers_per_region() {
        let tcp = ", health: { tcp: {} }";
        let near: Vec<NodeView> = (1..=10).map(|id| node(id, "near")).collect();
        assert_eq!(checks(&near, tcp), 30 * 3);
        assert_eq!(checks(&near[..2], tcp), 30 * 2);
        assert_eq!(checks(&near[..1], tcp), 30);
        assert_eq!(checks(&near, ""), 0, "no check is asked for");
        let mut relieved = near.clone();
        (relieved[0].state, relieved[1].state) = (NodeState::Cordoned, NodeState::Draining);
        assert_eq!(checks(&relieved, tcp), 30 * 3, "who was taken out checks nothing");
        assert_eq!(checks(&relieved[..1], tcp), 30, "unless there is nobody else");
        let both: Vec<NodeView> = near.into_iter().chain((11..=15).map(|id| node(id, "far"))).collect();
        assert_eq!(checks(&both, tcp), 30 * 3 * 2);
    }
}
