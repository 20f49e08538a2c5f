//! `shoal cache …`: counters, what is stored and where, what is used most; purges, and fetching ahead.

mod purge;
mod purge_status;
mod top;
mod warm;

use clap::{Args, Subcommand};
use shoal_proto::admin::{CacheGetRequest, CacheLocateRequest, CacheStatsRequest};

use purge::PurgeArgs;
use purge_status::PurgeStatusArgs;
use top::TopArgs;
use warm::WarmArgs;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal cache` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cache stats
  shoal cache get http://shop.example.com/logo.svg
  shoal cache top --by saved
  shoal cache warm --file urls.txt
  shoal cache purge --prefix http://shop.example.com/css/
  shoal cache purge-status")]
pub struct CacheVerb {
    #[command(subcommand)]
    verb: CacheVerbs,
}

#[derive(Subcommand, Clone, Debug)]
enum CacheVerbs {
    Stats(StatsArgs),
    Get(GetArgs),
    Top(TopArgs),
    Warm(WarmArgs),
    Purge(PurgeArgs),
    PurgeStatus(PurgeStatusArgs),
    Locate(LocateArgs),
}

/// Show the counters of every node's cache, how long origins and other nodes took, and what each route saved
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal cache stats\n  shoal cache stats --node a")]
struct StatsArgs {
    /// Only this node, by name [default: all, and all together]
    #[arg(long = "node", value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Show everything that is stored of a URL: node and tier, variants, age, hits, tags, what purges have made of it
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cache get http://shop.example.com/logo.svg
  shoal cache get 'http://shop.example.com/search?q=x' -o json

What is on disk only is read there, and stays there; nothing of it counts as a use. A body is not shown: fetch it.
STATE is fresh, stale, soft_purged, purged (it is never served again, and goes in time) or unknown (it is validated before
its next use, since purges of its time are not remembered any more).
Exit codes: 0 something is stored, 1 nothing is, or that is not a URL.")]
struct GetArgs {
    /// The URL as a browser would ask for it
    #[arg(value_name = "URL")]
    url: String,
    /// Only this node, by name [default: all]
    #[arg(long = "node", value_name = "NAME")]
    name: Option<String>,
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
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            CacheVerbs::Stats(args) => {
                let session = Session::open(args.node, root)?;
                let request = CacheStatsRequest { node: args.name.unwrap_or_default() };
                let response = session.client.cache_stats(request).await?;
                session.print(&response, render::cache_stats)?;
                Ok(Exit::Done)
            }
            CacheVerbs::Get(args) => {
                let session = Session::open(args.node, root)?;
                let request = CacheGetRequest { url: args.url, node: args.name.unwrap_or_default() };
                let response = session.client.cache_get(request).await?;
                session.print(&response, render::stored)?;
                Ok(if response.objects.is_empty() { Exit::Local } else { Exit::Done })
            }
            CacheVerbs::Top(args) => args.run(root).await,
            CacheVerbs::Warm(args) => args.run(root).await,
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
