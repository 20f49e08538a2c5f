//! Second copies, and what gives way to what.

use shoal_policy::cache::purge::Validity;

use super::{Broken, Wire, World};
use crate::node::Stored;

impl World {
    pub(super) fn see_to_copy(&mut self, n: usize, key: usize) {
        let memory = self.nodes[n].memory();
        let owners = self.nodes[n].owners(&self.places, key);
        let Some(other) = owners.other_than(self.nodes[n].id).filter(|_| owners.includes(self.nodes[n].id))
        else {
            return;
        };
        let Some(stored) = self.nodes[n].store.get_mut(&key) else { return };
        if stored.copied_under != Some(memory) {
            stored.copied_under = Some(memory);
            let stored = *stored;
            self.figures.copies += 1;
            self.wires.push(Wire::Copy { to: other.0 as usize - 1, key, stored });
        }
    }

    pub(super) fn take_copy(&mut self, n: usize, key: usize, stored: Stored) -> Result<(), Broken> {
        let memory = self.nodes[n].memory();
        let node = &mut self.nodes[n];
        let rank = |stored: &Stored| node.rank(key, stored);
        let is_older = |known: &Stored| {
            (rank(known).is_valid && !rank(&stored).is_valid)
                || known.terms.response_ms > stored.terms.response_ms
        };
        if node.judge(key, stored.fill_seq, stored.checked_seq) == Validity::Gone
            || node.store.get(&key).is_some_and(is_older)
        {
            self.figures.refused += 1;
            return Ok(());
        }
        self.put(n, key, Stored { copied_under: Some(memory), ..stored })
    }

    /// Nothing that may be used gives way to what may not.
    pub(super) fn put(&mut self, n: usize, key: usize, stored: Stored) -> Result<(), Broken> {
        let node = &mut self.nodes[n];
        if let Some(known) = node.store.get(&key)
            && node.rank(key, known).is_valid
            && !node.rank(key, &stored).is_valid
        {
            let (old, new) = (known.version, stored.version);
            return Err(format!(
                "version {old} of key {key} on n{} gives way to version {new}, which was purged",
                n + 1
            ));
        }
        node.store.insert(key, stored);
        Ok(())
    }
}
