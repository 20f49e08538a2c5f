//! Locations, one in another or not, as paths of routes.

use std::collections::HashMap;

use super::scope::Scope;
use crate::convert::directive::Directive;
use crate::convert::draft::Draft;
use crate::convert::pattern::{Paths, unlike_letters};

/// A location that requests come to.
pub(super) struct Location<'a> {
    pub(super) at: &'a Directive,
    pub(super) paths: Paths,
    pub(super) scope: Scope<'a>,
    /// What it begins with, as it is written; None of an exact one, or a pattern.
    pub(super) prefix: Option<&'a str>,
    /// Patterns are not looked at (`^~`).
    beats_patterns: bool,
}

/// Those of a server.
#[derive(Default)]
pub(super) struct Locations<'a> {
    pub(super) all: Vec<Location<'a>>,
    /// `@name`, which others refer to.
    named: HashMap<&'a str, (&'a Directive, Scope<'a>)>,
}

/// How a location is matched, and its path or pattern.
#[derive(Clone, Copy)]
enum Match<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    FirstPrefix(&'a str),
    Pattern(&'a str),
    AnyCasePattern(&'a str),
    Named(&'a str),
}

impl<'a> Match<'a> {
    fn read(args: &'a [String]) -> Option<Self> {
        const SIGNS: [&str; 4] = ["=", "^~", "~*", "~"];
        let (sign, text) = match args {
            [sign, text] => (SIGNS.into_iter().find(|known| known == sign)?, text.as_str()),
            [text] => {
                let sign = SIGNS.into_iter().find(|sign| text.starts_with(sign)).unwrap_or_default();
                (sign, &text[sign.len()..])
            }
            _ => return None,
        };
        Some(match sign {
            "=" => Self::Exact(text),
            "^~" => Self::FirstPrefix(text),
            "~" => Self::Pattern(text),
            "~*" => Self::AnyCasePattern(text),
            _ if text.starts_with('@') => Self::Named(text),
            _ => Self::Prefix(text),
        })
    }
}

impl<'a> Locations<'a> {
    pub(super) fn of(server: &'a [Directive], scope: &Scope<'a>, draft: &mut Draft) -> Self {
        let mut locations = Self::default();
        locations.collect(server, scope, None, draft);
        locations
    }

    fn collect(
        &mut self,
        block: &'a [Directive],
        scope: &Scope<'a>,
        outer: Option<&'a str>,
        draft: &mut Draft,
    ) {
        for at in block.iter().filter(|directive| directive.name == "location") {
            let scope = scope.within(at.body());
            let Some(found) = Match::read(&at.args) else {
                draft.left_out(at, "it is no location that is known");
                continue;
            };
            let (paths, prefix) = match found {
                Match::Named(name) => {
                    self.named.insert(name, (at, scope));
                    continue;
                }
                Match::Exact(path) => (Paths::exactly(path), None),
                Match::Prefix(path) | Match::FirstPrefix(path) => (Paths::below(path), Some(path)),
                Match::Pattern(pattern) | Match::AnyCasePattern(pattern) => {
                    let ignore_case = matches!(found, Match::AnyCasePattern(_));
                    // Within a prefix a pattern is looked at only there.
                    let is_there = |outer: &str| outer == "/" || pattern.starts_with(&format!("^{outer}"));
                    if !outer.is_none_or(is_there) {
                        draft.left_out(
                            at,
                            "a pattern is for all paths of its hosts: begin it with `^` and the outer path",
                        );
                        continue;
                    }
                    (Some(Paths::found(pattern, ignore_case)), None)
                }
            };
            let Some(paths) = paths else {
                draft.left_out(at, "no request has such a path");
                continue;
            };
            let beats_patterns = matches!(found, Match::FirstPrefix(_));
            self.collect(at.body(), &scope, prefix.or(outer), draft);
            self.all.push(Location { at, paths, scope, prefix, beats_patterns });
        }
    }

    /// The directive that says where requests for `location` go, and the settings that hold there.
    pub(super) fn pass_of(&self, location: &Location<'a>) -> Option<(&'a Directive, Scope<'a>)> {
        let own = |scope: &Scope<'a>| scope.own("proxy_pass").or_else(|| scope.own("grpc_pass"));
        if let Some(pass) = own(&location.scope) {
            return Some((pass, location.scope.clone()));
        }
        // What is no file goes there; Shoal has no files.
        let fallback = location.scope.find("try_files")?.args.last()?;
        let (_, scope) = self.named.get(fallback.as_str())?;
        own(scope).map(|pass| (pass, scope.clone()))
    }
}

impl Location<'_> {
    /// Says what is matched differently.
    pub(super) fn explain(&self, all: &Locations<'_>, draft: &mut Draft) {
        let patterns = || all.all.iter().filter(|one| matches!(one.paths, Paths::Regex(_)));
        if let Some(prefix) = self.prefix {
            let bare = Paths::Exact(prefix.trim_end_matches('/').to_owned());
            let is_said = prefix.ends_with('/') && all.all.iter().any(|one| one.paths == bare);
            if let Some(how) = unlike_letters(prefix).filter(|_| !is_said) {
                let instead = if prefix.ends_with('/') { "; nginx redirects it" } else { "" };
                draft.changed(self.at, how + instead);
            }
        }
        if self.beats_patterns && patterns().next().is_some() {
            draft.changed(
                self.at,
                "patterns (`path_regex`) go before prefixes here: what matches one goes there",
            );
        }
        if let Paths::Regex(own) = &self.paths {
            let earlier = patterns().take_while(|one| !std::ptr::eq(one.at, self.at));
            let shorter =
                |one: &&Location<'_>| matches!(&one.paths, Paths::Regex(other) if other.len() < own.len());
            if let Some(other) = earlier.filter(|one| shorter(one)).last() {
                let line = other.at.place.line;
                let how = format!(
                    "of two patterns that match the longer one counts: it goes before that of line {line} here"
                );
                draft.changed(self.at, how);
            }
        }
    }
}
