//! The strict request gate: what is refused before routing.
