//! What a node knows of itself and of the others, told on its log: SIGQUIT asks for it.

use shoal_cluster::health::{Opinion, Says};
use shoal_cluster::{ClusterView, NodeView};
use shoal_model::view::EndpointView;
use shoal_policy::health::Availability;

use crate::admin::is_ejected_here;
use crate::node::Node;
use crate::process_figures::ProcessFigures;

/// Lines of one kind; what is beyond is only counted.
const MAX_LINES: usize = 100;

impl Node {
    /// Writes everything down, a line for each thing. Waits for the kernel, which counts descriptors.
    pub fn tell_state(&self) {
        self.tell_process();
        self.tell_log();
        self.tell_traffic();
        let view = self.gossip.view().load_full();
        tell_each("member", &view.nodes, tell_member);
        tell_each("listener", &self.proxy.connections_by_listener(), |(name, address, connections)| {
            tracing::info!(%name, %address, connections, "state: listener");
        });
        self.tell_upstreams(&view);
        tracing::info!("state: that was all");
    }

    fn tell_process(&self) {
        let figures = ProcessFigures::read();
        tracing::info!(
            node = %self.id(),
            name = self.identity.name,
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            uptime_seconds = self.started.elapsed().as_secs(),
            serves = self.has_started(),
            draining = self.is_draining(),
            removed = self.removed.is_cancelled(),
            resident_bytes = figures.resident_bytes,
            descriptors = figures.open_fds,
            "state: process"
        );
    }

    fn tell_log(&self) {
        let (log, activation) = (self.log.status(), self.activation.borrow().clone());
        let known = self.log.with_state(|state| state.revisions.active().0);
        let unconfirmed = self.waiting_rollout().map(|(rollout, _)| rollout.revision.0);
        let leader = log.leader.map(|leader| leader.to_string());
        let refused = activation.refused.map(|(revision, why)| format!("{revision}: {why}"));
        tracing::info!(
            term = log.term,
            leader,
            quorum = log.quorum,
            committed = log.committed,
            applied = *self.log.applied().borrow(),
            revision_known = known.0,
            revision_served = activation.active.0,
            revision_unconfirmed = unconfirmed,
            refused,
            broken = log.broken,
            stale_seconds = log.staleness.as_secs(),
            "state: log"
        );
    }

    fn tell_traffic(&self) {
        let (figures, cache) = (self.proxy.figures(), self.cache.counters());
        tracing::info!(
            requests = figures.requests,
            in_flight = figures.in_flight,
            open_connections = figures.open_connections,
            "state: traffic"
        );
        tracing::info!(
            objects = cache.objects,
            bytes = cache.bytes,
            budget_bytes = cache.budget_bytes,
            hits = cache.hits,
            misses = cache.misses,
            purge_seq = cache.purge_seq,
            lease = self.cache.has_lease(),
            "state: cache"
        );
    }

    fn tell_upstreams(&self, view: &ClusterView) {
        let config = self.config.load_full();
        let upstreams = self.proxy.names().upstreams(&config);
        tell_each("upstream", &upstreams, |upstream| {
            let count =
                |is: &dyn Fn(&EndpointView) -> bool| upstream.endpoints.iter().filter(|one| is(one)).count();
            let down = count(&|endpoint| view.availability(endpoint.id) == Availability::Down);
            let ejected = count(&|endpoint| is_ejected_here(self, endpoint.id));
            tracing::info!(name = %upstream.name, endpoints = upstream.endpoints.len(), down, ejected, "state: upstream");
        });
        let mut facts = Vec::new();
        for upstream in &upstreams {
            for endpoint in &upstream.endpoints {
                let is_fact = |opinion: &Opinion| matches!(opinion.says, Says::Fact(_));
                let of_it = self.gossip.opinions(endpoint.id).into_iter().filter(is_fact);
                facts.extend(of_it.map(|fact| (upstream, endpoint, fact)));
            }
        }
        tell_each("endpoint", &facts, |(upstream, endpoint, fact)| {
            let (upstream, endpoint, by) = (&upstream.name, &endpoint.text, fact.node);
            let (says, since, why) = (fact.says, fact.since, fact.reason);
            tracing::info!(%upstream, %endpoint, %by, %says, since, why, "state: endpoint");
        });
        tell_each("name", &self.proxy.names().failures(&config), |failure| {
            let (upstream, endpoint, why) = (&failure.upstream, &failure.endpoint, &failure.why);
            tracing::info!(%upstream, %endpoint, why, kept = failure.kept, "state: name that is not found");
        });
        tell_each("access log", &self.proxy.broken_access_logs(), |(path, why)| {
            tracing::info!(?path, why, "state: access log that cannot be written to");
        });
    }
}

fn tell_member(member: &NodeView) {
    tracing::info!(
        node = %member.id,
        name = %member.name,
        address = %member.cluster_addr,
        state = ?member.state,
        heard = member.alive,
        revision = member.active_revision,
        applied = member.applied_index,
        version = %member.version,
        "state: member"
    );
}

/// A line for each, up to [`MAX_LINES`].
fn tell_each<T>(what: &str, all: &[T], tell: impl FnMut(&T)) {
    all.iter().take(MAX_LINES).for_each(tell);
    if let Some(further @ 1..) = all.len().checked_sub(MAX_LINES) {
        tracing::info!(what, further, "state: further ones that are not listed");
    }
}
