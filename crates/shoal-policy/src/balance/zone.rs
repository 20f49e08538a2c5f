//! Which zone takes a request: the own one as far as it reaches, the others by what they have to spare.

/// Most zones that are told apart; endpoints of further ones count as of none.
pub const MAX_ZONES: usize = 16;

/// The zones as one node sees them. Place 0 stands for "none of them".
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Zones {
    /// Place of this node's own zone; 0 = its endpoints are nowhere near: no zone is preferred.
    pub own: u8,
    /// The share of all requests that comes in at each zone.
    pub demand: [f32; MAX_ZONES],
}

/// The zone that takes the request at `point`, 0 to 1. `usable` is the usable capacity H of each zone, `demand` the rate D
/// at which requests come in there, in the same unit: the own zone takes min(1, H ÷ D), the others what is left in
/// proportion to max(0, H − D), or to H if none has anything to spare. `None` = there is no capacity.
pub(super) fn zone_at(own: usize, usable: &[f64], demand: &[f64], point: f64) -> Option<usize> {
    let stays = match demand.get(own) {
        Some(&demand) if demand > usable[own] => usable[own] / demand,
        Some(_) if usable[own] > 0.0 => 1.0,
        _ => 0.0,
    };
    if point < stays {
        return Some(own);
    }
    let others = || (0..usable.len()).filter(|&zone| zone != own && usable[zone] > 0.0);
    let spare = |zone: usize| (usable[zone] - demand[zone]).max(0.0);
    let all_spare: f64 = others().map(spare).sum();
    let share = |zone: usize| if all_spare > 0.0 { spare(zone) } else { usable[zone] };
    let mut left = (point - stays) / (1.0 - stays) * others().map(share).sum::<f64>();
    let mut last = (usable.get(own).copied().unwrap_or(0.0) > 0.0).then_some(own);
    for zone in others().filter(|&zone| share(zone) > 0.0) {
        last = Some(zone);
        left -= share(zone);
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_zone_first_then_those_with_room() {
        let check = |own, usable: &[f64], demand: &[f64], expected: &[u64]| {
            let mut counts = vec![0; usable.len()];
            for n in 0..100_000 {
                if let Some(zone) = zone_at(own, usable, demand, (f64::from(n) + 0.5) / 100_000.0) {
                    counts[zone] += 1;
                }
            }
            let permille: Vec<u64> = counts.iter().map(|count| (count + 50) / 100).collect();
            assert_eq!(permille, expected, "{own}: {usable:?} {demand:?}");
        };
        check(0, &[1000.0, 1000.0, 1000.0], &[600.0, 600.0, 600.0], &[1000, 0, 0]);
        // Zone a is dead, half of b: of 420 requests a second b takes 51, c 369.
        check(0, &[0.0, 500.0, 1000.0], &[420.0, 420.0, 420.0], &[0, 121, 879]);
        check(1, &[0.0, 500.0, 1000.0], &[420.0, 420.0, 420.0], &[0, 1000, 0]);
        check(0, &[300.0, 500.0, 1000.0], &[600.0, 600.0, 600.0], &[500, 0, 500]);
        check(0, &[100.0, 100.0, 300.0], &[400.0, 400.0, 400.0], &[250, 188, 563]);
        check(0, &[0.0, 0.0], &[1.0, 1.0], &[0, 0]);
        check(0, &[5.0, 0.0], &[10.0, 10.0], &[1000, 0]);
    }
}
