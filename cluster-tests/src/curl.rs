//! The client of the command line that everybody has.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;

use crate::outside::{find_program, text_of};
use crate::wait::wait_until_some;

/// For a body to arrive, seconds.
const MAX_TIME: &str = "300";

/// curl, where it is installed.
pub struct Curl(PathBuf);

impl Curl {
    /// None when there is no curl on this machine.
    pub fn find() -> Option<Self> {
        find_program("curl").map(Self)
    }

    /// What curl puts into a file below `dir` for these arguments, and what it says of the answer, in lower case. An error is
    /// its complaint, also about a body that breaks off.
    pub async fn get(
        &self,
        dir: &Path,
        node: SocketAddr,
        host: &str,
        path: &str,
        arguments: &[&str],
    ) -> Result<(Bytes, String)> {
        let file = tempfile::NamedTempFile::new_in(dir)?;
        let shown = file.path().display().to_string();
        let (field, url) = (format!("Host: {host}"), format!("http://{node}{path}"));
        let fixed = ["-sS", "--max-time", MAX_TIME, "-o", &shown, "-D", "-", "-H", &field, &url];
        let all = fixed.iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
        let head = text_of(self.0.clone(), all).await?;
        Ok((fs::read(&file).with_context(|| head.clone())?.into(), head.to_ascii_lowercase()))
    }

    /// Begins to write a body into `file`, as it comes.
    pub fn begin(
        &self,
        file: PathBuf,
        node: SocketAddr,
        host: &str,
        path: &str,
        arguments: &[&str],
    ) -> Result<Download> {
        let mut command = Command::new(&self.0);
        command.args(["-sS", "--no-buffer", "--max-time", MAX_TIME, "-H", &format!("Host: {host}"), "-o"]);
        command.arg(&file).args(arguments).arg(format!("http://{node}{path}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Download { child: command.spawn().context("start curl")?, file })
    }
}

/// A curl that writes what it gets into a file; it ends with its value.
pub struct Download {
    child: Child,
    file: PathBuf,
}

impl Download {
    /// How many bytes it has so far.
    pub fn bytes(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |file| file.len())
    }

    /// What it has so far.
    pub fn body(&self) -> Result<Bytes> {
        Ok(fs::read(&self.file)?.into())
    }

    /// Waits for its end.
    pub async fn ends(&mut self, deadline: Duration) -> Result<ExitStatus> {
        wait_until_some("curl ends", deadline, async || self.child.try_wait().ok().flatten()).await
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // It has mostly ended by then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
