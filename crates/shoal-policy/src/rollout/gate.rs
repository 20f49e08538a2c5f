//! Whether the nodes that try a revision do worse than those that do not, in the same minutes.

use std::collections::BTreeMap;
use std::fmt;

/// Fewer requests on either side say nothing.
const LEAST_REQUESTS: u64 = 50;
/// Requests on either side with which it can be said that they do as well.
pub const ENOUGH_REQUESTS: u64 = 1_000;
/// A smaller difference of the shares is nobody's business, however certain.
const LEAST_DIFFERENCE: f64 = 0.01;
/// How many standard errors lie between the shares: by chance in one of 30,000 comparisons, of which there are many.
const LEAST_Z: f64 = 4.0;
/// The share of requests that are slow where nothing is wrong: what takes longer than the others' p99 does.
const SLOW_SHARE: f64 = 0.01;
/// So many times the others' p99 is slow: the bounds between which durations are counted lie about as far apart.
const SLOW_FACTOR: u64 = 2;
/// No request that takes less is slow, µs.
const LEAST_SLOW_US: u64 = 25_000;

/// The same for one route, of which there may be many: by chance in one of 3.5 million.
const LEAST_Z_OF_ROUTE: f64 = 5.0;

/// Requests, how many of them failed, and how long they took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that came to a route and say something of what is served.
    pub requests: u64,
    /// Answered with what speaks against what is served.
    pub errors: u64,
    /// Of those, without a connection to an endpoint.
    pub unconnected: u64,
    /// How long answers took that did not wait for their downstream: upper bound in µs (`None` = there is none) and how many
    /// lie between it and the one before.
    pub durations: Vec<(Option<u64>, u64)>,
}

impl Counts {
    /// What was counted since `from`.
    pub fn since(&self, from: &Self) -> Self {
        let before = |place: usize| from.durations.get(place).map_or(0, |(_, count)| *count);
        let durations = self.durations.iter().enumerate();
        Self {
            requests: self.requests.saturating_sub(from.requests),
            errors: self.errors.saturating_sub(from.errors),
            unconnected: self.unconnected.saturating_sub(from.unconnected),
            durations: durations
                .map(|(place, (bound, count))| (*bound, count.saturating_sub(before(place))))
                .collect(),
        }
    }

    /// The bound below which 99 of 100 requests lie; `None` = there is none.
    fn p99_us(&self) -> Option<u64> {
        let all: u64 = self.durations.iter().map(|(_, count)| count).sum();
        let mut seen = 0;
        let place = self.durations.iter().position(|(_, count)| {
            seen += count;
            seen as f64 >= all as f64 * (1.0 - SLOW_SHARE)
        });
        self.durations[place?].0
    }

    fn slower_than(&self, bound_us: u64) -> u64 {
        let is_slow = |(bound, _): &&(Option<u64>, u64)| bound.is_none_or(|bound| bound > bound_us);
        self.durations.iter().filter(is_slow).map(|(_, count)| count).sum()
    }
}

impl std::ops::AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.unconnected += other.unconnected;
        if self.durations.is_empty() {
            self.durations.clone_from(&other.durations);
            return;
        }
        for ((_, sum), (_, count)) in self.durations.iter_mut().zip(&other.durations) {
            *sum += count;
        }
    }
}

/// What was counted in all, and by route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Of all routes.
    pub all: Counts,
    /// Of each.
    pub routes: BTreeMap<String, Counts>,
}

impl Tally {
    /// What was counted since `from`.
    pub fn since(&self, from: &Self) -> Self {
        let nothing = Counts::default();
        let since = |(name, counts): (&String, &Counts)| {
            (name.clone(), counts.since(from.routes.get(name).unwrap_or(&nothing)))
        };
        Self { all: self.all.since(&from.all), routes: self.routes.iter().map(since).collect() }
    }

    /// Nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.all.requests == 0
    }
}

impl std::ops::AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.all += &other.all;
        for (name, counts) in &other.routes {
            match self.routes.get_mut(name) {
                Some(sum) => *sum += counts,
                None => _ = self.routes.insert(name.clone(), counts.clone()),
            }
        }
    }
}

/// Those that try it do worse.
#[derive(Clone, Debug, PartialEq)]
pub struct Worse {
    /// In which way.
    pub how: How,
    /// On which route; `None` = in all.
    pub route: Option<String>,
    /// The share of such requests of those that try it, percent.
    pub tried_percent: f64,
    /// Of the others.
    pub others_percent: f64,
    /// All requests of those that try it.
    pub tried: u64,
    /// Of the others.
    pub others: u64,
}

/// What is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Answers with a status from 500.
    Fails,
    /// Endpoints that cannot be connected to.
    Unconnected,
    /// Requests that take longer than so many µs.
    Slower(u64),
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { how, route, tried_percent, others_percent, tried, others } = self;
        write!(f, "{tried_percent:.1} % of {tried} requests ")?;
        if let Some(route) = route {
            write!(f, "of the route {route:?} ")?;
        }
        match how {
            How::Fails => f.write_str("failed")?,
            How::Unconnected => f.write_str("found no endpoint to connect to")?,
            How::Slower(us) => write!(f, "took longer than {} ms", us / 1000)?,
        }
        write!(f, " with it, {others_percent:.1} % of {others} without it")
    }
}

/// What nodes have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Since the trial began.
    pub now: Tally,
    /// From their start until then.
    pub before: Tally,
}

impl std::ops::AddAssign<&Self> for Side {
    fn add_assign(&mut self, other: &Self) {
        self.now += &other.now;
        self.before += &other.before;
    }
}

/// The same, all of it or of one route.
#[derive(Clone, Copy)]
struct Part<'a> {
    now: &'a Counts,
    before: Option<&'a Counts>,
}

impl Part<'_> {
    /// The share of the requests before that `bad` counts, and the variance of that; `None` = there were too few.
    fn share_before(self, bad: &dyn Fn(&Counts) -> u64) -> Option<(f64, f64)> {
        let before = self.before.filter(|before| before.requests >= LEAST_REQUESTS)?;
        let share = bad(before) as f64 / before.requests as f64;
        Some((share, share * (1.0 - share) / before.requests as f64))
    }
}

/// Tests of two proportions (pooled z-tests), of all requests and then of those of each route: one that is asked for seldom may
/// be dead without showing among all of them. By how much those that try it were worse than the others before is no fault of
/// what they try: not all have the same clients. `None` = not worse, as far as can be told.
pub fn compare(tried: &Side, others: &Side) -> Option<Worse> {
    compare_all(tried.all(), others.all()).or_else(|| {
        tried.now.routes.keys().find_map(|name| {
            let failed = |counts: &Counts| counts.errors;
            let (tried, others) = (tried.route(name)?, others.route(name)?);
            let worse = test(How::Fails, &failed, tried, others, LEAST_Z_OF_ROUTE)?;
            Some(Worse { route: Some(name.clone()), ..worse })
        })
    })
}

impl Side {
    fn all(&self) -> Part<'_> {
        Part { now: &self.now.all, before: Some(&self.before.all) }
    }

    fn route(&self, name: &str) -> Option<Part<'_>> {
        Some(Part { now: self.now.routes.get(name)?, before: self.before.routes.get(name) })
    }
}

fn compare_all(tried: Part<'_>, others: Part<'_>) -> Option<Worse> {
    let test = |how, bad: &dyn Fn(&Counts) -> u64| test(how, bad, tried, others, LEAST_Z);
    test(How::Unconnected, &|counts| counts.unconnected.min(counts.requests))
        .or_else(|| test(How::Fails, &|counts| counts.errors))
        .or_else(|| {
            let slow_us = others.now.p99_us()?.saturating_mul(SLOW_FACTOR).max(LEAST_SLOW_US);
            test(How::Slower(slow_us), &|counts| counts.slower_than(slow_us))
        })
}

fn test(
    how: How,
    bad: &dyn Fn(&Counts) -> u64,
    tried: Part<'_>,
    others: Part<'_>,
    least_z: f64,
) -> Option<Worse> {
    let (requests, others_requests) = (tried.now.requests, others.now.requests);
    if requests.min(others_requests) < LEAST_REQUESTS {
        return None;
    }
    let (n, m) = (requests as f64, others_requests as f64);
    let (bad_now, bad_others) = (bad(tried.now) as f64, bad(others.now) as f64);
    let (p, q) = (bad_now / n, bad_others / m);
    let pooled = (bad_now + bad_others) / (n + m);
    let variance = pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m);
    // What both were before, in an outage of all, excuses nobody.
    let (excuse, uncertainty) = match (tried.share_before(bad), others.share_before(bad)) {
        (Some((p, of_p)), Some((q, of_q))) if p > q => (p - q, of_p + of_q),
        _ => (0.0, 0.0),
    };
    let (difference, error) = (p - q - excuse, (variance + uncertainty).sqrt());
    let is_worse = difference >= LEAST_DIFFERENCE && error > 0.0 && difference / error >= least_z;
    is_worse.then_some(Worse {
        how,
        route: None,
        tried_percent: p * 100.0,
        others_percent: q * 100.0,
        tried: requests,
        others: others_requests,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(requests: u64, errors: u64) -> Counts {
        Counts { requests, errors, ..Counts::default() }
    }

    /// Of nodes that have just been started.
    fn side(now: Tally) -> Side {
        Side { now, before: Tally::default() }
    }

    fn compare_counts(tried: &Counts, others: &Counts) -> Option<Worse> {
        compare_all(Part { now: tried, before: None }, Part { now: others, before: None })
    }

    #[test]
    fn what_was_so_before_is_no_fault_of_what_is_tried() {
        // Requests and errors of those that try it and of the others: before, and now.
        for (before, now, expected) in [
            ([(10_000, 1_400), (20_000, 0)], [(1_000, 140), (2_000, 0)], false),
            ([(10_000, 1_400), (20_000, 0)], [(1_000, 300), (2_000, 0)], true),
            ([(10_000, 1_400), (20_000, 0)], [(1_000, 155), (2_000, 0)], false), // that happens
            ([(49, 7), (20_000, 0)], [(1_000, 140), (2_000, 0)], true),          // it was too few
            ([(10_000, 5_000), (20_000, 10_000)], [(1_000, 140), (2_000, 0)], true), // an outage of all
            ([(10_000, 0), (20_000, 2_800)], [(1_000, 140), (2_000, 280)], false),
            ([(10_000, 0), (20_000, 2_800)], [(1_000, 140), (2_000, 0)], true),
        ] {
            let side = |place: usize| {
                let tally = |(requests, errors)| {
                    let routes = BTreeMap::from([("r".to_owned(), counts(requests, errors))]);
                    Tally { all: counts(requests, errors), routes }
                };
                Side { now: tally(now[place]), before: tally(before[place]) }
            };
            assert_eq!(compare(&side(0), &side(1)).is_some(), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn only_a_certain_difference_counts() {
        for (tried, others, expected) in [
            ((0, 0), (0, 0), false),
            ((49, 49), (1000, 0), false), // too few
            ((50, 50), (1000, 0), true),
            ((1000, 1000), (49, 0), false),  // nobody to compare with
            ((1000, 20), (10_000, 0), true), // 2 %
            ((100, 2), (1000, 0), true),     // z = 4.48
            ((100, 2), (100, 0), false),     // that happens
            ((1000, 20), (1000, 15), false),
            ((1000, 500), (1000, 500), false), // the endpoints are ill, on both sides
            ((1000, 0), (1000, 500), false),
            ((1_000_000, 5000), (1_000_000, 1000), false), // certain, but small
            ((1000, 1000), (1000, 1000), false),
        ] {
            let counts = |(requests, errors)| counts(requests, errors);
            assert_eq!(
                compare_counts(&counts(tried), &counts(others)).is_some(),
                expected,
                "{tried:?} {others:?}"
            );
        }
        let worse = compare_counts(&counts(200, 50), &counts(400, 2)).unwrap();
        assert_eq!(worse.to_string(), "25.0 % of 200 requests failed with it, 0.5 % of 400 without it");
    }

    #[test]
    fn a_route_that_is_seldom_asked_for_counts_by_itself() {
        // Requests and errors of the route "b", among 10,000 of others that are well.
        for (tried, others, expected) in [
            ((49, 49), (1000, 0), false), // too few
            ((60, 60), (60, 0), true),
            ((60, 60), (60, 60), false), // dead before
            ((60, 3), (60, 0), false),   // that happens
            ((1000, 40), (1000, 0), true),
        ] {
            let tally = |(requests, errors)| {
                let routes = BTreeMap::from([("b".to_owned(), counts(requests, errors))]);
                Tally { all: counts(10_000 + requests, errors), routes }
            };
            let worse = compare(&side(tally(tried)), &side(tally(others)));
            assert_eq!(worse.is_some(), expected, "{tried:?} {others:?}");
            assert!(worse.is_none_or(|worse| worse.route.as_deref() == Some("b")));
        }
        let here = BTreeMap::from([("b".to_owned(), counts(60, 60))]);
        let gone = Tally { all: counts(10_000, 0), routes: BTreeMap::new() };
        assert_eq!(
            compare(&side(Tally { all: counts(10_060, 60), routes: here }), &side(gone)),
            None,
            "it is new"
        );
    }

    #[test]
    fn what_cannot_be_connected_to_is_named_as_that() {
        let tried = Counts { unconnected: 50, ..counts(200, 50) };
        let told = compare_counts(&tried, &counts(400, 2)).unwrap().to_string();
        assert_eq!(
            told,
            "25.0 % of 200 requests found no endpoint to connect to with it, 0.0 % of 400 without it"
        );
    }

    #[test]
    fn slow_is_what_takes_longer_than_twice_the_p99_of_the_others() {
        // Below 10 ms, 50 ms, 100 ms, and above.
        let timed = |buckets: [u64; 4]| {
            let bounds = [Some(10_000), Some(50_000), Some(100_000), None];
            let durations = bounds.into_iter().zip(buckets).collect();
            Counts { durations, ..counts(buckets.iter().sum(), 0) }
        };
        for (tried, others, slower_than_us) in [
            ([1000, 0, 0, 0], [1000, 0, 0, 0], None),
            ([900, 100, 0, 0], [1000, 0, 0, 0], Some(25_000)),
            ([999, 1, 0, 0], [1000, 0, 0, 0], None),
            ([900, 0, 0, 100], [900, 100, 0, 0], Some(100_000)),
            ([900, 0, 100, 0], [900, 100, 0, 0], None), // not twice as long
            ([900, 0, 0, 100], [900, 0, 0, 100], None),
            ([40, 9, 0, 0], [1000, 0, 0, 0], None),
        ] {
            let how = compare_counts(&timed(tried), &timed(others)).map(|worse| worse.how);
            assert_eq!(how, slower_than_us.map(How::Slower), "{tried:?} {others:?}");
        }
    }

    #[test]
    fn counters_since_a_moment_are_differences() {
        let at = |requests, slow| Counts {
            durations: vec![(Some(10), requests), (None, slow)],
            ..counts(requests, 1)
        };
        let mut sum = at(9, 4).since(&at(5, 1));
        assert_eq!((sum.requests, sum.errors, &sum.durations[..]), (4, 0, &[(Some(10), 4), (None, 3)][..]));
        sum += &at(9, 4);
        assert_eq!((sum.requests, &sum.durations[..]), (13, &[(Some(10), 13), (None, 7)][..]));
        assert_eq!(at(9, 4).since(&Counts::default()).durations, at(9, 4).durations);
    }
}
