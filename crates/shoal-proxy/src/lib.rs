//! Bytes in, bytes out: listeners, request path, upstream pools, health checks.
//!
//! One thread per core, each with its own runtime, sockets, pools and metric cells; a request is served from accept to
//! last byte by one worker. It reads two things from outside: the ConfigView and the ClusterView.

mod access_log;
mod body;
mod check;
mod clock;
mod connections;
mod deadline;
mod exchange;
mod fetch;
mod joined;
mod listener;
mod metrics;
mod pace;
mod proxy;
mod refusal;
mod request;
mod request_id;
mod tunnel;
mod upstream;
mod worker;

pub use check::{Checker, CheckerSettings, HealthEvent};
pub use listener::BindError;
pub use proxy::{Proxy, ProxyFigures, ProxySettings};
