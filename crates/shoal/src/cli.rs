//! The command line as a whole.

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use shoal_ctl::output::Format;
use shoal_ctl::{NodeArgs, Verb};

use crate::dev::DevArgs;
use crate::recover::RecoverArgs;
use crate::run::RunArgs;
use crate::snapshot::SnapshotArgs;
use crate::upgrade::UpgradeArgs;

/// A clustered reverse proxy with a shared cache.
#[derive(Parser, Debug)]
#[command(
    name = "shoal",
    version,
    about = "A clustered reverse proxy with a shared cache",
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  shoal dev                                       three nodes, two origins and a site on this machine
  shoal run --data-dir /var/lib/shoal             a node; on an empty directory, a new cluster
  shoal --socket /var/lib/shoal/admin.sock status

Exit codes: 0 ok, 1 local error, 2 remote error, 3 differences (plan), 4 revision conflict,
5 not all nodes acknowledged, 6 no quorum."
)]
pub struct Cli {
    /// May also stand after the verb.
    #[command(flatten)]
    pub node: NodeArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Everything the binary can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    // By far the largest.
    Run(Box<RunArgs>),
    Dev(DevArgs),
    Upgrade(UpgradeArgs),
    Snapshot(SnapshotArgs),
    Recover(RecoverArgs),
    #[command(flatten)]
    Operator(Verb),
    /// Print a completion script for a shell
    #[command(after_help = "\
Example:
  shoal completion bash > /etc/bash_completion.d/shoal")]
    Completion {
        /// Which shell
        shell: Shell,
    },
    /// Print the version
    #[command(after_help = "Example:\n  shoal version\n  shoal version -o json")]
    Version {
        /// How the answer is printed: table, json or yaml [default: table]
        #[arg(short = 'o', long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
        output: Option<Format>,
    },
}
