//! Single settings of an object, changed by key path.

use serde_json::{Map, Value};

use super::locate::{Step, split};

/// Sets what is at `path` below `object` to `value`; `null` takes the setting away. Sections and lists on the way are made; an
/// entry of a list is written `[N]`, from 0, and may be the one after the last.
///
/// # Errors
/// Why nothing can be there.
pub fn assign(object: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let steps = split(path);
    let Some((last, sections)) = steps.split_last() else { return Err("the key path is empty".to_owned()) };
    let mut at = object;
    for step in sections {
        begin(at, step);
        at = match at {
            Value::Array(entries) => {
                let index = index_of(step, entries.len())?;
                if index == entries.len() {
                    entries.push(Value::Null);
                }
                &mut entries[index]
            }
            section => section_of(section, step)?.entry(step.name.as_str()).or_insert(Value::Null),
        };
    }
    begin(at, last);
    match at {
        Value::Array(entries) => {
            let index = index_of(last, entries.len())?;
            match (value, index == entries.len()) {
                (Value::Null, true) => {}
                (Value::Null, false) => drop(entries.remove(index)),
                (value, true) => entries.push(value),
                (value, false) => entries[index] = value,
            }
        }
        section => {
            let section = section_of(section, last)?;
            match value {
                Value::Null => drop(section.remove(last.name.as_str())),
                value => drop(section.insert(last.name.clone(), value)),
            }
        }
    }
    Ok(())
}

/// What is not there yet becomes what has such a step.
fn begin(at: &mut Value, step: &Step) {
    if at.is_null() {
        *at = if step.is_item { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
    }
}

fn section_of<'a>(at: &'a mut Value, step: &Step) -> Result<&'a mut Map<String, Value>, String> {
    match at {
        Value::Object(section) => Ok(section),
        other => Err(format!("{:?} cannot be set below {other}", step.name)),
    }
}

fn index_of(step: &Step, entries: usize) -> Result<usize, String> {
    let name = &step.name;
    let index = name.parse().ok().filter(|index| *index <= entries);
    index.ok_or_else(|| match entries {
        0 => format!("{name:?} is no item of a list that is empty; the first is [0]"),
        _ => format!("{name:?} is no item of a list of {entries}; the first is [0], the next [{entries}]"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(path: &str, value: Value, expected: Result<Value, &str>) {
        let mut object =
            json!({ "balance": "p2c_ewma", "endpoints": ["a:1", "b:1"], "health": { "fall": 3 } });
        let assigned = assign(&mut object, path, value).map(|()| object);
        assert_eq!(
            assigned.as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|why| *why),
            "{path}"
        );
    }

    #[test]
    fn settings_are_changed_one_by_one() {
        let whole = |balance: Value, endpoints: Value, health: Value| {
            let mut object = json!({ "balance": balance, "endpoints": endpoints, "health": health });
            object.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            Ok::<_, &str>(object)
        };
        let (balance, endpoints, health) = (json!("p2c_ewma"), json!(["a:1", "b:1"]), json!({ "fall": 3 }));
        check("balance", json!("x"), whole(json!("x"), endpoints.clone(), health.clone()));
        check("balance", Value::Null, whole(Value::Null, endpoints.clone(), health.clone()));
        let deeper = json!({ "fall": 3, "http": { "path": "/up" } });
        check("health.http.path", json!("/up"), whole(balance.clone(), endpoints.clone(), deeper));
        check("endpoints[0]", json!("c:1"), whole(balance.clone(), json!(["c:1", "b:1"]), health.clone()));
        check(
            "endpoints[2]",
            json!("c:1"),
            whole(balance.clone(), json!(["a:1", "b:1", "c:1"]), health.clone()),
        );
        check("endpoints[0]", Value::Null, whole(balance.clone(), json!(["b:1"]), health.clone()));
        check(
            "endpoints[3]",
            json!("c:1"),
            Err("\"3\" is no item of a list of 2; the first is [0], the next [2]"),
        );
        let mut begun = whole(balance.clone(), endpoints.clone(), health.clone()).unwrap();
        begun["hosts"] = json!(["a.example"]);
        check("hosts[0]", json!("a.example"), Ok(begun));
        let mut begun = whole(balance, endpoints, health).unwrap();
        begun["tls"] = json!({ "names": [{ "name": "a", "0": 1 }] });
        check("tls.names[0]", json!({ "name": "a", "0": 1 }), Ok(begun.clone()));
        begun["tls"]["names"][0] = json!({ "name": "a" });
        check("tls.names[0].name", json!("a"), Ok(begun));
        check("hosts[1]", json!("a"), Err("\"1\" is no item of a list that is empty; the first is [0]"));
        check("balance.x", json!(1), Err("\"x\" cannot be set below \"p2c_ewma\""));
        check("", json!(1), Err("the key path is empty"));
    }
}
