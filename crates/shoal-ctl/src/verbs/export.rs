//! `shoal export`: a revision as files that `apply` takes back.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};
use shoal_model::site::Kind;
use shoal_proto::admin::ShowRequest;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{Format, to_json, to_yaml, warn, write_stdout};
use crate::render::possibly_old;
use crate::site_files::{MAX_FILES, site_files_of};

/// What `shoal export` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal export site/
  shoal export -r 7 site.json

A directory gets a file for each object, as route.shop.yaml; `shoal apply -f DIR --prune` takes it back without a
difference. FILE ends in .yaml, .yml or .json, anything else is a directory. Private keys are not exported: only their
fingerprints are, by which a cluster that has the keys keeps them.
A node that knows of no quorum writes what it has applied, and says so, and for how long.
Site files in DIR that belong to no object of the revision are an error without --prune.")]
pub struct ExportArgs {
    /// Where to [default: stdout, as YAML or, with -o json, as JSON]
    #[arg(value_name = "DIR|FILE")]
    to: Option<PathBuf>,
    /// Revision [default: the active one]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    /// Remove site files from DIR that belong to no object [default: fail if there are any]
    #[arg(long, requires = "to")]
    prune: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// What was written.
#[derive(Serialize)]
struct Exported {
    revision: u64,
    path: String,
    objects: usize,
    /// Files that belonged to no object.
    pruned: usize,
    /// As in the answer of the node.
    quorum: bool,
    staleness_ms: u64,
    committed_at_ms: u64,
}

impl ExportArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let request = ShowRequest { revision: self.revision.unwrap_or(0), consistent: false };
        let shown = session.client.show("export", request).await?;
        let unreadable =
            |error| Failure::new(Exit::Remote, "export", format!("the node sent no site: {error}"));
        let site: Map<String, Value> = serde_json::from_str(&shown.site_json).map_err(unreadable)?;
        // Also where something is wrong with the files: it is true whatever becomes of them.
        if let Some(text) = possibly_old(&shown) {
            warn(&text);
        }
        let Some(to) = &self.to else {
            let text = match session.format {
                Some(Format::Json) => to_json(&site)?,
                Some(Format::Yaml | Format::Table) | None => to_yaml(&site)?,
            };
            write_stdout(&text)?;
            return Ok(Exit::Done);
        };
        let objects = objects_of(&site);
        let pruned = match format_of(to) {
            Some(Form::Json) => write(to, &to_json(&site)?).map(|()| 0)?,
            Some(Form::Yaml) => write(to, &to_yaml(&site)?).map(|()| 0)?,
            None => write_directory(to, &objects, self.prune)?,
        };
        let exported = Exported {
            revision: shown.revision,
            path: to.display().to_string(),
            objects: objects.len(),
            pruned,
            quorum: shown.quorum,
            staleness_ms: shown.staleness_ms,
            committed_at_ms: shown.committed_at_ms,
        };
        session.print(&exported, Exported::text)?;
        Ok(Exit::Done)
    }
}

impl Exported {
    fn text(&self) -> String {
        let Self { revision, path, objects, pruned, .. } = self;
        let pruned = if *pruned == 0 { String::new() } else { format!(", {pruned} old files removed") };
        format!("revision {revision}: {objects} objects written to {path}{pruned}\n")
    }
}

/// How a file is written.
enum Form {
    Json,
    Yaml,
}

/// `None` = it is a directory.
fn format_of(path: &Path) -> Option<Form> {
    if path.is_dir() {
        return None;
    }
    match path.extension()?.to_str()? {
        "json" => Some(Form::Json),
        "yaml" | "yml" => Some(Form::Yaml),
        _ => None,
    }
}

/// An object with the name of its file.
struct ObjectFile {
    name: String,
    site: Value,
}

fn objects_of(site: &Map<String, Value>) -> Vec<ObjectFile> {
    let of_kind = |kind: Kind| {
        let objects = site.get(kind.plural()).and_then(Value::as_object);
        objects.into_iter().flatten().map(move |(name, object)| ObjectFile {
            name: format!("{}.{name}.yaml", kind.singular()),
            site: serde_json::json!({ kind.plural(): { name.as_str(): object } }),
        })
    };
    Kind::ALL.into_iter().flat_map(of_kind).collect()
}

/// Writes a file for each object; the answer is how many others were removed.
fn write_directory(dir: &Path, objects: &[ObjectFile], prune: bool) -> Result<usize, Failure> {
    let shown = dir.display();
    if objects.is_empty() || objects.len() > MAX_FILES {
        let why =
            format!("{} objects do not fit into a directory of 1 to {MAX_FILES} site files", objects.len());
        return Err(Failure::local("export", why).try_command("shoal export site.yaml"));
    }
    if let Some(object) = objects.iter().find(|object| object.name.contains('/')) {
        return Err(Failure::new(Exit::Remote, "export", format!("{:?} is no name of a file", object.name)));
    }
    let failed = |what: &str, error| Failure::local("export", format!("{shown} cannot be {what}: {error}"));
    fs::create_dir_all(dir).map_err(|error| failed("made", error))?;
    let written: BTreeSet<PathBuf> = objects.iter().map(|object| dir.join(&object.name)).collect();
    let mut others = site_files_of(dir).map_err(|error| failed("read", error))?;
    others.retain(|file| !written.contains(file));
    if let (false, Some(other)) = (prune, others.first()) {
        let why =
            format!("{} belongs to no object, and `shoal apply -f {shown}` would read it", other.display());
        return Err(Failure::local("export", why).try_command(format!("shoal export --prune {shown}")));
    }
    for object in objects {
        write(&dir.join(&object.name), &to_yaml(&object.site)?)?;
    }
    for other in &others {
        fs::remove_file(other).map_err(|error| {
            Failure::local("export", format!("{} cannot be removed: {error}", other.display()))
        })?;
    }
    Ok(others.len())
}

/// Whoever reads the file meanwhile finds it as it was, or whole.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let written = fs::write(&part, text).and_then(|()| fs::rename(&part, path));
    written.map_err(|error| {
        // What cannot be removed either is in the way of nothing.
        _ = fs::remove_file(&part);
        Failure::local("export", format!("{} cannot be written: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site_files::SiteFiles;

    const SITE: &str = r#"{
        "listeners": {"web": {"address": ":8080", "protocol": "http"}},
        "routes": {"a.b": {"upstream": "u"}, "c": {"path": "/c", "upstream": "u"}},
        "upstreams": {"u": {"endpoints": ["h:1"]}}
    }"#;

    #[test]
    fn what_is_exported_is_read_back() {
        let site: Map<String, Value> = serde_json::from_str(SITE).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let objects = objects_of(&site);
        assert_eq!(write_directory(dir.path(), &objects, false).unwrap(), 0);
        let read = SiteFiles::read(dir.path()).unwrap();
        assert_eq!(*read.site(), shoal_model::Site::from_json(SITE).unwrap());
        let names: Vec<_> = site_files_of(dir.path()).unwrap();
        let names: Vec<_> = names.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["listener.web.yaml", "route.a.b.yaml", "route.c.yaml", "upstream.u.yaml"]);

        let fewer = &objects[..2];
        let why = write_directory(dir.path(), fewer, false).unwrap_err();
        assert!(why.why.contains("route.c.yaml belongs to no object"), "{why:?}");
        assert_eq!(write_directory(dir.path(), fewer, true).unwrap(), 2);
        assert_eq!(SiteFiles::read(dir.path()).unwrap().site().objects().count(), 2);
        assert!(write_directory(dir.path(), &[], true).is_err(), "an empty directory is no site");
    }
}
