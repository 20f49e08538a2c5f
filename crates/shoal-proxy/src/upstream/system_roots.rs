//! The authorities that this machine believes: read once, and again when somebody says so.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs::default_provider;

static ROOTS: OnceLock<ArcSwap<SystemRoots>> = OnceLock::new();

/// The authorities of this machine.
pub(crate) struct SystemRoots {
    /// `None` = there are none.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    count: usize,
}

impl SystemRoots {
    /// As they were read last; the first one who asks waits for that.
    pub(crate) fn current() -> Arc<Self> {
        ROOTS.get_or_init(|| ArcSwap::from_pointee(Self::read())).load_full()
    }

    /// Reads them again, for every full handshake from now on, and answers how many there are; those that were there stay
    /// where there are none now. `None` = nobody has asked for
    /// them yet.
    pub(crate) fn reread() -> Option<usize> {
        let roots = ROOTS.get()?;
        let read = Self::read();
        if read.verifier.is_none() {
            // Perhaps they are just being replaced.
            return Some(roots.load().count);
        }
        let count = read.count;
        roots.store(Arc::new(read));
        Some(count)
    }

    /// What verifies by them.
    pub(super) fn verifier(&self) -> Option<&Arc<WebPkiServerVerifier>> {
        self.verifier.as_ref()
    }

    /// Those that cannot be read are left out.
    fn read() -> Self {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "cannot read some of the system's certificate authorities");
        }
        let (count, ignored) = roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(
                ignored,
                "the system has no certificate authorities: upstreams need `tls.ca_file`"
            );
        }
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
        Self { verifier: builder.build().ok(), count }
    }
}
