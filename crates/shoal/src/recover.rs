//! `shoal recover`: going on once a majority of the voters is lost for good.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use shoal_ctl::output::{self, Format};
use shoal_ctl::{Exit, Failure, NodeArgs, render};
use shoal_node::recovery::{self, LeftOut, LogPlace, Prepared, Recovered};
use shoal_proto::admin::RecoverPlanRequest;

/// Go on with what is left, once a majority of the voters is lost for good
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal --socket /var/lib/shoal/admin.sock recover plan --lost n2 --lost n3
  shoal recover apply --data-dir /var/lib/shoal --lost n2 --lost n3 --at 3.120

First of all try to bring a lost voter back with its disk: then nothing is lost, and this is not needed.")]
pub struct RecoverArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    Plan(PlanArgs),
    Apply(ApplyArgs),
    Site(SiteArgs),
}

/// Ask every node how far its log is, and say which one may go on alone; changes nothing
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal --socket /var/lib/shoal/admin.sock recover plan
  shoal --socket /var/lib/shoal/admin.sock recover plan --lost n2 --lost n3

Nobody may go on as long as a voter is silent that may live: it may have acknowledged changes that nobody else has. Say of each
that is lost for good that it is, by --lost. Ends with 2 if nobody may go on.")]
struct PlanArgs {
    /// Name of a node that is lost for good, with its disk
    #[arg(long, value_name = "NAME")]
    lost: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Make a stopped node the only one of its cluster; there is no way back
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal recover apply --data-dir /var/lib/shoal --lost n2 --lost n3 --at 3.120

To be run on the machine of the node that `shoal recover plan` names, while it is stopped. All that is in its log counts from
then on; what only lost nodes had is lost. The cluster gets a new epoch: nodes of the one before are not heard any more, are
told so where they come back, and have to join again with empty directories. It stands in the log and in `shoal audit`.

A log that a later version has written to is best gone on with by that version. Where there is none, --without takes the entries
away that this one does not know, and all that follows them: copy the directory first.")]
struct ApplyArgs {
    /// The directory of the node
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of a node that is lost for good, with its disk: every other voter has to be among them
    #[arg(long, value_name = "NAME")]
    lost: Vec<String>,
    /// End of its log, as the plan says it: one that does not go as far is of another node
    #[arg(long, value_name = "TERM.INDEX")]
    at: LogPlace,
    /// Leave out this entry, the first that this version does not know, and what follows it
    #[arg(long, value_name = "TERM.INDEX")]
    without: Option<LogPlace>,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
    /// Also against an objection: the words `accept loss in CLUSTER`, with the id of the cluster
    #[arg(long, value_name = "WORDS")]
    phrase: Option<String>,
    /// How the answer is printed: table, json or yaml [default: table]
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    output: Option<Format>,
}

/// Write the site that a node served last to a file, with its private keys: the last resort, where no log is left
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal recover site --data-dir /var/lib/shoal site.json
  shoal run --data-dir /var/lib/shoal-new --apply site.json

Asks no node, and needs no log. The keys are in clear in the file, which nobody else can read: remove it afterwards.")]
struct SiteArgs {
    /// Where to write it; nothing may be there
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The directory of the node
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// How the answer is printed: table, json or yaml [default: table]
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    output: Option<Format>,
}

impl RecoverArgs {
    /// Does what is asked, and prints it in this format.
    pub fn run(self, root: NodeArgs, format: Format) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Plan(args) => crate::on_runtime(Box::pin(args.run(root, format))),
            Verb::Apply(args) => args.run(format),
            Verb::Site(args) => args.run(format),
        }
    }
}

impl PlanArgs {
    async fn run(self, root: NodeArgs, format: Format) -> Result<Exit, Failure> {
        let client = self.node.settled(root)?.client()?;
        let plan = client.recover_plan(RecoverPlanRequest { lost: self.lost.clone() }).await?;
        output::print(format, &plan, |plan| render::recovery_plan(plan, &self.lost))?;
        Ok(if plan.survivor.is_empty() { Exit::Remote } else { Exit::Done })
    }
}

impl ApplyArgs {
    fn run(self, format: Format) -> Result<Exit, Failure> {
        let failed = |why: String| Failure::local("recover apply", why);
        let prepared = recovery::prepare(&self.data_dir, &self.lost, self.at, self.without);
        let prepared = prepared.map_err(|error| failed(format!("{error:#}")))?;
        let is_forced = self.is_forced(&prepared)?;
        if !self.yes && !is_forced && !confirmed(&prepared) {
            return Err(failed("nothing was changed: -y does it without being asked".to_owned()));
        }
        let recovered = prepared.carry_out(is_forced).map_err(|error| failed(format!("{error:#}")))?;
        let dir = self.data_dir.display();
        output::print(format, &recovered, |recovered| done(recovered, &dir))?;
        Ok(Exit::Done)
    }

    fn is_forced(&self, prepared: &Prepared) -> Result<bool, Failure> {
        let wanted = format!("accept loss in {}", prepared.cluster_id());
        let Some(objection) = &prepared.objection else { return Ok(false) };
        match self.phrase.as_deref() {
            Some(phrase) if phrase == wanted => Ok(true),
            _ => {
                let why = format!("{objection}; nothing was changed");
                let hint = format!("shoal recover plan; or, if there is no other way, --phrase '{wanted}'");
                Err(Failure::local("recover apply", why).try_command(hint))
            }
        }
    }
}

impl SiteArgs {
    fn run(self, format: Format) -> Result<Exit, Failure> {
        let failed = |why: String| Failure::local("recover site", why);
        let file = self.file.display();
        match self.file.try_exists() {
            Ok(false) => {}
            Ok(true) => return Err(failed(format!("there is a file {file} already"))),
            Err(error) => return Err(failed(format!("{file}: {error}"))),
        }
        let rebuilt = recovery::write_site(&self.data_dir, &self.file);
        let rebuilt = rebuilt.map_err(|error| failed(format!("{error:#}")))?;
        output::print(format, &rebuilt, |rebuilt| {
            let (node, revision, keys) = (&rebuilt.node, rebuilt.revision, rebuilt.keys);
            format!(
                "wrote revision {revision}, as {node} served it last, with {keys} private keys in clear, to {file}\n"
            )
        })?;
        Ok(Exit::Done)
    }
}

/// The name of the node is typed where somebody can be asked.
fn confirmed(prepared: &Prepared) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    let (node, end) = (prepared.node(), prepared.end());
    let mut stderr = io::stderr().lock();
    let left_out = left_out(prepared.left_out.as_ref());
    let asked = write!(
        stderr,
        "{node} becomes the only node of cluster {}, with its log up to {} (revision {}). {left_out}These are members no more: {}.\n\
         There is no way back. Type the name of the node to go on: ",
        prepared.cluster_id(),
        end.last,
        end.revision,
        prepared.expelled().join(", ")
    );
    let mut answer = String::new();
    asked.and_then(|()| stderr.flush()).and_then(|()| io::stdin().lock().read_line(&mut answer)).is_ok()
        && answer.trim() == node
}

/// A sentence and the end of its line, or nothing.
fn left_out(left_out: Option<&LeftOut>) -> String {
    left_out.map(|left_out| format!("Left out: {left_out}.\n")).unwrap_or_default()
}

fn done(recovered: &Recovered, dir: &dyn std::fmt::Display) -> String {
    let Recovered { node, cluster_id, cluster_epoch, from, to, revision, left_out: gone, expelled } =
        recovered;
    let left_out = left_out(gone.as_ref());
    format!(
        "\
{node} is the only node of cluster {cluster_id}, in epoch {cluster_epoch}: its log goes on from {from} with {to}, at revision {revision}.
{left_out}
1. Start it:   shoal run --data-dir {dir} …
2. Let the others ({}) join again, with empty directories and a token of `shoal token create`.
   Whoever comes back with an old directory is told that it was removed, and is not heard.
3. Look at `shoal get` and `shoal history` for changes that are missing, and purge what was purged last once more.
",
        expelled.join(", ")
    )
}
