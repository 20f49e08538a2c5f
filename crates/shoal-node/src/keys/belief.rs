//! Which authorities this node believes at this very moment, by its log: what a connection has proven is good for as long as the
//! authority behind it is believed, whatever TLS has said when it was made.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use shoal_cluster::identity::{ends_in, key_of, sha256_hex};

use crate::node::Node;

/// What the other side of a connection has shown, and which authority stands behind it.
pub struct Proof {
    chain: Vec<CertificateDer<'static>>,
    ends_in: CertificateDer<'static>,
}

/// The key that the other side has shown a certificate for (SHA-256, hex).
pub fn key_shown_on(connection: &rustls::ServerConnection) -> Option<String> {
    connection.peer_certificates().and_then(<[_]>::first).and_then(|leaf| key_of(leaf))
}

impl Node {
    /// What is believed by the one who has shown it on `connection`; `None` = nothing was shown, or its authority has retired.
    pub(crate) fn proof_on(&self, connection: &rustls::ServerConnection) -> Option<Proof> {
        let chain = connection.peer_certificates()?.to_vec();
        let ends_in = self.believed_end_of(&chain)?;
        Some(Proof { chain, ends_in })
    }

    /// Resolves when a proof is none any more.
    pub(crate) async fn disbelief_in(self: Arc<Self>, mut proof: Proof) {
        let mut applied = self.log.applied();
        loop {
            while self.believes(&proof.ends_in) {
                if applied.changed().await.is_err() {
                    std::future::pending().await
                }
            }
            // What one authority has certified for another may be what was gone by before.
            match self.believed_end_of(&proof.chain) {
                Some(ends_in) => proof.ends_in = ends_in,
                None => return,
            }
        }
    }

    fn believed_end_of(&self, chain: &[CertificateDer<'_>]) -> Option<CertificateDer<'static>> {
        let mut authorities: Vec<_> = self.log.with_state(|state| {
            let other = state.keys.succession.as_ref().map(|succession| &succession.other);
            std::iter::once(&state.ca_certificate).chain(other).cloned().map(CertificateDer::from).collect()
        });
        authorities.extend(self.peers.credentials().identity().authorities().cloned());
        authorities.retain(|authority| self.believes(authority));
        ends_in(chain, &authorities).cloned()
    }

    /// The log believes it; or says nothing of it, since it is behind or has not begun, and this node's identity does.
    pub(super) fn believes(&self, authority: &CertificateDer<'static>) -> bool {
        let by_log = self.log.with_state(|state| {
            let other = state.keys.succession.as_ref().map(|succession| &succession.other);
            if std::iter::once(&state.ca_certificate).chain(other).any(|believed| **believed == **authority) {
                return Some(true);
            }
            let retired = &state.keys.retired;
            (!retired.is_empty() && retired.contains(&sha256_hex(authority))).then_some(false)
        });
        by_log
            .unwrap_or_else(|| self.peers.credentials().identity().authorities().any(|own| own == authority))
    }

    /// Resolves when authorities have come or gone since.
    pub(super) async fn another_succession(&self) {
        let stage = || {
            self.log.with_state(|state| {
                let succession = state.keys.succession.as_ref();
                (
                    succession.map(|succession| (succession.begun, succession.has_switched)),
                    state.keys.retired.last().cloned(),
                )
            })
        };
        let (before, mut applied) = (stage(), self.log.applied());
        while stage() == before {
            if applied.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }
}
