//! The new process: shows that it could serve, waits for its turn, tells when it serves.

use std::env;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use shoal_cluster::identity::Identity;
use shoal_proxy::Owner;

use super::wire::Line;
use super::{Inherited, Message};
use crate::activated;
use crate::activation::compile;
use crate::last_known_good::LastKnownGood;
use crate::settings::RunSettings;

/// Set for a process that is to take the place of the one that starts it; their line is its standard input.
pub(super) const VARIABLE: &str = "SHOAL_TAKES_OVER";
/// In which scopes the process before was ready; one that does not know it begins anew.
pub(super) const READY_VARIABLE: &str = "SHOAL_WAS_READY";
/// How long the process before may take to close its log.
const PATIENCE: Duration = Duration::from_secs(30);

/// The way to the process whose place this one takes.
#[derive(Clone, Debug)]
pub struct Successor(Arc<Line>);

impl Successor {
    /// If this process was started to take the place of another.
    pub fn from_environment() -> anyhow::Result<Option<Self>> {
        if env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let line = std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("cannot use the line to the old process")?;
        Ok(Some(Self(Arc::new(Line::on(line)))))
    }

    /// Checks what can be checked beside a running process, and waits until log, directory and sockets are handed over.
    pub async fn receive(&self, settings: &RunSettings) -> anyhow::Result<Inherited> {
        let (line, settings) = (self.0.clone(), settings.clone());
        let received = tokio::task::spawn_blocking(move || {
            rehearse(&settings)?;
            line.send(&Message::Prepared, None)?;
            let owner = if activated::was_predecessor() { Owner::Manager } else { Owner::Node };
            let was_ready = env::var(READY_VARIABLE).unwrap_or_default();
            let mut inherited = Inherited::from_predecessor(owner, was_ready);
            loop {
                match line.receive(PATIENCE).context("the old process handed nothing over")? {
                    (Message::Socket(role), Some(descriptor)) => inherited.push(role, descriptor),
                    (Message::TakeOver, _) => return Ok(inherited),
                    (message, _) => bail!("the old process said {message:?}"),
                }
            }
        });
        received.await?
    }

    /// The old process may drain. One that is gone does not need to know.
    pub fn serving(&self) {
        self.tell(&Message::Serving);
    }

    /// The old process shall not wait.
    pub fn failed(&self, error: &anyhow::Error) {
        let why: String = format!("{error:#}").chars().take(500).collect();
        self.tell(&Message::Failed(why));
    }

    fn tell(&self, message: &Message) {
        if let Err(error) = self.0.send(message, None) {
            tracing::warn!(%error, "the old process is gone already");
        }
    }
}

/// What a start would need and another version may have forgotten how to read.
fn rehearse(settings: &RunSettings) -> anyhow::Result<()> {
    let Some(identity) = Identity::load(&settings.data_dir)? else {
        bail!("{} has no identity", settings.data_dir.display());
    };
    if let Some((revision, content)) = LastKnownGood::in_dir(&settings.data_dir).load(None) {
        let compiled = compile(&identity, revision, &content);
        compiled.map_err(|why| anyhow::anyhow!("this version cannot serve revision {revision}: {why}"))?;
    }
    Ok(())
}
