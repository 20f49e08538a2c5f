//! The operator's command that withdraws what leads to this node (routes, DNS), and announces it again.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::node::Node;

/// Bytes of what it prints that are logged; the rest is read and dropped.
const MAX_OUTPUT: usize = 4096;
/// Between two looks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What it is told, as its only argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing shall lead here any more.
    Withdraw,
    /// The node serves.
    Announce,
}

impl Event {
    const fn argument(self) -> &'static str {
        match self {
            Self::Withdraw => "withdraw",
            Self::Announce => "announce",
        }
    }
}

/// Runs the hook, if there is one, to its end or for as long as it may take; answers what went wrong.
pub async fn run(node: &Node, event: Event) -> Option<String> {
    let program = node.settings.drain_hook.as_deref()?;
    let (argument, patience) = (event.argument(), node.settings.drain_hook_timeout);
    let variables = [
        ("SHOAL_NODE", node.identity.name.as_str()),
        ("SHOAL_REGION", node.settings.region.as_str()),
        ("SHOAL_ZONE", node.settings.zone.as_str()),
    ];
    let outcome = call(program, argument, &variables, patience).await;
    let Ran { ended, output } = match outcome {
        Ok(ran) => ran,
        Err(error) => return Some(format!("the hook {} cannot be run: {error}", program.display())),
    };
    // Whatever it says is data: quoted, so that it can drive no terminal.
    tracing::info!(argument, status = ?ended.map(|status| status.to_string()), ?output, "the hook has run");
    match ended {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("the hook {argument} failed: {status}")),
        None => Some(format!("the hook {argument} did not end within {patience:?} and was killed")),
    }
}

struct Ran {
    /// `None` = not in time.
    ended: Option<ExitStatus>,
    output: String,
}

async fn call(
    program: &Path,
    argument: &str,
    variables: &[(&str, &str)],
    patience: Duration,
) -> io::Result<Ran> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let both = OwnedFd::from(theirs);
    let mut command = Command::new(program);
    command.arg(argument).envs(variables.iter().copied()).stdin(Stdio::null()).process_group(0);
    command.stdout(Stdio::from(both.try_clone()?)).stderr(Stdio::from(both));
    let mut hook = Running(command.spawn()?);
    // Its end of the line is open in the command as well.
    drop(command);
    let mut said = tokio::net::UnixStream::from_std(ours)?;
    let mut output = Vec::new();
    let until = Instant::now() + patience;
    let ended = loop {
        tokio::time::timeout(LOOK_AGAIN, read_on(&mut said, &mut output)).await.unwrap_or(());
        match hook.0.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() >= until => break None,
            None => {}
        }
    };
    // What it has written is there, though nobody had read it; others may hold the line open for ever.
    tokio::time::timeout(LOOK_AGAIN, read_on(&mut said, &mut output)).await.unwrap_or(());
    Ok(Ran { ended, output: String::from_utf8_lossy(&output).into_owned() })
}

/// Reads until it is cancelled; at the end of the line it waits.
async fn read_on(line: &mut tokio::net::UnixStream, output: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = line.read(&mut buffer).await {
        let kept = count.min(MAX_OUTPUT.saturating_sub(output.len()));
        output.extend_from_slice(&buffer[..kept]);
    }
    std::future::pending().await
}

/// A hook that is killed with all it has started, unless it has ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        // It may end at this moment: what matters is that it goes.
        let hook = Pid::from_child(&self.0);
        _ = kill_process_group(hook, Signal::KILL);
        // While it waits for a disk it cannot end: nobody else waits for it.
        let reap = move || retry_on_intr(|| waitpid(Some(hook), WaitOptions::empty()));
        _ = thread::Builder::new().name("hook".to_owned()).spawn(reap);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn run(script: &str, patience_ms: u64) -> Ran {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hook");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let variables = [("SHOAL_NODE", "n1")];
        call(&path, "withdraw", &variables, Duration::from_millis(patience_ms)).await.unwrap()
    }

    /// One after the other: a script that is being written cannot be started, and whoever starts another one meanwhile holds
    /// it open.
    #[tokio::test]
    async fn a_hook_is_told_heard_and_bounded() {
        let ran = run("echo $1 $SHOAL_NODE; echo to stderr >&2; exit 3", 20_000).await;
        assert_eq!(ran.ended.and_then(|status| status.code()), Some(3));
        assert_eq!(ran.output, "withdraw n1\nto stderr\n");

        let started = Instant::now();
        let ran = run("echo begun; sleep 600", 300).await;
        assert!(ran.ended.is_none() && started.elapsed() < Duration::from_secs(60));
        assert_eq!(ran.output, "begun\n");

        let ran = run("head -c 1000000 /dev/zero", 20_000).await;
        assert!(ran.ended.unwrap().success(), "who prints more than anybody wants is read on");
        assert_eq!(ran.output.len(), MAX_OUTPUT);

        let started = Instant::now();
        let ran = run("sleep 30 & echo $!", 20_000).await;
        assert!(ran.ended.unwrap().success() && started.elapsed() < Duration::from_secs(15));
        let left: i32 = ran.output.trim().parse().unwrap();
        _ = rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL);
    }
}
