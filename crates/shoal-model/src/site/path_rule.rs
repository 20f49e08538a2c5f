//! How a route looks at the path.

use std::collections::HashSet;
use std::fmt;

use regex::{Error, Regex};

use super::{Problem, ProblemKind, Route};

/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;
/// Memory one compiled pattern may take, bytes: it counts as the least of these that it fits into.
const COMPILED_SIZES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Memory the patterns of a site may take together, bytes.
const MAX_COMPILED_PATTERNS: usize = 64 << 20;

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
    /// The rule of `route`; no path setting at all means every path. Errs with the field (`.path`) and the reason. Whether a
    /// pattern is small enough is seen when it is compiled.
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
            check_pattern(pattern).map_err(|message| (".path_regex", message))?;
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

/// Whether it is short and well-formed.
fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("has {} bytes; a pattern may have at most {MAX_PATTERN}", pattern.len()));
    }
    match regex::RegexBuilder::new(pattern).size_limit(0).build() {
        // Nothing fits into nothing: it was read, and that is all.
        Ok(_) | Err(Error::CompiledTooBig(_)) => Ok(()),
        Err(error) => Err(explain(pattern, &error)),
    }
}

fn explain(pattern: &str, error: &Error) -> String {
    format!("{pattern:?} is not a pattern: {}", error.to_string().replace('\n', " "))
}

/// A well-formed pattern, anchored at both ends, and how many bytes it takes at most.
pub(crate) fn compile_pattern(pattern: &str) -> Result<(Regex, usize), String> {
    let anchored = format!("^(?:{pattern})$");
    let mut outcome = Err(String::new());
    for size in COMPILED_SIZES {
        match regex::RegexBuilder::new(&anchored).size_limit(size).build() {
            Ok(compiled) => return Ok((compiled, size)),
            Err(error) => outcome = Err(explain(pattern, &error)),
        }
    }
    outcome
}

/// What the patterns of a site take: each is compiled once, however many routes and hosts have it.
pub(super) struct PatternBudget<'a> {
    seen: HashSet<&'a str>,
    left: usize,
    is_spent: bool,
}

impl<'a> PatternBudget<'a> {
    pub(super) fn new() -> Self {
        Self { seen: HashSet::new(), left: MAX_COMPILED_PATTERNS, is_spent: false }
    }

    /// Looks into one more pattern, as long as there is room. What is wrong with it is told at `path`.
    pub(super) fn validate(&mut self, path: &str, pattern: &'a str, problems: &mut Vec<Problem>) {
        if self.is_spent || !self.seen.insert(pattern) {
            return;
        }
        match compile_pattern(pattern) {
            Err(message) => problems.push(Problem::at(path, message)),
            Ok((_, size)) => match self.left.checked_sub(size) {
                Some(left) => self.left = left,
                None => {
                    self.is_spent = true;
                    let why = format!(
                        "the patterns of `path_regex` take more than {} MiB of memory together, which is all that \
                         a site may have: write simpler ones, without Unicode classes and counted repetitions \
                         (`[0-9]` instead of `\\d`), or prefixes",
                        MAX_COMPILED_PATTERNS >> 20
                    );
                    problems.push(Problem::at("routes", why).of_kind(ProblemKind::Outdated));
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::site::Site;
    use crate::{ConfigView, Revision};

    /// A site of `patterns`, each on so many hosts.
    fn site(patterns: impl Iterator<Item = String>, hosts: usize) -> Site {
        let hosts: Vec<String> = (0..hosts).map(|n| format!("a{n}.example.com")).collect();
        let route = |(n, pattern)| {
            (format!("r{n}"), serde_json::json!({"path_regex": pattern, "hosts": hosts, "upstream": "u"}))
        };
        let routes: serde_json::Map<_, _> = patterns.enumerate().map(route).collect();
        let listeners = serde_json::json!({"l": {"address": ":1", "protocol": "http"}});
        let upstreams = serde_json::json!({"u": {"endpoints": ["h:1"]}});
        let site = serde_json::json!({"listeners": listeners, "routes": routes, "upstreams": upstreams});
        Site::from_json(&site.to_string()).unwrap()
    }

    #[test]
    fn patterns_have_room_for_so_much() {
        let check = |site: Site, expected: Option<&str>| {
            let problems = crate::site::validate(&site);
            match expected {
                None => assert!(problems.is_empty(), "{problems:?}"),
                Some(part) => assert!(problems[0].message.contains(part), "{problems:?}"),
            }
            assert_eq!(problems.len(), usize::from(expected.is_some()), "one for all");
        };
        check(site((0..3_000).map(|n| format!("/v{n}/[0-9]+/.*")), 1), None);
        check(site((0..200).map(|n| format!("/{n}/\\w{{19}}\\d*")), 1), Some("more than 64 MiB"));
        check(site(std::iter::once("/\\w{80}\\w{80}".to_owned()), 1), Some("exceeds size limit"));
        check(site(std::iter::once("/(".to_owned()), 1), Some("is not a pattern"));
        check(site(std::iter::once("/)(".to_owned()), 1), Some("is not a pattern"));
        check(site(std::iter::once("x".repeat(1_025)), 1), Some("at most 1024"));
        // As many hosts as one likes: it is one pattern.
        let on_many_hosts = site(std::iter::once("/\\w{19}\\d*".to_owned()), 2_000);
        check(on_many_hosts.clone(), None);
        let view = ConfigView::compile(Revision(1), &on_many_hosts).unwrap();
        let path = format!("/{}7", "x".repeat(19));
        assert!(view.routes.find(0, "a1999.example.com", &path).is_some());
        assert!(view.routes.find(0, "a1999.example.com", "/x").is_none());
    }
}
