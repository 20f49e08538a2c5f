//! The cells of the routes of one worker, each at the place of its route: a request finds them without lock or hash.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use shoal_model::view::RouteView;
use shoal_policy::failure::Tells;

use super::{Sample, Traffic, WorkerMetrics};

/// The cells of routes, by the place of the route in the site.
pub(crate) struct RouteCells {
    metrics: Arc<WorkerMetrics>,
    places: RefCell<Vec<Option<Place>>>,
}

struct Place {
    /// Of the route that had this place when it was last used: its address tells whether it still has.
    name: Arc<str>,
    traffic: Arc<Traffic>,
}

impl RouteCells {
    pub(crate) fn new(metrics: Arc<WorkerMetrics>) -> Self {
        Self { metrics, places: RefCell::default() }
    }

    /// A request of `route` has ended; what it says of what is served, and how long the answer took if that does, too.
    pub(crate) fn record(
        &self,
        route: &RouteView,
        sample: &Sample,
        tells: Tells,
        answered: Option<Duration>,
    ) {
        let record = |traffic: &Traffic| {
            traffic.record(sample);
            traffic.judged.record(tells, answered);
        };
        let mut places = self.places.borrow_mut();
        if let Some(Some(place)) = places.get(route.index)
            && Arc::ptr_eq(&place.name, &route.name)
        {
            return record(&place.traffic);
        }
        if places.len() <= route.index {
            places.resize_with(route.index + 1, || None);
        }
        let traffic = self.metrics.route(&route.name);
        record(&traffic);
        places[route.index] = Some(Place { name: route.name.clone(), traffic });
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::site::read_site;
    use shoal_model::{ConfigView, Revision};

    use super::*;
    use crate::metrics::CacheUse;

    /// The route of `name` in a site with these routes, each for the host of its name.
    fn route(names: &[&str], name: &str) -> Arc<RouteView> {
        let route = |name: &&str| format!("  {name}: {{ upstream: u, hosts: [{name}] }}\n");
        let routes: String = names.iter().map(route).collect();
        let text = format!(
            "listeners:\n  web: {{ address: \":80\", protocol: http }}\nroutes:\n{routes}\
             upstreams:\n  u: {{ endpoints: [\"127.0.0.1:1\"] }}\n"
        );
        let view = ConfigView::compile(Revision(1), &read_site("site.yaml", &text).unwrap()).unwrap();
        view.routes.find(0, name, "/").unwrap().clone()
    }

    #[test]
    fn counts_go_to_the_name_also_when_places_move() {
        let metrics = Arc::new(WorkerMetrics::default());
        let cells = RouteCells::new(metrics.clone());
        let record = |route: Arc<RouteView>| {
            cells.record(
                &route,
                &Sample {
                    status: 200,
                    https: false,
                    duration: Duration::ZERO,
                    request_bytes: 0,
                    response_bytes: 0,
                    cache: CacheUse::None,
                },
                Tells::Good,
                None,
            );
        };
        let (before, after) = (route(&["b", "c"], "b"), route(&["a", "b"], "b"));
        assert_ne!(before.index, after.index);
        record(before.clone());
        record(after);
        record(route(&["a", "b"], "a"));
        record(before);
        let count = |name: &str| metrics.route(&name.into()).classes[1].read();
        assert_eq!((count("a"), count("b")), (1, 3));
    }
}
