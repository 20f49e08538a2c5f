//! `shoal dev`: a whole cluster on this machine, with origins and a site, until Ctrl-C.

mod home;
mod layout;
mod nodes;
mod origin;
mod ready;
mod settled;
mod site;
mod summary;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use shoal_ctl::{Client, Exit, Failure};
use shoal_proto::admin::CreateTokenRequest;
use tokio::signal::unix::{Signal, SignalKind, signal};

use home::Home;
use layout::{Layout, MAX_NODES};
use nodes::{Event, Nodes};

use crate::core_dump;

/// How long a node may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the cluster may take until it can lose a node.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the nodes may take to drain; then they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the token for the other nodes is valid.
const TOKEN_TTL: Duration = Duration::from_secs(600);

/// Run a demo cluster on this machine: nodes, origins and a site
///
/// Everything is on loopback addresses: the first node on 127.0.0.1, the second on 127.0.0.2 and so on.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal dev
  shoal dev --nodes 5 --dir demo

Prints where everything is and what to try; Ctrl-C stops everything. With --dir a second run resumes the same
cluster on the same ports.")]
pub struct DevArgs {
    /// How many nodes [default: 3, or as many as --dir has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    nodes: Option<u8>,
    /// Where nodes and site are kept [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl DevArgs {
    /// Runs the cluster until it is told to stop.
    pub fn run(self) -> Result<Exit, Failure> {
        core_dump::forbid().map_err(|why| failure(&why))?;
        let outcome = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")
            .and_then(|runtime| runtime.block_on(Box::pin(live(self))));
        outcome.map(|()| Exit::Done).map_err(|error| failure(&format!("{error:#}")))
    }
}

/// The first line says what failed; the others, the end of a log, stand before it.
fn failure(text: &str) -> Failure {
    let mut lines = text.lines().map(str::to_owned);
    let why = lines.next().unwrap_or_default();
    Failure { problems: lines.collect(), ..Failure::local("dev", why) }
}

/// The whole story: make room, start origins and nodes, say what there is, watch, stop.
async fn live(args: DevArgs) -> anyhow::Result<()> {
    let mut stop = StopSignals::new()?;
    let home = Home::open(args.dir.as_deref())?;
    let layout = Layout::load_or_choose(&home, args.nodes)?;
    let _origins = origin::start(&layout).await?;
    site::write(&home, &layout)?;
    let mut nodes = Nodes::new(&home, &layout)?;
    let started = tokio::select! {
        started = Box::pin(start(&home, &layout, &mut nodes)) => started,
        () = stop.asked() => Ok(()),
    };
    let watched = match started {
        Ok(()) if stop.was_asked => Ok(()),
        Ok(()) => {
            say(&summary::text(&home, &layout, &nodes));
            watch(&mut nodes, &mut stop).await
        }
        Err(error) => Err(error),
    };
    say("stopping the nodes\n");
    tokio::select! {
        () = nodes.stop(STOP_TIMEOUT) => {}
        () = stop.asked() => say("killing the nodes\n"),
    }
    nodes.kill().await;
    home.close()?;
    watched
}

/// Starts every node and waits until all are ready. Those that were here before resume at once, together: alone none
/// of them has a quorum. Others join through the first.
async fn start(home: &Home, layout: &Layout, nodes: &mut Nodes<'_>) -> anyhow::Result<()> {
    let (known, new): (Vec<u8>, Vec<u8>) = layout.nodes().partition(|node| home.has_node(*node));
    say(&format!("starting {} nodes in {}\n", layout.count, home.dir().display()));
    for node in &known {
        nodes.resume(*node)?;
    }
    for node in &known {
        await_ready(*node, layout, nodes).await?;
    }
    let mut joining = new.into_iter();
    if known.is_empty()
        && let Some(first) = joining.next()
    {
        nodes.bootstrap(first)?;
        await_ready(first, layout, nodes).await?;
    }
    let joining: Vec<u8> = joining.collect();
    let contact = known.first().copied().unwrap_or(1);
    if !joining.is_empty() {
        let token = create_token(home, contact, joining.len()).await?;
        for node in &joining {
            nodes.join(*node, contact, &token)?;
        }
    }
    for node in &joining {
        await_ready(*node, layout, nodes).await?;
    }
    settled::wait(&client(home, contact), SETTLE_TIMEOUT).await
}

async fn await_ready(node: u8, layout: &Layout, nodes: &mut Nodes<'_>) -> anyhow::Result<()> {
    let ready = ready::wait(layout.ops_addr(node), READY_TIMEOUT);
    tokio::select! {
        ready = ready => ready.map_err(|error| anyhow::anyhow!("node{node}: {error:#}\n{}", nodes.tail(node))),
        Event { node, status } = nodes.next_exit() => {
            anyhow::bail!("node{node} ended while the cluster was starting ({status})\n{}", nodes.tail(node))
        }
    }
}

async fn create_token(home: &Home, node: u8, uses: usize) -> anyhow::Result<String> {
    let request = CreateTokenRequest {
        ttl_seconds: u32::try_from(TOKEN_TTL.as_secs())?,
        uses: u32::try_from(uses)?,
        role: "node".to_owned(),
    };
    let created = client(home, node).create_token(request).await;
    Ok(created.map_err(|failure| anyhow::anyhow!("cannot create a token: {}", failure.why))?.token)
}

fn client(home: &Home, node: u8) -> Client {
    Client::local(home.socket(node), READY_TIMEOUT)
}

/// Reports nodes that end, until it is told to stop.
async fn watch(nodes: &mut Nodes<'_>, stop: &mut StopSignals) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stop.asked() => return Ok(()),
            Event { node, status } = nodes.next_exit() => {
                let command = nodes.resume_command(node);
                say(&format!("\nnode{node} ended ({status}); bring it back in another terminal with:\n  {command}\n"));
            }
        }
    }
}

/// Ctrl-C and SIGTERM.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    was_asked: bool,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())?, was_asked: false })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.was_asked = true;
    }
}

/// Tells whoever watches; the cluster runs on when nobody does.
fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
