//! How often each place was chosen: which region, zone and priority the tries of an upstream went to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use shoal_model::view::EndpointView;

use crate::metrics::{self, OTHER};

/// Places that are counted by themselves, on one node and since its start.
const MAX_PLACES: usize = 1000;

/// Where an endpoint stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    upstream: Arc<str>,
    region: Box<str>,
    zone: Box<str>,
    priority: u32,
}

/// The tries of all upstreams whose endpoints stand in several places.
#[derive(Default)]
pub(crate) struct Places(Mutex<BTreeMap<Place, Arc<AtomicU64>>>);

impl Places {
    /// What tries at each of `endpoints` are counted by; `None` = all stand in one place, and need not be told apart.
    pub(super) fn of(
        &self,
        upstream: &Arc<str>,
        endpoints: &[EndpointView],
    ) -> Option<Box<[Arc<AtomicU64>]>> {
        let place = |endpoint: &EndpointView| Place {
            upstream: upstream.clone(),
            region: endpoint.region.clone().unwrap_or_default(),
            zone: endpoint.zone.clone().unwrap_or_default(),
            priority: endpoint.priority,
        };
        let first = place(endpoints.first()?);
        if endpoints.iter().all(|endpoint| place(endpoint) == first) {
            return None;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = |place: Place| {
            let is_full = known.len() >= MAX_PLACES && !known.contains_key(&place);
            let counted_as =
                if is_full { Place { upstream: OTHER.into(), ..Place::default() } } else { place };
            known.entry(counted_as).or_default().clone()
        };
        Some(endpoints.iter().map(|endpoint| count(place(endpoint))).collect())
    }

    /// Appends the figures as Prometheus text.
    pub(crate) fn render(&self, out: &mut String) {
        const NAME: &str = "shoal_upstream_place_tries_total";
        metrics::head(
            out,
            NAME,
            "counter",
            "Tries by where their endpoint stands, of upstreams with endpoints in several regions, zones or priorities.",
        );
        for (place, tries) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = format!(
                "upstream=\"{}\",region=\"{}\",zone=\"{}\",priority=\"{}\"",
                metrics::escape(&place.upstream),
                metrics::escape(&place.region),
                metrics::escape(&place.zone),
                place.priority
            );
            metrics::line(out, NAME, &labels, tries.load(Relaxed));
        }
    }
}
