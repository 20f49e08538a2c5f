//! Regions of endpoints: what each has and has to do, and how the requests of this one are divided among them.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use shoal_cluster::ClusterView;
use shoal_model::UpstreamId;
use shoal_model::site::Failback;
use shoal_model::view::UpstreamView;
use shoal_policy::balance::{Failover, MAX_REGIONS, Region, Shares, Slot, measure, wants};

use super::offered::Offered;

/// In `failover`: all regions that are not named.
const ANY: &str = "*";
/// The place of a region that is not used from here.
const UNUSED: u8 = u8::MAX;

/// The regions of one upstream as one worker sees them.
pub(super) struct Regions {
    upstream: UpstreamId,
    /// Of each endpoint; `None` = the own region of whoever asks.
    of_endpoints: Vec<Option<Box<str>>>,
    failover: Vec<Box<str>>,
    failback: Failback,
    panic_threshold_percent: u8,
    /// Capacities are requests a second, and not weights.
    rated: bool,
    offered: Arc<Offered>,
    /// Places of the endpoints' regions as this node sees them, and of which placement of the cluster that is true.
    places: RefCell<Option<(u64, Vec<u8>)>>,
    /// What others have to do and are due, as it was when it was looked at last; capacities are those of the moment.
    others: Cell<[Region; MAX_REGIONS]>,
    /// Requests a second that come in at this region.
    demand: Cell<f64>,
    course: Cell<Failover>,
}

impl Regions {
    /// Those of the endpoints of `view`; `None` = they stand in no region. What `before` has decided goes on.
    pub(super) fn of(
        view: &UpstreamView,
        offered: impl FnOnce() -> Arc<Offered>,
        before: Option<&Self>,
    ) -> Option<Self> {
        let endpoints = &view.endpoints;
        if endpoints.iter().all(|endpoint| endpoint.region.is_none()) {
            return None;
        }
        Some(Self {
            upstream: UpstreamId::of(&view.name),
            of_endpoints: endpoints.iter().map(|endpoint| endpoint.region.clone()).collect(),
            failover: view.failover.clone(),
            failback: view.failback,
            panic_threshold_percent: view.panic_threshold_percent,
            rated: endpoints.iter().all(|endpoint| endpoint.capacity.is_some()),
            offered: offered(),
            places: RefCell::default(),
            others: Cell::new([Region { due: 1.0, ..Region::default() }; MAX_REGIONS]),
            demand: before.map_or_else(Cell::default, |before| before.demand.clone()),
            course: before.map_or_else(Cell::default, |before| before.course.clone()),
        })
    }

    /// Counts a request that has come in.
    pub(super) fn count(&self) {
        self.offered.count();
    }

    /// Divides the requests of now. Says of each slot which region it is of, where that has changed.
    pub(super) fn divide(&self, slots: &mut [Slot], cluster: &ClusterView, now_ms: u64) -> Shares {
        let mut places = self.places.borrow_mut();
        if places.as_ref().is_none_or(|(placement, _)| *placement != cluster.placement_id) {
            let own = own_region(cluster);
            let found = self.places(&order(own, &self.failover, &self.of_endpoints));
            for (slot, place) in slots.iter_mut().zip(&found) {
                slot.region = *place;
            }
            *places = Some((cluster.placement_id, found));
        }
        let mut regions = measure(slots.iter().map(|slot| (slot, slot.region)), self.panic_threshold_percent);
        for (region, other) in regions.iter_mut().zip(self.others.get()) {
            (region.load, region.due) = (other.load, other.due);
        }
        let mut course = self.course.get();
        let demand = self.rated.then(|| self.demand.get());
        let shares = course.divide(&regions, demand, self.failback, now_ms);
        self.course.set(course);
        shares
    }

    /// Looks at what every region has to do, and what of each is meant for this one.
    pub(super) fn look_around(&self, slots: &[Slot], cluster: &ClusterView, now_ms: u64) {
        let own = own_region(cluster);
        let rate = f64::from(self.offered.rate(now_ms));
        let sources = sources(cluster, self.upstream, rate);
        self.demand
            .set(sources.iter().find(|source| source.region == own).map_or(rate, |source| source.rate));
        if !self.rated {
            return;
        }
        let order_here = order(own, &self.failover, &self.of_endpoints);
        let mut others = [Region::default(); MAX_REGIONS];
        // What each region wants of the others: all of them reckon alike.
        let claims: Vec<(Vec<&str>, [f64; MAX_REGIONS], f64)> = sources
            .iter()
            .map(|source| {
                let order = order(source.region, &self.failover, &self.of_endpoints);
                let places = self.places(&order);
                let regions = measure(slots.iter().zip(places), self.panic_threshold_percent);
                (order, wants(&regions), source.rate)
            })
            .collect();
        for (place, name) in order_here.iter().enumerate() {
            let (mut load, mut mine, mut all, mut listing) = (0.0, 0.0, 0.0, 0);
            for (order, wants, rate) in &claims {
                match order.iter().position(|known| known == name) {
                    Some(0) => load += wants[0] * rate,
                    Some(at) => {
                        listing += 1;
                        all += wants[at] * rate;
                        mine += if order[0] == own { wants[at] * rate } else { 0.0 };
                    }
                    None => {}
                }
            }
            let due = if all > 0.0 { mine / all } else { 1.0 / f64::from(listing.max(1)) };
            others[place] = Region { load, due, ..Region::default() };
        }
        self.others.set(others);
    }

    /// The place of each endpoint's region in `order`.
    fn places(&self, order: &[&str]) -> Vec<u8> {
        let place = |region: &Option<Box<str>>| match region {
            None => 0,
            Some(region) => {
                order.iter().position(|known| **known == **region).map_or(UNUSED, |place| place as u8)
            }
        };
        self.of_endpoints.iter().map(place).collect()
    }
}

fn own_region(cluster: &ClusterView) -> &str {
    cluster.node(cluster.local).map_or("", |node| &node.region)
}

/// The regions that `own` uses, itself first.
fn order<'a>(own: &'a str, failover: &'a [Box<str>], of_endpoints: &'a [Option<Box<str>>]) -> Vec<&'a str> {
    let mut order = vec![own];
    for name in failover {
        let mut found: Vec<&str> = match &**name {
            ANY => of_endpoints.iter().flatten().map(|region| &**region).collect(),
            name => vec![name],
        };
        found.sort_unstable();
        for name in found {
            if order.len() < MAX_REGIONS && !order.contains(&name) {
                order.push(name);
            }
        }
    }
    order
}

/// A region where nodes serve, and the requests a second that come in there.
struct Source<'a> {
    region: &'a str,
    rate: f64,
}

/// Those of `upstream`; this node's own rate is `rate`, of the others it is what they say.
fn sources(cluster: &ClusterView, upstream: UpstreamId, rate: f64) -> Vec<Source<'_>> {
    let mut sources: Vec<Source<'_>> = Vec::new();
    for node in cluster.nodes.iter().filter(|node| node.takes_traffic() || node.id == cluster.local) {
        let rate = if node.id == cluster.local { rate } else { f64::from(node.offered(upstream)) };
        match sources.iter_mut().find(|source| *source.region == *node.region) {
            Some(source) => source.rate += rate,
            None => sources.push(Source { region: &node.region, rate }),
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use shoal_cluster::NodeView;
    use shoal_model::site::read_site;
    use shoal_model::view::EndpointView;
    use shoal_model::{ConfigView, NodeId, Revision};

    use super::super::offered::Offers;
    use super::*;

    #[test]
    fn the_own_region_goes_first() {
        let endpoints: Vec<Option<Box<str>>> =
            vec![None, Some("us".into()), Some("ap".into()), Some("eu".into())];
        let check = |own: &str, failover: &[&str], expected: &[&str]| {
            let failover: Vec<Box<str>> = failover.iter().map(|name| (*name).into()).collect();
            assert_eq!(order(own, &failover, &endpoints), expected, "{own} {failover:?}");
        };
        check("eu", &[], &["eu"]);
        check("eu", &["us", "eu", "ap"], &["eu", "us", "ap"]);
        check("ap", &["us", "eu", "ap"], &["ap", "us", "eu"]);
        check("eu", &["us", "*"], &["eu", "us", "ap"]);
        check("eu", &["*"], &["eu", "ap", "us"]);
        check("sa", &["us"], &["sa", "us"]);
    }

    /// A cluster of one node per region with the rate that it tells; this node is the first.
    fn cluster(nodes: &[(&str, u32)]) -> ClusterView {
        let upstream = UpstreamId::of("app");
        let node = |(n, (region, rate)): (usize, &(&str, u32))| NodeView {
            region: (*region).into(),
            offered: [(upstream, *rate)].into(),
            ..NodeView::serving(NodeId(n as u64 + 1))
        };
        let nodes = nodes.iter().enumerate().map(node).collect();
        ClusterView { local: NodeId(1), nodes, ..ClusterView::default() }
    }

    #[test]
    fn others_are_asked_for_what_they_have_to_spare() {
        let site = "upstreams:\n  app:\n    failover: [us, ap]\n    endpoints:\n\
            \x20   - { address: \"a:1\", region: eu, capacity: 1500 }\n\
            \x20   - { address: \"b:1\", region: eu, capacity: 1500 }\n\
            \x20   - { address: \"c:1\", region: us, capacity: 4000 }\n\
            \x20   - { address: \"d:1\", region: ap, capacity: 2000 }\n\
            \x20   - { address: \"e:1\", region: sa, capacity: 1000 }\n\
            \x20   - { address: \"f:1\", region: sa, capacity: 1000 }\n";
        let config = ConfigView::compile(Revision(1), &read_site("site.yaml", site).unwrap()).unwrap();
        let view = config.upstream("app").unwrap();
        let check = |down: &[usize], nodes: &[(&str, u32)], expected: [u64; 3]| {
            let offers = Offers::default();
            let regions = Regions::of(view, || offers.of(&view.name), None).unwrap();
            let slot = |(n, endpoint): (usize, &EndpointView)| Slot {
                weight: endpoint.weight,
                capacity: endpoint.capacity.unwrap_or(0),
                usable: !down.contains(&n),
                ..Slot::default()
            };
            let mut slots: Vec<Slot> = view.endpoints.iter().enumerate().map(slot).collect();
            let cluster = cluster(nodes);
            regions.divide(&mut slots, &cluster, 0);
            assert_eq!(
                slots.iter().map(|slot| slot.region).collect::<Vec<_>>(),
                [0, 0, 1, 2, UNUSED, UNUSED]
            );
            for _ in 0..nodes[0].1 {
                regions.count();
            }
            regions.look_around(&slots, &cluster, 1000);
            // Long after: whatever should leave has left.
            let shares = regions.divide(&mut slots, &cluster, 60_000);
            let rates = std::array::from_fn(|place| (shares.of(place) * regions.demand.get()).round() as u64);
            assert_eq!(rates, expected, "{down:?} {nodes:?}");
        };
        let all = [("eu", 1800), ("us", 2600), ("ap", 900), ("sa", 800)];
        check(&[], &all, [1800, 0, 0]);
        check(&[0], &all, [1260, 540, 0]);
        // Another region is down by half as well, and wants 240 of the same 600.
        check(&[0, 4], &all, [1260, 415, 125]);
        // Another node of the region.
        check(&[], &[("eu", 1000), ("eu", 800), ("us", 2600)], [1800, 0, 0]);
        check(&[0, 1], &[("eu", 600), ("eu", 600), ("us", 2600)], [0, 600, 600]);
        // There is no room in either.
        check(&[0], &[("eu", 1800), ("us", 4000), ("ap", 2000)], [1800, 0, 0]);
    }
}
