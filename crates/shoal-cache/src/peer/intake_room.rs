//! What copies that other nodes send may hold of memory while they are read: they are not stored yet, and count nowhere else.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of copies that are being read. Nobody waits for room: who finds none goes without, and may come again.
pub(crate) struct IntakeRoom {
    held_bytes: AtomicU64,
    most_bytes: u64,
}

/// What one copy holds of it, until this is dropped.
pub(super) struct Held<'a> {
    room: &'a IntakeRoom,
    bytes: u64,
}

impl IntakeRoom {
    pub(crate) const fn new(most_bytes: u64) -> Self {
        Self { held_bytes: AtomicU64::new(0), most_bytes }
    }

    /// For one more copy, which holds nothing yet.
    pub(super) const fn enter(&self) -> Held<'_> {
        Held { room: self, bytes: 0 }
    }
}

impl Held<'_> {
    /// Holds `bytes` from now on; false = that is too much together with others, and nothing is held any more. Whoever is
    /// alone may hold more than there is room for: else what is large would never come in.
    pub(super) fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let grown = self.room.held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            let after = held.saturating_add(more);
            (held == self.bytes || after <= self.room.most_bytes).then_some(after)
        });
        match grown {
            Ok(_) => self.bytes += more,
            Err(_) => self.leave(),
        }
        grown.is_ok()
    }

    fn leave(&mut self) {
        self.room.held_bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_share_the_room_and_one_alone_may_have_more() {
        let room = IntakeRoom::new(100);
        let held = |room: &IntakeRoom| room.held_bytes.load(Ordering::Relaxed);
        let (mut one, mut other) = (room.enter(), room.enter());
        assert!(one.grow_to(60) && other.grow_to(40) && one.grow_to(50));
        assert_eq!(held(&room), 100);
        assert!(!other.grow_to(41), "there is no more");
        assert_eq!(held(&room), 60, "it has left");
        assert!(one.grow_to(500), "alone");
        assert!(!other.grow_to(1) && !room.enter().grow_to(1));
        assert!(one.grow_to(700), "nobody else has any of it");
        drop(one);
        assert_eq!(held(&room), 0);
        assert!(other.grow_to(u64::MAX) && !room.enter().grow_to(1));
        drop(other);
        assert_eq!(held(&room), 0);
    }
}
