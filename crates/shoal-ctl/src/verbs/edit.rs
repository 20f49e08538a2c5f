//! `shoal edit`: the site, or some of its objects, in an editor; what was changed is shown and applied.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use shoal_model::Site;
use shoal_model::site::{Delta, ObjectName};

use super::Session;
use super::author::request_id;
use super::get::Part;
use super::question::{ask, can_ask};
use super::single::{SingleArgs, active_site};
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{to_yaml, write_stdout};
use crate::render;
use crate::site_files::SiteFiles;

/// What `shoal edit` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal edit route/shop
  EDITOR='code --wait' shoal edit upstreams -m 'new hosts'

Opens $VISUAL, else $EDITOR, else vi; then shows what would change and asks. Only objects that were changed are applied,
and only if they are still as they were shown: who edits another object at the same time is no conflict, who edits the
same one first wins (exit 4). A file that is wrong can be opened again, and is kept if it is not applied; one that was not
changed does nothing. Exit codes are those of `shoal apply`; with --dry-run 0, or 1 where it would be refused.")]
pub struct EditArgs {
    /// All objects of a kind, or one of them [default: the whole site]
    #[arg(value_name = "KIND[/NAME]")]
    object: Option<String>,
    /// Do not ask: apply what was edited, fail if it is wrong
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    pub(super) single: SingleArgs,
}

impl EditArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.single.node.clone(), root)?;
        let part = self.object.as_deref().map(|part| Part::parse("edit", part)).transpose()?;
        if !self.yes && !self.single.dry_run && !can_ask() {
            let why = "nobody can be asked whether to apply it: this is no terminal";
            return Err(Failure::local("edit", why).try_command("shoal edit -y"));
        }
        let (revision, active) = active_site(&session, "edit").await?;
        let shown = match part {
            Some(part) => {
                let others: Vec<ObjectName> = active.objects().filter(|object| !part.has(object)).collect();
                let shown = active.clone().without(&others);
                if shown.is_empty() && self.object.as_ref().is_some_and(|object| object.contains('/')) {
                    return Err(part.absent("edit", revision));
                }
                shown
            }
            None => active.clone(),
        };
        let file = EditedFile::create(&text_of(&shown, revision)?)?;
        match self.edit(&session, Editing { revision, active, shown }, &file).await {
            Err(failure) if file.may_be_changed() => Err(file.kept(failure)),
            done => {
                file.discard();
                done
            }
        }
    }

    async fn edit(&self, session: &Session, editing: Editing, file: &EditedFile) -> Result<Exit, Failure> {
        let since = Some(self.single.check_revision.unwrap_or(editing.revision));
        let (delta, plan) = loop {
            file.open()?;
            if file.read()? == file.before {
                write_stdout("nothing was changed\n")?;
                return Ok(Exit::Done);
            }
            let planned = match editing.delta(file) {
                Ok(delta) => self.single.plan(session, "edit", &delta, since).await.map(|plan| (delta, plan)),
                Err(failure) => Err(failure),
            };
            match planned {
                Ok(planned) => break planned,
                Err(failure)
                    if failure.exit == Exit::Local
                        && !self.yes
                        && can_ask()
                        && ask(&failure.to_text(), "open it again?") => {}
                Err(failure) => return Err(failure),
            }
        };
        if plan.changes.is_empty() {
            write_stdout("nothing was changed\n")?;
            return Ok(Exit::Done);
        }
        if !self.yes && !self.single.dry_run && !ask(&render::plan(&plan, session.style), "apply it?") {
            return Err(Failure::local("edit", "nothing was applied: the answer was not yes"));
        }
        self.single.send(session, "edit", &delta, since).await
    }
}

/// What is being edited.
struct Editing {
    revision: u64,
    active: Site,
    /// The part of it that stands in the file.
    shown: Site,
}

impl Editing {
    /// What was changed in `file`.
    fn delta(&self, file: &EditedFile) -> Result<Delta, Failure> {
        let complain = |problems| Failure::site("edit", &problems);
        let text = file.read()?;
        let files =
            SiteFiles::of_text(&file.path.display().to_string(), Path::new(""), text).map_err(complain)?;
        let removed = Delta::between(&self.shown, files.site()).removed;
        files.check_over(&self.active.clone().without(&removed)).map_err(complain)?;
        let edited = files.with_certificates().map_err(complain)?;
        Ok(Delta::between(&self.shown, &edited))
    }
}

/// What is shown, with a word about it.
fn text_of(shown: &Site, revision: u64) -> Result<String, Failure> {
    Ok(format!(
        "# revision {revision}. Save and leave to see what would change; leave without a change to do nothing.\n{}",
        to_yaml(shown)?
    ))
}

/// The file in the editor: nobody else can read it.
struct EditedFile {
    path: PathBuf,
    before: String,
}

impl EditedFile {
    fn create(text: &str) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("shoal-edit-{}.yaml", request_id()?));
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        written.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
            Failure::local("edit", format!("{} cannot be written: {error}", path.display()))
        })?;
        Ok(Self { path, before: text.to_owned() })
    }

    /// Opens the editor and waits for its end. It is a command with arguments, as shells read it.
    fn open(&self) -> Result<(), Failure> {
        let named = ["VISUAL", "EDITOR"]
            .iter()
            .find_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()));
        let editor = named.unwrap_or_else(|| OsString::from("vi"));
        let mut command = editor.clone();
        command.push(" \"$@\"");
        let ended = Command::new("/bin/sh").arg("-c").arg(command).arg("sh").arg(&self.path).status();
        let why = match ended {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let why = format!("the editor {:?} failed: {why}", editor.to_string_lossy());
        Err(Failure::local("edit", why).try_command("EDITOR=vi shoal edit"))
    }

    fn read(&self) -> Result<String, Failure> {
        fs::read_to_string(&self.path).map_err(|error| {
            Failure::local("edit", format!("{} cannot be read: {error}", self.path.display()))
        })
    }

    /// What cannot be read is somebody's work all the same.
    fn may_be_changed(&self) -> bool {
        self.read().map_or_else(|_| self.path.exists(), |text| text != self.before)
    }

    fn discard(&self) {
        // Whoever has moved it away keeps it.
        _ = fs::remove_file(&self.path);
    }

    /// The failure, and where the work of the editor is.
    fn kept(&self, failure: Failure) -> Failure {
        let why = format!("{}; what was edited is kept in {}", failure.why, self.path.display());
        Failure { why, ..failure }
    }
}
