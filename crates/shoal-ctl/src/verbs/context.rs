//! `shoal login` and `shoal context …`: clusters get names, and one of them is meant when nothing says which.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use shoal_proto::admin::StatusResponse;

use super::Session;
use crate::client::NodeArgs;
use crate::contexts::{Context, Contexts, context_name};
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::render;

/// What `shoal login` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal login prod --addr 10.0.0.1:7401 --identity ada.json    (from then on: shoal status)
  shoal login here --socket /var/lib/shoal/admin.sock

A node is asked whether the identity is good and where the others are; then the way to the cluster is kept under NAME, and is
the one that is used. Keys stay where they are: the file that is written, $XDG_CONFIG_HOME/shoal/contexts.yaml or the one that
SHOAL_CONTEXTS names, says only where. Flags, then SHOAL_SOCKET, SHOAL_ADDR and SHOAL_IDENTITY, then SHOAL_CONTEXT go before it.")]
pub struct LoginArgs {
    /// What the cluster is called from now on
    #[arg(value_name = "NAME", value_parser = context_name)]
    name: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// What `shoal context` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal context list\n  shoal context use prod")]
pub struct ContextVerb {
    #[command(subcommand)]
    verb: Verbs,
}

#[derive(Subcommand, Clone, Debug)]
enum Verbs {
    List(ListArgs),
    /// Have every verb here mean this cluster, where nothing else says which
    Use(NameArgs),
    /// Forget the name of a cluster here; the cluster goes on
    Remove(NameArgs),
}

/// List the clusters that have names here; the one that is used is marked
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal context list -o json")]
struct ListArgs {
    /// How they are printed: table, json or yaml [default: table]
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    output: Option<Format>,
}

/// What `use` and `remove` take.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal context use prod\n  shoal context remove stage")]
struct NameArgs {
    /// The cluster
    #[arg(value_name = "NAME")]
    name: String,
}

/// A row of the list.
#[derive(Serialize)]
struct Row<'a> {
    current: bool,
    name: &'a str,
    #[serde(flatten)]
    context: &'a Context,
}

impl LoginArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let node = self.node.clone().over(root.clone()).or_environment(|name| std::env::var(name).ok());
        if node.context.is_some() || (node.addr.is_empty() && node.socket.is_none()) {
            return Err(Failure::local("login", "it takes the address or the socket of a node")
                .try_command(format!("shoal login {} --addr HOST:7401 --identity FILE", self.name)));
        }
        let path = place()?;
        let mut contexts = Contexts::load(&path)?;
        let session = Session::of(&node)?;
        let status = session.client.status_for("login").await?;
        let context = context_of(&node, &status)?;
        let nodes = context.addr.len().max(1);
        contexts.contexts.insert(self.name.clone(), context);
        contexts.current = Some(self.name.clone());
        contexts.save(&path)?;
        let row = Row { current: true, name: &self.name, context: &contexts.contexts[&self.name] };
        session.print(&row, |row| {
            let ways = if nodes == 1 {
                "one way to it".to_owned()
            } else {
                format!("{nodes} nodes are tried in turn")
            };
            format!("{} is cluster {}, and used from now on; {ways}\n", row.name, status.cluster_id)
        })?;
        Ok(Exit::Done)
    }
}

/// The way that was gone, and after it the other nodes as the cluster knows them.
fn context_of(node: &NodeArgs, status: &StatusResponse) -> Result<Context, Failure> {
    let kept = |path: &Option<PathBuf>| match path {
        None => Ok(None),
        Some(path) => path
            .canonicalize()
            .map(Some)
            .map_err(|error| Failure::local(format!("read {}", path.display()), error)),
    };
    let mut addr = node.addr.clone();
    if !addr.is_empty() {
        // A node that listens everywhere does not say where.
        let told = status.nodes.iter().map(|node| &node.admin_addr);
        let usable = told.filter(|told| {
            told.parse::<std::net::SocketAddr>().map_or(!told.is_empty(), |at| !at.ip().is_unspecified())
        });
        for told in usable {
            if !addr.contains(told) {
                addr.push(told.clone());
            }
        }
    }
    Ok(Context {
        cluster: status.cluster_id.clone(),
        addr,
        socket: kept(&node.socket)?,
        identity: kept(&node.identity)?,
        cacert: kept(&node.cacert)?,
        cert: kept(&node.cert)?,
        key: kept(&node.key)?,
        server_name: node.server_name.clone(),
    })
}

impl ContextVerb {
    pub(super) fn run(self, root: &NodeArgs) -> Result<Exit, Failure> {
        let path = place()?;
        let mut contexts = Contexts::load(&path)?;
        match self.verb {
            Verbs::List(args) => {
                let format = args.output.or(root.output).unwrap_or(Format::Table);
                let rows: Vec<Row<'_>> = contexts
                    .contexts
                    .iter()
                    .map(|(name, context)| Row {
                        current: contexts.current.as_ref() == Some(name),
                        name,
                        context,
                    })
                    .collect();
                output::print(format, &rows, |rows| {
                    render::contexts(rows.iter().map(|row| (row.current, row.name, row.context)))
                })?;
            }
            Verbs::Use(args) => {
                contexts.named(&args.name)?;
                contexts.current = Some(args.name);
                contexts.save(&path)?;
            }
            Verbs::Remove(args) => {
                contexts.named(&args.name)?;
                contexts.contexts.remove(&args.name);
                let was_used = contexts.current.take_if(|current| *current == args.name).is_some();
                contexts.save(&path)?;
                if was_used {
                    output::note(
                        "no cluster is used now: `shoal context use NAME`, or -c NAME, says which is meant",
                    );
                }
            }
        }
        Ok(Exit::Done)
    }
}

fn place() -> Result<PathBuf, Failure> {
    Contexts::path(|name| std::env::var(name).ok()).ok_or_else(|| {
        let why = "there is no place for it: HOME is not set";
        Failure::local("contexts", why).try_command("SHOAL_CONTEXTS=FILE shoal context list")
    })
}
