//! Which counters of a sender were seen already.

/// How far a datagram may be overtaken by later ones and still count.
const WIDTH: u64 = 128;

/// A sliding window over the counters of one sender, as IPsec has it (RFC 4303 §3.4.3).
#[derive(Clone, Debug, Default)]
pub(super) struct ReplayWindow {
    highest: u64,
    /// Bit n: `highest - n` was seen.
    seen: u128,
}

impl ReplayWindow {
    /// Whether `counter` is new; from then on it is not. Counters start at 1.
    pub(super) fn admit(&mut self, counter: u64) -> bool {
        if counter == 0 {
            return false;
        }
        if counter > self.highest {
            let ahead = counter - self.highest;
            self.seen = if ahead < WIDTH { self.seen << ahead } else { 0 } | 1;
            self.highest = counter;
            return true;
        }
        let behind = self.highest - counter;
        if behind >= WIDTH {
            return false;
        }
        let bit = 1 << behind;
        let new = self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_admitted_once() {
        let check = |counters: &[(u64, bool)]| {
            let mut window = ReplayWindow::default();
            for (step, (counter, expected)) in counters.iter().enumerate() {
                assert_eq!(window.admit(*counter), *expected, "step {step}: {counter}");
            }
        };
        check(&[(0, false), (1, true), (1, false), (2, true), (1, false)]);
        check(&[(3, true), (1, true), (2, true), (2, false), (3, false)]);
        check(&[(200, true), (73, true), (72, false), (200, false), (73, false)]);
        check(&[(1, true), (128, true), (1, false), (2, true), (129, true), (1, false), (2, false)]);
        check(&[(1, true), (1 << 40, true), (1, false), ((1 << 40) - 127, true)]);
        check(&[(u64::MAX, true), (u64::MAX, false), (u64::MAX - 1, true)]);
    }
}
