//! What an operator reads in the log, once for each change: members, the leader, the quorum, endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cluster::{ClusterView, NodeState};
use shoal_configlog::LogStatus;
use shoal_model::view::UpstreamView;
use shoal_model::{EndpointId, NodeId};
use shoal_policy::health::Availability;
use tokio::time::MissedTickBehavior;

use crate::node::Node;

/// Between two looks: what changes and changes back within it is no news.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A node that has just started is not yet without a quorum: it has not found it.
const QUORUM_GRACE: Duration = Duration::from_secs(5);

/// Looks and tells, for as long as it is polled.
pub async fn tell(node: Arc<Node>) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Known::default();
    loop {
        looks.tick().await;
        let (view, config) = (node.gossip.view().load_full(), node.config.load_full());
        let upstreams = node.proxy.names().upstreams(&config);
        let scene = Scene {
            view: &view,
            upstreams: &upstreams,
            log: &node.log.status(),
            uptime: node.started.elapsed(),
        };
        for news in known.compare(&scene, Instant::now()) {
            news.log();
        }
    }
}

/// What is looked at.
struct Scene<'a> {
    view: &'a ClusterView,
    upstreams: &'a [Arc<UpstreamView>],
    log: &'a LogStatus,
    uptime: Duration,
}

/// What was told last.
#[derive(Default)]
struct Known {
    members: BTreeMap<NodeId, (Presence, Instant)>,
    leader: Option<(NodeId, u64)>,
    quorum: Option<(bool, Instant)>,
    /// Endpoints that are not plainly up, and since when.
    endpoints: BTreeMap<EndpointId, (Availability, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Not since this process began: nothing but what others tell of it.
    Unmet,
    Heard,
    Silent,
    Left,
}

/// One change.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Member { id: NodeId, name: String, presence: Presence, before: Option<(Presence, Duration)> },
    Leader { id: NodeId, name: String, term: u64 },
    Quorum { there: bool, after: Duration },
    Endpoint { upstream: String, endpoint: String, availability: Availability, after: Option<Duration> },
}

impl Known {
    /// What is different from the last time.
    fn compare(&mut self, scene: &Scene<'_>, now: Instant) -> Vec<News> {
        let mut news = self.members(scene.view, now);
        news.extend(self.leader(scene));
        news.extend(self.quorum(scene, now));
        news.extend(self.endpoints(scene, now));
        news
    }

    fn members(&mut self, view: &ClusterView, now: Instant) -> Vec<News> {
        let mut news = Vec::new();
        self.members.retain(|id, _| view.node(*id).is_some());
        for node in view.nodes.iter().filter(|node| node.id != view.local) {
            let presence = match (node.state, node.alive) {
                (NodeState::Left, _) => Presence::Left,
                (_, true) => Presence::Heard,
                (_, false) => Presence::Silent,
            };
            let before = self.members.get(&node.id).copied();
            let is_unmet = before.is_none_or(|(before, _)| before == Presence::Unmet);
            let presence = if is_unmet && presence != Presence::Heard { Presence::Unmet } else { presence };
            if before.is_some_and(|(before, _)| before == presence) {
                continue;
            }
            self.members.insert(node.id, (presence, now));
            if presence != Presence::Unmet {
                let before =
                    before.filter(|_| !is_unmet).map(|(before, since)| (before, now.duration_since(since)));
                news.push(News::Member { id: node.id, name: node.name.to_string(), presence, before });
            }
        }
        news
    }

    fn leader(&mut self, scene: &Scene<'_>) -> Option<News> {
        let leader = scene.log.leader.filter(|_| scene.log.quorum)?;
        let leads = Some((leader, scene.log.term));
        if self.leader == leads {
            return None;
        }
        self.leader = leads;
        let name = scene.view.node(leader).map(|node| node.name.to_string()).unwrap_or_default();
        Some(News::Leader { id: leader, name, term: scene.log.term })
    }

    fn quorum(&mut self, scene: &Scene<'_>, now: Instant) -> Option<News> {
        let there = scene.log.quorum;
        let after = match self.quorum {
            Some((before, _)) if before == there => return None,
            None if !there && scene.uptime < QUORUM_GRACE => return None,
            Some((_, since)) => now.duration_since(since),
            None => scene.uptime,
        };
        self.quorum = Some((there, now));
        Some(News::Quorum { there, after })
    }

    fn endpoints(&mut self, scene: &Scene<'_>, now: Instant) -> Vec<News> {
        let told = |id: &EndpointId| self.endpoints.get(id).map(|(availability, _)| *availability);
        let same =
            |(id, state): (&EndpointId, &shoal_cluster::EndpointState)| told(id) == Some(state.availability);
        // Exceptions are few, endpoints may be many: these are looked through only when those have changed.
        if self.endpoints.len() == scene.view.endpoints.len() && scene.view.endpoints.iter().all(same) {
            return Vec::new();
        }
        let mut news = Vec::new();
        let mut next = BTreeMap::new();
        for upstream in scene.upstreams {
            for endpoint in &upstream.endpoints {
                let availability = scene.view.availability(endpoint.id);
                let before = self.endpoints.get(&endpoint.id).copied();
                let (old, since) = before.unwrap_or((Availability::Up, now));
                if old != availability {
                    let after = before.map(|(_, since)| now.duration_since(since));
                    let (upstream, endpoint) = (upstream.name.to_string(), endpoint.text.to_string());
                    news.push(News::Endpoint { upstream, endpoint, availability, after });
                }
                if availability != Availability::Up {
                    let since = if old == availability { since } else { now };
                    next.insert(endpoint.id, (availability, since));
                }
            }
        }
        self.endpoints = next;
        news
    }
}

impl News {
    fn log(&self) {
        match self {
            Self::Member { presence: Presence::Unmet, .. } => {}
            Self::Member { id, name, presence: Presence::Silent, before } => {
                let heard_for_s = before.map_or(0, |(_, lasted)| lasted.as_secs());
                tracing::warn!(member = %id, name, heard_for_s, "a member is not heard any more: it is held to be dead");
            }
            Self::Member { id, name, presence: Presence::Left, .. } => {
                tracing::info!(member = %id, name, "a member has left on purpose");
            }
            Self::Member { id, name, presence: Presence::Heard, before: None } => {
                tracing::info!(member = %id, name, "a member is heard");
            }
            Self::Member { id, name, presence: Presence::Heard, before: Some((_, lasted)) } => {
                tracing::info!(member = %id, name, gone_for_s = lasted.as_secs(), "a member is heard again");
            }
            Self::Leader { id, name, term } => {
                tracing::info!(leader = %id, name, term, "the leader has changed");
            }
            Self::Quorum { there: true, after } => {
                tracing::info!(after_s = after.as_secs(), "there is a quorum: the site can be changed");
            }
            Self::Quorum { there: false, after } => {
                tracing::warn!(
                    after_s = after.as_secs(),
                    "there is no quorum: the last known site is served, and nothing can be changed"
                );
            }
            Self::Endpoint { upstream, endpoint, availability, after } => {
                let after_s = after.map(|after| after.as_secs());
                match availability {
                    Availability::Up => {
                        tracing::info!(upstream, endpoint, after_s, "an endpoint is up again")
                    }
                    Availability::Down => tracing::warn!(upstream, endpoint, "an endpoint is down"),
                    Availability::Unknown => {
                        tracing::warn!(upstream, endpoint, after_s, "nobody can tell how an endpoint is");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_cluster::{EndpointState, NodeView};
    use shoal_model::{ConfigView, Revision, Site};

    use super::*;

    fn member(id: u64, state: NodeState, alive: bool) -> NodeView {
        NodeView { name: format!("node-{id}").into(), state, alive, ..NodeView::serving(NodeId(id)) }
    }

    /// Looks at each scene a second after the one before, and checks what is told.
    fn check(scenes: &[(ClusterView, LogStatus, &[&str])]) {
        let config = config();
        let (mut known, start) = (Known::default(), Instant::now());
        for (second, (view, log, expected)) in scenes.iter().enumerate() {
            let since_start = Duration::from_secs(second as u64);
            let scene = Scene { view, upstreams: &config.upstreams, log, uptime: since_start };
            let news = known.compare(&scene, start + since_start);
            let news: Vec<_> = news.iter().map(|news| format!("{news:?}")).collect();
            assert_eq!(news.len(), expected.len(), "at {second} s: {news:?}");
            for (news, expected) in news.iter().zip(*expected) {
                assert!(news.contains(expected), "at {second} s: {news} is not {expected}");
            }
        }
    }

    fn config() -> ConfigView {
        let site = r#"{"upstreams":{"shop":{"endpoints":["10.0.0.1:80","10.0.0.2:80"]}}}"#;
        ConfigView::compile(Revision(1), &Site::from_json(site).unwrap()).unwrap()
    }

    fn view(nodes: Vec<NodeView>) -> ClusterView {
        ClusterView { local: NodeId(1), nodes, ..ClusterView::default() }
    }

    #[test]
    fn members_that_come_and_go() {
        let log = LogStatus::default();
        let ready = |id, alive| member(id, NodeState::Ready, alive);
        check(&[
            (
                view(vec![ready(1, true), ready(2, true), ready(3, false)]),
                log.clone(),
                &["id: NodeId(2), name: \"node-2\", presence: Heard, before: None"],
            ),
            (view(vec![ready(1, true), ready(2, true), ready(3, false)]), log.clone(), &[]),
            (
                view(vec![ready(1, true), ready(2, false), ready(3, true)]),
                log.clone(),
                &[
                    "NodeId(2), name: \"node-2\", presence: Silent, before: Some((Heard, 2s))",
                    "NodeId(3), name: \"node-3\", presence: Heard, before: None", // for the first time
                ],
            ),
            (
                view(vec![ready(1, true), ready(2, false), member(3, NodeState::Left, true)]),
                log.clone(),
                &["presence: Left"],
            ),
            (
                view(vec![ready(1, true), ready(2, true), member(3, NodeState::Left, false)]),
                log,
                &["presence: Heard, before: Some((Silent, 2s))"],
            ),
        ]);
    }

    #[test]
    fn leaders_and_quorums() {
        let of = |leader: Option<u64>, term, quorum| {
            let log = LogStatus { leader: leader.map(NodeId), term, quorum, ..LogStatus::default() };
            (view(vec![member(1, NodeState::Ready, true)]), log)
        };
        type Told = &'static [&'static str];
        let at = |(view, log): (ClusterView, LogStatus), expected: Told| (view, log, expected);
        check(&[
            at(of(None, 0, false), &[]), // it has only just started
            at(of(Some(1), 1, true), &["Leader { id: NodeId(1), name: \"node-1\", term: 1 }", "there: true"]),
            at(of(Some(1), 1, true), &[]),
            at(of(Some(1), 1, false), &["Quorum { there: false, after: 2s }"]),
            at(of(Some(1), 1, true), &["there: true, after: 1s"]),
            at(of(Some(1), 3, true), &["term: 3"]),
        ]);
        let alone = || of(None, 0, false);
        let mut scenes: Vec<_> = (0..5).map(|_| at(alone(), &[])).collect();
        scenes.push(at(alone(), &["Quorum { there: false, after: 5s }"]));
        scenes.push(at(alone(), &[]));
        check(&scenes);
    }

    #[test]
    fn endpoints_by_their_names() {
        let of = |availability: Option<Availability>| {
            let mut view = view(Vec::new());
            let known = availability.map(|availability| EndpointState { availability, since: 1 });
            view.endpoints.extend(known.map(|state| (EndpointId::of("shop", "10.0.0.2:80"), state)));
            // Of another site: it has no name here.
            view.endpoints.extend(known.map(|state| (EndpointId::of("old", "10.0.0.9:80"), state)));
            view
        };
        let log = LogStatus::default;
        check(&[
            (of(None), log(), &[]),
            (
                of(Some(Availability::Down)),
                log(),
                &["upstream: \"shop\", endpoint: \"10.0.0.2:80\", availability: Down, after: None"],
            ),
            (of(Some(Availability::Down)), log(), &[]),
            (of(Some(Availability::Unknown)), log(), &["availability: Unknown, after: Some(2s)"]),
            (of(None), log(), &["availability: Up, after: Some(1s)"]),
        ]);
    }
}
