//! Clusters by name: where each one is and with which identity it is called, in a file of the user's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shoal_cluster::identity::write_private;

use crate::failure::Failure;
use crate::output::to_yaml;

/// Longest name.
const MAX_NAME: usize = 63;

/// All of them, and the one that is meant when nothing says which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// The way to one cluster. There is a socket or there are addresses, and with addresses an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Which cluster it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Admin addresses of nodes, tried in turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addr: Vec<String>,
    /// Local socket of a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Where the operator's identity is. It stays there: no key is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// The cluster's CA, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cacert: Option<PathBuf>,
    /// The operator's certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Name in the nodes' certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl Contexts {
    /// Where they are kept: what `SHOAL_CONTEXTS` names, else `shoal/contexts.yaml` where the user's settings are; `None` = this
    /// user has no such place.
    pub fn path(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
        let named = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        named("SHOAL_CONTEXTS").or_else(|| {
            let settings = named("XDG_CONFIG_HOME").or_else(|| Some(named("HOME")?.join(".config")))?;
            Some(settings.join("shoal").join("contexts.yaml"))
        })
    }

    /// Those in `path`; none if there is no such file.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let failed = |why: String| Failure::local(format!("read {}", path.display()), why);
        match fs::read_to_string(path) {
            Ok(text) => serde_saphyr::from_str(&text).map_err(|error| failed(error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Writes them to `path`, whole or not at all, for this user alone.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let failed = |why: String| Failure::local(format!("write {}", path.display()), why);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|error| failed(error.to_string()))?;
        }
        write_private(path, to_yaml(self)?.as_bytes()).map_err(|error| failed(error.to_string()))
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known = match names.is_empty() {
                true => "no cluster has a name here".to_owned(),
                false => format!("contexts are: {}", names.join(", ")),
            };
            Failure::local("--context", format!("there is no {name:?}; {known}"))
                .try_command("shoal context list, or shoal login NAME --addr HOST:7401 --identity FILE")
        })
    }
}

/// Checks the name of a context.
///
/// # Errors
/// What is wrong, in one line.
pub fn context_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match (1..=MAX_NAME).contains(&text.len()) && text.chars().all(is_plain) && !text.starts_with(['-', '.'])
    {
        true => Ok(text.to_owned()),
        false => Err(format!("a name is 1 to {MAX_NAME} letters, digits, '-', '_' and '.', as prod-eu")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_where_the_users_settings_are() {
        let check = |environment: &[(&str, &str)], expected: Option<&str>| {
            let variable = |name: &str| {
                environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(Contexts::path(variable).as_deref(), expected.map(Path::new), "{environment:?}");
        };
        check(&[("HOME", "/home/ada")], Some("/home/ada/.config/shoal/contexts.yaml"));
        check(&[("HOME", "/home/ada"), ("XDG_CONFIG_HOME", "/c")], Some("/c/shoal/contexts.yaml"));
        check(
            &[("HOME", "/home/ada"), ("XDG_CONFIG_HOME", "")],
            Some("/home/ada/.config/shoal/contexts.yaml"),
        );
        check(&[("HOME", "/home/ada"), ("SHOAL_CONTEXTS", "/x.yaml")], Some("/x.yaml"));
        check(&[], None);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shoal/contexts.yaml");
        assert_eq!(Contexts::load(&path).unwrap(), Contexts::default());
        let context = Context {
            addr: vec!["10.0.0.1:7401".into()],
            identity: Some("/a.json".into()),
            ..Context::default()
        };
        let contexts = Contexts { current: Some("prod".into()), contexts: [("prod".into(), context)].into() };
        contexts.save(&path).unwrap();
        assert_eq!(Contexts::load(&path).unwrap(), contexts);
        let why = contexts.named("stage").unwrap_err().why;
        assert_eq!(why, "there is no \"stage\"; contexts are: prod");

        fs::write(&path, "contexts: { prod: { adr: [a] } }\n").unwrap();
        let why = Contexts::load(&path).unwrap_err();
        assert!(why.what.contains("contexts.yaml") && why.why.contains("adr"), "{}", why.to_text());
    }

    #[test]
    fn names_are_plain() {
        for (text, is_name) in
            [("prod-eu.1", true), ("", false), ("a b", false), ("-c", false), ("\u{1b}", false)]
        {
            assert_eq!(context_name(text).is_ok(), is_name, "{text:?}");
        }
    }
}
