//! Series by name, so many and no more: what comes beyond the limit is counted as one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

use super::Traffic;

/// Names of one kind (listener, route, upstream) with series of their own, on one node and since its start: counters never
/// fall, so a name that is gone from the site keeps its place.
pub(super) const MAX_SERIES: usize = 1000;
/// The series of all other names; no object of a site can be called this.
pub const OTHER: &str = "(other)";

/// The names that have series of their own: the same ones on all workers, else a sum over workers would mean nothing.
#[derive(Default)]
pub(crate) struct Names {
    pub(super) listeners: Arc<Known>,
    pub(super) routes: Arc<Known>,
    pub(super) upstreams: Arc<Known>,
}

/// Names of one kind.
#[derive(Default)]
pub(super) struct Known(Mutex<FxHashSet<Arc<str>>>);

impl Known {
    /// `name`, or what it is counted as.
    fn admit(&self, name: &Arc<str>) -> Arc<str> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) {
            return name.clone();
        }
        if names.len() >= MAX_SERIES {
            return OTHER.into();
        }
        names.insert(name.clone());
        name.clone()
    }
}

/// The cells of one worker and one kind. The locks are for the scrape: a request holds its cells already.
#[derive(Default)]
pub(super) struct Series {
    known: Arc<Known>,
    cells: Mutex<FxHashMap<Arc<str>, Arc<Traffic>>>,
}

impl Series {
    pub(super) fn new(known: &Arc<Known>) -> Self {
        Self { known: known.clone(), cells: Mutex::default() }
    }

    /// The cells that `name` is counted in.
    pub(super) fn of(&self, name: &Arc<str>) -> Arc<Traffic> {
        if let Some(traffic) = self.lock().get(name) {
            return traffic.clone();
        }
        let name = self.known.admit(name);
        self.lock().entry(name).or_default().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, FxHashMap<Arc<str>, Arc<Traffic>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::site::read_site;

    use super::*;

    #[test]
    fn nothing_in_a_site_is_called_as_all_others_are() {
        for (name, is_a_name) in [("other", true), (OTHER, false)] {
            let text = format!("upstreams:\n  \"{name}\": {{ endpoints: [\"127.0.0.1:1\"] }}\n");
            assert_eq!(read_site("site.yaml", &text).is_ok(), is_a_name, "{name}");
        }
    }

    #[test]
    fn names_beyond_the_limit_are_one_series_on_every_worker() {
        let names = Names::default();
        let [first, second] = [(); 2].map(|()| Series::new(&names.routes));
        let name = |n: usize| Arc::<str>::from(format!("route{n}"));
        for n in 0..MAX_SERIES + 5 {
            first.of(&name(n)).retries.add(1);
        }
        second.of(&name(MAX_SERIES + 1)).retries.add(1);
        second.of(&name(0)).retries.add(1);
        assert_eq!((first.lock().len(), second.lock().len()), (MAX_SERIES + 1, 2));
        assert_eq!(first.lock()[OTHER].retries.read(), 5);
        assert_eq!(second.lock()[OTHER].retries.read(), 1);
        assert_eq!(second.lock()[&name(0)].retries.read(), 1);
    }
}
