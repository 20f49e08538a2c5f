//! `shoal upgrade`: the node of a data directory hands over to a new process of the binary; and what follows once all nodes of
//! the cluster have.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use shoal_ctl::{Exit, Failure, UpgradeVerb};
use shoal_model::units::Period;
use shoal_node::{AskError, Outcome, ask_for_upgrade};

/// Replace a node's process without a refused or broken connection; or finalize the upgrade of all nodes
///
/// To be run on the node's machine, after its binary was replaced. The new process takes over every listening socket, the
/// log and the place in the cluster; the old one ends its connections and then itself. What it has cached on disk is
/// taken along, what only its memory has is lost. A binary that cannot serve what is served now changes nothing.
#[derive(Args, Clone, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Example:
  install shoal-1.1 /usr/local/bin/shoal && shoal upgrade --data-dir /var/lib/shoal
  shoal upgrade status

Ends with 0 once the new process serves, with 2 when the old binary goes on. SIGUSR2 to the node does the same, silently.
Until the upgrade of all nodes is finalized (`shoal upgrade status`), each can go back to the version before."
)]
pub struct UpgradeArgs {
    #[command(subcommand)]
    pub cluster: Option<UpgradeVerb>,
    /// The directory that the node was started with
    #[arg(long, value_name = "DIR", required = true)]
    data_dir: Option<PathBuf>,
    /// The new binary [default: the file that the node was started from]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Longest wait for the answer; the upgrade itself goes on [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = shoal_ctl::some_time)]
    timeout: Option<Period>,
}

impl UpgradeArgs {
    /// Asks the node, and waits until the new process serves. `timeout`: where this verb has none of its own.
    pub fn run(self, timeout: Option<Period>) -> Result<Exit, Failure> {
        // Only a verb of the whole cluster goes without.
        let data_dir = self.data_dir.unwrap_or_default();
        let what = format!("upgrade {}", data_dir.display());
        let timeout = self.timeout.or(timeout).map(|timeout| timeout.0);
        let binary = self.binary.as_deref().map(absolute).transpose();
        let binary = binary.map_err(|why| Failure::local(&what, why))?;
        let outcome = ask_for_upgrade(&data_dir, binary, timeout).map_err(|error| {
            let exit = if matches!(error, AskError::Late(_)) { Exit::Remote } else { Exit::Local };
            Failure { exit, ..Failure::local(&what, error) }
        })?;
        let failed = |why| Failure { exit: Exit::Remote, ..Failure::local(&what, why) };
        match outcome {
            Outcome::Upgraded(pid) => {
                // A reader that has gone is no error: the upgrade is done.
                _ = writeln!(io::stdout(), "process {pid} serves; the one before ends its connections");
                Ok(Exit::Done)
            }
            Outcome::Refused(why) => Err(failed(format!("{why}; the old process serves on"))),
            Outcome::RolledBack(pid, why) => {
                Err(failed(format!("{why}; the old binary serves on, as process {pid}")))
            }
            Outcome::Lost(why) => Err(failed(format!("{why}; the node stops"))),
        }
    }
}

/// The node, which starts it, is in another directory.
fn absolute(binary: &Path) -> Result<PathBuf, String> {
    let path = std::path::absolute(binary).map_err(|error| format!("--binary: {error}"))?;
    match path.try_exists() {
        Ok(false) => Err(format!("there is no file {}", path.display())),
        // Whether it can be started is for the node to say, which may run as another user.
        Ok(true) | Err(_) => Ok(path),
    }
}
