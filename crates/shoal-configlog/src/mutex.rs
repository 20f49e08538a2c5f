//! Locks of this room: nothing that is done under one is left half done by a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What `mutex` holds, also if a thread panicked that held it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
