//! A stock nginx: one that serves a directory of real files, or what else a story writes.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::address::LoopbackBlock;
use crate::outside::{OutsideServer, find_program};

/// A running nginx; it ends with its value.
pub struct NginxOrigin {
    address: SocketAddr,
    dir: PathBuf,
    _server: OutsideServer,
    _block: LoopbackBlock,
}

impl NginxOrigin {
    /// Starts nginx on `root`, with its files below `dir`. None when there is no nginx on this machine.
    pub async fn start(dir: &Path, root: &Path) -> Result<Option<Self>> {
        let root = root.display();
        let server = |ip| {
            format!(
                "server {{ listen {ip}:80; root {root}; add_header Cache-Control 'public, max-age=3600'; }}"
            )
        };
        Self::serving(dir, server).await
    }

    /// Starts nginx with what `servers` says of an address of its own, on which one of them must listen on port 80.
    pub async fn serving(dir: &Path, servers: impl FnOnce(IpAddr) -> String) -> Result<Option<Self>> {
        let Some(nginx) = find_program("nginx") else { return Ok(None) };
        let block = LoopbackBlock::claim()?;
        let address = block.socket(9, 80);
        fs::create_dir_all(dir)?;
        let config = dir.join("nginx.conf");
        fs::write(&config, configuration(dir, &servers(address.ip())))?;
        let arguments = ["-c".as_ref(), config.as_os_str(), "-p".as_ref(), dir.as_os_str()];
        let server = OutsideServer::start(&nginx, &arguments, dir, address).await?;
        Ok(Some(Self { address, dir: dir.to_owned(), _server: server, _block: block }))
    }

    /// `host:port`, as in a site file.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// The same of another server of it.
    pub fn endpoint_at(&self, port: u16) -> String {
        SocketAddr::new(self.address.ip(), port).to_string()
    }

    /// What it has written into the file `name` of its directory, so far.
    pub fn log(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.dir.join(name))?)
    }

    /// Requests so far for paths that begin so, by its own access log.
    pub fn count_below(&self, prefix: &str) -> Result<usize> {
        let log = self.log("access.log")?;
        Ok(log
            .lines()
            .filter(|line| line.split(' ').nth(1).is_some_and(|path| path.starts_with(prefix)))
            .count())
    }
}

fn configuration(dir: &Path, servers: &str) -> String {
    let dir = dir.display();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "{user}
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  types {{ text/html html; text/css css; image/png png; application/octet-stream bin; }}
  log_format seen '$request_method $uri $status';
  access_log {dir}/access.log seen;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  sendfile on; keepalive_timeout 75s; keepalive_requests 100000;
  {servers}
}}
"
    )
}
