//! How a route looks at the path.

use std::fmt;

use regex::Regex;

use super::Route;

/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;
/// Memory one compiled pattern may take, bytes.
const MAX_COMPILED_PATTERN: usize = 1 << 20;

/// How a route looks at the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathRule {
    /// This path and no other.
    Exact(String),
    /// This path and everything below it, by whole segments. Kept without the final slash; `""` matches all.
    Prefix(String),
    /// The whole path matches this pattern.
    Regex(String),
}

impl PathRule {
    /// The rule of `route`; no path setting at all means every path. Errs with the field (`.path`) and the reason.
    pub fn of(route: &Route) -> Result<Self, (&'static str, String)> {
        let written =
            [&route.path, &route.path_prefix, &route.path_regex].iter().filter(|p| p.is_some()).count();
        if written > 1 {
            return Err(("", "has more than one of `path`, `path_prefix`, `path_regex`; keep one".into()));
        }
        if let Some(path) = &route.path {
            return check_path(path)
                .map(|()| Self::Exact(path.clone()))
                .map_err(|message| (".path", message));
        }
        if let Some(pattern) = &route.path_regex {
            compile_pattern(pattern).map_err(|message| (".path_regex", message))?;
            return Ok(Self::Regex(pattern.clone()));
        }
        let prefix = route.path_prefix.as_deref().unwrap_or("/");
        check_path(prefix).map_err(|message| (".path_prefix", message))?;
        Ok(Self::Prefix(prefix.strip_suffix('/').unwrap_or(prefix).to_owned()))
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "path {path:?}"),
            Self::Prefix(prefix) if prefix.is_empty() => write!(f, "path_prefix \"/\""),
            Self::Prefix(prefix) => write!(f, "path_prefix {prefix:?}"),
            Self::Regex(pattern) => write!(f, "path_regex {pattern:?}"),
        }
    }
}

fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} does not start with '/'"));
    }
    if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '\\')) {
        return Err(format!(
            "{path:?} holds {bad:?}; a path is written as it stands in a request, percent-encoded"
        ));
    }
    Ok(())
}

/// The pattern, anchored at both ends.
pub(crate) fn compile_pattern(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("has {} bytes; a pattern may have at most {MAX_PATTERN}", pattern.len()));
    }
    let build = |text: &str| regex::RegexBuilder::new(text).size_limit(MAX_COMPILED_PATTERN).build();
    build(pattern)
        .and_then(|_| build(&format!("^(?:{pattern})$")))
        .map_err(|error| format!("{pattern:?} is not a pattern: {}", error.to_string().replace('\n', " ")))
}
