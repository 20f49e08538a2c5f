//! `shoal operator …`: who may call the cluster from afar.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rustls::pki_types::CertificateDer;
use shoal_cluster::identity::{NodeKey, Operator};
use shoal_model::ClusterId;
use shoal_proto::admin::{IssueOperatorRequest, IssueOperatorResponse};

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};

/// What `shoal operator` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal operator create ada ada.json\n  shoal operator renew ada.json")]
pub struct OperatorVerb {
    #[command(subcommand)]
    verb: Operators,
}

#[derive(Subcommand, Clone, Debug)]
enum Operators {
    Create(CreateArgs),
    Renew(RenewArgs),
}

/// Write a new identity file with which an operator may call every node for 90 days
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal --socket /var/lib/shoal/admin.sock operator create ada ada.json
  shoal --addr 10.0.0.1:7401 --identity ada.json status

The key is made here and never leaves the file; nobody else may read that.")]
struct CreateArgs {
    /// What logs and the history call the operator
    #[arg(value_name = "NAME")]
    name: String,
    /// Where to write it; nothing may be there
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
}

/// Replace an identity file by a new one of the same operator, for another 90 days
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal --addr 10.0.0.1:7401 --identity ada.json operator renew ada.json

An identity that has ended opens nothing, and can still be renewed over the socket of a node: --socket DIR/admin.sock.")]
struct RenewArgs {
    /// The identity file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
}

impl OperatorVerb {
    pub(super) fn node_args(&self) -> &NodeArgs {
        match &self.verb {
            Operators::Create(args) => &args.node,
            Operators::Renew(args) => &args.node,
        }
    }

    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            Operators::Create(args) => create(args, root).await,
            Operators::Renew(args) => renew(args, root).await,
        }
    }
}

async fn create(args: CreateArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let what = format!("write {}", args.file.display());
    match args.file.try_exists() {
        Ok(false) => {}
        Ok(true) => {
            return Err(Failure::local(what, "there is such a file already")
                .try_command("shoal operator renew --help"));
        }
        Err(error) => return Err(Failure::local(what, error)),
    }
    let session = Session::open(args.node, root)?;
    let operator = issue(&session, &args.name).await?;
    operator.save(&args.file).map_err(|error| Failure::local(what, error))?;
    Ok(Exit::Done)
}

async fn renew(args: RenewArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let what = || format!("renew {}", args.file.display());
    let old = Operator::load(&args.file).map_err(|error| Failure::local(what(), error))?;
    let session = Session::open(args.node, root)?;
    let operator = issue(&session, &old.name).await?;
    if operator.cluster_id != old.cluster_id {
        let why = format!("it is of cluster {}, and {} was asked", old.cluster_id, operator.cluster_id);
        return Err(Failure::local(what(), why));
    }
    operator.save(&args.file).map_err(|error| Failure::local(what(), error))?;
    Ok(Exit::Done)
}

/// A key of this machine's making, certified by the cluster.
async fn issue(session: &Session, name: &str) -> Result<Operator, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::local("make an identity", error.to_string());
    let key = NodeKey::generate().map_err(|error| failed(&error))?;
    let certificate_request = key.request().map_err(|error| failed(&error))?;
    let request = IssueOperatorRequest { name: name.to_owned(), certificate_request };
    let IssueOperatorResponse { cluster_id, ca_certificate, certificate } =
        session.client.issue_operator(request).await?;
    let cluster_id: ClusterId = cluster_id.parse().map_err(|_| failed(&"the node names no cluster"))?;
    Ok(Operator {
        cluster_id,
        name: name.to_owned(),
        ca_der: CertificateDer::from(ca_certificate),
        cert_der: CertificateDer::from(certificate),
        key_der: key.key_der(),
    })
}
