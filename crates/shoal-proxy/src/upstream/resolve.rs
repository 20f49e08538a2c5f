//! Names of endpoints to addresses, remembered for a while.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long an answer is used before the name is looked up again, ms. Until that has an answer the last good one stands,
/// and it goes on standing when there is none.
const TTL_MS: u64 = 30_000;
/// An answer older than this is used only if no newer one comes in time, ms.
const OLD_MS: u64 = 300_000;
/// How long a newer answer is waited for then: well within the time for connecting.
const PATIENCE: Duration = Duration::from_secs(1);
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
    known: Rc<RefCell<FxHashMap<Box<str>, Known>>>,
}

struct Known {
    addresses: Vec<IpAddr>,
    asked_ms: u64,
    /// Which address is next.
    turn: usize,
}

impl Resolver {
    /// An address of `host`; several take turns. Only a name that was never found is waited for.
    pub(super) async fn resolve(
        &self,
        host: &str,
        port: u16,
        now_ms: u64,
    ) -> Result<SocketAddr, ResolveError> {
        if let Some((address, age_ms)) = self.recall(host, now_ms) {
            let refreshing = (age_ms > TTL_MS).then(|| self.refresh(host, port, now_ms));
            let newer = match refreshing {
                Some(refreshing) if age_ms > OLD_MS => {
                    let _ = timeout(PATIENCE, refreshing).await;
                    self.recall(host, now_ms)
                }
                Some(_) | None => None,
            };
            return Ok(SocketAddr::new(newer.map_or(address, |(newer, _)| newer), port));
        }
        let addresses = lookup(host, port).await?;
        learn(&mut self.known.borrow_mut(), host, addresses, now_ms);
        let recalled =
            self.recall(host, now_ms).ok_or_else(|| ResolveError::Nowhere { name: host.to_owned() });
        recalled.map(|(address, _)| SocketAddr::new(address, port))
    }

    /// What is remembered, and how old it is, ms. What is due to be asked again is said to be so once.
    fn recall(&self, host: &str, now_ms: u64) -> Option<(IpAddr, u64)> {
        let mut known = self.known.borrow_mut();
        let known = known.get_mut(host)?;
        let age_ms = now_ms.saturating_sub(known.asked_ms);
        if age_ms > TTL_MS {
            known.asked_ms = now_ms;
        }
        known.turn = known.turn.wrapping_add(1);
        let address = known.addresses.get(known.turn % known.addresses.len().max(1)).copied()?;
        Some((address, age_ms))
    }

    /// Asks again in the background: a name server that is slow or dead holds nobody up.
    fn refresh(&self, host: &str, port: u16, now_ms: u64) -> JoinHandle<()> {
        let (known, host) = (self.known.clone(), host.to_owned());
        tokio::task::spawn_local(async move {
            match lookup(&host, port).await {
                Ok(addresses) => learn(&mut known.borrow_mut(), &host, addresses, now_ms),
                Err(error) => tracing::warn!(%error, "an endpoint keeps its last known addresses"),
            }
        })
    }
}

fn learn(known: &mut FxHashMap<Box<str>, Known>, host: &str, addresses: Vec<IpAddr>, now_ms: u64) {
    if known.len() >= MAX_NAMES && !known.contains_key(host) {
        known.clear();
    }
    known.insert(host.into(), Known { addresses, asked_ms: now_ms, turn: 0 });
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
    use futures_util::FutureExt;

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
    fn addresses_take_turns() {
        let resolver = Resolver::default();
        let addresses = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        learn(&mut resolver.known.borrow_mut(), "a", addresses, 0);
        assert_ne!(resolver.recall("a", TTL_MS), resolver.recall("a", TTL_MS));
    }

    #[tokio::test]
    async fn a_known_name_waits_for_no_name_server() {
        let tasks = tokio::task::LocalSet::new();
        let check = async |now_ms, due: bool| {
            let resolver = Resolver::default();
            let known = vec!["192.0.2.7".parse().unwrap()];
            learn(&mut resolver.known.borrow_mut(), "shoal.invalid", known, 0);
            let found =
                tasks.run_until(async { resolver.resolve("shoal.invalid", 80, now_ms).now_or_never() });
            assert_eq!(found.await.unwrap().unwrap(), "192.0.2.7:80".parse().unwrap());
            let asked_ms = if due { now_ms } else { 0 };
            assert_eq!(resolver.known.borrow()["shoal.invalid"].asked_ms, asked_ms, "asked again once");
        };
        check(TTL_MS, false).await;
        check(TTL_MS + 1, true).await;
    }
}
