//! How many answers one network is sent over UDP, where anybody can ask in the name of anybody.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Buckets, which networks share by chance: 16 bytes each, whatever is asked by whom.
const BUCKETS: usize = 1 << 14;
/// What may be sent at once after a quiet time, as a time of the rate.
const BURST_US: u64 = 1_000_000;

/// The rate of answers by network: a /24 of IPv4, a /56 of IPv6.
#[derive(Debug)]
pub struct ResponseRate {
    /// Between two answers; 0 = nothing is limited.
    interval_us: u64,
    seed: u64,
    buckets: Box<[Bucket]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When it will be full again.
    full_at_us: u64,
    limited: u64,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Send,
    /// Who asks is told to come by TCP, which only he can whose address it is.
    Truncate,
    /// Nothing is sent.
    Drop,
}

impl ResponseRate {
    /// At most `per_second` for each network; 0 = as many as are asked for. `seed` is nobody else's business.
    pub fn new(per_second: u32, seed: u64) -> Self {
        let interval_us = match per_second {
            0 => 0,
            rate => (1_000_000 / u64::from(rate)).max(1),
        };
        let buckets = if per_second == 0 { 0 } else { BUCKETS };
        Self { interval_us, seed, buckets: vec![Bucket::default(); buckets].into() }
    }

    /// Whether `source` is answered at `now_us`, by any clock that does not go back. Of what is too much, every second
    /// question is answered with a truncated answer.
    pub fn admit(&mut self, source: IpAddr, now_us: u64) -> Verdict {
        if self.interval_us == 0 {
            return Verdict::Send;
        }
        let hash = xxh3_64_with_seed(&network(source), self.seed);
        let bucket = &mut self.buckets[hash as usize % BUCKETS];
        let full_at_us = bucket.full_at_us.max(now_us) + self.interval_us;
        if full_at_us - now_us <= BURST_US.max(self.interval_us) {
            bucket.full_at_us = full_at_us;
            return Verdict::Send;
        }
        bucket.limited = bucket.limited.wrapping_add(1);
        match bucket.limited % 2 {
            1 => Verdict::Truncate,
            _ => Verdict::Drop,
        }
    }
}

/// The network that `source` is in.
fn network(source: IpAddr) -> [u8; 8] {
    let mut bytes = [0; 8];
    match source.to_canonical() {
        IpAddr::V4(address) => bytes[1..4].copy_from_slice(&address.octets()[..3]),
        IpAddr::V6(address) => {
            bytes[0] = 1;
            bytes[1..].copy_from_slice(&address.octets()[..7]);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rate: &mut ResponseRate, source: &str, at_us: u64, asked: usize) -> [usize; 3] {
        let source: IpAddr = source.parse().unwrap();
        let verdicts: Vec<_> = (0..asked).map(|_| rate.admit(source, at_us)).collect();
        [Verdict::Send, Verdict::Truncate, Verdict::Drop]
            .map(|verdict| verdicts.iter().filter(|seen| **seen == verdict).count())
    }

    #[test]
    fn a_network_has_its_rate() {
        let mut rate = ResponseRate::new(10, 7);
        assert_eq!(counts(&mut rate, "192.0.2.1", 0, 30), [10, 10, 10]);
        assert_eq!(counts(&mut rate, "192.0.2.200", 0, 2), [0, 1, 1], "the same network");
        assert_eq!(counts(&mut rate, "::ffff:192.0.2.200", 0, 2), [0, 1, 1], "the same network");
        assert_eq!(counts(&mut rate, "192.0.3.1", 0, 10), [10, 0, 0]);
        assert_eq!(counts(&mut rate, "192.0.2.1", 200_000, 4), [2, 1, 1]);
        assert_eq!(counts(&mut rate, "192.0.2.1", 60_000_000, 12), [10, 1, 1]);
        assert_eq!(counts(&mut rate, "2001:db8:0:1::1", 0, 10), [10, 0, 0]);
        assert_eq!(counts(&mut rate, "2001:db8:0:2::1", 0, 2), [0, 1, 1], "the same /56");
        assert_eq!(counts(&mut rate, "2001:db8:0:100::1", 0, 10), [10, 0, 0]);
    }

    #[test]
    fn nothing_is_limited_by_0() {
        assert_eq!(counts(&mut ResponseRate::new(0, 7), "192.0.2.1", 0, 1000), [1000, 0, 0]);
        assert_eq!(counts(&mut ResponseRate::new(1, 7), "192.0.2.1", 0, 3), [1, 1, 1]);
        assert_eq!(counts(&mut ResponseRate::new(u32::MAX, 7), "192.0.2.1", 0, 1000), [1000, 0, 0]);
    }
}
