//! What all callers have together, and of which none may have more than a share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_cluster::tls::LOCAL;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub struct Portions {
    /// For all together.
    pub most: usize,
    /// For each.
    pub each: usize,
    /// Beyond that, for the local socket, which has no share of its own.
    pub reserve: usize,
}

/// Who has how much of it.
#[derive(Debug)]
pub struct Shares {
    portions: Portions,
    taken: Mutex<BTreeMap<String, usize>>,
}

/// What somebody has, until it is dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<Shares>,
    who: String,
    amount: usize,
}

/// There is not so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoShare {
    /// Others have it.
    Taken,
    /// The caller itself has its share.
    OwnIsTaken,
}

impl Shares {
    /// Nobody has anything yet.
    pub fn of(portions: Portions) -> Arc<Self> {
        Arc::new(Self { portions, taken: Mutex::default() })
    }

    /// So much of it for `who`.
    pub fn take(self: &Arc<Self>, who: &str, amount: usize) -> Result<Share, NoShare> {
        let mut share = self.none_yet(who);
        share.grow(amount)?;
        Ok(share)
    }

    /// Nothing of it for `who`, who may ask for more: there is always so much.
    pub fn none_yet(self: &Arc<Self>, who: &str) -> Share {
        Share { of: self.clone(), who: who.to_owned(), amount: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// So much more.
    pub fn grow(&mut self, amount: usize) -> Result<(), NoShare> {
        let Portions { most, each, reserve } = self.of.portions;
        let (most, each) = if self.who == LOCAL { (most + reserve, most + reserve) } else { (most, each) };
        let mut taken = self.of.lock();
        let own = taken.get(&self.who).copied().unwrap_or_default();
        if own + amount > each {
            return Err(NoShare::OwnIsTaken);
        }
        if taken.values().sum::<usize>() + amount > most {
            return Err(NoShare::Taken);
        }
        taken.insert(self.who.clone(), own + amount);
        self.amount += amount;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        let left = taken.get(&self.who).copied().unwrap_or_default().saturating_sub(self.amount);
        match left {
            0 => drop(taken.remove(&self.who)),
            left => drop(taken.insert(self.who.clone(), left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_a_share() {
        let shares = Shares::of(Portions { most: 10, each: 6, reserve: 3 });
        let take = |who: &str, amount| shares.take(who, amount);
        let mut ann = take("ann", 5).unwrap();
        assert_eq!(take("ann", 2).unwrap_err(), NoShare::OwnIsTaken);
        assert_eq!(take("bob", 7).unwrap_err(), NoShare::OwnIsTaken);
        let bob = take("bob", 4).unwrap();
        ann.grow(1).unwrap();
        assert_eq!(take("eve", 1).unwrap_err(), NoShare::Taken);
        let local = take(LOCAL, 3).unwrap();
        assert_eq!(take(LOCAL, 1).unwrap_err(), NoShare::Taken);
        // Nobody else has room for anything, and everybody may ask.
        let mut eve = shares.none_yet("eve");
        assert_eq!(eve.grow(1).unwrap_err(), NoShare::Taken);
        drop((bob, local, eve));
        assert_eq!(take("eve", 5).unwrap_err(), NoShare::Taken);
        drop(take("eve", 4).unwrap());
        drop(ann);
        assert!(shares.lock().is_empty());
    }
}
