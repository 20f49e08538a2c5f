//! `shoal operator …`: who may call the cluster from afar.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use shoal_cluster::identity::{NodeKey, Operator, not_after};
use shoal_cluster::tls::{Caller, caller};
use shoal_model::state::MAX_OPERATOR_SECONDS;
use shoal_model::units::Period;
use shoal_model::{ClusterId, Role};
use shoal_proto::admin::{IssueOperatorRequest, IssueOperatorResponse, RevokeOperatorRequest};

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal operator` takes.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  shoal operator create ada ada.json --role viewer\n  shoal operator renew ada.json"
)]
pub struct OperatorVerb {
    #[command(subcommand)]
    verb: Operators,
}

#[derive(Subcommand, Clone, Debug)]
enum Operators {
    Create(CreateArgs),
    Renew(RenewArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Write a new identity file with which an operator may call every node
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal --socket /var/lib/shoal/admin.sock operator create ada ada.json
  shoal --socket /var/lib/shoal/admin.sock operator create guest guest.json --role viewer --ttl 8h
  shoal --addr 10.0.0.1:7401 --identity ada.json status

A viewer looks at everything but secrets, which nobody is shown. An operator also changes the site, what is cached and which
nodes serve: apply, set, delete, edit, rollback, rollout, cache purge and warm, node drain and cordon. An admin also decides who
belongs to the cluster, who votes and who may call it: tokens, operators, node remove, revoke, promote and demote, cluster
setup, snapshot save. The socket of a node is an admin.

The key is made here and never leaves the file; nobody else may read that.")]
struct CreateArgs {
    /// What logs and the history call the operator
    #[arg(value_name = "NAME")]
    name: String,
    /// Where to write it; nothing may be there
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the operator may do
    #[arg(long, value_name = "ROLE", value_parser = role(), default_value = Role::Operator.name())]
    role: Role,
    /// How long it is good, 1s to 366d
    #[arg(long, value_name = "TIME", value_parser = ttl, default_value = "90d")]
    ttl: Period,
    #[command(flatten)]
    node: NodeArgs,
}

/// Replace an identity file by a new one of the same operator and role; only an admin may
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal --addr 10.0.0.1:7401 --identity ada.json operator renew ada.json

An identity that is no admin's, or has ended, is renewed by an admin, or over the socket of a node: --socket
DIR/admin.sock.")]
struct RenewArgs {
    /// The identity file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How long it is good, 1s to 366d [default: as long as before]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Period>,
    #[command(flatten)]
    node: NodeArgs,
}

/// List the certificates that operators have, until when they are good, and the names that were revoked
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal operator list
  shoal operator list -o json")]
struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
}

/// Let nobody call with the identities that an operator has; open connections are closed
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal operator revoke ada

All identities of that name are refused from then on by every node that hears of it. An identity of that name that is made
afterwards is good. A name that is not on the list is refused, as it may be a slip of the pen: with --force it is revoked, too,
since identities of before there was a list are on none.

What the operator has made is good all the same: see to tokens and identities that it may have given away (shoal audit).")]
struct RevokeArgs {
    /// The operator
    #[arg(value_name = "NAME")]
    name: String,
    /// Revoke it also when it is not on the list [default: refuse that]
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Longest life of an identity.
const MAX_TTL: Period = Period::seconds(MAX_OPERATOR_SECONDS as u64);

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::name)).try_map(|name| name.parse::<Role>())
}

fn ttl(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    match (Period::seconds(1)..=MAX_TTL).contains(&period) {
        true => Ok(period),
        false => Err("an identity is good for 1s to 366d".to_owned()),
    }
}

impl OperatorVerb {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            Operators::Create(args) => create(args, root).await,
            Operators::Renew(args) => renew(args, root).await,
            Operators::List(args) => list(args, root).await,
            Operators::Revoke(args) => revoke(args, root).await,
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
    can_be_written(&args.file).map_err(|error| Failure::local(what.clone(), error))?;
    let operator =
        issue(&session, "operator create", Wanted { name: args.name, role: args.role, ttl: args.ttl })
            .await?;
    operator.save(&args.file).map_err(|error| Failure::local(what, error))?;
    tell(&session, &operator, args.role, &args.file)
}

async fn renew(args: RenewArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let what = || format!("renew {}", args.file.display());
    let old = Operator::load(&args.file).map_err(|error| Failure::local(what(), error))?;
    let (role, given) = terms(&old).map_err(|why| Failure::local(what(), why))?;
    let session = Session::open(args.node, root)?;
    can_be_written(&args.file).map_err(|error| Failure::local(what(), error))?;
    let wanted = Wanted { name: old.name.clone(), role, ttl: args.ttl.unwrap_or(given) };
    let operator = issue(&session, "operator renew", wanted).await?;
    if operator.cluster_id != old.cluster_id {
        let why = format!("it is of cluster {}, and {} was asked", old.cluster_id, operator.cluster_id);
        return Err(Failure::local(what(), why));
    }
    operator.save(&args.file).map_err(|error| Failure::local(what(), error))?;
    tell(&session, &operator, role, &args.file)
}

/// What was certified cannot be taken back by who failed to keep it: whether there is a place for it is known before.
fn can_be_written(path: &Path) -> io::Result<()> {
    let beside = path.with_extension("new");
    File::create(&beside)?;
    fs::remove_file(beside)
}

/// An identity that was made.
#[derive(Serialize)]
struct Issued<'a> {
    name: &'a str,
    role: String,
    file: String,
    /// Unix seconds.
    not_after_unix: i64,
}

fn tell(session: &Session, operator: &Operator, role: Role, file: &Path) -> Result<Exit, Failure> {
    let not_after_unix = not_after(&operator.cert_der).unwrap_or_default();
    let issued = Issued {
        name: &operator.name,
        role: role.to_string(),
        file: file.display().to_string(),
        not_after_unix,
    };
    session.print(&issued, |issued| {
        let left = u64::try_from(issued.not_after_unix).unwrap_or_default().saturating_sub(session.style.now);
        format!("{} is {} for {}: {}\n", issued.name, issued.role, render::span(left), issued.file)
    })?;
    Ok(Exit::Done)
}

async fn list(args: ListArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let session = Session::open(args.node, root)?;
    let response = session.client.list_operators().await?;
    session.print(&response, |response| render::operators(response, session.style))?;
    Ok(Exit::Done)
}

async fn revoke(args: RevokeArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let session = Session::open(args.node, root)?;
    let response = session
        .client
        .revoke_operator(RevokeOperatorRequest { name: args.name.clone(), force: args.force })
        .await?;
    let revoked = serde_json::json!({ "revoked": args.name, "certificates": response.certificates });
    session.print(&revoked, |_| format!("revoked {}: {} on the list\n", args.name, response.certificates))?;
    Ok(Exit::Done)
}

/// What an identity allows, and how long it was given for.
fn terms(operator: &Operator) -> Result<(Role, Period), &'static str> {
    let Some(Caller::Operator(proven)) = caller(std::slice::from_ref(&operator.cert_der)) else {
        return Err("its certificate is not an operator's");
    };
    let given = operator.lifetime().ok_or("its certificate cannot be read")?;
    Ok((proven.role, Period(given).min(MAX_TTL)))
}

/// The identity that is asked for.
struct Wanted {
    name: String,
    role: Role,
    ttl: Period,
}

/// A key of this machine's making, certified by the cluster, for `verb`.
async fn issue(session: &Session, verb: &str, wanted: Wanted) -> Result<Operator, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::local("make an identity", error.to_string());
    let key = NodeKey::generate().map_err(|error| failed(&error))?;
    let certificate_request = key.request().map_err(|error| failed(&error))?;
    let role = wanted.role.to_string();
    let ttl_seconds = u32::try_from(wanted.ttl.0.as_secs()).unwrap_or(u32::MAX);
    let request = IssueOperatorRequest { name: wanted.name.clone(), certificate_request, role, ttl_seconds };
    let IssueOperatorResponse { cluster_id, ca_certificate, certificate, role, other_authorities } =
        session.client.issue_operator(verb, request).await?;
    if role != wanted.role.name() {
        // What it has certified is good for everything, and thrown away with its key.
        let why = "this node knows no roles: it runs an older version; ask another one";
        return Err(Failure::new(Exit::Remote, "make an identity", why).try_command("shoal node list"));
    }
    let cluster_id: ClusterId = cluster_id.parse().map_err(|_| failed(&"the node names no cluster"))?;
    Ok(Operator {
        cluster_id,
        name: wanted.name,
        ca_der: CertificateDer::from(ca_certificate),
        other_authorities: other_authorities.into_iter().map(CertificateDer::from).collect(),
        cert_der: CertificateDer::from(certificate),
        key_der: key.key_der(),
    })
}
