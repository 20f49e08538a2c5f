//! Matchers: which requests a directive is about, so far as a route can say it.

use std::collections::HashMap;

use crate::convert::directive::Directive;
use crate::convert::pattern::Paths;

/// Most paths of one matcher.
const MAX_PATHS: usize = 256;

/// Which requests a block is about.
#[derive(Clone, Debug)]
pub(super) struct Matched {
    /// One of these.
    pub(super) paths: Vec<Paths>,
    /// Of a matcher; else those of the site.
    pub(super) hosts: Option<Vec<String>>,
}

/// Matchers by their names, `@` included.
pub(super) type Named<'a> = HashMap<&'a str, &'a Directive>;

impl Matched {
    pub(super) fn all() -> Self {
        Self { paths: vec![Paths::all()], hosts: None }
    }

    /// What of this `matcher` leaves over. Errs with why no route can say that.
    pub(super) fn narrowed(&self, matcher: &str, named: &Named<'_>) -> Result<Self, String> {
        let inner = if matcher.starts_with('/') {
            Self { paths: vec![path(matcher)?], hosts: None }
        } else if matcher.starts_with('@') {
            named_matcher(matcher, named)?
        } else {
            return Ok(self.clone());
        };
        let paths = match (&self.paths[..], &inner.paths[..]) {
            ([only], _) if *only == Paths::all() => inner.paths,
            (_, [only]) if *only == Paths::all() => self.paths.clone(),
            (outer, _) => {
                let is_within = |path: &Paths| outer.iter().any(|outer| is_within(path, outer));
                if !inner.paths.iter().all(is_within) {
                    return Err(
                        "of two paths, one in another, the inner one has to begin with the outer one".into(),
                    );
                }
                inner.paths
            }
        };
        Ok(Self { paths, hosts: inner.hosts.or_else(|| self.hosts.clone()) })
    }
}

/// The first argument of a directive, if it is a matcher.
pub(super) fn matcher_of(directive: &Directive) -> Option<&str> {
    let first = directive.first();
    (first == "*" || first.starts_with(['/', '@'])).then_some(first)
}

fn is_within(inner: &Paths, outer: &Paths) -> bool {
    match (inner, outer) {
        (Paths::Exact(inner) | Paths::Prefix(inner), Paths::Prefix(outer)) => {
            inner.starts_with(outer.as_str())
        }
        (inner, outer) => inner == outer,
    }
}

/// `/a` is that path, `/a/*` and `/a*` what begins so, `*.php` and `/a/*/b` what looks so.
fn path(text: &str) -> Result<Paths, String> {
    let nobody = || format!("no request has the path {text:?}");
    match text.strip_suffix('*') {
        Some("" | "/") => return Ok(Paths::all()),
        Some(prefix) if !prefix.contains(['*', '?', '[']) => return Paths::below(prefix).ok_or_else(nobody),
        None if !text.contains(['*', '?', '[']) => return Paths::exactly(text).ok_or_else(nobody),
        _ => {}
    }
    let mut pattern = String::new();
    for c in text.chars() {
        match c {
            '*' => pattern.push_str(".*"),
            '?' => pattern.push('.'),
            '[' | ']' => return Err(format!("sets of characters are not known: {text:?}")),
            c if c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_') => pattern.push(c),
            c if c.is_ascii_punctuation() => pattern.extend(['\\', c]),
            _ => return Err(nobody()),
        }
    }
    Ok(Paths::Regex(pattern))
}

fn named_matcher(name: &str, named: &Named<'_>) -> Result<Matched, String> {
    let matcher = named.get(name).ok_or_else(|| format!("there is no matcher {name}"))?;
    let mut matched = Matched::all();
    // `@name path /a` or a block of such lines, all of which have to hold.
    let one;
    let lines = match &matcher.block {
        Some(lines) => lines.as_slice(),
        None => {
            let (name, args) = matcher.args.split_first().ok_or("it is empty")?;
            one = [Directive {
                name: name.clone(),
                args: args.to_vec(),
                place: matcher.place.clone(),
                block: None,
            }];
            &one
        }
    };
    let mut has_paths = false;
    for line in lines {
        match line.name.as_str() {
            "path" | "path_regexp" if has_paths => return Err("a route has one path".to_owned()),
            "path" => {
                if line.args.len() > MAX_PATHS {
                    return Err(format!("it has more than {MAX_PATHS} paths"));
                }
                has_paths = true;
                matched.paths = line.args.iter().map(|text| path(text)).collect::<Result<_, _>>()?;
            }
            "path_regexp" => {
                has_paths = true;
                matched.paths =
                    line.args.last().map(|pattern| Paths::found(pattern, false)).into_iter().collect();
            }
            "host" => matched.hosts = Some(line.args.iter().map(|host| host.to_ascii_lowercase()).collect()),
            other => return Err(format!("routes go by host, path and listener: there is no {other:?}")),
        }
    }
    Ok(matched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_they_look_like() {
        for (text, expected) in [
            ("/", Some(Paths::Exact("/".into()))),
            ("/*", Some(Paths::all())),
            ("*", Some(Paths::all())),
            ("/api/*", Some(Paths::Prefix("/api/".into()))),
            ("/api*", Some(Paths::Prefix("/api".into()))),
            ("/a b", Some(Paths::Exact("/a%20b".into()))),
            ("*.php", Some(Paths::Regex(r".*\.php".into()))),
            ("/a/*/b", Some(Paths::Regex("/a/.*/b".into()))),
            ("/[ab]", None),
            ("x", None),
        ] {
            assert_eq!(path(text).ok(), expected, "{text}");
        }
    }
}
