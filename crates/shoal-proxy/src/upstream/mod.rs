//! The way to the endpoints: choosing one, borrowing or opening a connection, sending, and sending again.

mod answered;
mod carrier;
mod complaints;
mod connect;
mod connect_error;
mod endpoint;
mod forward;
mod h2_head;
mod http1;
mod introduction;
mod occupied;
mod offered;
mod places;
mod pool;
mod queue;
mod regions;
mod replay;
mod reply;
mod response;
mod send;
mod shared;
mod standing;
mod sticky;
mod stream;
mod system_roots;
mod tls;
mod upgrade;
mod verifier;
mod wire;
mod zones;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::header::{COOKIE, HeaderMap, HeaderValue};
use http::request::Parts;
use rustc_hash::FxHashMap;
use shoal_cluster::ClusterView;
use shoal_model::Revision;
use shoal_model::site::{Balance, HashKey};
use shoal_model::view::UpstreamView;
use shoal_policy::balance::{Pick, Slot, Wish, Zones, pick, withheld_permille};
use shoal_policy::forwarding::OwnFields;
use shoal_policy::health::{Availability, Outcome};
use shoal_policy::retry::RetryBudget;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use complaints::Complaints;
pub(crate) use connect::{dial, dial_local};
pub(crate) use connect_error::ConnectError;
pub(crate) use forward::forward;
pub(crate) use introduction::Introduction;
pub(crate) use reply::Reply;
pub(crate) use response::UpstreamBody;
pub(crate) use standing::Standings;
pub use sticky::StickySeed;
#[cfg(feature = "fuzzing")]
pub use sticky::fuzzing;
pub(crate) use sticky::set_session_cookie;
pub(crate) use stream::open_stream;
pub(crate) use system_roots::SystemRoots;
pub(crate) use tls::ClientTls;
pub(crate) use upgrade::{Switch, Switched, UpstreamSide, forward_upgrade};
pub(crate) use wire::{Socket, Wire};

use endpoint::Endpoint;
use queue::Queue;
use regions::Regions;
use sticky::{Sticky, StickyKeys};

use crate::metrics::Traffic;
use crate::names::{Names, has_names};
use crate::worker::Worker;

/// The upstreams of one worker, by name.
pub(crate) struct Upstreams {
    by_name: RefCell<FxHashMap<Arc<str>, Rc<Upstream>>>,
    standings: Arc<Standings>,
    names: Arc<Names>,
    sticky_keys: Rc<StickyKeys>,
    /// The revision of the site and the [`Names::generation`] that were followed last.
    followed: Cell<(Revision, u64)>,
}

/// One upstream as one worker sees it.
pub(crate) struct Upstream {
    /// With the endpoints that its names lead to.
    view: Arc<UpstreamView>,
    /// As the site has it.
    written: Arc<UpstreamView>,
    /// When that was so, by [`Names::generation`]; `None` = it has no names.
    found: Cell<Option<u64>>,
    security: Security,
    endpoints: Vec<Rc<Endpoint>>,
    /// How sessions find their endpoint; `None` = there are none.
    sticky: Option<Sticky>,
    slots: RefCell<Vec<Slot>>,
    budget: RefCell<RetryBudget>,
    traffic: Arc<Traffic>,
    /// Requests that wait for a connection.
    pending: Cell<usize>,
    queue: Rc<Queue>,
    /// How requests are divided among regions; `None` = its endpoints stand in none.
    regions: Option<Regions>,
    /// What counts the tries at each endpoint; `None` = all stand in one place.
    places: Option<Box<[Arc<AtomicU64>]>>,
    /// Zones of its endpoints, if the own one is preferred; see [`zones::zones_of`].
    zones: Vec<Box<str>>,
    /// Where requests come in, and of which placement of the cluster that is true.
    demand: Cell<Option<(u64, Zones)>>,
}

/// How what is sent to endpoints is kept from others.
#[derive(Clone)]
enum Security {
    Clear,
    Tls(ClientTls),
    /// Its settings cannot be used: nothing is sent at all.
    Unusable,
}

impl Security {
    /// That of `view`; sessions of `before` are kept if the settings are.
    fn of(view: &UpstreamView, before: Option<&Upstream>) -> Self {
        if let Some(before) = before.filter(|before| before.view.transport == view.transport) {
            return before.security.clone();
        }
        match ClientTls::build(&view.transport) {
            Ok(None) => Self::Clear,
            Ok(Some(tls)) => Self::Tls(tls),
            Err(error) => {
                tracing::error!(upstream = %view.name, %error, "its TLS settings cannot be used");
                Self::Unusable
            }
        }
    }
}

impl Upstreams {
    pub(crate) fn new(standings: Arc<Standings>, names: Arc<Names>, sticky_seed: &StickySeed) -> Self {
        Self {
            by_name: RefCell::default(),
            standings,
            names,
            sticky_keys: Rc::new(StickyKeys::of(sticky_seed)),
            followed: Cell::default(),
        }
    }

    /// The state of `written`. When the site has changed, or where its names lead, endpoints that stayed keep their
    /// connections and their record.
    pub(crate) fn find(&self, worker: &Worker, written: &Arc<UpstreamView>) -> Rc<Upstream> {
        let mut by_name = self.by_name.borrow_mut();
        let known = by_name.get(&written.name);
        let is_known = |known: &&Rc<Upstream>| Arc::ptr_eq(&known.written, written) && self.is_current(known);
        if let Some(known) = known.filter(is_known) {
            return known.clone();
        }
        // Who was routed by the site before this one goes where this one says.
        let newest = worker.with_config(|config| config.upstream(&written.name).cloned());
        let written = newest.as_ref().unwrap_or(written);
        let same = known.filter(|known| Arc::ptr_eq(&known.written, written));
        if let Some(known) = same.filter(|known| self.is_current(known)) {
            return known.clone();
        }
        // First: what is found while it is compiled is found again.
        let generation = self.names.generation();
        let view = self.names.expand(written);
        if let Some(known) = same.filter(|known| known.view.endpoints == view.endpoints) {
            known.found.set(Some(generation));
            return known.clone();
        }
        let mut upstream = self.compile(worker, &view, known.map(|known| &**known));
        upstream.found.set(has_names(written).then_some(generation));
        upstream.written = written.clone();
        let upstream = Rc::new(upstream);
        if let Some(known) = known {
            known.close_all_but(&upstream.endpoints);
        }
        upstream.close_drained();
        by_name.insert(written.name.clone(), upstream.clone());
        upstream
    }

    /// Its names lead where they led when it was compiled.
    fn is_current(&self, upstream: &Upstream) -> bool {
        upstream.found.get().is_none_or(|generation| generation == self.names.generation())
    }

    fn compile(&self, worker: &Worker, view: &Arc<UpstreamView>, before: Option<&Upstream>) -> Upstream {
        let endpoint = |wanted: &shoal_model::view::EndpointView| {
            // Connections that are spoken to in another way are no use.
            let before = before.filter(|before| before.view.transport == view.transport);
            let kept = before.and_then(|before| before.endpoints.iter().find(|known| known.id == wanted.id));
            kept.cloned().unwrap_or_else(|| {
                let new = Endpoint::new(wanted, self.standings.of(wanted.id));
                // Where all are new, none need be spared.
                new.up_since_ms.set(if before.is_some() { worker.clock.now_ms() } else { 0 });
                Rc::new(new)
            })
        };
        let zones = if view.prefer_own_zone { zones::zones_of(view) } else { Vec::new() };
        let slot = |endpoint: &shoal_model::view::EndpointView| Slot {
            id: endpoint.id.0,
            weight: endpoint.weight,
            priority: endpoint.priority,
            capacity: endpoint.capacity.unwrap_or(0),
            zone: endpoint.zone.as_deref().map_or(0, |zone| zones::place_of(&zones, zone)) as u8,
            usable: true,
            ..Slot::default()
        };
        let budget =
            before.map_or_else(|| RetryBudget::new(worker.clock.now_ms()), |before| *before.budget.borrow());
        Upstream {
            endpoints: view.endpoints.iter().map(endpoint).collect(),
            sticky: Sticky::of(view, &self.sticky_keys),
            slots: RefCell::new(view.endpoints.iter().map(slot).collect()),
            budget: RefCell::new(budget),
            traffic: worker.metrics.upstream(&view.name),
            pending: Cell::new(0),
            queue: before.map_or_else(Rc::default, |before| before.queue.clone()),
            demand: Cell::new(None),
            security: Security::of(view, before),
            regions: Regions::of(
                view,
                || self.standings.offers.of(&view.name),
                before.and_then(|before| before.regions.as_ref()),
            ),
            places: self.standings.places.of(&view.name, &view.endpoints),
            written: view.clone(),
            found: Cell::new(None),
            view: view.clone(),
            zones,
        }
    }

    /// Follows a change of the site, or of where names lead, though no request comes: what is gone or drained lets go of its
    /// connections.
    pub(crate) fn follow(&self, worker: &Worker) {
        let now = (worker.with_config(|config| config.revision), self.names.generation());
        if self.followed.replace(now) == now {
            return;
        }
        self.forget_gone(worker);
        let known: Vec<Rc<Upstream>> = self.by_name.borrow().values().cloned().collect();
        for known in known {
            let written = worker.with_config(|config| config.upstream(&known.written.name).cloned());
            let Some(written) = written else { continue };
            // Most changes concern few upstreams: the others are compiled when they are asked for.
            if *written != *known.written || !self.is_current(&known) {
                self.find(worker, &written);
            }
        }
    }

    /// Forgets upstreams that the site has no more.
    fn forget_gone(&self, worker: &Worker) {
        self.by_name.borrow_mut().retain(|name, upstream| {
            let stays = worker.with_config(|config| config.upstream(name).is_some());
            if !stays {
                upstream.close_all_but(&[]);
            }
            stays
        });
    }

    /// Closes what was unused for too long.
    pub(crate) fn review(&self, worker: &Worker, now_ms: u64) {
        self.forget_gone(worker);
        for upstream in self.by_name.borrow().values() {
            for endpoint in &upstream.endpoints {
                endpoint.idle.review(now_ms, &upstream.view, upstream.max_idle(worker));
                endpoint.shared.close_stale(now_ms, &upstream.view);
                endpoint.forget_if_unused();
            }
            upstream.review_regions(worker, now_ms);
            if upstream.view.passive.success_rate.is_some() {
                let standings: Vec<_> =
                    upstream.endpoints.iter().map(|endpoint| &*endpoint.standing).collect();
                self.standings.compare(&upstream.view, &standings, now_ms);
            }
        }
    }
}

impl Upstream {
    /// Requests under way may hold it for long after it was replaced by one that has `endpoints`: others of its own keep no
    /// connections.
    fn close_all_but(&self, endpoints: &[Rc<Endpoint>]) {
        let is_gone = |known: &&Rc<Endpoint>| !endpoints.iter().any(|kept| Rc::ptr_eq(kept, known));
        self.endpoints.iter().filter(is_gone).for_each(|endpoint| endpoint.set_closed(true));
    }

    /// Endpoints that nothing is sent to keep no connections. Where sessions stick something is.
    fn close_drained(&self) {
        for (endpoint, view) in self.endpoints.iter().zip(&self.view.endpoints) {
            endpoint.set_closed(view.weight == 0 && self.sticky.is_none());
        }
    }

    /// Idle connections one worker may keep per endpoint.
    fn max_idle(&self, worker: &Worker) -> usize {
        self.share(worker, self.view.max_idle_connections)
    }

    /// What one worker may use of a limit of the node.
    fn share(&self, worker: &Worker, limit: usize) -> usize {
        (limit / worker.workers.max(1)).max(1)
    }

    /// Chooses an endpoint that is not in `tried`.
    fn pick(&self, worker: &Worker, hash: u64, tried: u64) -> Option<Pick> {
        let now_ms = worker.clock.now_ms();
        let mut slots = self.slots.borrow_mut();
        self.refresh(worker, &mut slots, now_ms);
        let (regions, zones) = worker.with_cluster(|cluster| {
            let regions = self.regions.as_ref().map(|regions| {
                if tried == 0 {
                    regions.count();
                }
                regions.divide(&mut slots, cluster, now_ms)
            });
            (regions, (!self.zones.is_empty()).then(|| self.demand(cluster)))
        });
        let wish = Wish {
            balance: self.view.balance,
            hash,
            entropy: worker.entropy(),
            panic_threshold_percent: self.view.panic_threshold_percent,
            hash_bound_percent: self.view.hash_bound_percent,
            regions: regions.as_ref(),
            zones: zones.as_ref(),
            tried,
        };
        pick(&mut slots, wish)
    }

    /// What is true of its endpoints now.
    fn refresh(&self, worker: &Worker, slots: &mut [Slot], now_ms: u64) {
        let most = self.view.max_requests.map(|limit| self.share(worker, limit));
        worker.with_cluster(|cluster| {
            for (slot, endpoint) in slots.iter_mut().zip(&self.endpoints) {
                let usable = is_usable(endpoint, cluster, now_ms);
                if let Some(window) = self.view.slow_start {
                    if usable && !slot.usable {
                        endpoint.up_since_ms.set(now_ms);
                    }
                    slot.withheld_permille = withheld_permille(endpoint.up_since_ms.get(), now_ms, window);
                }
                slot.usable = usable;
                slot.in_flight = endpoint.in_flight.get();
                slot.full = most.is_some_and(|most| slot.in_flight as usize >= most);
                if self.view.balance == Balance::P2cEwma {
                    slot.latency_us = endpoint.latency.get().value_us(now_ms);
                }
            }
        });
    }

    /// Regions are watched also while no requests come: how long one has been well decides what returns to it.
    fn review_regions(&self, worker: &Worker, now_ms: u64) {
        let Some(regions) = &self.regions else { return };
        let mut slots = self.slots.borrow_mut();
        self.refresh(worker, &mut slots, now_ms);
        worker.with_cluster(|cluster| {
            regions.look_around(&slots, cluster, now_ms);
            regions.divide(&mut slots, cluster, now_ms);
        });
    }

    /// Whether the endpoint at `place` may have one more request that wants no other.
    fn readiness(&self, worker: &Worker, place: usize) -> Readiness {
        let now_ms = worker.clock.now_ms();
        let Some(endpoint) = self.endpoints.get(place) else { return Readiness::Down };
        let most = self.view.max_requests.map(|limit| self.share(worker, limit));
        match worker.with_cluster(|cluster| is_usable(endpoint, cluster, now_ms)) {
            false => Readiness::Down,
            true if most.is_some_and(|most| endpoint.in_flight.get() as usize >= most) => Readiness::Full,
            true => Readiness::Ready,
        }
    }

    /// Where requests come in; counted anew when other nodes serve.
    fn demand(&self, cluster: &ClusterView) -> Zones {
        match self.demand.get() {
            Some((placement, zones)) if placement == cluster.placement_id => zones,
            _ => {
                let zones = zones::demand(&self.zones, cluster);
                self.demand.set(Some((cluster.placement_id, zones)));
                zones
            }
        }
    }

    /// Takes in how a request ended at `endpoint`. What the downstream did wrong is not reported.
    fn report(&self, endpoint: &Endpoint, outcome: Outcome, now_ms: u64) {
        let standing = &endpoint.standing;
        if self.view.passive.success_rate.is_some() {
            standing.count(outcome == Outcome::Success);
        }
        let outcome = match outcome {
            Outcome::ServerError if self.view.passive.consecutive_5xx == 0 => Outcome::Success,
            outcome => outcome,
        };
        if outcome == Outcome::Success && standing.is_spotless() {
            return;
        }
        let ejected = self.endpoints.iter().filter(|endpoint| endpoint.standing.is_ejected()).count();
        standing.record(outcome, now_ms, &self.view.passive, ejected, self.endpoints.len());
    }
}

/// Whether an endpoint may have a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// It is well, and has as many as it may have.
    Full,
    Down,
}

/// Neither its checkers nor this node's own traffic have anything against it.
fn is_usable(endpoint: &Endpoint, cluster: &ClusterView, now_ms: u64) -> bool {
    let available = cluster.endpoints.is_empty() || cluster.availability(endpoint.id) != Availability::Down;
    available && endpoint.standing.admits(now_ms)
}

/// What `consistent_hash` goes by, of a request with fields of this node behind its head; 0 where nothing is hashed.
pub(crate) fn hash_of(view: &UpstreamView, head: &Parts, own: Option<&OwnFields>) -> u64 {
    if view.balance != Balance::ConsistentHash {
        return 0;
    }
    let field = |name: &str| {
        let value = head.headers.get(name).or_else(|| own?.get(name));
        value.map_or(&b""[..], HeaderValue::as_bytes)
    };
    match &view.hash_key {
        HashKey::Path => xxh3_64(head.uri.path().as_bytes()),
        HashKey::Address => xxh3_64(field("x-real-ip")),
        HashKey::Header(name) => xxh3_64(field(&name.to_ascii_lowercase())),
        HashKey::Cookie(name) => xxh3_64(cookie(&head.headers, name).unwrap_or_default().as_bytes()),
        HashKey::Query(name) => {
            xxh3_64(parameter(head.uri.query().unwrap_or_default(), name).unwrap_or_default().as_bytes())
        }
    }
}

/// The value of a parameter, as it is written.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}
