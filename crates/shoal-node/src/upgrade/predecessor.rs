//! The old process: starts the new one, hands everything over, and takes nothing back that it could still use.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::successor::{READY_VARIABLE, VARIABLE};
use super::wire::Line;
use super::{Message, Outcome, Role};
use crate::node::Node;
use crate::vital::VitalTasks;

/// For a new process to read its arguments, identity and site.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(20);
/// For a new process to open the log and to serve.
const SERVE_TIMEOUT: Duration = Duration::from_secs(75);
/// For calls of peers and operators to end; what is left then is cut off, so that nobody waits for a leader for long.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// The binary of this process, also when its file was replaced. It is the child that opens it, and that may look at itself
/// only: at a process of which there are to be no core files nobody else may.
const OWN_BINARY: &str = "/proc/self/exe";

/// Whether this process still leads the node.
#[derive(Debug)]
pub enum Handed {
    /// Nothing has changed.
    Kept(Outcome),
    /// Another process serves: this one is to drain.
    Over(Outcome),
    /// Nobody takes part in the cluster any more: this process is to drain and to end with an error.
    Lost(Outcome),
}

/// Starts `program` as the next process of this node and hands over to it.
pub async fn hand_over(node: &Arc<Node>, tasks: &VitalTasks, program: &Path) -> Handed {
    let was_ready = node.readiness_to_hand_over();
    let candidate = match Candidate::start(program, &was_ready).await {
        Ok(candidate) => candidate,
        Err(error) => return Handed::Kept(Outcome::Refused(format!("{error:#}"))),
    };
    tracing::info!(pid = candidate.pid(), program = %program.display(), "handing over");
    stand_down(node, tasks).await;
    let why = match candidate.take_over(node).await {
        Ok(pid) => return Handed::Over(Outcome::Upgraded(pid)),
        Err(error) => format!("{error:#}"),
    };
    tracing::error!(why, "the new process failed; starting the old binary again");
    let again = async { Candidate::start(Path::new(OWN_BINARY), &was_ready).await?.take_over(node).await };
    match again.await {
        Ok(pid) => Handed::Over(Outcome::RolledBack(pid, why)),
        Err(error) => {
            node.cache.lose_successor();
            Handed::Lost(Outcome::Lost(format!("{why}; then: {error:#}")))
        }
    }
}

/// Leaves consensus and gossip, without a goodbye, and frees log and directory. The workers serve on.
async fn stand_down(node: &Node, tasks: &VitalTasks) {
    node.log.hand_over().await;
    // From here on purges and changes reach the other process only.
    node.cache.retire();
    node.peers.set_address(node.id(), node.settings.cluster_addr);
    tasks.end(CLOSE_TIMEOUT).await;
    node.gossip.stop().await;
    node.log.pass_on().await;
    node.cache.close_disk().await;
    if let Err(error) = node.lock.unlock() {
        tracing::error!(%error, "cannot give up the data directory");
    }
}

/// A process that may become the next one of this node. It is killed unless it does.
struct Candidate {
    line: Arc<Line>,
    child: Option<Child>,
}

impl Candidate {
    async fn start(program: &Path, was_ready: &str) -> anyhow::Result<Self> {
        // Another one would be looked for in PATH, or from the directory that this process is in.
        ensure!(program.is_absolute(), "{} is no absolute path", program.display());
        let (line, theirs) = Line::pair().context("cannot make a line to a new process")?;
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).env(VARIABLE, "1").env(READY_VARIABLE, was_ready);
        command.stdin(Stdio::from(theirs));
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        // Its end of the line is open in the command as well: the end of the process would not be noticed.
        drop(command);
        let mut candidate = Self { line: Arc::new(line), child: Some(child) };
        match candidate.hear(PREPARE_TIMEOUT).await? {
            Message::Prepared => Ok(candidate),
            message => bail!("the new process said {message:?}"),
        }
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Hands over the sockets, waits until they are served, and answers the process id.
    async fn take_over(mut self, node: &Arc<Node>) -> anyhow::Result<u32> {
        let (line, owner) = (self.line.clone(), node.clone());
        let sent = tokio::task::spawn_blocking(move || -> io::Result<()> {
            for (role, socket) in owner.sockets.all() {
                line.send(&Message::Socket(role), Some(socket))?;
            }
            for socket in owner.proxy.listening_sockets()? {
                line.send(&Message::Socket(Role::Site), Some(socket.as_fd()))?;
            }
            line.send(&Message::TakeOver, None)
        });
        sent.await?.context("cannot hand over the sockets")?;
        match self.hear(SERVE_TIMEOUT).await? {
            Message::Serving => {}
            message => bail!("the new process said {message:?}"),
        }
        // It outlives this process, and nobody waits for it here.
        Ok(self.child.take().map_or(0, |child| child.id()))
    }

    async fn hear(&mut self, patience: Duration) -> anyhow::Result<Message> {
        let line = self.line.clone();
        let heard = tokio::task::spawn_blocking(move || line.receive(patience)).await?;
        match heard {
            Ok((Message::Failed(why), _)) => bail!("the new process gave up: {why}"),
            Ok((message, _)) => Ok(message),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => bail!("the new process ended"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                bail!("the new process was not ready within {} s", patience.as_secs())
            }
            Err(error) => Err(error).context("the line to the new process broke"),
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; what matters is that it is gone before another one is started.
            _ = child.kill();
            _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_not_looked_for() {
        for program in ["sh", "./sh", ""] {
            let why = Candidate::start(Path::new(program), "").await.err().unwrap().to_string();
            assert_eq!(why, format!("{program} is no absolute path"));
        }
    }
}
