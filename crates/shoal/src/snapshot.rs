//! `shoal snapshot`: the state of a cluster in a file, and a cluster out of one.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use shoal_ctl::output::{self, Format};
use shoal_ctl::{Exit, Failure, NodeArgs, render};
use shoal_node::backup::{self, About, Inspection, Restored};
use shoal_proto::admin::SaveSnapshotRequest;

use crate::passphrase::{Asked, PassphraseArgs};

/// Save the whole state of a cluster, look into such a file, or found a new cluster with it
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal snapshot save /backup/shoal.snapshot --passphrase-file /etc/shoal/passphrase
  shoal snapshot restore /backup/shoal.snapshot --data-dir /var/lib/shoal")]
pub struct SnapshotArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    Save(SaveArgs),
    Inspect(InspectArgs),
    Restore(RestoreArgs),
}

/// Write all that the nodes have agreed on into a file, sealed under a passphrase; only an admin may
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal snapshot save
  shoal --addr 10.0.0.1:7401 --identity admin.json snapshot save /backup/shoal.snapshot --force \\
      --passphrase-file /etc/shoal/passphrase
  shoal snapshot save - --passphrase-file /etc/shoal/passphrase | ssh backup 'cat > shoal.snapshot'

The node that is asked seals it, with the cluster's secret: private keys are in it, and nothing of it can be read without the
passphrase. It is on the disk when this ends. `shoal audit` shows who has saved one, when and from where. Without a majority it
is what that node has, and on no record, which a warning says. Every hour, the newest 48 kept, by cron:
  7 * * * * cd /backup && shoal snapshot save --passphrase-file /etc/shoal/passphrase && ls -t *.snapshot | tail -n +49 | xargs -r rm")]
struct SaveArgs {
    /// Where to write it; - = standard output [default: shoal-CLUSTER-rREVISION-ENTRY.snapshot; nothing is written if that is
    /// there already]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Also if there is such a file already
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// Show what is in a file, without what is secret; without a passphrase, only what it is about and whether it is whole
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal snapshot inspect /backup/shoal.snapshot
  shoal snapshot inspect /backup/shoal.snapshot --passphrase-file /etc/shoal/passphrase -o json

Asks no node. A file that was damaged and a wrong passphrase are told apart; both end with 1.")]
struct InspectArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// How the answer is printed: table, json or yaml [default: table]
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    output: Option<Format>,
}

/// Found a new cluster in an empty directory, with the site and the history of a file
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal snapshot restore /backup/shoal.snapshot --data-dir /var/lib/shoal --passphrase-file /etc/shoal/passphrase

Asks no node. The cluster has a new id, a new authority and a new secret: nodes, tokens and operators of the old one cannot
enter, and nodes that still run go on serving for themselves. Revisions have numbers higher by 1000000000, so that whoever
follows them reads them anew. Stop the nodes of the old cluster before those of the new one take their addresses.")]
struct RestoreArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Directory of the first node; nothing may be in it
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of the first node [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// How the answer is printed: table, json or yaml [default: table]
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    output: Option<Format>,
}

impl SnapshotArgs {
    /// Does what is asked, and prints it in this format.
    pub fn run(self, root: NodeArgs, format: Format) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Save(args) => crate::on_runtime(Box::pin(args.run(root, format))),
            Verb::Inspect(args) => {
                let passphrase = args.passphrase.find(Asked::Once)?;
                let inspection = backup::inspect(&args.file, passphrase.as_ref());
                let inspection =
                    inspection.map_err(|error| Failure::local("snapshot inspect", format!("{error:#}")))?;
                output::print(format, &inspection, shown)?;
                Ok(Exit::Done)
            }
            Verb::Restore(args) => {
                let passphrase = args.passphrase.require(Asked::Once)?;
                let restored = backup::restore(&args.file, &passphrase, &args.data_dir, args.name.as_deref());
                let restored =
                    restored.map_err(|error| Failure::local("snapshot restore", format!("{error:#}")))?;
                for (revision, why) in &restored.left_out {
                    output::warn(&format!("the content of revision {revision} is left out: {why}"));
                }
                output::print(format, &restored, |restored| next_steps(restored, &args.data_dir))?;
                Ok(Exit::Done)
            }
        }
    }
}

impl SaveArgs {
    async fn run(self, root: NodeArgs, format: Format) -> Result<Exit, Failure> {
        let failed = |why: String| Failure::local("snapshot save", why);
        let to_stdout = self.file.as_deref().is_some_and(|file| file == Path::new("-"));
        if to_stdout && io::stdout().is_terminal() {
            let why = "it is no text for a terminal: name a file, or send it on to another program";
            return Err(failed(why.to_owned()));
        }
        if let Some(file) = self.file.as_ref().filter(|_| !to_stdout) {
            self.check_free(file)?;
        }
        let client = self.node.clone().settled(root)?.client()?;
        let passphrase = self.passphrase.require(Asked::Twice)?;
        let mut bytes = Vec::new();
        let request = SaveSnapshotRequest { passphrase: passphrase.expose().to_owned() };
        let mut is_whole = false;
        client
            .save_snapshot(request, |part| {
                bytes.extend_from_slice(&part.data);
                is_whole |= part.last;
                Ok(())
            })
            .await?;
        if !is_whole {
            return Err(Failure::new(
                Exit::Remote,
                "snapshot save",
                "the node has not sent all of it; try again",
            ));
        }
        let inspection = backup::inspect_bytes(&bytes, None).map_err(|error| failed(error.to_string()))?;
        let about = &inspection.about;
        let of = |place: &dyn Display| {
            let About { revision, cluster_id, index, .. } = about;
            let length = bytes.len();
            format!(
                "saved revision {revision} of cluster {cluster_id} (entry {index}, {length} bytes) {place}"
            )
        };
        if to_stdout {
            // A reader that has gone has not got all of it.
            let mut stdout = io::stdout().lock();
            let written = stdout.write_all(&bytes).and_then(|()| stdout.flush());
            written.map_err(|error| failed(format!("cannot write to stdout: {error}")))?;
            warn_unless_newest(about);
            output::note(&of(&"to stdout"));
            return Ok(Exit::Done);
        }
        let file = self.file.clone().unwrap_or_else(|| named_for(about));
        if self.file.is_none() && !self.force && file.exists() {
            output::note(&format!("nothing has changed since {} was written", file.display()));
            return Ok(Exit::Done);
        }
        self.check_free(&file)?;
        shoal_node::write_private(&file, &bytes).map_err(|error| failed(error.to_string()))?;
        warn_unless_newest(about);
        let saved = serde_json::json!({ "file": file, "about": about, "bytes": bytes.len() });
        output::print(format, &saved, |_| of(&format_args!("as {}\n", file.display())))?;
        Ok(Exit::Done)
    }

    fn check_free(&self, file: &Path) -> Result<(), Failure> {
        match file.try_exists() {
            Ok(true) if !self.force => {
                let why = format!("there is a file {} already; --force replaces it", file.display());
                Err(Failure::local("snapshot save", why))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::local("snapshot save", format!("{}: {error}", file.display()))),
        }
    }
}

fn warn_unless_newest(about: &About) {
    if !about.newest {
        output::warn(
            "no majority could be asked: changes that others have acknowledged may be missing, and that this was saved is on \
             no record",
        );
    }
}

/// A name that no other state of any cluster has.
fn named_for(about: &About) -> PathBuf {
    let (cluster, revision, index) = (&about.cluster_id, about.revision, about.index);
    format!("shoal-{cluster}-r{revision}-{index}.snapshot").into()
}

fn shown(inspection: &Inspection) -> String {
    let Inspection { about, bytes, contents } = inspection;
    let mut text = String::new();
    let mut row = |name: &str, value: &dyn Display| _ = writeln!(text, "{name:<14}{value}");
    row("cluster", &about.cluster_id);
    row("epoch", &about.cluster_epoch);
    row("revision", &about.revision);
    row("log entry", &about.index);
    let saved_at = render::moment(i64::try_from(about.saved_at_ms / 1000).unwrap_or(i64::MAX));
    row("saved", &format!("{saved_at} by {}, shoal {}", about.saved_by, about.version));
    row(
        "complete",
        &if about.newest { "yes, confirmed by a majority" } else { "not known: no majority could be asked" },
    );
    row("state", &format!("sha256 {}", about.state_sha256));
    row("file", &format!("{bytes} bytes, not damaged"));
    let Some(contents) = contents else {
        row("sealed", &"not opened: no passphrase was given");
        return text;
    };
    let list = |names: &[String]| match names.len() {
        0 => "none".to_owned(),
        _ => names.join(", "),
    };
    row("nodes", &list(&contents.nodes));
    row("revisions", &contents.revisions);
    row("listeners", &list(&contents.listeners));
    row("routes", &list(&contents.routes));
    row("upstreams", &list(&contents.upstreams));
    row("certificates", &list(&contents.certificates));
    row("operators", &list(&contents.operators));
    row("audit", &format!("{} records", contents.audit_records));
    text
}

fn next_steps(restored: &Restored, dir: &Path) -> String {
    let Restored { cluster_id, restored_from, revision, node, left_behind, left_out: _ } = restored;
    let dir = dir.display();
    format!(
        "\
{dir} is the node {node} of the new cluster {cluster_id}, at revision {revision}, with the state of {restored_from}.

1. Stop what still runs of the old cluster ({}): its nodes cannot enter this one.
2. Start the node:        shoal run --data-dir {dir} --cluster-addr IP:7400 …
3. Keep {dir}/operator.json: it is the identity of the first admin.
4. Let the others join, with empty directories:
                          shoal --socket {dir}/admin.sock token create --uses N
                          shoal run --data-dir DIR --join IP:7400 --token TOKEN …
5. Make new identities for operators: `shoal operator create`; those of the old cluster open nothing.
",
        left_behind.join(", ")
    )
}
