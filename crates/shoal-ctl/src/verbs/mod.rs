//! What can be asked of a cluster; a file per noun.

mod apply;
mod area;
mod audit;
mod author;
mod cache;
mod checked;
mod cluster;
mod config;
mod confirm;
mod context;
mod convert;
mod course;
mod delete;
mod diff;
mod edit;
mod export;
mod get;
mod health;
mod history;
mod keys;
mod manner;
mod node;
mod operator;
mod outcome;
mod plan;
mod question;
mod raft;
mod region;
mod rollback;
mod rollout;
mod set;
mod single;
mod standing;
mod status;
mod target;
mod token;
mod top;
mod upgrade;
mod validate;
mod votes;
mod watch;
mod zone;

pub use upgrade::UpgradeVerb;

use clap::Subcommand;
use serde::Serialize;
use shoal_model::units::millis_u32;

use crate::client::{Client, NodeArgs};
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, Style};

/// The operator's verbs. Any node takes any of them.
#[derive(Subcommand, Clone, Debug)]
pub enum Verb {
    /// Make a site file the next revision, and wait until every live node serves it
    Apply(apply::ApplyArgs),
    /// Keep the revision that was applied with --confirm-timeout
    Confirm(confirm::ConfirmArgs),
    /// Go back from the revision that was applied with --confirm-timeout, at once
    Abort(confirm::AbortArgs),
    /// Show what applying a site file would change, by object and field
    Plan(plan::PlanArgs),
    /// Check a site file without asking any node
    Validate(validate::ValidateArgs),
    /// Write the configuration of nginx or Caddy as a site file, and say what was not carried over
    Convert(convert::ConvertArgs),
    /// Print the site, or some of its objects, as a site file
    Get(get::GetArgs),
    /// Put one object in its place, whole or setting by setting
    Set(set::SetArgs),
    /// Take objects out of the site
    Delete(delete::DeleteArgs),
    /// Change the site, or some of its objects, in an editor
    Edit(edit::EditArgs),
    /// List revisions, newest first: who made them, when and why
    History(history::HistoryArgs),
    /// Show what differs between two revisions
    Diff(diff::DiffArgs),
    /// Write a revision to files, one for each object
    Export(export::ExportArgs),
    /// Print revisions as they come, each once
    Watch(watch::WatchArgs),
    /// List who has changed what, from where, and what came of it, newest first
    Audit(audit::AuditArgs),
    /// Make the content of an old revision the next revision
    Rollback(rollback::RollbackArgs),
    /// Show how far a revision is that comes in waves, stop it, let it go on or go back, and when that is the usual way
    Rollout(rollout::RolloutVerb),
    /// Show the cluster on one screen: leader, nodes, upstreams, certificates, warnings
    Status(status::StatusArgs),
    /// Show live what goes through the cluster: requests, errors, latency and cache, per node and route
    Top(top::TopArgs),
    /// List and describe the nodes of the cluster, take them out of service and back, or remove one that is gone for good
    Node(node::NodeVerb),
    /// Take all nodes of a region out of service, and put them back
    Region(region::RegionVerb),
    /// Take all nodes of a zone out of service, and put them back
    Zone(zone::ZoneVerb),
    /// Have another node lead the log by which the nodes agree
    Raft(raft::RaftVerb),
    /// Show every endpoint: available or not, which node says so, since when and why
    Health(health::HealthArgs),
    /// Count, find, fetch and forget cached objects
    Cache(cache::CacheVerb),
    /// Let new nodes into the cluster: create, list and revoke tokens
    Token(token::TokenVerb),
    /// Make, renew, list and revoke the identities with which operators call the cluster from afar
    Operator(operator::OperatorVerb),
    /// Give a cluster a name: where it is, and with which identity it is called
    Login(context::LoginArgs),
    /// List, use and forget the clusters that have names
    Context(context::ContextVerb),
    /// Show or change what holds for the cluster as a whole, and its own certificates and keys
    Cluster(cluster::ClusterVerb),
    /// Describe the site file
    Config(config::ConfigVerb),
}

/// What a verb works with: the way to the cluster, and how answers are printed.
struct Session {
    client: Client,
    format: Option<Format>,
    style: Style,
}

impl Session {
    fn open(node: NodeArgs, root: NodeArgs) -> Result<Self, Failure> {
        Self::of(&node.settled(root)?)
    }

    fn of(node: &NodeArgs) -> Result<Self, Failure> {
        Ok(Self { client: node.client()?, format: node.output, style: Style::of_stdout() })
    }

    fn timeout_ms(&self) -> u32 {
        millis_u32(self.client.deadline())
    }

    /// Prints `answer` as data or, by default, as `render` shows it.
    fn print<T: Serialize>(&self, answer: &T, render: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        output::print(self.format.unwrap_or(Format::Table), answer, render)
    }
}

pub(crate) async fn run(verb: Verb, root: NodeArgs) -> Result<Exit, Failure> {
    match verb {
        Verb::Apply(args) => args.run(root).await,
        Verb::Confirm(args) => args.run(root).await,
        Verb::Abort(args) => args.run("abort", root).await,
        Verb::Plan(args) => args.run(root).await,
        Verb::Validate(args) => args.run(&root),
        Verb::Convert(args) => args.run(&root),
        Verb::Get(args) => args.run(root).await,
        Verb::Set(args) => args.run(root).await,
        Verb::Delete(args) => args.run(root).await,
        Verb::Edit(args) => args.run(root).await,
        Verb::History(args) => args.run(root).await,
        Verb::Diff(args) => args.run(root).await,
        Verb::Export(args) => args.run(root).await,
        Verb::Watch(args) => args.run(root).await,
        Verb::Audit(args) => args.run(root).await,
        Verb::Rollback(args) => args.run(root).await,
        Verb::Rollout(verb) => verb.run(root).await,
        Verb::Status(args) => args.run(root).await,
        Verb::Top(args) => args.run(root).await,
        Verb::Node(verb) => verb.run(root).await,
        Verb::Region(verb) => verb.run(root).await,
        Verb::Zone(verb) => verb.run(root).await,
        Verb::Raft(verb) => verb.run(root).await,
        Verb::Health(args) => args.run(root).await,
        Verb::Cache(verb) => verb.run(root).await,
        Verb::Token(verb) => verb.run(root).await,
        Verb::Operator(verb) => verb.run(root).await,
        Verb::Login(args) => args.run(root).await,
        Verb::Context(verb) => verb.run(&root),
        Verb::Cluster(verb) => verb.run(root).await,
        Verb::Config(verb) => verb.run(),
    }
}
