//! The decisions: request gate, balancing, health, caching (pure).
//!
//! Nothing here waits, reads a clock or rolls dice: `now` and `entropy` are arguments, so every decision can be
//! replayed from a table.

pub mod age;
pub mod agreement;
pub mod balance;
pub mod cache;
pub mod discovery;
pub mod dns;
pub mod eviction;
pub mod failure;
pub mod forwarding;
pub mod gate;
pub mod gossip_keys;
pub mod grpc;
pub mod health;
pub mod http1;
pub mod levels;
pub mod readiness;
pub mod recovery;
pub mod renewal;
pub mod retry;
pub mod rollout;
pub mod shedding;
pub mod tcp;
pub mod watchdog;
