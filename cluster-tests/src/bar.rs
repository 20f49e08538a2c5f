//! For how long something may take.

use std::time::Duration;

use anyhow::{Result, ensure};

/// For so long a machine that has other things to do may stand still, in milliseconds.
const STALL_MS: u64 = 3000;

/// What is wished for, which is said, and what is asserted, which goes by what was measured: a story knows neither which build
/// it tells of nor what else its machine does. Measured are debug builds on two CPUs, with other builds at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    wished: Duration,
    most: Duration,
}

impl Bar {
    /// All in milliseconds. `measured` is the longest; asserted is half as much again, and that the machine stands still once.
    pub const fn of_ms(wished: u64, measured: u64) -> Self {
        let most = measured + measured / 2 + STALL_MS;
        Self { wished: Duration::from_millis(wished), most: Duration::from_millis(most) }
    }

    /// Of a median, which does not notice when a machine stands still; asserted is three times what was `measured`.
    pub const fn of_median_ms(wished: u64, measured: u64) -> Self {
        Self { wished: Duration::from_millis(wished), most: Duration::from_millis(3 * measured) }
    }

    /// Says how long `what` took, and fails where that is far more than what was measured.
    pub fn hold(self, what: &str, took: Duration) -> Result<()> {
        let Self { wished, most } = self;
        eprintln!("{what}: {took:.2?}; wished for {wished:?}, asserted {most:?}");
        ensure!(took <= most, "{what}: {took:.2?}, and not within {most:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wished_for_is_not_held_to() {
        for (bar, most) in [
            (Bar::of_ms(100, 280), 3420_u64),
            (Bar::of_ms(3000, 1380), 5070),
            (Bar::of_median_ms(100, 280), 840),
        ] {
            let took = |more: u64| Duration::from_millis(most + more);
            assert!(bar.hold("a gap", took(0)).is_ok(), "{bar:?}");
            let missed = bar.hold("a gap", took(1)).unwrap_err().to_string();
            assert!(missed.starts_with("a gap: ") && missed.contains("not within"), "{missed}");
        }
    }
}
