//! Names of endpoints to addresses, remembered for a while.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};

use rustc_hash::FxHashMap;

/// How long an answer is used before the name is looked up again, ms. After a failed look-up the last good one stands.
const TTL_MS: u64 = 30_000;
/// Names remembered.
const MAX_NAMES: usize = 4096;

/// A name does not lead anywhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("looking up {name:?}: {error}")]
    Lookup { name: String, error: io::Error },
    #[error("{name:?} has no address that a name may lead to")]
    Nowhere { name: String },
}

/// The look-ups of one worker.
#[derive(Default)]
pub(super) struct Resolver {
    known: RefCell<FxHashMap<Box<str>, Known>>,
}

struct Known {
    addresses: Vec<IpAddr>,
    asked_ms: u64,
    /// Which address is next.
    turn: usize,
}

impl Resolver {
    /// An address of `host`; several take turns.
    pub(super) async fn resolve(
        &self,
        host: &str,
        port: u16,
        now_ms: u64,
    ) -> Result<SocketAddr, ResolveError> {
        if let Some(address) = self.recall(host, Some(now_ms)) {
            return Ok(SocketAddr::new(address, port));
        }
        match lookup(host, port).await {
            Ok(addresses) => {
                let mut known = self.known.borrow_mut();
                if known.len() >= MAX_NAMES {
                    known.clear();
                }
                known.insert(host.into(), Known { addresses, asked_ms: now_ms, turn: 0 });
            }
            Err(error) => {
                let address = self.recall(host, None).ok_or(error)?;
                return Ok(SocketAddr::new(address, port));
            }
        }
        let address =
            self.recall(host, None).ok_or_else(|| ResolveError::Nowhere { name: host.to_owned() })?;
        Ok(SocketAddr::new(address, port))
    }

    /// What is remembered; with a time, only if it is young enough.
    fn recall(&self, host: &str, now_ms: Option<u64>) -> Option<IpAddr> {
        let mut known = self.known.borrow_mut();
        let known = known.get_mut(host)?;
        if now_ms.is_some_and(|now_ms| now_ms.saturating_sub(known.asked_ms) > TTL_MS) {
            return None;
        }
        known.turn = known.turn.wrapping_add(1);
        known.addresses.get(known.turn % known.addresses.len().max(1)).copied()
    }
}

async fn lookup(host: &str, port: u16) -> Result<Vec<IpAddr>, ResolveError> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|error| ResolveError::Lookup { name: host.to_owned(), error })?;
    let mut addresses: Vec<IpAddr> =
        found.map(|address| address.ip()).filter(|ip| is_allowed(host, *ip)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { Err(ResolveError::Nowhere { name: host.to_owned() }) } else { Ok(addresses) }
}

/// An address written by the operator is the operator's word. A name is somebody else's: it may not lead to this
/// machine (but for `localhost`), nor to link-local addresses, where metadata services live.
pub(crate) fn is_allowed(host: &str, address: IpAddr) -> bool {
    let address = address.to_canonical();
    if address.is_loopback() {
        return host == "localhost" || host.ends_with(".localhost");
    }
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(link_local || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_lead_home() {
        let check = |host: &str, address: &str, expected| {
            assert_eq!(is_allowed(host, address.parse().unwrap()), expected, "{host} {address}");
        };
        check("app.internal", "10.0.0.1", true);
        check("app.internal", "127.0.0.1", false);
        check("localhost", "127.0.0.1", true);
        check("localhost", "::1", true);
        check("app.internal", "169.254.169.254", false);
        check("app.internal", "::ffff:169.254.169.254", false);
        check("app.internal", "fe80::1", false);
        check("app.internal", "0.0.0.0", false);
        check("app.internal", "2001:db8::1", true);
    }

    #[test]
    fn the_last_good_answer_stands() {
        let resolver = Resolver::default();
        let addresses = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        resolver.known.borrow_mut().insert("a".into(), Known { addresses, asked_ms: 0, turn: 0 });
        let first = resolver.recall("a", Some(TTL_MS));
        assert_ne!(first, resolver.recall("a", Some(TTL_MS)), "addresses take turns");
        assert_eq!(resolver.recall("a", Some(TTL_MS + 1)), None);
        assert!(resolver.recall("a", None).is_some());
    }
}
