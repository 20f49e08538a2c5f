//! The operator's command, run as an operator runs it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
    environment: Vec<(String, String)>,
    input: String,
    on_terminal: bool,
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
        Self {
            socket: None,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            environment: Vec::new(),
            input: String::new(),
            on_terminal: false,
        }
    }

    /// The same with a variable in its environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The same with this on its standard input, instead of nothing.
    pub fn input(mut self, input: impl Into<String>) -> Self {
        self.input = input.into();
        self
    }

    /// The same on a terminal, as `script` of util-linux makes one: what it says and asks is all on its standard output.
    pub fn on_terminal(mut self) -> Self {
        self.on_terminal = true;
        self
    }

    /// Runs it to its end, whatever the end is.
    pub async fn run(self) -> Result<VerbOutput> {
        tokio::task::spawn_blocking(move || self.run_blocking()).await?
    }

    /// Starts it, and leaves it running: what it prints goes to `stdout`.
    pub fn start(self, stdout: File) -> Result<RunningVerb> {
        let child = self.spawn(stdout.into(), Stdio::inherit())?;
        Ok(RunningVerb(child))
    }

    fn run_blocking(self) -> Result<VerbOutput> {
        let shown = self.arguments.join(" ");
        let since = Instant::now();
        let child = self.spawn(Stdio::piped(), Stdio::piped())?;
        let output = wait_with_deadline(child, &shown)?;
        Ok(VerbOutput {
            shown,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            elapsed: since.elapsed(),
        })
    }

    fn spawn(self, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        let binary = shoal_binary().map_err(anyhow::Error::msg)?;
        let socket = self.socket.iter().flat_map(|socket| [OsStr::new("--socket"), socket.as_os_str()]);
        let mut command = Command::new(&binary);
        command.args(socket).args(&self.arguments);
        if self.on_terminal {
            let words = [binary.as_os_str()].into_iter().chain(command.get_args());
            let words: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
            command = Command::new("script");
            command.args(["-qec", &words.join(" "), "/dev/null"]);
        }
        let mut child = command
            .envs(self.environment)
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("start shoal {}", self.arguments.join(" ")))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A verb that fails may not have read it.
            _ = stdin.write_all(self.input.as_bytes());
        }
        Ok(child)
    }
}

/// A word as shells read it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A run that goes on until this is dropped.
pub struct RunningVerb(Child);

impl Drop for RunningVerb {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A verb that hangs is killed and named, so that the story does not hang with it.
fn wait_with_deadline(child: Child, shown: &str) -> Result<std::process::Output> {
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
