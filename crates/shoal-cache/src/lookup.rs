//! What a lookup found, on its way to being answered.

/// What a lookup found, on its way to being answered.
pub struct Probe {}
