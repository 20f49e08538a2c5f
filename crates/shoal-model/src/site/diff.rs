//! What changes from one site to another, object by object and field by field.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::Site;

/// One object that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happens to it.
    pub action: Action,
    /// `listener`, `certificate`, `route`, `upstream` or `dns_zone`.
    pub kind: &'static str,
    /// Its name in the site file.
    pub name: String,
    /// What differs inside it; all its fields when it is added or removed.
    pub fields: Vec<FieldChange>,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Add,
    /// It goes.
    Remove,
    /// It differs.
    Change,
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// Path below the object.
    pub path: String,
    /// JSON text before; absent when the field is new.
    pub old: Option<String>,
    /// JSON text after; absent when the field goes.
    pub new: Option<String>,
}

/// The changes from `old` to `new`, by kind and name. Private keys never appear: only their fingerprints do.
pub fn diff(old: &Site, new: &Site) -> Vec<Change> {
    let redact = |site: &Site| -> BTreeMap<String, _> {
        site.certificates.iter().map(|(name, certificate)| (name.clone(), certificate.redacted())).collect()
    };
    let mut changes = Vec::new();
    compare("listener", &old.listeners, &new.listeners, &mut changes);
    compare("certificate", &redact(old), &redact(new), &mut changes);
    compare("route", &old.routes, &new.routes, &mut changes);
    compare("upstream", &old.upstreams, &new.upstreams, &mut changes);
    compare("dns_zone", &old.dns_zones, &new.dns_zones, &mut changes);
    changes
}

fn compare<T: Serialize + PartialEq>(
    kind: &'static str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    changes: &mut Vec<Change>,
) {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (before, after) = (old.get(name), new.get(name));
        if before == after {
            continue;
        }
        let action = match (before, after) {
            (None, _) => Action::Add,
            (_, None) => Action::Remove,
            _ => Action::Change,
        };
        let mut fields = Vec::new();
        compare_values(String::new(), before.map(as_json), after.map(as_json), &mut fields);
        changes.push(Change { action, kind, name: name.clone(), fields });
    }
}

fn as_json<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("site objects are plain data")
}

fn compare_values(path: String, old: Option<Value>, new: Option<Value>, fields: &mut Vec<FieldChange>) {
    if old == new {
        return;
    }
    let maps = [&old, &new].into_iter().flatten().all(Value::is_object);
    let is_empty =
        |value: &Option<Value>| value.as_ref().is_some_and(|value| *value == serde_json::json!({}));
    // An empty section is more than none: it switches something on, with everything as by default.
    let is_switched = (old.is_none() && is_empty(&new)) || (is_empty(&old) && new.is_none());
    if !maps || is_switched {
        let text = |value: Option<Value>| value.map(|value| value.to_string());
        fields.push(FieldChange { path, old: text(old), new: text(new) });
        return;
    }
    let into_map = |value: Option<Value>| match value {
        Some(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (mut old, mut new) = (into_map(old), into_map(new));
    let mut keys: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        compare_values(below, old.remove(&key), new.remove(&key), fields);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Endpoint, Upstream, parse_site};
    use super::*;

    fn upstream(address: &str) -> Upstream {
        Upstream { endpoints: vec![Endpoint::at(address)], ..Upstream::default() }
    }

    #[test]
    fn objects_and_fields_are_named() {
        let mut old = Site::default();
        old.upstreams.insert("a".into(), upstream("1.1.1.1:1"));
        old.upstreams.insert("b".into(), upstream("1.1.1.1:1"));
        let mut new = Site::default();
        new.upstreams.insert("b".into(), upstream("2.2.2.2:2"));
        new.upstreams.insert("c".into(), upstream("1.1.1.1:1"));

        let changes = diff(&old, &new);
        let seen: Vec<_> = changes.iter().map(|change| (change.action, change.name.as_str())).collect();
        assert_eq!(seen, [(Action::Remove, "a"), (Action::Change, "b"), (Action::Add, "c")]);
        assert_eq!(changes[1].fields[0].path, "endpoints");
        assert_eq!(changes[1].fields[0].old.as_deref(), Some("[\"1.1.1.1:1\"]"));
        assert!(diff(&new, &new).is_empty());
    }

    #[test]
    fn sections_that_are_empty_are_seen() {
        let route = |more: &str| {
            let text = format!(
                "routes: {{ r: {{ upstream: u{more} }} }}\nupstreams: {{ u: {{ endpoints: [\"h:1\"] }} }}\n"
            );
            parse_site("site.yaml", &text).unwrap()
        };
        for section in ["cache", "retry", "timeouts"] {
            let (without, with) = (route(""), route(&format!(", {section}: {{}}")));
            let field = |old: &Site, new: &Site| diff(old, new)[0].fields[0].clone();
            let added = field(&without, &with);
            assert_eq!((added.path.as_str(), added.old, added.new.as_deref()), (section, None, Some("{}")));
            let removed = field(&with, &without);
            assert_eq!(
                (removed.path.as_str(), removed.old.as_deref(), removed.new),
                (section, Some("{}"), None)
            );
        }
    }
}
