//! Mistakes made on purpose, so that a test can show that they would be found. No build without debug assertions has them.

/// A node that is started with this in its environment believes that it has applied whatever was acknowledged: what it calls
/// a linearizable read asks nobody.
#[cfg(all(debug_assertions, not(test)))]
const UNCONFIRMED_READS: &str = "SHOAL_PLANT_UNCONFIRMED_READS";

/// Whether reads ask nobody.
#[cfg(test)]
pub(super) fn reads_are_unconfirmed() -> bool {
    crate::simulation::reads_are_unconfirmed()
}

/// The same of a whole node.
#[cfg(all(debug_assertions, not(test)))]
pub(super) fn reads_are_unconfirmed() -> bool {
    use std::sync::LazyLock;
    static PLANTED: LazyLock<bool> = LazyLock::new(|| {
        let planted = std::env::var_os(UNCONFIRMED_READS).is_some();
        if planted {
            tracing::error!("{UNCONFIRMED_READS} is set: what this node calls linearizable is not");
        }
        planted
    });
    *PLANTED
}

#[cfg(not(any(debug_assertions, test)))]
pub(super) const fn reads_are_unconfirmed() -> bool {
    false
}
