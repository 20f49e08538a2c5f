//! `shoal cache …`: counters, purges, and where an object is.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use shoal_proto::admin::{AckState, CacheLocateRequest, PurgeRequest};

use super::Session;
use super::author::{author, request_id};
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal cache` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cache stats
  shoal cache locate http://shop.example.com/logo.svg
  shoal cache purge --prefix http://shop.example.com/css/")]
pub struct CacheVerb {
    #[command(subcommand)]
    verb: CacheVerbs,
}

#[derive(Subcommand, Clone, Debug)]
enum CacheVerbs {
    Stats(StatsArgs),
    Purge(PurgeArgs),
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

/// Forget cached objects on every node
#[derive(Args, Clone, Debug)]
#[command(
    group(ArgGroup::new("scope").required(true).multiple(true).args(["url", "prefix", "host", "tag", "all"])),
    after_help = "\
Example:
  shoal cache purge --url http://shop.example.com/logo.svg
  shoal cache purge --host shop.example.com --soft
  shoal cache purge --tag product-17 --tag product-18

Every flag may be given more than once. There are no patterns, and a scope that could match nothing is refused.
Once this verb ends with 0, no node serves what was purged.
Exit codes: 0 acknowledged by every live node, 1 a malformed scope, 5 not by all (which, is printed), 6 no quorum."
)]
struct PurgeArgs {
    /// One URL, every variant of it
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// Everything below a URL, by whole path segments
    #[arg(long, value_name = "URL")]
    prefix: Vec<String>,
    /// Everything of a host
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Everything that carries a tag (Surrogate-Key, Cache-Tag, xkey)
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Everything
    #[arg(long)]
    all: bool,
    /// Treat as stale instead of forgetting: validated before the next use [default: forget]
    #[arg(long)]
    soft: bool,
    /// Wait until it is in the log, or until every live node acknowledged it
    #[arg(long, value_enum, default_value_t = Wait::Complete)]
    wait: Wait,
    /// Do not ask before --all [default: ask when stdin is a terminal]
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// How long `purge` waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wait {
    Committed,
    Complete,
}

impl CacheVerb {
    pub(super) fn node_args(&self) -> &NodeArgs {
        match &self.verb {
            CacheVerbs::Stats(args) => &args.node,
            CacheVerbs::Purge(args) => &args.node,
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
        }
    }
}

impl PurgeArgs {
    async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        if self.all && !self.yes && io::stdin().is_terminal() && !confirmed() {
            return Err(
                Failure::local("cache purge", "not confirmed").try_command("shoal cache purge --all --yes")
            );
        }
        let request = PurgeRequest {
            urls: self.url,
            prefixes: self.prefix,
            hosts: self.host,
            tags: self.tag,
            all: self.all,
            soft: self.soft,
            wait_complete: self.wait == Wait::Complete,
            timeout_ms: session.timeout_ms(),
            author: author(),
            request_id: request_id()?,
        };
        let response = session.client.purge(request).await?;
        session.print(&response, render::purged)?;
        let everywhere = response.acks.iter().all(|ack| ack.state() == AckState::Applied);
        Ok(if everywhere { Exit::Done } else { Exit::Unacknowledged })
    }
}

fn confirmed() -> bool {
    let mut stderr = io::stderr().lock();
    let asked =
        stderr.write_all(b"Forget every cached object on every node? [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    asked.is_ok()
        && io::stdin().lock().read_line(&mut answer).is_ok()
        && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
