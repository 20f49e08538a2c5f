//! `shoal top`: what goes through the cluster now.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use clap::Args;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::render::{self, Rates};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Puts the cursor into the upper left corner and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What `shoal top` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Rates and latencies are those of the last second. `-o json` prints a document each second, a line each; `-o yaml` begins each
with `---`. Ends when nobody reads it.

Example:
  shoal top
  shoal top --once
  shoal top --once -o json")]
pub struct TopArgs {
    /// Print what the next second brings, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl TopArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let clears = !self.once && session.format.is_none() && stdout().is_terminal();
        let mut before = session.client.top().await?;
        loop {
            tokio::time::sleep(PERIOD).await;
            let now = session.client.top().await?;
            let rates = Rates::between(&before, &now);
            let text = match session.format {
                Some(Format::Json) if !self.once => output::to_json_line(&rates)?,
                Some(Format::Json) => output::to_json(&rates)?,
                Some(Format::Yaml) => format!("---\n{}", output::to_yaml(&rates)?),
                Some(Format::Table) | None if clears => CLEAR.to_owned() + &render::top(&rates),
                Some(Format::Table) | None => render::top(&rates),
            };
            if !output::print_line(&text)? || self.once {
                return Ok(Exit::Done);
            }
            before = now;
        }
    }
}
