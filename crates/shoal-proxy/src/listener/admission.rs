//! Who is let in: how many connections at once, of one address, and how fast they come.
//!
//! One state per listener for all workers, because the kernel spreads the connections of one address over them. The rate is
//! one atomic number. Addresses are counted under a mutex that is held for one probe of a map and only touched while a
//! limit per address is set; the map has no more entries than the listener has connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use shoal_policy::tcp::arrival;

use super::arrivals::Arrivals;

/// What a listener remembers of those it let in.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// State of the rate.
    arrivals: AtomicU64,
    /// Those of each address. Only while there is a limit.
    pub(super) by_address_lately: Arrivals,
    /// Open connections by address. Only those that came while there was a limit.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Admission {
    /// Takes in one arrival; false = too fast.
    pub(super) fn admits_arrival(&self, now_ms: u64, per_second: u32) -> bool {
        let next = |state| arrival::admit(state, now_ms * 1000, per_second);
        self.arrivals.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Takes a place for `address`, unless it has `limit` already.
    pub(super) fn take_place(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<AddressPlace> {
        let address = counted_as(address);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let open = by_address.get(&address).copied().unwrap_or(0);
        if open >= limit {
            return None;
        }
        by_address.insert(address, open + 1);
        Some(AddressPlace { admission: self.clone(), address })
    }
}

/// Whoever has one IPv6 address has a whole /64 of them.
pub(crate) fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

/// A connection's place among those of its address, until dropped.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut by_address = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        match by_address.get_mut(&self.address) {
            Some(open) if *open > 1 => *open -= 1,
            _ => {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_places_by_address() {
        let admission = Arc::new(Admission::default());
        let take = |address: &str| admission.take_place(address.parse().unwrap(), 2);
        let check = |address: &str, free: bool| assert_eq!(take(address).is_some(), free, "{address}");
        let held =
            [take("192.0.2.1"), take("::ffff:192.0.2.1"), take("2001:db8::1"), take("2001:db8::2:0:0:1")];
        assert!(held.iter().all(Option::is_some));
        check("192.0.2.1", false);
        check("192.0.2.2", true);
        check("2001:db8::3", false);
        check("2001:db8:0:1::1", true);
        drop(held);
        check("192.0.2.1", true);
        assert!(admission.by_address.lock().unwrap().is_empty(), "nothing is kept of those who left");
    }
}
