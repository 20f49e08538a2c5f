//! An origin of which there are versions.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use super::{Origin, Reply, Seen};

/// An origin that begins with version 1, and comes to others as the story says.
pub struct Versions {
    origin: Origin,
    current: Arc<AtomicUsize>,
}

impl Versions {
    /// Every answer is the text `version N`, may be kept for an hour, and is what `more` makes of it.
    pub async fn start(more: impl Fn(&Seen, Reply) -> Reply + Send + Sync + 'static) -> Result<Self> {
        Self::told(move |seen, version| {
            let reply = Reply::ok(format!("version {version}")).field("cache-control", "max-age=3600");
            more(seen, reply)
        })
        .await
    }

    /// Every answer is what `tell` makes of the version.
    pub async fn told(tell: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Result<Self> {
        Self::changed_by(|_| false, tell).await
    }

    /// The same of one that comes to its next version with each request that `changes` it, which is told the new one.
    pub async fn changed_by(
        changes: impl Fn(&Seen) -> bool + Send + Sync + 'static,
        tell: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        let current = Arc::new(AtomicUsize::new(1));
        let told = current.clone();
        let origin = Origin::start(move |seen| {
            if changes(seen) {
                told.fetch_add(1, Ordering::SeqCst);
            }
            tell(seen, told.load(Ordering::SeqCst))
        })
        .await?;
        Ok(Self { origin, current })
    }

    /// The version that it has.
    pub fn current(&self) -> usize {
        self.current.load(Ordering::SeqCst)
    }

    /// From now on it has this one.
    pub fn become_version(&self, version: usize) {
        self.current.store(version, Ordering::SeqCst);
    }
}

impl Deref for Versions {
    type Target = Origin;

    fn deref(&self) -> &Origin {
        &self.origin
    }
}
