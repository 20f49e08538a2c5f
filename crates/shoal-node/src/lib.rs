//! One process: builds every room in order, admin gRPC, ops HTTP, signals, drain.

mod activated;
mod activation;
mod admin;
mod boot;
mod build;
mod catch_up;
mod certificates;
mod data_dir;
mod descriptors;
mod headcount;
mod health;
mod incoming;
mod last_known_good;
mod lease;
mod news;
mod node;
mod notify;
mod ops;
mod ops_listener;
mod otlp;
mod peer;
mod process_figures;
mod purge_figures;
mod readiness;
mod removal;
mod removed;
mod report;
mod run;
mod sealed_site;
mod settings;
mod twins;
mod upgrade;
mod vital;

pub use run::run;
pub use settings::RunSettings;
pub use upgrade::{AskError, Outcome, ask as ask_for_upgrade};
