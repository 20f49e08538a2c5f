//! How fast new connections may come (GCRA): one number of state, so that one atomic cell can hold it for all workers.

/// Takes in an arrival at `now_us` under a limit of `per_second`, with a burst of one second's worth. `state` is what the
/// last call answered, 0 at first; `None` = too fast, and nothing has changed.
pub fn admit(state: u64, now_us: u64, per_second: u32) -> Option<u64> {
    const BURST_US: u64 = 1_000_000;
    let apart_us = (BURST_US / u64::from(per_second.max(1))).max(1);
    let next = state.max(now_us) + apart_us;
    (next <= now_us + BURST_US).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_and_then_the_rate() {
        let check = |per_second: u32, arrivals_us: &[(u64, usize)], expected: &[usize]| {
            let mut state = 0;
            for ((now_us, count), expected) in arrivals_us.iter().zip(expected) {
                let mut admitted = 0;
                for _ in 0..*count {
                    if let Some(next) = admit(state, *now_us, per_second) {
                        (state, admitted) = (next, admitted + 1);
                    }
                }
                assert_eq!(admitted, *expected, "{per_second}/s at {now_us}");
            }
        };
        let second = 1_000_000;
        check(10, &[(0, 50), (second, 50)], &[10, 10]);
        check(10, &[(0, 50), (second / 2, 50)], &[10, 5]);
        check(1, &[(7 * second, 5), (8 * second, 5)], &[1, 1]);
        check(1000, &[(0, 999), (1, 5), (9 * second, 2000)], &[999, 1, 1000]);
        check(0, &[(0, 3)], &[1]);
        check(u32::MAX, &[(0, 10_000)], &[10_000]);
    }
}
