//! One `shoal run` process: started, signalled, restarted, always reaped.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::binary::shoal_binary;
use crate::cluster::path_text;
use crate::verb::{Verb, VerbOutput};
use crate::wait::wait_until_some;

/// Lines of a node's log that are shown when a story fails.
const TAIL_LINES: usize = 60;

/// The ports every node of every story uses, each on an address of its own.
pub struct Ports;

impl Ports {
    /// Gossip and peer RPC.
    pub const CLUSTER: u16 = 7400;
    /// Operator gRPC.
    pub const ADMIN: u16 = 7401;
    /// `/livez`, `/readyz`, `/metrics`.
    pub const OPS: u16 = 7402;
    /// The stories' clear-text listener.
    pub const HTTP: u16 = 8080;
    /// The stories' TLS listener.
    pub const HTTPS: u16 = 8443;
}

/// One node of a cluster under test.
pub struct NodeProcess {
    /// Its name, as in `Cache-Status`.
    pub name: String,
    /// The address all its listeners are on.
    pub ip: IpAddr,
    dir: PathBuf,
    extra: Vec<String>,
    /// The command that enters where it is; empty = it is here.
    entering: Vec<String>,
    /// Descriptors it may have; `None` = those of the story.
    descriptors: Option<u32>,
    /// What it finds in its environment beside what the story has in its own.
    environment: Vec<(String, String)>,
    child: Option<Child>,
    /// The process group of the first process: those it handed over to are in it as well.
    group: Option<Pid>,
}

/// Copies a data directory, as it lies there.
pub fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy_directory(&entry.path(), &target)?,
            kind if kind.is_file() => drop(fs::copy(entry.path(), target)?),
            // A socket is of the process that made it.
            _ => {}
        }
    }
    Ok(())
}

impl NodeProcess {
    /// A node that has not been started. `extra` arguments are given at every start; `{ip}` and `{name}` in them stand for
    /// this node's own.
    pub fn new(name: &str, ip: IpAddr, dir: &Path, extra: &[&str]) -> Self {
        let own = |argument: &str| argument.replace("{ip}", &ip.to_string()).replace("{name}", name);
        let extra = extra.iter().map(|argument| own(argument)).collect();
        Self {
            name: name.to_owned(),
            ip,
            dir: dir.to_owned(),
            extra,
            entering: Vec::new(),
            descriptors: None,
            environment: Vec::new(),
            child: None,
            group: None,
        }
    }

    /// From its next start on it is started by this command, which enters a place of a [`Network`](crate::Network).
    pub(crate) fn enter_by(&mut self, entering: Vec<String>) {
        self.entering = entering;
    }

    /// The command that enters where it is; empty = it is here.
    pub(crate) fn entering(&self) -> &[String] {
        &self.entering
    }

    /// From its next start on it may open no more descriptors than these.
    pub fn allow_descriptors(&mut self, descriptors: u32) {
        self.descriptors = Some(descriptors);
    }

    /// From its next start on it finds this in its environment.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// From its next start on it finds nothing there of this name that was set for it.
    pub fn unset_environment(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// Starts the process. `join` = address and token, on an empty directory.
    pub fn start(&mut self, join: Option<(SocketAddr, &str)>) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        fs::create_dir_all(&self.dir)?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let address = |port| SocketAddr::new(self.ip, port).to_string();
        let binary = shoal_binary().map_err(anyhow::Error::msg)?;
        let mut words: Vec<OsString> = self.entering.iter().map(OsString::from).collect();
        if let Some(descriptors) = self.descriptors {
            let limited = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
            words.extend(["/bin/sh", "-c", &limited].map(OsString::from));
        }
        words.extend([binary.into(), "run".into()]);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--name", &self.name])
            .args(["--cluster-addr", &address(Ports::CLUSTER)])
            .args(["--admin-addr", &address(Ports::ADMIN)])
            .args(["--ops-addr", &address(Ports::OPS)])
            .args(["--listen-ip", &self.ip.to_string()])
            .args(["--workers", "1"])
            .args(&self.extra);
        if let Some((address, token)) = join {
            command.args(["--join", &address.to_string(), "--token", token]);
        }
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(self.stdout_file()?).stderr(log);
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info,openraft=warn,h2=error");
        }
        command.envs(self.environment.iter().cloned());
        let child = command.spawn().with_context(|| format!("start {}", self.name))?;
        self.group = Some(Pid::from_child(&child));
        self.child = Some(child);
        Ok(())
    }

    /// The operator's command on this node's socket.
    pub fn verb(&self, arguments: &[&str]) -> Verb {
        Verb::new(&self.data_dir().join("admin.sock"), arguments)
    }

    /// Runs the operator's command on this node's socket.
    pub async fn shoal(&self, arguments: &[&str]) -> Result<VerbOutput> {
        self.verb(arguments).run().await
    }

    /// What that prints as JSON.
    pub async fn told(&self, arguments: &[&str]) -> Result<Value> {
        self.shoal(&[&["-o", "json"], arguments].concat()).await?.expect(0)?.json()
    }

    /// An address of this node.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    /// SIGKILL, and reaped.
    pub fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM; see [`Self::ended`].
    pub fn term(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGSTOP: alive for the kernel, dead for its peers.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn cont(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGUSR2: hand over to a new process.
    pub fn usr2(&self) -> Result<()> {
        self.signal(Signal::USR2)
    }

    /// `shoal upgrade` on this node, with further arguments.
    pub async fn upgrade(&self, arguments: &[&str]) -> Result<VerbOutput> {
        let data_dir = self.data_dir();
        self.shoal(&[&["upgrade", "--data-dir", path_text(&data_dir)], arguments].concat()).await
    }

    /// The process ends by itself within `deadline`.
    pub async fn ended(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        let child = self.child.as_mut().ok_or_else(|| anyhow!("{} does not run", self.name))?;
        let status = wait_until_some(&what, deadline, async || child.try_wait().transpose()).await??;
        self.child = None;
        Ok(status)
    }

    /// Does the process run?
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// What it has logged since the story began.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// What it has written to standard output: nothing, if the contract holds.
    pub fn stdout(&self) -> String {
        fs::read_to_string(self.dir.join("stdout")).unwrap_or_default()
    }

    /// Where it keeps its state.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn stdout_file(&self) -> Result<File> {
        Ok(OpenOptions::new().create(true).append(true).open(self.dir.join("stdout"))?)
    }

    /// Any signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// The process that was started.
    pub(crate) fn pid(&self) -> Result<Pid> {
        let child = self.child.as_ref().ok_or_else(|| anyhow!("{} does not run", self.name))?;
        Ok(Pid::from_child(child))
    }

    /// The end of the log, for whoever reads why a story failed.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "--- {} ({})\n{}\n",
            self.name,
            self.ip,
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
        )
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already; what matters is that nobody outlives the story.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(group) = self.group {
            // Whoever took over is of the same group; an empty one is an error that says what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
