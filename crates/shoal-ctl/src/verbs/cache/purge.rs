//! `shoal cache purge`.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{ArgGroup, Args, ValueEnum};
use shoal_proto::admin::{AckState, PurgeRequest};

use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;
use crate::verbs::Session;
use crate::verbs::author::{author, request_id};

/// Forget cached objects on every node
#[derive(Args, Clone, Debug)]
#[command(
    group(ArgGroup::new("scope").required(true).multiple(true).args(["url", "prefix", "host", "tag", "group", "all"])),
    after_help = "\
Example:
  shoal cache purge --url http://shop.example.com/logo.svg
  shoal cache purge --host shop.example.com --soft
  shoal cache purge --tag product-17 --tag product-18

Every flag may be given more than once. There are no patterns, and a scope that could match nothing is refused.
Once this verb ends with 0, no node serves what was purged. A node that does not answer is waited for until its lease has
run out: \"lapsed\" says that it serves no hits any more, and `shoal cache purge-status` when it has caught up.
Exit codes: 0 acknowledged or lapsed on every node, 1 a malformed scope, 5 not on all (which, is printed), 6 no quorum."
)]
pub(super) struct PurgeArgs {
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
    /// Everything of a cache group (RFC 9875): its origin, a space, its name
    #[arg(long, value_name = "ORIGIN NAME")]
    group: Vec<String>,
    /// Everything
    #[arg(long)]
    all: bool,
    /// Treat as stale instead of forgetting: validated before the next use [default: forget]
    #[arg(long)]
    soft: bool,
    /// Wait until it is in the log, or until no node serves what it forgets: each has acknowledged it, or is silent for so
    /// long that it serves no hits any more
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

impl PurgeArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
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
            groups: self.group,
            all: self.all,
            soft: self.soft,
            wait_complete: self.wait == Wait::Complete,
            timeout_ms: session.timeout_ms(),
            author: author(),
            request_id: request_id()?,
        };
        let response = session.client.purge(request).await?;
        session.print(&response, render::purged)?;
        // Who serves no hits serves none that was purged.
        let is_complete =
            response.acks.iter().all(|ack| matches!(ack.state(), AckState::Applied | AckState::Lapsed));
        Ok(if is_complete { Exit::Done } else { Exit::Unacknowledged })
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
