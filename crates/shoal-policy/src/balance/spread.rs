//! Which worker serves a connection that was accepted, where the kernel's hash has been uneven.

/// The worker that had better take the newest connection of worker `here`, when worker `n` has `open[n]` of them, the newest
/// included. `None` = it stays: what is won must be worth the way, which is one connection while they are few, and an eighth
/// of what everybody has when they are many.
pub fn better_worker(here: usize, open: impl Iterator<Item = usize> + Clone) -> Option<usize> {
    let own = open.clone().nth(here)?;
    let (sum, count) = open.clone().fold((0, 0), |(sum, count), open| (sum + open, count + 1));
    let (fewest, least) = open.enumerate().min_by_key(|(_, open)| *open)?;
    let slack = 1 + sum / count.max(1) / 8;
    (own > least + slack).then_some(fewest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_moves_where_it_makes_a_difference() {
        let check = |here, open: &[usize], expected| {
            assert_eq!(better_worker(here, open.iter().copied()), expected, "{here} {open:?}");
        };
        check(0, &[1], None);
        check(0, &[1, 0], None);
        check(0, &[2, 0], Some(1));
        check(1, &[2, 0], None);
        check(0, &[6, 5, 4], Some(2));
        check(1, &[6, 5, 4], None);
        check(0, &[18, 16, 16, 14], Some(3));
        check(0, &[17, 16, 16, 15], None);
        check(0, &[1100, 1000], None);
        check(0, &[1200, 1000], Some(1));
        check(3, &[1, 0], None);
        check(0, &[], None);
    }

    #[test]
    fn whatever_the_hash_does_workers_end_up_even() {
        for workers in 2..=8 {
            let mut open = vec![0; workers];
            let mut state = 88_172_645_463_325_252_u64;
            for _ in 0..64 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let here = (state % workers as u64) as usize;
                open[here] += 1;
                if let Some(there) = better_worker(here, open.iter().copied()) {
                    open[here] -= 1;
                    open[there] += 1;
                }
            }
            let (most, least) = (open.iter().max().unwrap(), open.iter().min().unwrap());
            assert!(most - least <= 2 + 64 / workers / 8, "{open:?}");
        }
    }
}
