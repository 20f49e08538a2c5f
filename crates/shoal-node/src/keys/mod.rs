//! The cluster's own certificates and keys: how this node keeps its own fresh, signs those of others, and has the gossip sealed
//! otherwise from time to time.

mod belief;
mod figures;
mod gossip_keys;
mod renewal;
mod signing;
mod stranded;
mod succession;
mod vouching;

use std::sync::{Mutex, PoisonError};

use shoal_cluster::identity::{CLOCK_SLACK, Identity, validity};
use shoal_policy::renewal::{Alarm, Life};

pub use belief::{Proof, key_shown_on};
pub use gossip_keys::{keep_gossip_keys, open_gossip_keys};
pub use renewal::keep;
pub use signing::renew;
pub use stranded::notice_unknown_authority;
pub use succession::keep_succession;
pub use vouching::LookUps;
pub(crate) use vouching::Recognition;

/// From when to when the certificate of `identity` is good; `None` = it cannot be read.
pub fn life_of(identity: &Identity) -> Option<Life> {
    let (from, to) = validity(&identity.cert_der)?;
    let ms = |seconds: i64| u64::try_from(seconds).ok().map(|seconds| seconds * 1000);
    Some(Life { from_ms: ms(from)? + CLOCK_SLACK.as_millis() as u64, to_ms: ms(to)? })
}

/// What this node knows of the renewal of its own certificate.
#[derive(Debug, Default)]
pub struct OwnCertificate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The highest that was told.
    alarm: Alarm,
    /// Why the last try failed; empty = it did not.
    trouble: String,
    /// Why no other node can be believed.
    stranded: Option<String>,
    renewed: u64,
    failed: u64,
}

impl OwnCertificate {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
