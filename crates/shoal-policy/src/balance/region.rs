//! Which region takes a request: the own one as far as it reaches, then others in the order that the site says, by what
//! they have to spare.

use shoal_model::site::Failback;

use super::Slot;
use super::tier::OVERPROVISIONING;

/// Most regions that one upstream is spread over, as a node sees it.
pub const MAX_REGIONS: usize = 8;

/// How much of the usable capacity of another region may be in use before nothing more is sent there.
const SPILL_CEILING: f64 = 0.8;
/// What climbs into other regions although the own one could still carry it, as a share of all requests a second.
const CLIMB_PER_SECOND: f64 = 0.1;
/// How long the own region must be able to carry everything before requests come back to it, ms.
const WELL_FOR_MS: u64 = 60_000;
/// What then comes back, as a share of all requests a second.
const RETURN_PER_SECOND: f64 = 0.01;

/// What one region has and does. Capacities and loads have one unit: requests a second, or weights where no endpoint has
/// a capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Region {
    /// Configured capacity, C.
    pub capacity: f64,
    /// Usable capacity, H: of endpoints that are available and not ejected, times slow start.
    pub usable: f64,
    /// What it has to do for itself, R.
    pub load: f64,
    /// The part of its room that is meant for this region, 0 to 1.
    pub due: f64,
    /// Should less than the panic threshold of it be usable while too little is left of all, it ignores health.
    pub panics: bool,
}

impl Region {
    /// The share of all requests that it can carry, 0 to 1.
    fn health(&self) -> f64 {
        if self.capacity > 0.0 { (OVERPROVISIONING * self.usable / self.capacity).min(1.0) } else { 0.0 }
    }
}

/// What each region has of `slots`, by the place of each slot's region: loads are not known here. Below
/// `panic_threshold_percent` of its capacity a region panics.
pub fn measure<'a>(
    slots: impl Iterator<Item = (&'a Slot, u8)>,
    panic_threshold_percent: u8,
) -> [Region; MAX_REGIONS] {
    let mut regions = [Region { due: 1.0, ..Region::default() }; MAX_REGIONS];
    for (slot, place) in slots.filter(|(slot, _)| slot.weight > 0) {
        let Some(region) = regions.get_mut(usize::from(place)) else { continue };
        let whole = f64::from(if slot.capacity > 0 { slot.capacity } else { slot.weight });
        region.capacity += whole;
        if slot.usable {
            region.usable += whole * (slot.share() as f64 / (f64::from(slot.weight) * 1000.0));
        }
    }
    for region in &mut regions {
        region.panics = region.usable * 100.0 < region.capacity * f64::from(panic_threshold_percent);
    }
    regions
}

/// How requests are divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    of: [f64; MAX_REGIONS],
    /// All regions together cannot carry everything: those that panic ignore health.
    pub too_little: bool,
}

impl Shares {
    /// The share of a region, 0 to 1.
    pub fn of(&self, place: usize) -> f64 {
        self.of.get(place).copied().unwrap_or(0.0)
    }

    /// The region that takes the request at `point`, 0 to 1.
    pub(super) fn at(&self, point: f64) -> usize {
        let mut left = point;
        for (place, share) in self.of.iter().enumerate() {
            left -= share;
            if left < 0.0 {
                return place;
            }
        }
        0
    }
}

/// What a region asks of all of them, itself first, as shares of its own requests: each by its health, in their order,
/// until all is taken; in proportion if together they carry less than everything.
pub fn wants(regions: &[Region]) -> [f64; MAX_REGIONS] {
    let home = regions.first().map_or(0.0, Region::health);
    let all = carried(regions);
    match all > 0.0 {
        true => spread((home / all).min(1.0), regions),
        false => spread(1.0, &[]),
    }
}

/// `home` stays, the rest goes to the others by their health.
fn spread(home: f64, regions: &[Region]) -> [f64; MAX_REGIONS] {
    let mut shares = [0.0; MAX_REGIONS];
    shares[0] = home;
    let (mut left, all) = (1.0 - home, carried(regions));
    for (share, region) in shares.iter_mut().zip(regions).skip(1) {
        *share = if all > 0.0 { (region.health() / all).min(left) } else { 0.0 };
        left -= *share;
    }
    shares
}

/// What all together can carry, 0 to 1.
fn carried(regions: &[Region]) -> f64 {
    regions.iter().map(Region::health).sum::<f64>().min(1.0)
}

/// What of an upstream leaves the region, from one moment to the next: out at once as far as it must, else little by
/// little, and slowly back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Failover {
    /// The share of requests that leaves, as far as others take it.
    away: f64,
    /// Since when the own region could carry everything, ms.
    well_since_ms: Option<u64>,
    /// When this was decided last, ms; `None` = never.
    at_ms: Option<u64>,
}

impl Failover {
    /// Divides the requests of now among `regions`, the own one first. `demand` is the rate at which they come in;
    /// `None` = capacities are no rates but weights: then others take whatever they are asked for, at once.
    pub fn divide(
        &mut self,
        regions: &[Region],
        demand: Option<f64>,
        failback: Failback,
        now_ms: u64,
    ) -> Shares {
        let regions = &regions[..regions.len().min(MAX_REGIONS)];
        let too_little = carried(regions) < 1.0;
        let room = |region: &Region, ceiling: f64| match demand {
            None => f64::INFINITY,
            Some(demand) => {
                let usable = if too_little && region.panics { region.capacity } else { region.usable };
                let room = (ceiling * usable - region.load).max(0.0) * region.due;
                if room > 0.0 { room / demand.max(f64::MIN_POSITIVE) } else { 0.0 }
            }
        };
        let own = regions.first().copied().unwrap_or_default();
        let stays = room(&Region { load: 0.0, due: 1.0, ..own }, 1.0).min(1.0);
        let target = 1.0 - wants(regions)[0].min(stays);
        // Whatever has left by now stays away, unless it may come back.
        let target = if failback == Failback::Manual { target.max(self.away) } else { target };
        self.move_towards(target, 1.0 - stays, demand.is_some(), now_ms);
        self.watch(own.health() >= 1.0, now_ms);

        let mut of = spread(1.0 - self.away, regions);
        // What one region has no room for goes on to the next; what none has room for stays at home.
        let mut carry = 0.0;
        for (share, region) in of.iter_mut().zip(regions).skip(1) {
            let wanted = *share + carry;
            *share = wanted.min(room(region, SPILL_CEILING));
            carry = wanted - *share;
        }
        of[0] = 1.0 - of[1..].iter().sum::<f64>();
        Shares { of, too_little }
    }

    /// `target` is what should leave, `forced` what must.
    fn move_towards(&mut self, target: f64, forced: f64, climbs: bool, now_ms: u64) {
        let Some(at_ms) = self.at_ms else {
            self.away = target;
            return;
        };
        let seconds_since = |from_ms: u64| now_ms.saturating_sub(from_ms) as f64 / 1000.0;
        if self.away < target {
            let climbed = if climbs { self.away + CLIMB_PER_SECOND * seconds_since(at_ms) } else { target };
            self.away = climbed.min(target).max(forced);
        } else if let Some(well_since_ms) = self.well_since_ms {
            let returning = seconds_since(at_ms.max(well_since_ms + WELL_FOR_MS));
            self.away = (self.away - RETURN_PER_SECOND * returning).max(target);
        }
    }

    /// Remembers since when the own region could carry everything.
    fn watch(&mut self, is_well: bool, now_ms: u64) {
        self.well_since_ms = is_well.then(|| self.well_since_ms.unwrap_or(now_ms));
        self.at_ms = Some(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EU: Region = Region { capacity: 3000.0, usable: 3000.0, load: 0.0, due: 1.0, panics: false };
    const US: Region = Region { capacity: 4000.0, usable: 4000.0, load: 2600.0, due: 0.5, panics: false };
    const AP: Region = Region { capacity: 2000.0, usable: 2000.0, load: 900.0, due: 1.0, panics: false };
    const DEMAND: f64 = 1800.0;

    /// The rates that go to each, rounded.
    fn rates(shares: Shares, demand: f64) -> [u64; 3] {
        std::array::from_fn(|place| (shares.of(place) * demand).round() as u64)
    }

    #[test]
    fn usable_shares_say_what_is_wanted() {
        let check = |usable: &[f64], expected: &[f64]| {
            let regions: Vec<Region> = usable
                .iter()
                .map(|&usable| Region { capacity: 100.0, usable, ..Region::default() })
                .collect();
            let percents: Vec<f64> = wants(&regions).map(|want| (want * 100.0).round()).to_vec();
            assert_eq!(&percents[..usable.len().max(1)], expected, "{usable:?}");
        };
        check(&[100.0, 100.0], &[100.0, 0.0]);
        check(&[72.0, 100.0], &[100.0, 0.0]);
        check(&[50.0, 100.0], &[70.0, 30.0]);
        check(&[25.0, 25.0, 100.0], &[35.0, 35.0, 30.0]);
        check(&[25.0, 25.0, 20.0], &[36.0, 36.0, 29.0]);
        check(&[0.0, 0.0, 50.0], &[0.0, 0.0, 100.0]);
        check(&[50.0, 0.0], &[100.0, 0.0]);
        check(&[0.0, 0.0], &[100.0, 0.0]);
        check(&[], &[100.0]);
    }

    #[test]
    fn capacity_counts_and_else_weight() {
        let check = |slot: Slot, capacity, usable, panics| {
            let regions = measure([(&slot, 1)].into_iter(), 50);
            assert_eq!(
                (regions[1].capacity, regions[1].usable, regions[1].panics),
                (capacity, usable, panics)
            );
            assert_eq!((regions[0].capacity, regions[0].panics), (0.0, false));
        };
        let slot = Slot { weight: 3, usable: true, ..Slot::default() };
        check(slot, 3.0, 3.0, false);
        check(Slot { capacity: 250, ..slot }, 250.0, 250.0, false);
        check(Slot { capacity: 250, withheld_permille: 600, ..slot }, 250.0, 100.0, true);
        check(Slot { capacity: 250, usable: false, ..slot }, 250.0, 0.0, true);
        check(Slot { capacity: 250, weight: 0, ..slot }, 0.0, 0.0, false);
        assert_eq!(measure([(&slot, 255)].into_iter(), 50)[0].capacity, 0.0);
    }

    #[test]
    fn half_a_region_is_lost_and_comes_back() {
        let mut failover = Failover::default();
        let half = Region { usable: 1500.0, ..EU };
        let mut check = |eu: Region, us_due: f64, at_ms: u64, expected: [u64; 3]| {
            let regions = [eu, Region { due: us_due, ..US }, AP];
            let shares = failover.divide(&regions, Some(DEMAND), Failback::Automatic, at_ms);
            assert_eq!(rates(shares, DEMAND), expected, "at {at_ms} ms");
            assert!(!shares.too_little);
        };
        check(EU, 0.5, 0, [1800, 0, 0]);
        // What home cannot carry leaves at once; the rest climbs by 180 requests a second each second.
        check(half, 0.5, 0, [1500, 300, 0]);
        check(half, 0.5, 1000, [1320, 300, 180]);
        check(half, 0.5, 2000, [1260, 300, 240]);
        check(half, 0.5, 3000, [1260, 300, 240]);
        // The other region that fails over to us wants 240 of it, this one 540.
        check(half, 540.0 / 780.0, 4000, [1260, 415, 125]);
        // Not yet enough to carry everything, and then for a minute.
        check(Region { usable: 2100.0, ..EU }, 1.0, 100_000, [1260, 540, 0]);
        check(Region { usable: 2150.0, ..EU }, 1.0, 200_000, [1260, 540, 0]);
        check(Region { usable: 2150.0, ..EU }, 1.0, 260_000, [1260, 540, 0]);
        check(Region { usable: 2150.0, ..EU }, 1.0, 270_000, [1440, 360, 0]);
        check(Region { usable: 2150.0, ..EU }, 1.0, 280_000, [1620, 180, 0]);
        check(Region { usable: 2150.0, ..EU }, 1.0, 290_000, [1800, 0, 0]);
        check(EU, 1.0, 999_000, [1800, 0, 0]);
    }

    #[test]
    fn a_lapse_begins_the_minute_anew() {
        let mut failover = Failover::default();
        let mut away = |usable: f64, at_ms: u64| {
            let regions = [Region { usable, ..EU }, Region { load: 0.0, due: 1.0, ..US }];
            (failover.divide(&regions, Some(DEMAND), Failback::Automatic, at_ms).of(1) * 100.0).round()
        };
        assert_eq!(away(1500.0, 0), 30.0);
        assert_eq!(away(3000.0, 1_000), 30.0);
        assert_eq!(away(2100.0, 59_000), 30.0);
        assert_eq!(away(3000.0, 60_000), 30.0);
        assert_eq!(away(3000.0, 119_000), 30.0);
        assert_eq!(away(3000.0, 125_000), 25.0);
    }

    #[test]
    fn who_comes_back_by_hand_waits_for_it() {
        use Failback::{Automatic, Manual};

        let mut failover = Failover::default();
        let mut away = |usable: f64, failback: Failback, at_ms: u64| {
            let regions = [Region { usable, ..EU }, Region { load: 0.0, due: 1.0, ..US }];
            (failover.divide(&regions, Some(DEMAND), failback, at_ms).of(1) * 100.0).round()
        };
        assert_eq!(away(3000.0, Manual, 0), 0.0);
        assert_eq!(away(2000.0, Manual, 10_000), 7.0);
        assert_eq!(away(3000.0, Manual, 20_000), 7.0);
        assert_eq!(away(1500.0, Manual, 30_000), 30.0, "more may leave");
        assert_eq!(away(3000.0, Manual, 40_000), 30.0);
        assert_eq!(away(3000.0, Manual, 999_000), 30.0);
        assert_eq!(away(3000.0, Automatic, 1_004_000), 25.0);
        assert_eq!(away(3000.0, Manual, 1_100_000), 25.0, "as far as it came");
    }

    #[test]
    fn a_lost_region_leaves_as_far_as_others_have_room() {
        let check = |regions: [Region; 3], demand: Option<f64>, expected: [u64; 3]| {
            let mut failover = Failover::default();
            failover.divide(&[EU, US, AP], demand, Failback::Automatic, 0);
            let demand_then = demand.unwrap_or(1000.0);
            let shares = failover.divide(&regions, demand, Failback::Automatic, 1);
            assert_eq!(rates(shares, demand_then), expected, "{regions:?}");
        };
        let gone = |region: Region| Region { usable: 0.0, panics: true, ..region };
        check([gone(EU), US, AP], Some(900.0), [0, 300, 600]);
        // Nobody has room for more: it is tried at home.
        check([gone(EU), US, AP], Some(1200.0), [200, 300, 700]);
        check([gone(EU), gone(US), gone(AP)], Some(1200.0), [1200, 0, 0]);
        // More than home can carry, although it is whole.
        check([EU, US, AP], Some(3400.0), [3000, 300, 100]);
        // Nothing is known of rates yet.
        check([gone(EU), US, AP], Some(0.0), [0, 0, 0]);
        // Weights: whoever is well takes it, at once.
        check([gone(EU), US, AP], None, [0, 1000, 0]);
        check([Region { usable: 1500.0, ..EU }, US, AP], None, [700, 300, 0]);
        check([gone(EU), gone(US), Region { usable: 1000.0, ..AP }], None, [0, 0, 1000]);
    }

    #[test]
    fn points_fall_into_the_shares() {
        let mut of = [0.0; MAX_REGIONS];
        of[..3].copy_from_slice(&[0.5, 0.2, 0.3]);
        let shares = Shares { of, too_little: false };
        let check = |point, expected| assert_eq!(shares.at(point), expected, "{point}");
        check(0.0, 0);
        check(0.49, 0);
        check(0.5, 1);
        check(0.71, 2);
        check(0.999, 2);
        check(1.0, 0);
    }
}
