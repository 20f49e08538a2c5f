//! A moving average of latency that rises at once and falls slowly.

/// Time after which an observation counts for 1/e.
const DECAY_MS: f32 = 10_000.0;

/// Peak EWMA: a slower answer is believed at once, faster ones little by little, so that a sudden stall is left quickly
/// (as in Finagle). Times are milliseconds of any clock that does not go back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ewma {
    value_us: f32,
    at_ms: u64,
}

impl Ewma {
    /// Takes in one latency.
    pub fn record(&mut self, latency_us: f32, now_ms: u64) {
        let current = self.value_us;
        if latency_us >= current {
            self.value_us = latency_us;
        } else {
            let kept = (-(now_ms.saturating_sub(self.at_ms) as f32) / DECAY_MS).exp();
            self.value_us = current * kept + latency_us * (1.0 - kept);
        }
        self.at_ms = now_ms;
    }

    /// The average now. It fades while nothing is heard, so that a slow endpoint is tried again.
    pub fn value_us(&self, now_ms: u64) -> f32 {
        let idle_ms = now_ms.saturating_sub(self.at_ms) as f32;
        if idle_ms < 1.0 { self.value_us } else { self.value_us * (-idle_ms / DECAY_MS).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_at_once_and_fades() {
        let mut ewma = Ewma::default();
        ewma.record(1000.0, 0);
        assert_eq!(ewma.value_us(0), 1000.0);
        ewma.record(9000.0, 10);
        assert_eq!(ewma.value_us(10), 9000.0);
        ewma.record(1000.0, 20);
        assert!(ewma.value_us(20) > 8900.0, "one fast answer does not undo a slow one");
        ewma.record(1000.0, 60_020);
        assert!(ewma.value_us(60_020) < 1100.0, "time does");
        assert!(ewma.value_us(90_020) < 100.0);
    }
}
