//! `shoal confirm` and `shoal abort`: what becomes of a revision that waits to be confirmed.

use clap::Args;
use shoal_proto::admin::{AbortRequest, ConfirmRequest};

use super::Session;
use super::author::{author, request_id};
use super::outcome::{exit_of, print_applied};
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal confirm` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal confirm
  shoal confirm 8

Of a revision that some nodes have tried (--canary), that means all nodes from now on.
Exit codes: 0 it stays, 4 it does not wait to be confirmed (any more), 5 not on every live node, 6 no quorum.")]
pub struct ConfirmArgs {
    /// Revision that stays [default: the one that waits to be confirmed]
    #[arg(value_name = "REV", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
}

impl ConfirmArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let request = ConfirmRequest {
            revision: self.revision.unwrap_or_default(),
            author: author(),
            request_id: request_id()?,
            timeout_ms: session.timeout_ms(),
        };
        let response = session.client.confirm("confirm", request).await?;
        session.print(&response, render::confirmed)?;
        Ok(exit_of(&response.acks))
    }
}

/// What `shoal abort` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal abort
  shoal rollout abort 8 -m 'the new hosts are too slow'

Of a revision that waits to be confirmed, and of one that comes in waves. What was before becomes the next revision. Exit codes are those of `shoal apply`.")]
pub struct AbortArgs {
    /// Revision that does not stay [default: the one that is on its way]
    #[arg(value_name = "REV", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    /// Why, for the history [default: nothing]
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    node: NodeArgs,
}

impl AbortArgs {
    pub(super) async fn run(self, verb: &str, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let request = AbortRequest {
            revision: self.revision.unwrap_or_default(),
            author: author(),
            message: self.message.clone(),
            request_id: request_id()?,
            timeout_ms: session.timeout_ms(),
        };
        let response = session.client.abort(verb, request).await?;
        print_applied(&session, &response, &self.message)
    }
}
