//! A stock nginx that serves a directory of real files.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::address::LoopbackBlock;
use crate::outside::find_program;
use crate::wait::wait_until;

/// A running nginx; it ends with its value.
pub struct NginxOrigin {
    address: SocketAddr,
    dir: PathBuf,
    child: Child,
    _block: LoopbackBlock,
}

impl NginxOrigin {
    /// Starts nginx on `root`, with its files below `dir`. None when there is no nginx on this machine.
    pub async fn start(dir: &Path, root: &Path) -> Result<Option<Self>> {
        let Some(nginx) = find_program("nginx") else { return Ok(None) };
        let block = LoopbackBlock::claim()?;
        let address = block.socket(9, 80);
        fs::create_dir_all(dir)?;
        fs::write(dir.join("nginx.conf"), configuration(dir, root, address))?;
        let child = Command::new(nginx)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-p")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("stderr"))?)
            .spawn()
            .context("start nginx")?;
        let origin = Self { address, dir: dir.to_owned(), child, _block: block };
        wait_until("nginx listens", Duration::from_secs(10), async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await
        .with_context(|| fs::read_to_string(dir.join("stderr")).unwrap_or_default())?;
        Ok(Some(origin))
    }

    /// `host:port`, as in a site file.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Requests so far for paths that begin so, by its own access log.
    pub fn count_below(&self, prefix: &str) -> Result<usize> {
        let log = fs::read_to_string(self.dir.join("access.log"))?;
        Ok(log
            .lines()
            .filter(|line| line.split(' ').nth(1).is_some_and(|path| path.starts_with(prefix)))
            .count())
    }
}

impl Drop for NginxOrigin {
    fn drop(&mut self) {
        // QUIT reaches the workers too; KILL would orphan them.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn configuration(dir: &Path, root: &Path, address: SocketAddr) -> String {
    let (dir, root) = (dir.display(), root.display());
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
  server {{ listen {address}; root {root}; add_header Cache-Control 'public, max-age=3600'; }}
}}
"
    )
}
