//! `shoal token …`: what a new node needs to join.

use clap::{Args, Subcommand};
use shoal_model::units::Period;
use shoal_proto::admin::CreateTokenRequest;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};

/// What `shoal token` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal token create --ttl 10m")]
pub struct TokenVerb {
    #[command(subcommand)]
    verb: Tokens,
}

#[derive(Subcommand, Clone, Debug)]
enum Tokens {
    Create(CreateArgs),
}

/// Print a token with which a new node may join; the token alone, so that it can be captured
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  TOKEN=$(shoal --socket /var/lib/shoal/admin.sock token create)
  shoal run --data-dir /var/lib/shoal --join 10.0.0.1:7400 --token \"$TOKEN\"")]
struct CreateArgs {
    /// How long it may be used, 1s to 7d
    #[arg(long, value_name = "TIME", value_parser = ttl, default_value = "1h")]
    ttl: Period,
    /// How many nodes may use it, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    uses: u32,
    #[command(flatten)]
    node: NodeArgs,
}

/// What a node takes.
fn ttl(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    let takes = Period::seconds(1)..=Period::seconds(7 * 86_400);
    if takes.contains(&period) { Ok(period) } else { Err("a token lives 1s to 7d".to_owned()) }
}

impl TokenVerb {
    pub(super) fn node_args(&self) -> &NodeArgs {
        let Tokens::Create(args) = &self.verb;
        &args.node
    }

    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let Tokens::Create(args) = self.verb;
        let session = Session::open(args.node, root)?;
        let ttl_seconds = u32::try_from(args.ttl.0.as_secs()).unwrap_or(u32::MAX);
        let request = CreateTokenRequest { ttl_seconds, uses: args.uses, role: "node".into() };
        let response = session.client.create_token(request).await?;
        session.print(&response, |response| format!("{}\n", response.token))?;
        Ok(Exit::Done)
    }
}
