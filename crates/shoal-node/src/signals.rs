//! The signals of a node: those that end it, and those that it only answers.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::node::Node;

/// TERM or INT asks to stop; the second one asks to stop at once.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they do not end the process by themselves.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub async fn stop_asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// HUP asks to read files again, QUIT to tell everything. Neither ever ends the process, not even while it starts or drains.
pub struct Questions {
    reread: Signal,
    tell: Signal,
}

impl Questions {
    /// From now on they do not end the process; what comes before [`Questions::answer`] is answered then.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { reread: signal(SignalKind::hangup())?, tell: signal(SignalKind::quit())? })
    }

    /// Answers on the log, for ever.
    pub async fn answer(mut self, node: Arc<Node>) {
        loop {
            tokio::select! {
                _ = self.reread.recv() => reread(&node).await,
                _ = self.tell.recv() => tell(&node).await,
            }
        }
    }
}

async fn tell(node: &Arc<Node>) {
    let node = node.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || node.tell_state()).await {
        tracing::error!(%error, "SIGQUIT: could not tell the state");
    }
}

/// Files of the site are read where it is applied: what is left are those that the node itself reads.
async fn reread(node: &Node) {
    let proxy = node.proxy.clone();
    match tokio::task::spawn_blocking(move || proxy.reread()).await {
        Ok(read) => tracing::info!(
            access_logs = read.access_logs,
            names = read.names,
            authorities = read.authorities,
            "SIGHUP: opened the access logs anew, looks names up, has read the system's authorities where \
             upstreams go by them; what else a site names is read by `shoal apply`"
        ),
        Err(error) => tracing::error!(%error, "SIGHUP: could not read files again"),
    }
}
