//! Mistakes made on purpose, so that a test can show that they would be found. No build without debug assertions has them.

use shoal_model::state::{Command, ConfigState};

/// A node that is started with this in its environment believes that it has applied whatever was acknowledged: what it calls
/// a linearizable read asks nobody.
#[cfg(all(debug_assertions, not(test)))]
const UNCONFIRMED_READS: &str = "SHOAL_PLANT_UNCONFIRMED_READS";

/// Whether reads ask nobody.
#[cfg(test)]
pub(crate) fn reads_are_unconfirmed() -> bool {
    crate::simulation::reads_are_unconfirmed()
}

/// The same of a whole node.
#[cfg(all(debug_assertions, not(test)))]
pub(crate) fn reads_are_unconfirmed() -> bool {
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
pub(crate) const fn reads_are_unconfirmed() -> bool {
    false
}

/// A node that is started with this in its environment forgets tokens that are good for exactly [`FORGOTTEN_USES`] nodes as
/// soon as it has applied them: its state is another than that of the others.
#[cfg(debug_assertions)]
const DIVERGENCE: &str = "SHOAL_PLANT_DIVERGENCE";
/// See [`DIVERGENCE`].
#[cfg(debug_assertions)]
const FORGOTTEN_USES: u32 = 7;

/// What is to be done to the state once `command` was applied.
#[cfg(debug_assertions)]
pub(crate) fn divergence(command: &Command) -> Option<impl FnOnce(&mut ConfigState) + use<>> {
    let Command::AskedBy { command, .. } = command else { return None };
    let Command::CreateToken { id, token } = &**command else { return None };
    let is_planted = token.uses_left == FORGOTTEN_USES && std::env::var_os(DIVERGENCE).is_some();
    let id = id.clone();
    is_planted.then_some(move |state: &mut ConfigState| {
        tracing::error!("{DIVERGENCE} is set: the state of this node is made to differ");
        state.tokens.remove(&id);
    })
}

#[cfg(not(debug_assertions))]
pub(crate) fn divergence(_: &Command) -> Option<fn(&mut ConfigState)> {
    None
}
