//! The allocator of the release, and how it gives memory back.

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives pages that hold nothing back to the system, of those that the calling thread has. On its own the allocator does
/// so only while it is asked for more: a thread that is idle after a burst would keep all that the burst has needed.
#[cfg(feature = "mimalloc")]
#[allow(unsafe_code, reason = "the allocator's own interface is all there is")]
pub(crate) fn trim() {
    // SAFETY: it has no preconditions, and frees nothing that is in use.
    unsafe { libmimalloc_sys::mi_collect(false) }
}

/// The allocator of the C library gives memory back by itself.
#[cfg(not(feature = "mimalloc"))]
pub(crate) fn trim() {}
