//! The operator's command, run as an operator runs it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::binary::shoal_binary;

/// No verb of a story takes longer.
const VERB_DEADLINE: Duration = Duration::from_secs(90);

/// One run of `shoal --socket … VERB …`, or of `shoal VERB …` with another way to the cluster.
pub struct Verb {
    socket: Option<PathBuf>,
    arguments: Vec<String>,
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub struct VerbOutput {
    /// The arguments, for messages.
    pub shown: String,
    /// Exit code; -1 = killed by a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
}

impl Verb {
    /// The verb with its arguments, asked of the node whose local socket this is.
    pub fn new(socket: &Path, arguments: &[&str]) -> Self {
        Self { socket: Some(socket.into()), ..Self::from_afar(arguments) }
    }

    /// The verb with its arguments, which name the nodes that are asked and the operator's identity.
    pub fn from_afar(arguments: &[&str]) -> Self {
        Self { socket: None, arguments: arguments.iter().map(|&argument| argument.to_owned()).collect() }
    }

    /// Runs it to its end, whatever the end is.
    pub async fn run(self) -> Result<VerbOutput> {
        tokio::task::spawn_blocking(move || self.run_blocking()).await?
    }

    fn run_blocking(self) -> Result<VerbOutput> {
        let binary = shoal_binary().map_err(anyhow::Error::msg)?;
        let shown = self.arguments.join(" ");
        let since = Instant::now();
        let socket = self.socket.iter().flat_map(|socket| [OsStr::new("--socket"), socket.as_os_str()]);
        let child = Command::new(binary)
            .args(socket)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start shoal {shown}"))?;
        let output = wait_with_deadline(child, &shown)?;
        Ok(VerbOutput {
            shown,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            elapsed: since.elapsed(),
        })
    }
}

/// A verb that hangs is killed and named, so that the story does not hang with it.
fn wait_with_deadline(child: std::process::Child, shown: &str) -> Result<std::process::Output> {
    let pid = rustix::process::Pid::from_child(&child);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(VERB_DEADLINE) {
        Ok(output) => Ok(output?),
        Err(_) => {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            bail!("shoal {shown} did not end within {VERB_DEADLINE:?}")
        }
    }
}

impl VerbOutput {
    /// Fails unless it ended with `code`.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "shoal {} ended with {} instead of {code}\nstdout: {}\nstderr: {}",
            self.shown,
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("shoal {}: not JSON: {:?}", self.shown, self.stdout))
    }

    /// Both streams, for searching.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}
