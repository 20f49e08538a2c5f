//! What happened, counted.

macro_rules! figures {
    ($($figure:ident),+) => {
        /// What happened in all runs: a simulation in which nothing happens proves nothing.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Figures {
            $(pub $figure: usize),+
        }

        impl Figures {
            /// The rarest of them.
            pub fn least(&self) -> usize {
                [$(self.$figure),+].into_iter().min().unwrap_or(0)
            }

            /// Those of one more run.
            pub const fn with(&self, other: &Self) -> Self {
                Self { $($figure: self.$figure + other.$figure),+ }
            }
        }
    };
}

figures!(
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
    unknown
);
