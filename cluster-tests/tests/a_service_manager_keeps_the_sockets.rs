//! Sockets that a service manager has bound: a node accepts on them, and who connects while it restarts waits.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{LoopbackBlock, Origin, Ports, SiteFile, Verb, fetch, shoal_binary, wait_until};
use rustix::process::{Pid, Signal, kill_process};

const HOST: &str = "kept.example.com";
const LONGEST: Duration = Duration::from_secs(60);
/// Passes its standard input and output as descriptors 3 and 4.
const MANAGER: &str =
    "exec 3<&0 4<&1 0</dev/null 1>/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$@\"";

/// A service manager with the sockets of one node. They share their ports with nobody: a node that bound them itself
/// would fail.
struct Manager {
    block: LoopbackBlock,
    dir: tempfile::TempDir,
    site: TcpListener,
    ops: TcpListener,
}

impl Manager {
    fn bind() -> Result<Self> {
        let block = LoopbackBlock::claim()?;
        let bind = |port| TcpListener::bind(block.socket(1, port));
        let (site, ops) = (bind(Ports::HTTP)?, bind(Ports::OPS)?);
        Ok(Self { block, dir: tempfile::tempdir()?, site, ops })
    }

    fn at(&self, port: u16) -> SocketAddr {
        self.block.socket(1, port)
    }

    fn start(&self) -> Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log"))?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", MANAGER, "manager"]).arg(shoal_binary().map_err(anyhow::Error::msg)?);
        command.arg("run").arg("--data-dir").arg(self.dir.path().join("data"));
        for (flag, port) in [("--cluster-addr", Ports::CLUSTER), ("--admin-addr", Ports::ADMIN)] {
            command.args([flag, &self.at(port).to_string()]);
        }
        command.args(["--ops-addr", &self.at(Ports::OPS).to_string(), "--workers", "2"]);
        command.args(["--listen-ip", &self.block.ip(1).to_string(), "--drain-delay", "0s"]);
        command.stdin(Stdio::from(OwnedFd::from(self.site.try_clone()?)));
        command.stdout(Stdio::from(OwnedFd::from(self.ops.try_clone()?)));
        command.stderr(log).spawn().context("the node cannot be started")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn ready(&self) -> Result<()> {
        let ready = async || matches!(fetch(self.at(Ports::OPS), "ops", "/readyz").await, Ok(answer) if answer.status == 200);
        wait_until("the node is ready", LONGEST, ready).await.with_context(|| self.log())?;
        Ok(())
    }
}

async fn stop(mut node: Child) -> Result<()> {
    kill_process(Pid::from_child(&node), Signal::TERM)?;
    let status = tokio::task::spawn_blocking(move || node.wait()).await??;
    ensure!(status.success(), "the node ended with {status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_while_the_node_is_away() -> Result<()> {
    let manager = Manager::bind()?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    let node = manager.start()?;
    manager.ready().await?;
    let site = manager.dir.path().join("site.json");
    SiteFile::new().proxy("app", &[origin.endpoint()]).write(&site)?;
    let socket = manager.dir.path().join("data/admin.sock");
    let site = site.display().to_string();
    Verb::new(&socket, &["apply", "-f", &site]).run().await?.expect(0)?;
    let web = manager.at(Ports::HTTP);
    for _ in 0..10 {
        ensure!(fetch(web, HOST, "/").await?.status == 200, "{}", manager.log());
    }
    stop(node).await?;
    let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(async move { fetch(web, HOST, "/").await })).collect();
    let again = manager.start()?;
    for waited in waiting {
        let status = waited.await?.with_context(|| manager.log())?.status;
        ensure!(status == 200, "who waited got {status}: {}", manager.log());
    }
    manager.ready().await?;
    stop(again).await
}
