//! `shoal set`: one object is put in its place, whole or setting by setting.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};
use shoal_model::site::{Delta, ObjectName, Problem, Problems, assign};

use super::Session;
use super::checked::checked;
use super::single::{SingleArgs, active_site, object_name};
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::site_files::SiteFiles;

/// How often settings are set anew over an object that somebody else has changed meanwhile.
const MAX_ATTEMPTS: usize = 10;

/// What `shoal set` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal set upstream/shop balance=least_requests 'health.interval=2s'
  shoal set upstream/shop 'endpoints[2]=10.0.0.3:9000' health=
  shoal get route/shop > shop.yaml; shoal set route/shop -f shop.yaml --check-revision 7

An object that is not there is made. FIELD is a key path below the object, VALUE is YAML; an empty one takes the setting
away, and [N] is an item of a list, from 0: the one after the last is added. Settings are set over whatever the object is
by then; a FILE replaces the whole object, and --check-revision refuses to undo what somebody else has changed in it since.
The first line of `shoal get` names the revision. Other objects may change freely: they are no conflict.
Exit codes are those of `shoal apply`; with --dry-run 0, or 1 where it would be refused.")]
pub struct SetArgs {
    /// The object
    #[arg(value_name = "KIND/NAME")]
    object: String,
    /// Settings to change
    #[arg(value_name = "FIELD=VALUE", required_unless_present = "file", conflicts_with = "file")]
    fields: Vec<String>,
    /// File (YAML or JSON) with the settings of the object, or as `shoal get` prints it, or - for stdin
    #[arg(short, long, value_name = "FILE|-")]
    file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) single: SingleArgs,
}

impl SetArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.single.node.clone(), root)?;
        let object = object_name("set", &self.object)?;
        match &self.file {
            Some(file) => self.put(&session, &object, file).await,
            None => self.change(&session, &object).await,
        }
    }

    async fn put(&self, session: &Session, object: &ObjectName, file: &Path) -> Result<Exit, Failure> {
        let complain = |problems| Failure::site(format!("set {object}"), &problems);
        let files = SiteFiles::read_object(file, object).map_err(complain)?;
        let put = checked("set", &files, complain, false, &session.client).await?;
        let delta = Delta::from(put);
        self.single.send(session, "set", &delta, self.single.check_revision).await
    }

    /// Settings are set over what the object is: if somebody else was faster, over what he has made of it.
    async fn change(&self, session: &Session, object: &ObjectName) -> Result<Exit, Failure> {
        let fields = self.fields.iter().map(|field| Field::parse(field)).collect::<Result<Vec<_>, _>>();
        let fields = fields.map_err(|why| Failure::local("set", why).try_command("shoal set --help"))?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (revision, active) = active_site(session, "set").await?;
            let active = serde_json::to_value(&active).map_err(|error| Failure::local("set", error))?;
            let mut settings = active[object.kind.plural()][&object.name].clone();
            for field in &fields {
                assign(&mut settings, field.path, field.value.clone()).map_err(|why| {
                    Failure::local("set", format!("{}.{}: {why}", object.path(), field.path))
                })?;
            }
            let delta = Delta::from(with_files(object, settings)?);
            let since = self.single.check_revision.unwrap_or(revision);
            match self.single.send(session, "set", &delta, Some(since)).await {
                Err(failure)
                    if failure.exit == Exit::Conflict
                        && self.single.check_revision.is_none()
                        && attempts < MAX_ATTEMPTS => {}
                answer => return answer,
            }
        }
    }
}

/// A setting and what it becomes.
struct Field<'a> {
    path: &'a str,
    value: Value,
}

impl<'a> Field<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let Some((path, value)) = text.split_once('=') else {
            return Err(format!("{text:?} is no setting; it is written FIELD=VALUE"));
        };
        let path = path.trim();
        if value.trim().is_empty() {
            return Ok(Self { path, value: Value::Null });
        }
        let value = serde_saphyr::from_str(value).map_err(|error| {
            format!(
                "the value of {path:?} is no YAML: {}; quote what has special characters",
                error.without_snippet()
            )
        })?;
        Ok(Self { path, value })
    }
}

/// The site of one object with these settings, checked for its form; the files that it names are relative to here.
fn with_files(object: &ObjectName, settings: Value) -> Result<shoal_model::Site, Failure> {
    // There are no lines to point at.
    let complain = |Problems(problems): Problems| {
        let problems = problems.into_iter().map(|problem| Problem { place: None, ..problem }).collect();
        Failure::site(format!("set {object}"), &Problems(problems))
    };
    let settings = if settings.is_null() { Value::Object(Map::new()) } else { settings };
    let site = json!({ object.kind.plural(): { object.name.as_str(): settings } });
    let files = SiteFiles::of_text("", Path::new(""), site.to_string()).map_err(complain)?;
    files.with_certificates().map_err(complain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_yaml() {
        let check = |text: &str, expected: Result<(&str, Value), &str>| {
            let parsed = Field::parse(text).map(|field| (field.path, field.value));
            match (parsed, expected) {
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (parsed, expected) => assert_eq!(parsed.ok(), expected.ok(), "{text}"),
            }
        };
        check("balance=least_requests", Ok(("balance", json!("least_requests"))));
        check("health.interval=2s", Ok(("health.interval", json!("2s"))));
        check("address=:8080", Ok(("address", json!(":8080"))));
        check("endpoints[0].weight=3", Ok(("endpoints[0].weight", json!(3))));
        check(
            "endpoints=[\"a:1\", {address: b:1, weight: 2}]",
            Ok(("endpoints", json!(["a:1", { "address": "b:1", "weight": 2 }]))),
        );
        check("cache={}", Ok(("cache", json!({}))));
        check("cache=", Ok(("cache", Value::Null)));
        check("cache", Err("\"cache\" is no setting; it is written FIELD=VALUE"));
        check("hosts=[*.example.com]", Err("the value of \"hosts\" is no YAML"));
    }

    #[test]
    fn settings_that_do_not_exist_are_named() {
        let object: ObjectName = "upstream/shop".parse().unwrap();
        let failure = with_files(&object, json!({ "endpoints": ["a:1"], "balnce": "x" })).unwrap_err();
        assert!(
            failure.problems[0].starts_with("upstreams.shop.balnce: unknown field `balnce`"),
            "{failure:?}"
        );
        let failure = with_files(&object, json!({ "endpoints": "a:1" })).unwrap_err();
        assert!(failure.problems[0].starts_with("upstreams.shop.endpoints: expected a list"), "{failure:?}");
        assert!(with_files(&object, json!({ "endpoints": ["a:1"] })).unwrap().has(&object));
    }
}
