//! Observation, verdict, fact, availability.

/// Whether an endpoint may be used, merged from what all its checkers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Availability {
    /// It may.
    #[default]
    Up,
    /// A majority of its checkers say it is down.
    Down,
    /// Nobody who should know says anything: the last word stands, traffic decides.
    Unknown,
}
