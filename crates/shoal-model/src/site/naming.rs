//! What a site calls hosts, and how its objects name each other.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use super::locate::split;
use super::{Kind, ObjectName, Problem, ProblemKind};

/// A host as routes are matched by it.
pub(super) fn check_host(host: &str) -> Result<(), String> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if name.contains('*') {
        return Err(format!(
            "{host:?}: a wildcard stands first and for whole labels, as in \"*.example.com\""
        ));
    }
    if name.parse::<IpAddr>().is_ok() && name == host {
        return Ok(());
    }
    if let Some((bare, port)) = host.rsplit_once(':')
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
        && !bare.contains(':')
    {
        return Err(format!("{host:?}: hosts are matched without a port; did you mean {bare:?}?"));
    }
    if let Some(bare) = host.strip_suffix('.').filter(|bare| !bare.is_empty() && !bare.ends_with('.')) {
        return Err(format!("{host:?}: hosts are written without a final dot; did you mean {bare:?}?"));
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(format!("{host:?} is not a host name (international names are written in punycode)"));
    }
    Ok(())
}

/// The object of that `kind` that `path` names is there.
pub(super) fn check_reference<T>(
    path: String,
    kind: impl Display,
    name: &str,
    known: &BTreeMap<String, T>,
    problems: &mut Vec<Problem>,
) {
    if known.contains_key(name) {
        return;
    }
    let mut names: Vec<&str> = known.keys().map(String::as_str).take(10).collect();
    if known.len() > names.len() {
        names.push("…");
    }
    let known = if names.is_empty() {
        format!("no {kind} is defined")
    } else {
        format!("{kind}s are: {}", names.join(", "))
    };
    let message = format!("{}; {known}", absence(kind, name));
    problems.push(Problem::at(path, message).of_kind(ProblemKind::Absent));
}

fn absence(kind: impl Display, name: &str) -> String {
    format!("there is no {kind} {name:?}")
}

/// Says where `problems` name one of the objects that have been `removed` that it is in use.
pub fn tell_in_use(problems: &mut [Problem], removed: &[ObjectName]) {
    for problem in problems.iter_mut().filter(|problem| problem.kind == ProblemKind::Absent) {
        let is_missed = |object: &&ObjectName| {
            let rest = problem.message.strip_prefix(&absence(object.kind.singular(), &object.name));
            rest.is_some_and(|rest| rest.starts_with(';'))
        };
        let Some(object) = removed.iter().find(is_missed) else { continue };
        if let [kind, name, ..] = &split(&problem.path)[..]
            && let Ok(kind) = kind.name.parse::<Kind>()
        {
            let user = ObjectName { kind, name: name.name.clone() };
            problem.message =
                format!("{object} is used by {user}: delete both, or change the {} first", kind.singular());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parse_site, validate};
    use super::*;

    #[test]
    fn what_is_in_use_is_not_told_as_missing() {
        let text = "routes: { a.b: { upstream: app }, c: { upstream: ap } }\n\
                    upstreams: { app: { endpoints: ['h:1'] } }\n";
        let site = parse_site("site.yaml", text).unwrap();
        let removed: [ObjectName; 2] = ["upstream/app".parse().unwrap(), "upstream/none".parse().unwrap()];
        let mut problems = validate(&site.without(&removed));
        tell_in_use(&mut problems, &removed);
        let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert!(
            told.iter().any(|told| told.starts_with("routes.c.upstream: there is no upstream")),
            "{told:?}"
        );
        let expected = "routes.\"a.b\".upstream: upstream/app is used by route/a.b: delete both, or change the route first";
        assert!(told.iter().any(|told| told == expected), "{told:?}");
    }
}
