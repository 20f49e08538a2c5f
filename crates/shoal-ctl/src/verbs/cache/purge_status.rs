//! `shoal cache purge-status`.

use std::time::Duration;

use clap::Args;
use shoal_proto::admin::{PurgeInfo, PurgeStatusRequest};
use tokio::time::Instant;

use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;
use crate::verbs::Session;

/// Between two looks while somebody waits.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Show which nodes have acknowledged a purge, and how long the others may serve what it forgets
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cache purge-status
  shoal cache purge-status 4711 --wait

A node that is silent serves hits until its lease has run out, and none after that until it has caught up. Nodes remember
the last 1000 purges they have applied since their start.
Exit codes: 0 no node serves what the purges forget, 1 there is no such purge, 5 a node may still (which, is printed).")]
pub(super) struct PurgeStatusArgs {
    /// Its number, as `shoal cache purge` prints it [default: the newest ones]
    #[arg(value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    seq: Option<u64>,
    /// How many of the newest ones
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Wait until no node serves what they forget, --timeout at most
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl PurgeStatusArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let request = PurgeStatusRequest { seq: self.seq.unwrap_or(0), limit: self.limit };
        let deadline = Instant::now() + session.client.deadline();
        loop {
            let response = session.client.purge_status(request).await?;
            let complete = response.purges.iter().all(is_complete);
            if complete || !self.wait || Instant::now() >= deadline {
                session.print(&response, |response| render::purge_status(response, session.style.now))?;
                return Ok(if complete { Exit::Done } else { Exit::Unacknowledged });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// No node serves what it forgets.
fn is_complete(purge: &PurgeInfo) -> bool {
    purge.acks.iter().all(|ack| matches!(ack.state.as_str(), "acknowledged" | "lapsed" | "left"))
}
