//! The life of a node: build every room from the bottom up, serve, drain, leave.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use shoal_cluster::identity::Operator;
use shoal_configlog::on_behalf_of;
use shoal_model::Role;
use shoal_model::state::Command;
use shoal_proxy::{Ports, Pulse};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use crate::activated::{self, SocketKind};
use crate::asking::Who;
use crate::build::{self, Built};
use crate::catch_up::{Patience, catch_up};
use crate::data_dir::OPERATOR;
use crate::node::Node;
use crate::removed::ADVICE;
use crate::settings::RunSettings;
use crate::signals::{Questions, Signals};
use crate::upgrade::{Asked, Door, Handed, Inherited, Outcome, Successor, hand_over};
use crate::vital::VitalTasks;
use crate::watchdog::Watchdog;
use crate::{admin, boot, descriptors, dns, drain, notify, ops, peer, twins};

/// Threads of the control runtime: consensus, gossip, operators. Requests never run on it.
const CONTROL_THREADS: usize = 2;
/// How long the first site of a new cluster, or of a new node, may take.
const FIRST_SITE_TIMEOUT: Duration = Duration::from_secs(60);
/// For the process that has taken over to hear of what changed here at last.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the servers of the control plane may take to end their calls.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop.
pub fn run(settings: RunSettings) -> anyhow::Result<()> {
    let activated = activated::take().context("cannot take over the sockets of the service manager")?;
    // Log, snapshots and sockets are nobody else's, also in a directory that others may look into.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    descriptors::claim();
    let control = Arc::new(Pulse::default());
    let parking = control.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        // All of them do, and no thread that only does what takes long.
        .on_thread_park(move || parking.enter())
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let successor = Successor::from_environment()?;
    let outcome = runtime.block_on(Box::pin(live(settings, successor, activated, control)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn live(
    settings: RunSettings,
    successor: Option<Successor>,
    activated: Vec<(SocketKind, OwnedFd)>,
    control: Arc<Pulse>,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let questions = Questions::new()?;
    let mut upgrades = signal(SignalKind::user_defined2())?;
    let (tasks, mut lost) = VitalTasks::new();
    let starting = Box::pin(start(settings, successor.as_ref(), activated, &tasks));
    let node = tokio::select! {
        started = starting => started.inspect_err(|error| {
            if let Some(successor) = &successor {
                successor.failed(error);
            }
        })?,
        () = signals.stop_asked() => return Ok(()),
    };
    let _watchdog = Watchdog::start(&node, control).context("cannot watch the workers")?;
    let _answers = AbortOnDropHandle::new(tokio::spawn(questions.answer(node.clone())));
    let door = Door::on(&node.sockets.door)?;
    let end = loop {
        let asked = tokio::select! {
            () = signals.stop_asked() => break End::Asked,
            Some(what) = lost.recv() => break End::Lost(what),
            () = node.removed.cancelled() => break End::Removed,
            () = node.stand_back.cancelled() => break End::Twin,
            () = node.drain.told_to_leave.cancelled() => break End::Ordered,
            asked = door.asked() => asked,
            _ = upgrades.recv() => Asked::by_signal(),
        };
        match Box::pin(upgrade(&node, &tasks, asked)).await {
            Upgrade::Refused => {}
            Upgrade::Done => return retire(&node, &mut signals).await,
            Upgrade::Lost => break End::Lost("the upgrade"),
        }
    };
    tracing::info!(why = ?end, "stopping: draining first");
    // It may have to wait for the disk, which nothing else does.
    let guard = Some(node.crash_guard.clone()).filter(|_| !matches!(end, End::Lost(_)));
    let noting = guard.map(|guard| tokio::task::spawn_blocking(move || guard.stopped()));
    tokio::select! {
        () = leave(&node) => {}
        () = signals.stop_asked() => tracing::warn!("stopping at once"),
    }
    if let Some(noting) = noting {
        _ = tokio::time::timeout(CLOSE_TIMEOUT, noting).await;
    }
    tasks.end(CLOSE_TIMEOUT).await;
    node.log.shutdown().await;
    node.cache.close_disk().await;
    tracing::info!("stopped");
    match end {
        End::Asked | End::Ordered => Ok(()),
        End::Lost(what) => anyhow::bail!("{what} ended by itself; the log says why"),
        End::Removed => anyhow::bail!(ADVICE),
        End::Twin => anyhow::bail!(twins::warning(&node.gossip, &node.identity)),
    }
}

/// Why a node stops.
#[derive(Debug)]
enum End {
    /// A signal.
    Asked,
    /// An operator, from afar.
    Ordered,
    /// A part is gone that it cannot do without.
    Lost(&'static str),
    /// It belongs to the cluster no more, and nobody would tell it of changes.
    Removed,
    /// Another process has its identity, and had it first.
    Twin,
}

/// What an upgrade means for this process.
enum Upgrade {
    /// It goes on.
    Refused,
    /// It drains.
    Done,
    /// It drains and fails.
    Lost,
}

async fn upgrade(node: &Arc<Node>, tasks: &VitalTasks, asked: Asked) -> Upgrade {
    notify::reloading();
    let handed = match asked.program.clone().or_else(|| node.settings.program.clone()) {
        Some(program) if node.settings.program.is_some() => hand_over(node, tasks, &program).await,
        Some(_) | None => Handed::Kept(Outcome::Refused("this node ends with its parent".to_owned())),
    };
    let (outcome, upgrade) = match handed {
        Handed::Kept(outcome) => (outcome, Upgrade::Refused),
        Handed::Over(outcome) => (outcome, Upgrade::Done),
        Handed::Lost(outcome) => (outcome, Upgrade::Lost),
    };
    match &outcome {
        Outcome::Upgraded(pid) => tracing::info!(pid, "the new process serves"),
        Outcome::Refused(why) => tracing::error!(why, "upgrade refused; nothing has changed"),
        Outcome::RolledBack(pid, why) => tracing::error!(pid, why, "the old binary serves in a new process"),
        Outcome::Lost(why) => tracing::error!(why, "the upgrade failed, and so did the way back"),
    }
    if let Outcome::Upgraded(pid) | Outcome::RolledBack(pid, _) = outcome {
        notify::handed_over(pid);
    }
    if matches!(upgrade, Upgrade::Refused) {
        notify::ready();
    }
    asked.answer(&outcome).await;
    upgrade
}

/// The next process of this node serves: nothing is said to the cluster, and only connections are left to be ended.
async fn retire(node: &Node, signals: &mut Signals) -> anyhow::Result<()> {
    node.proxy.retire();
    tokio::select! {
        left = node.proxy.drain(node.settings.drain_timeout, Ports::HandedOver) => tracing::info!(left, "handed over, and drained"),
        () = signals.stop_asked() => tracing::warn!("handed over; stopping at once"),
    }
    if tokio::time::timeout(TELL_TIMEOUT, node.cache.successor_told()).await.is_err() {
        tracing::warn!("the new process does not know of all that has changed through this one");
    }
    Ok(())
}

async fn start(
    settings: RunSettings,
    successor: Option<&Successor>,
    activated: Vec<(SocketKind, OwnedFd)>,
    tasks: &VitalTasks,
) -> anyhow::Result<Arc<Node>> {
    let mut inherited = match successor {
        Some(successor) => successor.receive(&settings).await?,
        None if activated.is_empty() => Inherited::default(),
        None => Inherited::from_manager(&settings, activated)?,
    };
    let boot = boot::boot(&settings, || inherited.bind(&settings)).await?;
    let bootstrapping = boot.bootstrap.clone();
    let has_just_joined = !boot.peers.is_empty();
    let Built { node, raft, listeners, admin, activation } =
        build::build(settings, boot, inherited, tasks).await?;
    let (peer_listener, ops_socket) = listeners.split(raft, &node);
    tasks.spawn("the peer server", peer::serve(peer_listener, tasks.stop_token()));
    tasks.spawn("the operator server", admin::serve(node.clone(), admin, tasks.stop_token()));
    tasks.spawn("the ops server", ops::serve(node.clone(), ops_socket, tasks.stop_token()));
    if bootstrapping.is_none() && node.settings.apply.is_some() {
        tracing::warn!(
            "--apply is only for a new cluster: this node keeps the site it has; use `shoal apply`"
        );
    }
    let caught_up = match has_just_joined {
        true => catch_up(&node, Patience::NEW).await,
        false => !activation.has_resumed && catch_up(&node, Patience::RETURNING).await,
    };
    activation.wake(&node, caught_up, tasks).await;
    if let Some(command) = bootstrapping {
        bootstrap(&node, command).await?;
    } else if has_just_joined && caught_up {
        boot::finished(&node.settings.data_dir);
    }
    let known = node.log.with_state(|state| state.revisions.served_by(node.id()));
    node.await_applied(0, known, FIRST_SITE_TIMEOUT).await;
    node.begin_to_serve();
    node.proxy.close_unclaimed();
    let dns_sockets = node.sockets.dns_copies().context("cannot answer over DNS")?;
    tasks.spawn("answers over DNS", dns::serve(node.clone(), dns_sockets, tasks.stop_token()));
    match successor {
        Some(successor) => successor.serving(),
        None => notify::ready(),
    }
    if let Some(interval) = notify::watchdog(successor.is_some()) {
        let suspicion = node.suspicion.clone();
        let is_well = move || suspicion.words().is_none();
        tasks.spawn_until_stop("the watchdog", notify::keep_alive(interval, is_well));
    }
    tasks.spawn_until_stop("operators' orders", drain::follow(node.clone()));
    tracing::info!(node = %node.id(), name = node.identity.name, "serving");
    Ok(node)
}

/// Writes the first entry of a new cluster, and the first site.
async fn bootstrap(node: &Arc<Node>, command: Command) -> anyhow::Result<()> {
    node.log.bootstrap().await.context("cannot start the log of a new cluster")?;
    let founding = on_behalf_of(node.asker(Who::starts(), "Bootstrap"), node.log.propose(command));
    founding.await.context("cannot write the first entry")?;
    remember_first_operator(node).await;
    if let Some(path) = &node.settings.apply {
        let applying = on_behalf_of(node.asker(Who::starts(), "Apply"), admin::apply_file(node, path));
        let applied = tokio::time::timeout(FIRST_SITE_TIMEOUT, applying).await;
        let applied = applied.context("the first site was not taken into service in time")??;
        if let Some(refused) = applied.acks.iter().find(|ack| !ack.detail.is_empty()) {
            anyhow::bail!("the first site cannot be served: {}", refused.detail);
        }
    }
    boot::finished(&node.settings.data_dir);
    Ok(())
}

/// The list of operators begins with the one that a new cluster has. Without it the identity opens nothing, but the socket does.
async fn remember_first_operator(node: &Arc<Node>) {
    let remembering = async {
        let first =
            Operator::load(&node.settings.data_dir.join(OPERATOR)).map_err(|error| error.to_string())?;
        let remembered = admin::remember_operator(node, &first.name, Role::Admin, &first.cert_der).await;
        remembered.map_err(|status| status.message().to_owned())
    };
    if let Err(why) = on_behalf_of(node.asker(Who::starts(), "IssueOperator"), remembering).await {
        tracing::warn!(
            why,
            "operator.json is not on the list of operators and opens nothing: make another identity over the socket"
        );
    }
}

/// Out of service, and out of the cluster's gossip.
async fn leave(node: &Arc<Node>) {
    notify::stopping();
    drain::leave(node).await;
}
