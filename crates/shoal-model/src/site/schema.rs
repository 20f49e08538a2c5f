//! The JSON Schema of a site file, for editors: as the types have it, with the defaults that their descriptions name.

use serde_json::{Map, Number, Value};

/// Adds to each property the `default` that its description names, and to each variant's one property what it means.
pub(super) fn complete(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            describe_variant(object);
            for member in object.values_mut() {
                complete(member);
            }
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                properties.values_mut().filter_map(Value::as_object_mut).for_each(add_default);
            }
        }
        Value::Array(members) => members.iter_mut().for_each(complete),
        _ => {}
    }
}

/// Editors show the description of the property under the cursor, and not that of the object around it.
fn describe_variant(object: &mut Map<String, Value>) {
    let Some(description) = object.get("description").cloned() else { return };
    if object.get("additionalProperties") != Some(&Value::Bool(false)) {
        return;
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties")
        && properties.len() == 1
        && let Some(Value::Object(only)) = properties.values_mut().next()
    {
        only.entry("description").or_insert(description);
    }
}

fn add_default(property: &mut Map<String, Value>) {
    if property.contains_key("default") {
        return;
    }
    let stated = property.get("description").and_then(Value::as_str).and_then(stated_default);
    let Some(stated) = stated else { return };
    let is = |name: &str| match property.get("type") {
        Some(Value::String(kind)) => kind == name,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == name),
        _ => false,
    };
    let default = match stated {
        "true" | "false" => is("boolean").then(|| Value::Bool(stated == "true")),
        _ if is("integer") => stated.parse().ok().map(|number: u64| Value::Number(number.into())),
        _ if is("number") => stated.parse().ok().and_then(Number::from_f64).map(Value::Number),
        // A list.
        _ if stated.starts_with('[') => None,
        _ => Some(Value::String(stated.to_owned())),
    };
    if let Some(default) = default {
        property.insert("default".to_owned(), default);
    }
}

/// The value behind "default": what is in backquotes, a number with or without a unit, or a truth; `None` = none is named,
/// or it is put in words.
fn stated_default(description: &str) -> Option<&str> {
    let (_, behind) = description.split_once("default ").or_else(|| description.split_once("Default "))?;
    if let Some(quoted) = behind.strip_prefix('`') {
        return quoted.split_once('`').map(|(value, _)| value.trim_matches('"'));
    }
    let value = behind.split([',', ';', ' ', '\n']).next().unwrap_or_default().trim_end_matches('.');
    let is_plain = matches!(value, "true" | "false") || value.starts_with(|c: char| c.is_ascii_digit());
    is_plain.then_some(value)
}

#[cfg(test)]
mod tests {
    use crate::site::Site;
    use crate::view::Limits;
    use crate::{ConfigView, Revision};

    use super::*;

    #[test]
    fn defaults_are_found_where_they_are_stated() {
        let check = |description: &str, expected: Option<&str>| {
            assert_eq!(stated_default(description), expected, "{description}");
        };
        check("Time for the TLS handshake; default 10s.", Some("10s"));
        check("Fields in a request head; default 100, else 431.", Some("100"));
        check("How an endpoint is chosen; default `round_robin`.", Some("round_robin"));
        check("Oldest TLS version; default `\"1.2\"`.", Some("1.2"));
        check("Below it the next one is taken. Default 125, 0 = unbounded.", Some("125"));
        check("Trailers pass; default false.", Some("false"));
        check("Bytes of a request body; default unlimited, else 413.", None);
        check("Default: the node's standard error.", None);
        check("What it is.", None);
    }

    fn definition<'a>(schema: &'a Value, name: &str) -> &'a Map<String, Value> {
        schema["$defs"][name]["properties"].as_object().unwrap()
    }

    #[test]
    fn stated_defaults_are_true() {
        let schema = Site::json_schema();
        let limits = definition(&schema, "ListenerLimits");
        let stated: Map<_, _> = limits
            .iter()
            .filter_map(|(name, property)| Some((name.clone(), property.get("default")?.clone())))
            .collect();
        assert!(stated.len() > 10, "{stated:?}");
        let listener = serde_json::json!({ "address": ":80", "protocol": "http", "limits": stated });
        let site = serde_json::json!({ "listeners": { "web": listener } });
        let site = Site::from_json(&site.to_string()).unwrap();
        let view = ConfigView::compile(Revision(1), &site).unwrap();
        assert_eq!(view.listeners[0].limits, Limits::default());
        assert_eq!(definition(&schema, "Upstream")["balance"]["default"], "round_robin");
        assert_eq!(definition(&schema, "Route")["trailers"]["default"], false);
    }

    #[test]
    fn every_way_to_write_a_hash_key_is_described() {
        let schema = Site::json_schema();
        let ways = schema["$defs"]["HashKey"]["oneOf"].as_array().unwrap();
        for way in ways {
            assert!(way["description"].is_string(), "{way}");
            for property in way["properties"].as_object().into_iter().flat_map(Map::values) {
                assert_eq!(property["description"], way["description"]);
            }
        }
    }
}
