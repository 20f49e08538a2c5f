//! How fast the connections of each address come.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use shoal_policy::tcp::arrival;

use super::admission::counted_as;

/// Addresses that are remembered. When more than these come within a second, those beyond them are let in.
const MAX_ADDRESSES: usize = 1 << 16;
/// After that long nothing is to be known of an address any more.
const MEMORY_MS: u64 = 1_000;

/// The addresses that came lately, of all workers. A limit per second is a matter of a second: who has not come for so long
/// is forgotten.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Lately>);

#[derive(Debug, Default)]
struct Lately {
    /// State of the rate of each.
    rates: HashMap<IpAddr, u64>,
    cleaned_ms: u64,
}

impl Arrivals {
    /// Takes in one arrival from `address`; false = too fast.
    pub(super) fn admits(&self, address: IpAddr, now_ms: u64, per_second: u32) -> bool {
        let address = counted_as(address);
        let now_us = now_ms * 1_000;
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lately.forget(now_ms);
        let Lately { rates, .. } = &mut *lately;
        let is_full = rates.len() >= MAX_ADDRESSES;
        let Some(state) = rates.get(&address).copied().or_else(|| (!is_full).then_some(0)) else {
            return true;
        };
        let Some(next) = arrival::admit(state, now_us, per_second) else { return false };
        rates.insert(address, next);
        true
    }
}

impl Lately {
    /// Forgets those that have not come for a while: once in a while, as it looks at all of them.
    fn forget(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.cleaned_ms) < MEMORY_MS {
            return;
        }
        self.cleaned_ms = now_ms;
        self.rates.retain(|_, next_us| *next_us > now_ms * 1_000);
        if self.rates.is_empty() {
            self.rates = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_a_rate_of_its_own() {
        let arrivals = Arrivals::default();
        let check = |address: &str, now_ms: u64, expected: usize| {
            let admitted = (0..10).filter(|_| arrivals.admits(address.parse().unwrap(), now_ms, 4)).count();
            assert_eq!(admitted, expected, "{address} at {now_ms}");
        };
        check("192.0.2.1", 10_000, 4);
        check("::ffff:192.0.2.1", 10_000, 0);
        check("192.0.2.2", 10_000, 4);
        check("2001:db8::1", 10_000, 4);
        check("2001:db8::2:0:0:1", 10_000, 0);
        check("192.0.2.1", 10_500, 2);
        check("192.0.2.1", 11_500, 4);
        assert_eq!(arrivals.0.lock().unwrap().rates.len(), 1, "the others are forgotten");
    }

    #[test]
    fn so_many_addresses_are_remembered_and_no_more() {
        let arrivals = Arrivals::default();
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..=MAX_ADDRESSES as u32 {
            assert!(arrivals.admits(address(n), 10_000, 1), "{n}");
        }
        assert_eq!(arrivals.0.lock().unwrap().rates.len(), MAX_ADDRESSES);
        assert!(!arrivals.admits(address(7), 10_001, 1), "who is remembered is held to it");
        assert!(arrivals.admits(address(7), 12_000, 1));
        assert_eq!(arrivals.0.lock().unwrap().rates.len(), 1);
    }
}
