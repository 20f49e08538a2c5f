//! The nodes of a demo cluster: child processes of this one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::home::Home;
use super::layout::{Layout, node_ip};

/// Lines of a node's log that are shown when it fails.
const TAIL_LINES: usize = 12;

/// Running nodes and how to start others.
pub struct Nodes<'a> {
    home: &'a Home,
    layout: &'a Layout,
    program: PathBuf,
    running: BTreeMap<u8, Pid>,
    exits: JoinSet<Event>,
}

/// A node has ended.
pub struct Event {
    /// Which.
    pub node: u8,
    /// How.
    pub status: ExitStatus,
}

impl<'a> Nodes<'a> {
    /// None is running yet.
    pub fn new(home: &'a Home, layout: &'a Layout) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        Ok(Self { home, layout, program, running: BTreeMap::new(), exits: JoinSet::new() })
    }

    /// The program that nodes run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Process id of a running node.
    pub fn pid(&self, node: u8) -> Option<i32> {
        self.running.get(&node).map(|pid| pid.as_raw_nonzero().get())
    }

    /// Starts the first node of a new cluster, with the demo site.
    pub fn bootstrap(&mut self, node: u8) -> anyhow::Result<()> {
        let site = self.home.site_file();
        self.spawn(node, |command| {
            command.arg("--apply").arg(site);
        })
    }

    /// Starts a node that joins through `contact`.
    pub fn join(&mut self, node: u8, contact: u8, token: &str) -> anyhow::Result<()> {
        let contact = self.layout.cluster_addr(contact).to_string();
        // In the environment, since a command line can be read by everybody on the machine.
        self.spawn(node, |command| {
            command.arg("--join").arg(contact).env("SHOAL_TOKEN", token);
        })
    }

    /// Starts a node that has been part of the cluster before. Its site is in its log.
    pub fn resume(&mut self, node: u8) -> anyhow::Result<()> {
        self.spawn(node, |_| {})
    }

    fn spawn(&mut self, node: u8, extend: impl FnOnce(&mut Command)) -> anyhow::Result<()> {
        let file = self.home.log_file(node);
        let log = File::options().create(true).append(true).open(&file);
        let log = log.with_context(|| format!("cannot open {}", file.display()))?;
        let mut command = Command::new(&self.program);
        command.args(self.arguments(node)).args(["--drain-delay", "0s", "--drain-timeout", "3s", "--parent"]);
        command.arg(std::process::id().to_string()).env_remove("SHOAL_TOKEN");
        extend(&mut command);
        // A process group of its own: Ctrl-C in the terminal is for this process, which then stops the nodes in order.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start node{node}"))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        self.running.insert(node, pid.context("the node has ended at once")?);
        self.exits.spawn(async move {
            // Waiting fails only for a child that is not ours.
            let status = child.wait().await.unwrap_or_default();
            Event { node, status }
        });
        Ok(())
    }

    fn arguments(&self, node: u8) -> Vec<String> {
        let (layout, dir) = (self.layout, self.home.node_dir(node));
        [
            "run".to_owned(),
            "--data-dir".to_owned(),
            dir.display().to_string(),
            "--name".to_owned(),
            format!("node{node}"),
            "--listen-ip".to_owned(),
            node_ip(node).to_string(),
            "--cluster-addr".to_owned(),
            layout.cluster_addr(node).to_string(),
            "--admin-addr".to_owned(),
            layout.admin_addr(node).to_string(),
            "--ops-addr".to_owned(),
            layout.ops_addr(node).to_string(),
        ]
        .into()
    }

    /// The command line that brings a node back.
    pub fn resume_command(&self, node: u8) -> String {
        let words = std::iter::once(self.program.display().to_string()).chain(self.arguments(node));
        words.map(|word| quote(&word)).collect::<Vec<_>>().join(" ")
    }

    /// The next node that ends; never, when none is running.
    pub async fn next_exit(&mut self) -> Event {
        while let Some(exit) = self.exits.join_next().await {
            if let Ok(event) = exit {
                self.running.remove(&event.node);
                return event;
            }
        }
        std::future::pending().await
    }

    /// Asks every node to drain and end, and waits for them, at most `timeout`.
    pub async fn stop(&mut self, timeout: Duration) {
        self.signal(Signal::TERM);
        _ = tokio::time::timeout(timeout, self.all_ended()).await;
    }

    /// Ends what still runs.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.all_ended().await;
    }

    async fn all_ended(&mut self) {
        while !self.running.is_empty() {
            self.next_exit().await;
        }
    }

    fn signal(&self, signal: Signal) {
        for pid in self.running.values() {
            // The only failure is that it has just ended, which is what is wanted.
            _ = kill_process(*pid, signal);
        }
    }

    /// The end of a node's log.
    pub fn tail(&self, node: u8) -> String {
        let file = self.home.log_file(node);
        let bytes = fs::read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        format!("the end of {}:\n{}", file.display(), tail.join("\n"))
    }
}

/// `word` as a shell reads it back.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_commands_can_be_pasted() {
        for (word, expected) in [
            ("/tmp/a-b/node1", "/tmp/a-b/node1"),
            ("my dir", "'my dir'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("$(x)", "'$(x)'"),
        ] {
            assert_eq!(quote(word), expected);
        }
    }
}
