//! `shoal token …`: what a new node needs to join.

use clap::{Args, Subcommand, ValueEnum};
use shoal_cluster::join::Token;
use shoal_model::units::Period;
use shoal_proto::admin::{CreateTokenRequest, RevokeTokenRequest};

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal token` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal token create --ttl 10m\n  shoal token list")]
pub struct TokenVerb {
    #[command(subcommand)]
    verb: Tokens,
}

#[derive(Subcommand, Clone, Debug)]
enum Tokens {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Print a token with which a new node may join, or a program purge; the token alone, so that it can be captured
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  TOKEN=$(shoal --socket /var/lib/shoal/admin.sock token create)
  shoal run --data-dir /var/lib/shoal --join 10.0.0.1:7400 --token \"$TOKEN\"

  TOKEN=$(shoal token create --role purge --ttl 90d)
  curl -H \"Authorization: Bearer $TOKEN\" -d '{\"tags\":[\"product-17\"]}' http://127.0.0.1:7402/v1/purge")]
struct CreateArgs {
    /// What it is good for: joining the cluster, joining it without a vote, or purging over HTTP as often as one likes
    #[arg(long, value_enum, default_value_t = Role::Node)]
    role: Role,
    /// How long it may be used, 1s to 7d, for --role purge to 366d
    #[arg(long, value_name = "TIME", value_parser = ttl, default_value = "1h")]
    ttl: Period,
    /// How many nodes may use it, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    uses: u32,
    #[command(flatten)]
    node: NodeArgs,
}

/// List the tokens with which nodes may join now; their secrets are not kept
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal token list
  shoal token list -o json")]
struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
}

/// Let nobody in with a token any more; nodes that have joined stay
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal token list
  shoal token revoke 3f9c2a7d51e804b6")]
struct RevokeArgs {
    /// Its id, as `shoal token list` shows it, or the token itself
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Node,
    Learner,
    Purge,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Learner => "learner",
            Self::Purge => "purge",
        }
    }
}

/// What is taken for the role whose tokens live longest.
fn ttl(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    let takes = Period::seconds(1)..=Period::seconds(366 * 86_400);
    if takes.contains(&period) {
        Ok(period)
    } else {
        Err("a token lives 1s to 7d, one to purge with 366d".to_owned())
    }
}

impl TokenVerb {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            Tokens::Create(args) => create(args, root).await,
            Tokens::List(args) => list(args, root).await,
            Tokens::Revoke(args) => revoke(args, root).await,
        }
    }
}

async fn create(args: CreateArgs, root: NodeArgs) -> Result<Exit, Failure> {
    if args.role != Role::Purge && args.ttl > Period::seconds(7 * 86_400) {
        let why = "a token lives 1s to 7d, one with --role purge 366d";
        return Err(Failure::local("token create", why).try_command("shoal token create --help"));
    }
    let session = Session::open(args.node, root)?;
    let ttl_seconds = u32::try_from(args.ttl.0.as_secs()).unwrap_or(u32::MAX);
    let request = CreateTokenRequest { ttl_seconds, uses: args.uses, role: args.role.name().to_owned() };
    let response = session.client.create_token(request).await?;
    session.print(&response, |response| format!("{}\n", response.token))?;
    Ok(Exit::Done)
}

async fn list(args: ListArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let session = Session::open(args.node, root)?;
    let response = session.client.list_tokens().await?;
    session.print(&response, |response| render::tokens(response, session.style))?;
    Ok(Exit::Done)
}

async fn revoke(args: RevokeArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let session = Session::open(args.node, root)?;
    let id = args.id.parse::<Token>().map_or(args.id, |token| token.id);
    session.client.revoke_token(RevokeTokenRequest { id: id.clone() }).await?;
    let revoked = serde_json::json!({ "revoked": id });
    session.print(&revoked, |_| format!("revoked {id}\n"))?;
    Ok(Exit::Done)
}
