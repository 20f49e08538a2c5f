//! A mistake made on purpose, so that a test can show what comes of it. No build without debug assertions has it.

use shoal_model::ConfigView;

/// A worker of a node that is started with this in its environment never comes back from a site with a route of the name
/// below.
#[cfg(debug_assertions)]
const POISON: &str = "SHOAL_PLANT_POISON";

/// What `config` does to a worker that serves it.
#[cfg(debug_assertions)]
pub(crate) fn poison(config: &ConfigView) {
    use std::sync::LazyLock;

    static IS_PLANTED: LazyLock<bool> = LazyLock::new(|| std::env::var_os(POISON).is_some());
    if *IS_PLANTED && config.routes.by_name("planted-hang").is_some() {
        loop {
            std::hint::spin_loop();
        }
    }
}

#[cfg(not(debug_assertions))]
pub(crate) const fn poison(_: &ConfigView) {}
