//! How this node stands in each scope of readiness: looked at every second, told to the others, asked by `/readyz?scope=`.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shoal_cluster::{ClusterView, NodeState};
use shoal_model::units::millis_u64;
use shoal_policy::readiness::{Finding, Ready, ReadyIn, Rule, Scope, Steady, would_empty};
use tokio::time::MissedTickBehavior;

use crate::node::Node;

/// From one look to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How many looks it takes in each scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadyRules([Rule; Scope::ALL.len()]);

impl ReadyRules {
    /// Those of `scope` are these.
    pub const fn set(&mut self, scope: Scope, rule: Rule) {
        self.0[scope as usize] = rule;
    }

    const fn of(&self, scope: Scope) -> Rule {
        self.0[scope as usize]
    }
}

/// How this node stands in one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it should be sent requests.
    pub ready: Ready,
    /// For how long it has been so; `None` = it should not.
    pub sent_for: Option<Duration>,
    /// Good looks in a row, of those that it takes to become ready.
    pub looks: (u32, u32),
    /// Nodes of the region that would not be ready if this one were not, and all of them.
    pub region: (usize, usize),
    /// How often it has become ready, or has ceased to be.
    pub changes: u64,
}

impl Standing {
    /// It should be sent requests only because most of its region would not be ready.
    pub const fn is_held(&self) -> bool {
        matches!(self.ready, Ready::Held)
    }
}

/// How this node stands.
#[derive(Debug, Default)]
pub struct ReadyScopes {
    known: Mutex<[Known; Scope::ALL.len()]>,
    /// Every certificate of the site has expired by this node's clock.
    expired: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    steady: Steady,
    ready: Ready,
    sent_since_ms: Option<u64>,
    /// It had been so for as long in the process before.
    before_ms: u64,
    region: (usize, usize),
}

impl Known {
    fn observe(self, finding: Finding, rule: Rule, region: (usize, usize), now_ms: u64) -> Self {
        let steady = self.steady.observe(finding, rule, now_ms);
        let stays =
            finding != Finding::Out && self.ready.is_sent_requests() && would_empty(region.0, region.1);
        let ready = match steady.is_ready() {
            true => Ready::Yes,
            false if stays => Ready::Held,
            false => Ready::No,
        };
        let sent_since_ms = self.sent_since_ms.or(Some(now_ms)).filter(|_| ready.is_sent_requests());
        let before_ms = if sent_since_ms.is_some() { self.before_ms } else { 0 };
        Self { steady, ready, sent_since_ms, before_ms, region }
    }
}

impl ReadyScopes {
    /// What [`ReadyScopes::hand_over`] of the process before has written: the sockets go on, and so does this.
    pub fn inherited(text: &str) -> Self {
        let scopes = Self::default();
        let read = |word: &str| {
            let (scope, seconds) = word.split_once(':')?;
            Some((scope.parse::<Scope>().ok()?, seconds.parse::<u32>().ok()?))
        };
        for (scope, seconds) in text.split(' ').take(Scope::ALL.len()).filter_map(read) {
            scopes.lock()[scope as usize] = Known {
                steady: Steady::ready_at(0),
                ready: Ready::Yes,
                sent_since_ms: Some(0),
                before_ms: u64::from(seconds) * 1000,
                region: (1, 1),
            };
        }
        scopes
    }

    /// In which scopes it is ready, and for how many seconds: `bgp:3600 lb:12`.
    fn hand_over(&self, rules: &ReadyRules, now_ms: u64) -> String {
        let ready = Scope::ALL.into_iter().filter_map(|scope| {
            let sent_for = self.standing(scope, rules, now_ms).sent_for?;
            Some(format!("{}:{}", scope.name(), sent_for.as_secs()))
        });
        ready.collect::<Vec<_>>().join(" ")
    }

    /// How it stands in `scope` at `now_ms` of the process.
    fn standing(&self, scope: Scope, rules: &ReadyRules, now_ms: u64) -> Standing {
        let Known { steady, ready, sent_since_ms, before_ms, region } = self.lock()[scope as usize];
        let rise = rules.of(scope).rise.get();
        Standing {
            ready,
            sent_for: sent_since_ms
                .map(|since| Duration::from_millis(now_ms.saturating_sub(since).saturating_add(before_ms))),
            looks: (if steady.is_ready() { rise } else { steady.otherwise() }, rise),
            region,
            changes: steady.changes(),
        }
    }

    /// How it stands in every scope.
    fn all(&self) -> ReadyIn {
        let mut all = ReadyIn::default();
        let known = self.lock();
        for scope in Scope::ALL {
            all.set(scope, known[scope as usize].ready);
        }
        all
    }

    /// Every certificate of the site has expired.
    pub fn expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [Known; Scope::ALL.len()]> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a look.
    fn observe(&self, finding: Finding, rules: &ReadyRules, view: &ClusterView, now_ms: u64) {
        let mut known = self.lock();
        for scope in Scope::ALL {
            let region = region_without(view, scope);
            let before = known[scope as usize];
            let after = before.observe(finding, rules.of(scope), region, now_ms);
            if before.ready != after.ready {
                tracing::info!(scope = scope.name(), before = ?before.ready, after = ?after.ready, "readiness has changed");
            }
            known[scope as usize] = after;
        }
    }
}

/// Nodes of this node's region that would not be ready if this one were not, and all of them. Those that operators have
/// taken out of service are not missing.
fn region_without(view: &ClusterView, scope: Scope) -> (usize, usize) {
    let Some(local) = view.node(view.local) else { return (1, 1) };
    let others = view.nodes.iter().filter(|node| {
        node.id != view.local
            && node.region == local.region
            && !matches!(node.state, NodeState::Draining | NodeState::Left)
    });
    let others: Vec<bool> = others.map(|node| node.alive && node.ready.of(scope) == Ready::Yes).collect();
    (1 + others.iter().filter(|ready| !**ready).count(), 1 + others.len())
}

/// Looks and tells, for as long as it is polled.
pub async fn watch(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drains = node.drain.watch();
    let mut told = None;
    loop {
        let all = node.ready_scopes.all();
        if told != Some(all) {
            node.gossip.set_ready(all);
            told = Some(all);
        }
        let is_tick = tokio::select! {
            _ = ticks.tick() => true,
            changed = drains.changed() => changed.is_err(),
        };
        // Before that there is nothing to be found, but perhaps a process whose place this one takes.
        if !node.has_started() {
            continue;
        }
        if is_tick {
            let expired = node.clone();
            let expired = tokio::task::spawn_blocking(move || expired.has_only_expired_certificates()).await;
            node.ready_scopes.expired.store(expired.unwrap_or_default(), Ordering::Relaxed);
        }
        let finding = node.readiness_facts(None).look.finding();
        // What is meant is not waited for; a look between two others is none.
        if is_tick || finding == Finding::Out {
            let view = node.gossip.view().load_full();
            node.ready_scopes.observe(finding, &node.settings.ready_rules, &view, node.uptime_ms());
        }
    }
}

impl Node {
    /// How this node stands in `scope`.
    pub fn standing_in(&self, scope: Scope) -> Standing {
        self.ready_scopes.standing(scope, &self.settings.ready_rules, self.uptime_ms())
    }

    /// For [`ReadyScopes::inherited`] of the process that takes the place of this one.
    pub fn readiness_to_hand_over(&self) -> String {
        self.ready_scopes.hand_over(&self.settings.ready_rules, self.uptime_ms())
    }

    fn uptime_ms(&self) -> u64 {
        millis_u64(Instant::now().duration_since(self.started))
    }

    fn has_only_expired_certificates(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let known = self.certificates.of(&self.config.load());
        let is_over = |not_after: i64| u64::try_from(not_after).is_ok_and(|end| end != 0 && end <= now);
        !known.is_empty() && known.iter().all(|certificate| is_over(certificate.not_after))
    }

    /// The figures of every scope.
    pub fn render_readiness(&self, text: &mut String) {
        let standings = Scope::ALL.map(|scope| (scope.name(), self.standing_in(scope)));
        type Figure = (&'static str, &'static str, &'static str, fn(&Standing) -> u64);
        let figures: [Figure; 3] = [
            ("shoal_ready", "gauge", "1 while requests should be sent here, by who asks for it.", |one| {
                u64::from(one.ready.is_sent_requests())
            }),
            (
                "shoal_ready_held",
                "gauge",
                "1 while that is so only because most nodes of the region would not be ready.",
                |one| u64::from(one.is_held()),
            ),
            (
                "shoal_ready_changes_total",
                "counter",
                "How often enough looks in a row have found otherwise than before.",
                |one| one.changes,
            ),
        ];
        for (name, kind, help, value) in figures {
            _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (scope, standing) in &standings {
                _ = writeln!(text, "{name}{{scope=\"{scope}\"}} {}", value(standing));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_cluster::NodeView;
    use shoal_model::NodeId;

    use super::*;

    /// `eu+` is a ready node of region eu; `-` one that is not, `=` one that is held, `!` a dead one, `~` a drained one. The
    /// first one is this node.
    fn view(text: &str) -> ClusterView {
        let nodes = text.split_whitespace().enumerate().map(|(n, word)| {
            let (region, mark) = word.split_at(word.len() - 1);
            let ready = match mark {
                "+" | "!" => Ready::Yes,
                "=" => Ready::Held,
                _ => Ready::No,
            };
            NodeView {
                region: region.into(),
                state: if mark == "~" { NodeState::Draining } else { NodeState::Ready },
                alive: mark != "!",
                ready: ReadyIn::all(ready),
                ..NodeView::serving(NodeId(n as u64 + 1))
            }
        });
        ClusterView { local: NodeId(1), nodes: nodes.collect(), ..ClusterView::default() }
    }

    #[test]
    fn a_region_is_counted_without_this_node_and_those_out_of_service() {
        let check =
            |text: &str, expected| assert_eq!(region_without(&view(text), Scope::Dns), expected, "{text}");
        check("eu+", (1, 1));
        check("eu- eu+ eu+", (1, 3));
        check("eu+ eu- eu+ us- us-", (2, 3));
        check("eu+ eu= eu!", (3, 3));
        check("eu+ eu~ eu+", (1, 2));
    }

    #[test]
    fn most_of_a_region_never_leaves_at_once() {
        let scopes = ReadyScopes::default();
        let rules = ReadyRules::default();
        let mut now_ms = 0;
        let mut look = |finding: Finding, times: usize, text: &str| {
            for _ in 0..times {
                now_ms += 1000;
                scopes.observe(finding, &rules, &view(text), now_ms);
            }
            let standing = scopes.standing(Scope::Bgp, &rules, now_ms);
            (standing.ready, standing.sent_for.map(|time| time.as_secs()))
        };
        use Finding::{Bad, Good, Out};
        let (yes, no, held) = (Ready::Yes, Ready::No, Ready::Held);
        assert_eq!(look(Bad, 5, "eu- eu- eu-"), (no, None), "who was not ready does not become so");
        assert_eq!(look(Good, 3, "eu+ eu+ eu+"), (yes, Some(0)));
        assert_eq!(look(Bad, 2, "eu- eu+ eu+"), (no, None), "one of three leaves");
        assert_eq!(look(Good, 5, "eu+ eu+ eu+"), (yes, Some(2)));
        assert_eq!(look(Bad, 3, "eu- eu- eu+"), (held, Some(5)), "two of three stay");
        assert_eq!(look(Bad, 1, "eu- eu+ eu+"), (no, None), "the other one is well again");
        assert_eq!(look(Good, 3, "eu+ eu! eu!"), (yes, Some(0)));
        assert_eq!(look(Bad, 4, "eu+ eu! eu!"), (held, Some(4)), "the last one stays");
        assert_eq!(look(Good, 3, "eu+ eu! eu!"), (yes, Some(7)), "and was there all the while");
        assert_eq!(look(Out, 1, "eu+ eu! eu!"), (no, None), "what is meant is done");
    }

    #[test]
    fn what_takes_the_place_of_another_process_is_as_ready() {
        let (before, rules) = (ReadyScopes::default(), ReadyRules::default());
        for second in 1..=10 {
            before.observe(Finding::Good, &rules, &view("eu+ eu+"), second * 1000);
        }
        assert_eq!(before.hand_over(&rules, 10_000), "bgp:7 dns:7 lb:7");
        let after = ReadyScopes::inherited("bgp:7 lb:x ospf:1 dns:9");
        assert_eq!(after.all().to_string(), "bgp+ dns- lb-", "no more words than scopes");
        after.observe(Finding::Good, &rules, &view("eu+ eu+"), 2000);
        assert_eq!(after.standing(Scope::Bgp, &rules, 2000).sent_for, Some(Duration::from_secs(9)));
        after.observe(Finding::Out, &rules, &view("eu+ eu+"), 3000);
        assert_eq!(after.standing(Scope::Bgp, &rules, 3000).sent_for, None);
        assert_eq!(ReadyScopes::inherited("").all(), ReadyIn::default());
    }
}
