//! `shoal cluster keys`, `node-life` and `rotate`: the cluster's own certificates and keys.

use clap::{Args, ValueEnum};
use shoal_model::state::{MAX_NODE_SECONDS, MIN_NODE_SECONDS};
use shoal_model::units::Period;
use shoal_proto::admin::KeepKeysRequest;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::Failure;
use crate::render;

/// Show the cluster's authority, and the certificate of each node: since when it is good, and until when
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cluster keys
  shoal cluster keys -o json")]
pub(super) struct KeysArgs {
    #[command(flatten)]
    node: NodeArgs,
}

/// Set how long certificates of nodes last; they are renewed by themselves after 50 to 80 % of that
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cluster node-life 24h

Kept in the log, for all nodes. Certificates that last longer than that are renewed at once, spread over a minute at most. A
short life keeps a stolen certificate from being of use for long; it also is how long a node gets along without the others,
before it has to be let in late (72 h) or join anew. Less than 1h takes --force: a node whose clock differs from that of the
others by some minutes is shut out then.
Exit codes: 0 done; 1 less than 1h without --force; 2 an older version is left; 6 no quorum.")]
pub(super) struct NodeLifeArgs {
    /// 10s to 90d; 7d in a new cluster
    #[arg(value_name = "TIME", value_parser = life)]
    life: Period,
    /// Also less than 1h, where all clocks are known to agree
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Replace a key of the cluster by another
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cluster rotate gossip-key
  shoal cluster rotate ca
  shoal cluster rotate ca --retire

The key that seals the gossip changes by itself each day, and when a node is revoked. The new one is believed by every node
that is heard before any uses it, so that none falls silent; a node that was away for longer gets it with the log.

A new authority is believed by every node that is heard before it signs anything; then all get certificates of it. Identities of
operators and tokens of before, and nodes that were away, are good until the old one is retired: until then operators renew
theirs (`operator renew`), and nodes that are away come back. `cluster keys` shows who is left. Whatever is in between may be
asked for again, on any node; another leader goes on with it.

With --retire every node that is heard refuses what the authority before has signed, and cuts what is open by it; this ends
with 5 and names the nodes that have not said so within --timeout. What cannot be done as things stand ends with 1: --retire
without --force while nodes or operators would be shut out, and each step before or after its time.")]
pub(super) struct RotateArgs {
    /// Which key
    #[arg(value_enum)]
    what: Rotated,
    /// Of ca, the last step: the authority before is not believed any more
    #[arg(long, conflicts_with = "abort")]
    retire: bool,
    /// Of ca, instead of the last step: the new authority does not come, if it has signed nothing yet
    #[arg(long)]
    abort: bool,
    /// Retire it although nodes or operators still show what it has signed
    #[arg(long, requires = "retire")]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rotated {
    /// What seals the gossip
    GossipKey,
    /// The authority that signs certificates
    Ca,
}

fn life(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    let (least, most) = (Period::seconds(MIN_NODE_SECONDS.into()), Period::seconds(MAX_NODE_SECONDS.into()));
    match (least..=most).contains(&period) {
        true => Ok(period),
        false => Err(format!("the certificate of a node lasts {least} to {most}")),
    }
}

impl KeysArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<(), Failure> {
        let session = Session::open(self.node, root)?;
        let response = session.client.keys().await?;
        session.print(&response, |response| render::keys(response, session.style))
    }
}

impl NodeLifeArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<(), Failure> {
        let seconds = u32::try_from(self.life.0.as_secs()).unwrap_or(u32::MAX);
        let request = KeepKeysRequest { force: self.force, ..request("node-life", seconds) };
        keep(self.node, root, "cluster node-life", request).await
    }
}

impl RotateArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<(), Failure> {
        let request = KeepKeysRequest { force: self.force, ..request(self.order()?, 0) };
        let verb = match self.what {
            Rotated::GossipKey => "cluster rotate gossip-key",
            Rotated::Ca => "cluster rotate ca",
        };
        keep(self.node, root, verb, request).await
    }

    fn order(&self) -> Result<&'static str, Failure> {
        match (self.what, self.retire, self.abort) {
            (Rotated::GossipKey, false, false) => Ok("rotate-gossip-key"),
            (Rotated::GossipKey, _, _) => Err(Failure::local(
                "cluster rotate gossip-key",
                "--retire and --abort are for ca; another key is one step",
            )),
            (Rotated::Ca, true, _) => Ok("retire-ca"),
            (Rotated::Ca, false, true) => Ok("abort-ca"),
            (Rotated::Ca, false, false) => Ok("rotate-ca"),
        }
    }
}

fn request(order: &str, seconds: u32) -> KeepKeysRequest {
    KeepKeysRequest { order: order.to_owned(), seconds, ..KeepKeysRequest::default() }
}

async fn keep(node: NodeArgs, root: NodeArgs, verb: &str, request: KeepKeysRequest) -> Result<(), Failure> {
    let session = Session::open(node, root)?;
    let request = KeepKeysRequest { timeout_ms: session.timeout_ms(), ..request };
    let response = session.client.keep_keys(verb, request).await?;
    session.print(&response, |response| render::keys(response, session.style))
}
