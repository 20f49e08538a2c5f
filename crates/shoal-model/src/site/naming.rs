//! What a site calls hosts, and how its objects name each other.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use super::{Problem, ProblemKind};

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
    let message = format!("there is no {kind} {name:?}; {known}");
    problems.push(Problem::at(path, message).of_kind(ProblemKind::Absent));
}
