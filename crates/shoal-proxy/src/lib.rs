//! Bytes in, bytes out: listeners, request path, upstream pools, health checks.
//!
//! One thread per core, each with its own runtime, sockets, pools and metric cells; a request is served from accept to
//! last byte by one worker. It reads two things from outside: the ConfigView and the ClusterView.

mod access_log;
mod answer;
mod awaited_continue;
mod body;
mod carriage;
mod carried;
mod check;
mod clock;
mod connections;
mod date;
mod deadline;
mod downstream_body;
mod ending;
mod entropy;
mod exchange;
mod fetch;
mod health_event;
mod hints;
mod incoming;
mod joined;
mod listener;
mod liveness;
mod metrics;
mod names;
mod outgoing;
mod pace;
mod planted;
mod proxy;
mod pulse;
mod purge;
mod recording;
mod refusal;
mod request;
mod request_body;
mod request_id;
mod room;
mod run;
mod shedding;
mod sources;
mod spans;
mod spent;
mod trace;
mod trailers;
mod tunnel;
mod upstream;
mod worker;

pub use check::{Checker, CheckerSettings};
pub use health_event::HealthEvent;
pub use listener::{BindError, Owner, Ports, TicketSeed};
pub use metrics::{JudgedSum, OTHER, TrafficFigures, TrafficSum};
pub use names::{NameFailure, Names};
pub use proxy::{Proxy, ProxyFigures, ProxySettings, Reread};
pub use pulse::Pulse;
pub use purge::{AskedPurge, PurgeAnswer, PurgeAsker};
pub use spans::{RequestSpan, TrySpan};
pub use upstream::StickySeed;
#[cfg(feature = "fuzzing")]
pub use upstream::fuzzing;
