//! One process: builds every room in order, admin gRPC, ops HTTP, signals, drain.

mod activation;
mod admin;
mod boot;
mod build;
mod health;
mod incoming;
mod last_known_good;
mod node;
mod notify;
mod ops;
mod peer;
mod readiness;
mod report;
mod run;
mod sealed_site;
mod settings;

pub use run::run;
pub use settings::RunSettings;
