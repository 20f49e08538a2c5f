//! What happened, counted.

/// What happened in all runs: a simulation in which nothing happens proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub hits: usize,
    pub joined: usize,
    pub fetches: usize,
    pub confirmed: usize,
    pub purges: usize,
    pub acknowledged: usize,
    pub silent: usize,
    pub early: usize,
    pub deaths: usize,
    pub copies: usize,
    pub peer_objects: usize,
    pub orphans: usize,
    pub refused: usize,
    pub survived: usize,
    pub outdated: usize,
    pub forgotten: usize,
    pub unknown: usize,
}

impl Figures {
    const fn each(&self) -> [usize; 17] {
        let Self {
            hits,
            joined,
            fetches,
            confirmed,
            purges,
            acknowledged,
            silent,
            early,
            deaths,
            copies,
            peer_objects,
            orphans,
            refused,
            survived,
            outdated,
            forgotten,
            unknown,
        } = *self;
        [
            hits,
            joined,
            fetches,
            confirmed,
            purges,
            acknowledged,
            silent,
            early,
            deaths,
            copies,
            peer_objects,
            orphans,
            refused,
            survived,
            outdated,
            forgotten,
            unknown,
        ]
    }

    /// The rarest of them.
    pub fn least(&self) -> usize {
        self.each().into_iter().min().unwrap_or(0)
    }

    /// Those of one more run.
    pub fn with(&self, other: &Self) -> Self {
        let [
            hits,
            joined,
            fetches,
            confirmed,
            purges,
            acknowledged,
            silent,
            early,
            deaths,
            copies,
            peer_objects,
            orphans,
            refused,
            survived,
            outdated,
            forgotten,
            unknown,
        ] = std::array::from_fn(|n| self.each()[n] + other.each()[n]);
        Self {
            hits,
            joined,
            fetches,
            confirmed,
            purges,
            acknowledged,
            silent,
            early,
            deaths,
            copies,
            peer_objects,
            orphans,
            refused,
            survived,
            outdated,
            forgotten,
            unknown,
        }
    }
}
