//! Mistakes made on purpose, so that a test can show what comes of them. No build without debug assertions has them.

use shoal_model::Site;

/// A node that is started with this in its environment cannot digest sites with a route of one of the names below.
#[cfg(debug_assertions)]
const POISON: &str = "SHOAL_PLANT_POISON";

/// What a site does, by the name of a route, to whoever compiles it.
#[cfg(debug_assertions)]
pub(crate) fn poison(site: &Site) {
    if std::env::var_os(POISON).is_none() {
        return;
    }
    let has = |name: &str| site.routes.contains_key(name);
    if has("planted-panic") {
        panic!("{POISON} is set, and the site has a route of that name");
    }
    if has("planted-toil") {
        let (began, enough) = (on_cpu(), std::time::Duration::from_secs(12));
        while on_cpu().saturating_sub(began) < enough {
            std::hint::spin_loop();
        }
    }
    if has("planted-death") {
        std::process::abort();
    }
}

/// How long this thread has had a CPU.
#[cfg(debug_assertions)]
fn on_cpu() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(debug_assertions))]
pub(crate) const fn poison(_: &Site) {}

/// A node that is started with this in its environment looks at a revision on trial, and decides, whether it leads or not.
#[cfg(debug_assertions)]
const UNLED_LOOKS: &str = "SHOAL_PLANT_UNLED_LOOKS";

/// Whether who does not lead looks as well.
#[cfg(debug_assertions)]
pub(crate) fn looks_unled() -> bool {
    std::env::var_os(UNLED_LOOKS).is_some()
}

#[cfg(not(debug_assertions))]
pub(crate) const fn looks_unled() -> bool {
    false
}
