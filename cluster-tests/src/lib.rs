//! Whole-cluster stories: real `shoal` processes on loopback, real sockets, real origins.
//!
//! A story is a file in `tests/`, named as a sentence. It starts a [`Cluster`], gives it origins, and talks to the nodes
//! as the world outside would: HTTP on the listeners, the `shoal` command on the admin socket, signals to the process.
//! [`wait_until`] is the only waiting there is, and [`stays_so`] where a time has to pass; who asks again and again has a pace.

mod address;
mod bar;
mod binary;
mod bird;
mod certificate;
mod client;
mod cluster;
mod crowd;
mod curl;
mod disk;
mod faults;
pub mod flood;
mod haproxy;
mod load;
mod network;
mod node;
mod openssl;
mod origin;
mod outside;
mod relay;
mod rpc;
mod scene;
mod site;
mod starved;
mod verb;
mod wait;
mod weight;

/// The host that the site of a story is of.
pub const HOST: &str = "shop.example.com";

pub use address::LoopbackBlock;
pub use bar::Bar;
pub use binary::shoal_binary;
pub use bird::Bird;
pub use certificate::{SelfSigned, install_crypto};
pub use client::{Answer, Connection, Speak, empty, fetch, send};
pub use cluster::{Cluster, path_text};
pub use crowd::Crowd;
pub use curl::{Curl, Download};
pub use disk::SmallDisk;
pub use faults::{Belief, FaultShim, Faults};
pub use haproxy::HaproxyFront;
pub use load::{Load, LoadReport, TargetReport, Tongue, grpc_message};
pub use network::{Channel, Network};
pub use node::{NodeProcess, Ports, copy_directory};
pub use openssl::OpenSsl;
pub use origin::nginx::NginxOrigin;
pub use origin::versions::Versions;
pub use origin::{Meter, Origin, Payload, Reply, Seen, pattern};
pub use outside::{find_program, skip, text_of};
pub use relay::{Carried, Wire};
pub use rpc::{Bearer, Outcome, call, field};
pub use scene::Scene;
pub use site::SiteFile;
pub use starved::Starved;
pub use verb::{RunningVerb, Verb, VerbOutput};
pub use wait::{stays_so, wait_until, wait_until_some};
pub use weight::{WEIGHED, Weight};
