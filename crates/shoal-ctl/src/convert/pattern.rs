//! Paths and hosts as other proxies match them, in the words of a route.

use shoal_model::path::canonical_path;
use shoal_model::site::Route;

/// Longest part of a name that is made of a path.
const MAX_SLUG: usize = 24;
/// Most words in it.
const MAX_WORDS: usize = 4;

/// What a route asks of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Paths {
    Exact(String),
    Prefix(String),
    Regex(String),
}

impl Paths {
    pub(super) fn all() -> Self {
        Self::Prefix("/".to_owned())
    }

    /// This path and no other; None = no request has it.
    pub(super) fn exactly(decoded: &str) -> Option<Self> {
        written(decoded).map(Self::Exact)
    }

    /// What begins so, by whole segments.
    pub(super) fn below(decoded: &str) -> Option<Self> {
        written(decoded).map(Self::Prefix)
    }

    /// What `pattern` is found in.
    pub(super) fn found(pattern: &str, ignore_case: bool) -> Self {
        let mut whole = if ignore_case { "(?i)" } else { "" }.to_owned();
        if has_alternatives(pattern) {
            whole.push_str(&format!(".*(?:{pattern}).*"));
            return Self::Regex(whole);
        }
        let (core, from_start) = match pattern.strip_prefix('^') {
            Some(core) => (core, true),
            None => (pattern, pattern.starts_with(".*")),
        };
        let (core, to_end) = match core.strip_suffix('$').filter(|core| !ends_in_escape(core)) {
            Some(core) => (core, true),
            None => (core, core.strip_suffix(".*").is_some_and(|core| !ends_in_escape(core))),
        };
        for (text, is_wanted) in [(".*", !from_start), (core, true), (".*", !to_end)] {
            if is_wanted {
                whole.push_str(text);
            }
        }
        Self::Regex(whole)
    }

    pub(super) fn put(&self, route: &mut Route) {
        match self {
            Self::Exact(path) => route.path = Some(path.clone()),
            Self::Prefix(path) => route.path_prefix = Some(path.clone()),
            Self::Regex(pattern) => route.path_regex = Some(pattern.clone()),
        }
    }

    /// What to call a route after it: nothing where it is every path.
    pub(super) fn slug(&self) -> String {
        let (Self::Exact(text) | Self::Prefix(text) | Self::Regex(text)) = self;
        slug(text)
    }
}

/// How a prefix differs from one of letters, which other proxies have; None where it does not.
pub(super) fn unlike_letters(prefix: &str) -> Option<String> {
    match prefix.strip_suffix('/') {
        Some("") => None,
        Some(bare) => Some(format!("{bare} without the slash goes there, too")),
        None => Some(format!("{prefix}/… goes there, and not all that merely begins so, as {prefix}x")),
    }
}

/// The letters and digits of a text, as a part of a name.
pub(super) fn slug(text: &str) -> String {
    let mut slug = String::new();
    // What stands before a group says how it is matched: no word.
    let words = text.replace("(?i)", "").replace("(?:", "(").replace("\\d", "").replace("\\w", "");
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    for word in words.take(MAX_WORDS) {
        if !slug.is_empty() && slug.len() + word.len() > MAX_SLUG {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(&word[..word.len().min(MAX_SLUG)].to_ascii_lowercase());
    }
    slug
}

/// The host, or the names below one, that a regular expression of hosts means; None where it means anything else.
pub(super) fn host_of_regex(pattern: &str) -> Option<String> {
    const ANY_BELOW: [&str; 6] = [".+", ".*", "(.+)", "(.*)", "[^.]+", "\\w+"];
    let core = pattern.strip_prefix('^')?.strip_suffix('$')?;
    let named = core.strip_prefix("(?<").or_else(|| core.strip_prefix("(?P<"));
    // A captured part is matched like any other.
    let core = match named.and_then(|rest| rest.split_once('>')) {
        Some((_, rest)) => format!("({rest}"),
        None => core.to_owned(),
    };
    let below = ANY_BELOW.iter().find_map(|any| core.strip_prefix(any)?.strip_prefix("\\."));
    let (wildcard, rest) = below.map_or(("", core.as_str()), |rest| ("*.", rest));
    let plain = rest.replace("\\.", "\n").replace("\\-", "-");
    let is_plain = !plain.is_empty()
        && plain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '\n'));
    is_plain.then(|| format!("{wildcard}{}", plain.replace('\n', ".")))
}

/// A decoded path as it stands in a request.
fn written(decoded: &str) -> Option<String> {
    if !decoded.starts_with('/') {
        return None;
    }
    let mut text = String::with_capacity(decoded.len());
    for byte in decoded.bytes() {
        match byte {
            b'%' | b'?' | b'#' | b'\\' | b'<' | b'>' | b'`' | b'"' => text.push_str(&format!("%{byte:02X}")),
            byte if byte.is_ascii_graphic() => text.push(byte.into()),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    canonical_path(&text).ok().map(|path| path.into_owned())
}

/// An odd number of backslashes: what follows is no sign.
fn ends_in_escape(text: &str) -> bool {
    text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// There is a `|` outside of all groups and sets.
fn has_alternatives(pattern: &str) -> bool {
    let (mut depth, mut in_set, mut escaped) = (0_usize, false, false);
    for c in pattern.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => in_set = false,
            _ if in_set => {}
            '[' => in_set = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_searched_for_becomes_the_whole_path() {
        for (pattern, expected) in [
            ("^/a$", "/a"),
            ("^/a", "/a.*"),
            (r"\.png$", r".*\.png"),
            (r"\.(png|jpg)$", r".*\.(png|jpg)"),
            (r"^/a/.*", "/a/.*"),
            (r".*\.php$", r".*\.php"),
            (r"/cost\$", r".*/cost\$.*"),
            (r"a\.*", r".*a\.*.*"),
            ("^/a$|^/b", ".*(?:^/a$|^/b).*"),
            ("[|]$", ".*[|]"),
        ] {
            assert_eq!(Paths::found(pattern, false), Paths::Regex(expected.to_owned()), "{pattern}");
        }
        assert_eq!(Paths::found("^/A$", true), Paths::Regex("(?i)/A".to_owned()));
    }

    #[test]
    fn paths_are_written_as_requests_have_them() {
        for (decoded, expected) in [
            ("/", Some("/")),
            ("/a b/é", Some("/a%20b/%C3%A9")),
            ("/50%", Some("/50%25")),
            ("/a/../b", Some("/b")),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(written(decoded).as_deref(), expected, "{decoded}");
        }
    }

    #[test]
    fn some_patterns_of_hosts_are_names() {
        for (pattern, expected) in [
            (r"^www\.example\.com$", Some("www.example.com")),
            (r"^(?<sub>.+)\.example\.com$", Some("*.example.com")),
            (r"^.+\.example\.com$", Some("*.example.com")),
            (r"^(www\.)?example\.com$", None),
            (r"example\.com", None),
            ("^.+$", None),
        ] {
            assert_eq!(host_of_regex(pattern).as_deref(), expected, "{pattern}");
        }
    }

    #[test]
    fn names_are_made_of_words() {
        for (text, expected) in [
            ("/", ""),
            ("/api/v1/", "api-v1"),
            (r"(?i).*\.(?:png|jpg)", "png-jpg"),
            ("/a-very-long-path/that/nobody/reads", "a-very-long-path"),
            ("/é", ""),
        ] {
            assert_eq!(slug(text), expected, "{text}");
        }
    }
}
