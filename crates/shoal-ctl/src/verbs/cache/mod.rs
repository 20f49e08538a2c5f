//! `shoal cache …`: counters, purges, and where an object is.

mod purge;
mod purge_status;

use clap::{Args, Subcommand};
use shoal_proto::admin::CacheLocateRequest;

use purge::PurgeArgs;
use purge_status::PurgeStatusArgs;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal cache` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cache stats
  shoal cache locate http://shop.example.com/logo.svg
  shoal cache purge --prefix http://shop.example.com/css/
  shoal cache purge-status")]
pub struct CacheVerb {
    #[command(subcommand)]
    verb: CacheVerbs,
}

#[derive(Subcommand, Clone, Debug)]
enum CacheVerbs {
    Stats(StatsArgs),
    Purge(PurgeArgs),
    PurgeStatus(PurgeStatusArgs),
    Locate(LocateArgs),
}

/// Show the counters of every node's cache
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal cache stats")]
struct StatsArgs {
    #[command(flatten)]
    node: NodeArgs,
}

/// Show which nodes own the object of a URL, and which hold it
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal cache locate http://shop.example.com/logo.svg")]
struct LocateArgs {
    /// The URL as a browser would ask for it
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    node: NodeArgs,
}

impl CacheVerb {
    pub(super) fn node_args(&self) -> &NodeArgs {
        match &self.verb {
            CacheVerbs::Stats(args) => &args.node,
            CacheVerbs::Purge(args) => &args.node,
            CacheVerbs::PurgeStatus(args) => &args.node,
            CacheVerbs::Locate(args) => &args.node,
        }
    }

    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            CacheVerbs::Stats(args) => {
                let session = Session::open(args.node, root)?;
                let response = session.client.cache_stats().await?;
                session.print(&response, render::cache_stats)?;
                Ok(Exit::Done)
            }
            CacheVerbs::Locate(args) => {
                let session = Session::open(args.node, root)?;
                let response = session.client.cache_locate(CacheLocateRequest { url: args.url }).await?;
                session.print(&response, render::locations)?;
                Ok(Exit::Done)
            }
            CacheVerbs::Purge(args) => args.run(root).await,
            CacheVerbs::PurgeStatus(args) => args.run(root).await,
        }
    }
}
