//! Paths and hosts: a line of choices, a line with a host, a line with a path. One resource has one spelling, and takes
//! the route that a plain reading of the table gives it.
#![no_main]

use std::sync::LazyLock;

use http::uri::PathAndQuery;
use libfuzzer_sys::fuzz_target;
use shoal_fuzz::split_line;
use shoal_model::site::parse_site;
use shoal_model::{ConfigView, Revision};
use shoal_policy::cache::key::{
    KeyParts, ObjectKey, key_of_url, prefix_scopes, url_of, write_key, write_route,
};
use shoal_policy::gate::{canonical_authority, canonical_path};

/// Host, path rule; route `rN` is the one at place N.
const ROUTES: [(&str, Rule); 9] = [
    ("a.org", Rule::Exact("/a/b")),
    ("a.org", Rule::Prefix("/a")),
    ("a.org", Rule::Regex("/r/[0-9]+")),
    ("*.a.org", Rule::Prefix("/")),
    ("*.b.a.org", Rule::Prefix("/a/")),
    ("*.b.a.org", Rule::Exact("/a")),
    ("", Rule::Prefix("/a/b/c")),
    ("", Rule::Regex("/%2F.*")),
    ("", Rule::Prefix("/a/b")),
];

enum Rule {
    Exact(&'static str),
    Prefix(&'static str),
    Regex(&'static str),
}

static VIEW: LazyLock<ConfigView> = LazyLock::new(|| {
    let mut text = "listeners: { web: { address: \":80\", protocol: http } }\n\
                    upstreams: { u: { endpoints: [\"10.0.0.1:80\"] } }\nroutes:\n"
        .to_owned();
    for (place, (host, rule)) in ROUTES.iter().enumerate() {
        let rule = match rule {
            Rule::Exact(path) => format!("path: {path:?}"),
            Rule::Prefix(path) => format!("path_prefix: {path:?}"),
            Rule::Regex(path) => format!("path_regex: {path:?}"),
        };
        let hosts = if host.is_empty() { String::new() } else { format!("hosts: [{host:?}], ") };
        text.push_str(&format!("  r{place}: {{ {hosts}{rule}, upstream: u }}\n"));
    }
    let site = parse_site("fuzz.yaml", &text).unwrap_or_else(|problem| panic!("{problem}"));
    ConfigView::compile(Revision(1), &site).unwrap_or_else(|problems| panic!("{problems}"))
});

fuzz_target!(|bytes: &[u8]| {
    let (choices, rest) = split_line(bytes);
    let (host, path) = split_line(rest);
    let Ok(target) = PathAndQuery::try_from(path) else { return };
    if !target.as_str().starts_with('/') {
        return;
    }
    let Ok(canonical) = canonical_path(target.path()) else { return };
    check_form(target.path(), &canonical);
    let respelled = respell(target.path(), choices);
    assert_eq!(canonical_path(&respelled).as_deref(), Ok(&*canonical), "{respelled:?} is the same resource");

    let Some(authority) = canonical_authority(host, false) else { return };
    let Ok(authority) = std::str::from_utf8(&authority) else { panic!("an authority is ASCII") };
    let host = without_port(authority);
    let found = VIEW.routes.find(0, host, &canonical).map(|route| route.name.to_string());
    assert_eq!(found, plain_find(host, &canonical), "{host} {canonical}");
    check_key(authority, host, &canonical, target.query(), found.as_deref().unwrap_or("none"));
});

fn without_port(authority: &str) -> &str {
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    // What stands behind the last colon of an address of IPv6 is none.
    if port.ends_with(']') { authority } else { host }
}

fn check_form(written: &str, canonical: &str) {
    assert_eq!(canonical_path(canonical).as_deref(), Ok(canonical), "canonical twice");
    assert!(canonical.starts_with('/') && canonical.len() <= written.len().max(1));
    assert!(
        !canonical.bytes().any(|byte| byte <= b' ' || matches!(byte, 0x7f | b'\\' | b'#')),
        "{canonical:?}"
    );
    assert!(!canonical.split('/').any(|segment| matches!(segment, "." | "..")), "{canonical:?} leads up");
    for (place, _) in canonical.match_indices('%') {
        let digits = &canonical.as_bytes()[place + 1..place + 3];
        assert!(digits.iter().all(|digit| digit.is_ascii_digit() || (b'A'..=b'F').contains(digit)));
        let byte = u8::from_str_radix(std::str::from_utf8(digits).expect("digits"), 16).expect("two digits");
        assert!(
            !byte.is_ascii_alphanumeric() && !b"-._~\0".contains(&byte),
            "{canonical:?} escapes needlessly"
        );
    }
}

/// The same path with some unreserved characters escaped and detours taken, as `choices` say.
fn respell(path: &str, choices: &[u8]) -> String {
    let mut choices = choices.iter().copied().chain(std::iter::repeat(0));
    let mut choose = || choices.next().unwrap_or(0);
    let mut spelled = String::new();
    let mut skip = 0;
    for c in path.chars() {
        if skip > 0 {
            skip -= 1;
            spelled.push(c);
            continue;
        }
        let choice = choose();
        match c {
            '%' => {
                skip = 2;
                spelled.push(c);
            }
            '/' => {
                let detours = ["", "", "/.", "/x/..", "/%2E", "/x/y/%2e%2E/..", "/.//.."];
                spelled.push_str(detours[usize::from(choice) % detours.len()]);
                spelled.push(c);
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~' if choice % 3 == 1 => {
                spelled.push_str(&format!("%{:02X}", c as u32));
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~' if choice % 3 == 2 => {
                spelled.push_str(&format!("%{:02x}", c as u32));
            }
            _ => spelled.push(c),
        }
    }
    spelled
}

/// Hosts by how much they say, then exact path, pattern, longest prefix.
fn plain_find(host: &str, path: &str) -> Option<String> {
    let suffix_len = |pattern: &str| match pattern.strip_prefix('*') {
        Some(parent) if host.ends_with(parent) && host.len() > parent.len() => Some(parent.len()),
        Some(_) => None,
        None if pattern.is_empty() => Some(0),
        None => (host == pattern).then_some(usize::MAX),
    };
    let path_rank = |rule: &Rule| match rule {
        Rule::Exact(exact) => (path == *exact).then_some((2, 0)),
        Rule::Regex("/r/[0-9]+") => path
            .strip_prefix("/r/")
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
            .then_some((1, 0)),
        Rule::Regex(_) => path.starts_with("/%2F").then_some((1, 0)),
        Rule::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            let rest = path.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((0, prefix.len()))
        }
    };
    let matching = ROUTES
        .iter()
        .enumerate()
        .filter_map(|(place, (pattern, rule))| Some((suffix_len(pattern)?, path_rank(rule)?, place)));
    matching.max().map(|(.., place)| format!("r{place}"))
}

fn check_key(authority: &str, host: &str, path: &str, query: Option<&str>, route: &str) {
    let target = query.map_or(path.to_owned(), |query| format!("{path}?{query}"));
    let mut text = Vec::new();
    write_key(&mut text, false, authority, &target);
    let url = String::from_utf8(text.clone()).expect("a target is text");
    write_route(&mut text, route);
    let text = String::from_utf8(text).expect("so is a route");
    assert_eq!(url_of(&text), url);
    assert_eq!(ObjectKey::of_text(7, &text), ObjectKey::of(7, url.as_bytes()));
    assert_eq!(key_of_url(&url).as_deref(), Some(url.as_bytes()), "an operator names it as it is");
    let parts = KeyParts::of(&url);
    assert_eq!((parts.host, parts.path), (host, path));
    assert!(prefix_scopes(7, parts).count() <= path.matches('/').count());
}
