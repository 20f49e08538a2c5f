//! No core of a process that has private keys in its memory.

/// Has the kernel write no core of this process, not to a program that collects them either, whatever its limit is
/// (prctl(2), `PR_SET_DUMPABLE`). Other processes of the same user cannot look into its memory any more. A process that takes
/// its place begins anew.
#[cfg(target_os = "linux")]
pub fn forbid() -> Result<(), String> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| format!("the kernel does not let core files be forbidden: {error}"))
}

/// There is nothing of the kind elsewhere.
#[cfg(not(target_os = "linux"))]
pub fn forbid() -> Result<(), String> {
    Ok(())
}
