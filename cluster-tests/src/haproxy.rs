//! A stock haproxy in front of nodes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::address::LoopbackBlock;
use crate::outside::{OutsideServer, find_program};

/// Port of the first way in; the others follow.
const FIRST_PORT: u16 = 8000;

/// A running haproxy; it ends with its value.
pub struct HaproxyFront {
    ways: Vec<SocketAddr>,
    _server: OutsideServer,
    _block: LoopbackBlock,
}

impl HaproxyFront {
    /// Starts haproxy with its files in `dir` and a way in for each of `servers`: the mode it works in, and what its
    /// `server` line says after the name. None when there is no haproxy on this machine.
    pub async fn start(dir: &Path, servers: &[(&str, String)]) -> Result<Option<Self>> {
        let Some(haproxy) = find_program("haproxy") else { return Ok(None) };
        let block = LoopbackBlock::claim()?;
        let ways: Vec<_> = (FIRST_PORT..).zip(servers).map(|(port, _)| block.socket(9, port)).collect();
        fs::create_dir_all(dir)?;
        let config = dir.join("haproxy.cfg");
        fs::write(&config, configuration(&ways, servers))?;
        let arguments = ["-db".as_ref(), "-f".as_ref(), config.as_os_str()];
        let first = *ways.first().context("a haproxy without a way in")?;
        let server = OutsideServer::start(&haproxy, &arguments, dir, first).await?;
        Ok(Some(Self { ways, _server: server, _block: block }))
    }

    /// Where each of the servers is reached, in their order.
    pub fn ways(&self) -> &[SocketAddr] {
        &self.ways
    }
}

fn configuration(ways: &[SocketAddr], servers: &[(&str, String)]) -> String {
    let times = "timeout connect 10s\n  timeout client 30s\n  timeout server 30s";
    let sections = ways.iter().zip(servers).map(|(way, (mode, server))| {
        format!("listen {}\n  mode {mode}\n  bind {way}\n  server node {server}\n", way.port())
    });
    format!("global\n  maxconn 100\ndefaults\n  {times}\n{}", sections.collect::<String>())
}
