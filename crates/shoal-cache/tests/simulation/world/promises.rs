//! What is promised of copies: one failure never takes both.

use shoal_policy::cache::purge::Validity;

use super::{Broken, KEYS, World};
use crate::node::Node;

impl World {
    /// Every object is on two nodes, in two zones where there are two, and survives whatever dies at once.
    pub fn survives_a_loss(&mut self) -> Result<(), Broken> {
        for key in 0..KEYS {
            // Fetched by one, used by its owner.
            for n in (0..self.nodes.len()).filter(|n| self.places[*n].region == 0).collect::<Vec<_>>() {
                self.ask(n)?;
                self.ask_for(n, key)?;
                self.drain()?;
                self.ask_for_lease(n);
                self.drain()?;
            }
            self.check_copies(key)?;
        }
        let here: Vec<usize> = (0..self.nodes.len()).filter(|n| self.places[*n].region == 0).collect();
        let zone = self.places[here[self.dice.below(here.len())]].zone;
        let is_one_zone = here.iter().all(|n| self.places[*n].zone == zone);
        let victims: Vec<usize> = match is_one_zone {
            true => vec![here[self.dice.below(here.len())]],
            false => here.iter().copied().filter(|n| self.places[*n].zone == zone).collect(),
        };
        let fetched = self.figures.fetches;
        victims.iter().for_each(|n| self.kill(*n));
        // At once, before anybody knows, and afterwards.
        for knows in [false, true] {
            if knows {
                self.drain()?;
            }
            for n in here.iter().copied().filter(|n| !victims.contains(n)) {
                for key in 0..KEYS {
                    self.ask_for_lease(n);
                    self.drain_but_news()?;
                    self.ask_for(n, key)?;
                    self.drain_but_news()?;
                }
            }
        }
        if self.figures.fetches != fetched {
            return Err(format!("{} fetches after {victims:?} died at once", self.figures.fetches - fetched));
        }
        self.figures.survived += 1;
        Ok(())
    }

    fn check_copies(&mut self, key: usize) -> Result<(), Broken> {
        let now_ms = self.now_ms;
        let here = self.nodes.iter().filter(|node| node.place.region == 0);
        let owners = self.nodes[0].owners(&self.places, key);
        let holders: Vec<&Node> = here
            .filter(|node| {
                let stored = node.store.get(&key);
                owners.includes(node.id)
                    && stored.is_some_and(|stored| {
                        stored.terms.is_fresh(now_ms)
                            && node.judge(key, stored.fill_seq, stored.checked_seq) == Validity::Valid
                    })
            })
            .collect();
        let [one, two] = &holders[..] else {
            return Err(format!("key {key} is on {} of its owners {owners:?}", holders.len()));
        };
        let zones =
            self.places.iter().filter(|place| place.region == 0 && place.zone != one.place.zone).count();
        match one.place.zone == two.place.zone && zones > 0 {
            true => Err(format!("both copies of key {key} are in one zone")),
            false => Ok(()),
        }
    }
}
