//! What a purge is to forget, read from what an operator wrote: a scope that could match nothing is refused, since whoever
//! wrote it believes that something is gone.

use shoal_cache::Cache;
use shoal_model::ConfigView;
use shoal_model::state::PurgeScope;
use shoal_policy::cache::key::KeyParts;
use shoal_policy::cache::warming::kept_urls;
use shoal_policy::gate::{canonical_authority, canonical_path};
use shoal_proto::admin::PurgeRequest;

/// Scopes of one purge.
const MAX_SCOPES: usize = 1000;
/// Bytes of one scope as it is written.
const MAX_SCOPE_BYTES: usize = 8192;

/// The scopes of `request` on a node that serves `config`, or what is wrong with the first bad one. A URL means what routes
/// keep its objects under: what of its query does not count is in no key.
pub fn read(cache: &Cache, config: &ConfigView, request: &PurgeRequest) -> Result<Vec<PurgeScope>, String> {
    let written = [&request.urls, &request.prefixes, &request.hosts, &request.tags, &request.groups];
    let count: usize = written.iter().map(|scopes| scopes.len()).sum();
    if count > MAX_SCOPES {
        return Err(format!("{count} scopes in one purge; at most {MAX_SCOPES}"));
    }
    let mut scopes = Vec::with_capacity(count + 1);
    for written in &request.urls {
        for url in kept_urls(config, &canonical_url(written)?) {
            scopes.push(cache.purge_scope_url(&url).ok_or_else(|| not_a_url(written))?);
        }
    }
    for written in &request.prefixes {
        let prefix = canonical_prefix(written)?;
        scopes.push(cache.purge_scope_prefix(&prefix).ok_or_else(|| not_a_prefix(written))?);
    }
    for written in &request.hosts {
        let host = canonical_host(written)?;
        scopes.push(cache.purge_scope_prefix(&host).ok_or_else(|| not_a_host(written))?);
    }
    for tag in &request.tags {
        scopes.push(cache.purge_scope_tag(checked_tag(tag)?));
    }
    for written in &request.groups {
        let (origin, group) = canonical_group(written)?;
        scopes.push(cache.purge_scope_group(&origin, group));
    }
    if request.all {
        scopes.push(PurgeScope::All);
    }
    if scopes.is_empty() {
        return Err("nothing to purge: name a URL, prefix, host, tag or group, or all".to_owned());
    }
    Ok(scopes)
}

/// A whole URL as a request for it is keyed: host and path in their canonical form.
pub fn canonical_url(written: &str) -> Result<String, String> {
    let written = match written {
        "" => return Err("an empty URL names nothing; write \"http://host/path?query\"".to_owned()),
        _ => checked(written)?,
    };
    let (scheme, rest) = written.split_once("://").ok_or_else(|| not_a_url(written))?;
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(not_a_url(written));
    }
    let rest = rest.split('#').next().unwrap_or(rest);
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = host(authority, scheme == "https").ok_or_else(|| not_a_url(written))?;
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    Ok(format!("{scheme}://{authority}{}{query}", self::path(path, written)?))
}

/// A host and a path, with or without a scheme.
fn canonical_prefix(written: &str) -> Result<String, String> {
    let written = checked(written)?;
    let rest = written.split_once("://").map_or(written, |(_, rest)| rest);
    if rest.contains(['?', '#']) {
        return Err(format!(
            "{written:?} has a query; a prefix is a host and a path, and covers every query"
        ));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = host(authority, false).ok_or_else(|| not_a_prefix(written))?;
    Ok(authority + &self::path(path, written)?)
}

/// A host, and nothing else.
fn canonical_host(written: &str) -> Result<String, String> {
    let written = checked(written)?;
    let canonical = host(written, false).ok_or_else(|| not_a_host(written))?;
    match KeyParts::of(written).host {
        name if name.len() == written.len() => Ok(canonical),
        name => {
            Err(format!("{written:?} names a port, and a host is purged on all its ports; write {name:?}"))
        }
    }
}

/// An origin in canonical form, and the name of a group: `https://shop.example.com news`.
fn canonical_group(written: &str) -> Result<(String, &str), String> {
    let misread = || format!("{written:?} is not a group; write \"https://host NAME\"");
    let (origin, group) = written.split_once(' ').ok_or_else(misread)?;
    let url = canonical_url(origin)?;
    let origin = url.strip_suffix('/').filter(|origin| !origin.ends_with('/')).ok_or_else(misread)?;
    let is_plain = !group.is_empty() && group.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_plain || origin.matches('/').count() != 2 {
        return Err(misread());
    }
    Ok((origin.to_owned(), group))
}

/// A tag as it could stand in a field of a response, in whatever script: its bytes are compared.
fn checked_tag(written: &str) -> Result<&str, String> {
    if written.contains([' ', ',']) {
        return Err(format!("{written:?} is more than one tag; give each by itself"));
    }
    if written.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(format!("{written:?} would match nothing: no field can have it"));
    }
    checked_scope(written)
}

/// What is true of every URL, prefix and host.
fn checked(written: &str) -> Result<&str, String> {
    if !written.bytes().all(|byte| byte.is_ascii_graphic()) {
        let rest = written.split_once("://").map_or(written, |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let how = match authority.is_ascii() {
            true => "URLs have no spaces, and other than ASCII is written %C3%A9",
            false => "a host is written as DNS has it, in punycode (xn--bcher-kva.example)",
        };
        return Err(format!("{written:?} would match nothing: {how}"));
    }
    checked_scope(written)
}

/// What is true of every scope.
fn checked_scope(written: &str) -> Result<&str, String> {
    match written {
        "" => Err("an empty scope would match nothing".to_owned()),
        _ if written.len() > MAX_SCOPE_BYTES => {
            Err(format!("a scope has {} bytes; at most {MAX_SCOPE_BYTES} are read", written.len()))
        }
        _ if written.ends_with('*') || written.contains("//*") => {
            Err(format!("{written:?} looks like a pattern, and there are none: use a prefix, a host, or all"))
        }
        _ => Ok(written),
    }
}

fn host(authority: &str, https: bool) -> Option<String> {
    let canonical = canonical_authority(authority.as_bytes(), https)?;
    String::from_utf8(canonical.into_owned()).ok()
}

fn path(path: &str, written: &str) -> Result<String, String> {
    let path = if path.is_empty() { "/" } else { path };
    let canonical = canonical_path(path);
    canonical
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| format!("{written:?} has a path that no request may have"))
}

fn not_a_url(written: &str) -> String {
    format!("{written:?} is not a URL; write \"http://host/path?query\"")
}

fn not_a_prefix(written: &str) -> String {
    format!("{written:?} names no host; write \"host/path\" or \"http://host/path\"")
}

fn not_a_host(written: &str) -> String {
    format!("{written:?} is not a host; write \"shop.example.com\", and a path as a prefix")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seen: Result<String, String>, expected: Result<&str, &str>) {
        match (&seen, expected) {
            (Ok(seen), Ok(expected)) => assert_eq!(seen, expected),
            (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
            _ => panic!("{seen:?}, not {expected:?}"),
        }
    }

    #[test]
    fn urls_are_written_as_requests_are_keyed() {
        let check = |written, expected| check(canonical_url(written), expected);
        check("http://Shop.example:80/a/../%7Eb?q#f", Ok("http://shop.example/~b?q"));
        check("HTTPS://shop", Ok("https://shop/"));
        check("http://shop?q=1", Ok("http://shop/?q=1"));
        check("http://shop/a*b", Ok("http://shop/a*b"));
        check("http://shop/*", Err("looks like a pattern"));
        check("http:///x", Err("is not a URL"));
        check("shop/x", Err("is not a URL"));
        check("ftp://shop/x", Err("is not a URL"));
        check("http://user@shop/", Err("is not a URL"));
        check("http://shop/a b", Err("would match nothing"));
        check("http://shop/é", Err("%C3%A9"));
        check("http://bücher.example/é", Err("punycode"));
        check("http://shop/%zz", Err("no request may have"));
        check("", Err("an empty URL"));
    }

    #[test]
    fn prefixes_and_hosts_name_a_host() {
        check(canonical_prefix("http://Shop/css/"), Ok("shop/css/"));
        check(canonical_prefix("shop:8080"), Ok("shop:8080/"));
        check(canonical_prefix("/css"), Err("names no host"));
        check(canonical_prefix("shop/a?b"), Err("has a query"));
        check(canonical_prefix("shop/a*"), Err("looks like a pattern"));
        check(canonical_host("Shop.example"), Ok("shop.example"));
        check(canonical_host("shop/css"), Err("is not a host"));
        check(canonical_host("*.example.com"), Err("is not a host"));
        check(canonical_host("*"), Err("looks like a pattern"));
        check(canonical_host("a b"), Err("would match nothing"));
        check(canonical_host("bücher.example"), Err("punycode"));
        check(canonical_host("shop:8080"), Err("write \"shop\""));
        check(canonical_host("shop:80"), Err("names a port"));
        check(canonical_host("[::1]:80"), Err("write \"[::1]\""));
        check(canonical_host("[::1]"), Ok("[::1]"));
    }

    #[test]
    fn groups_are_of_an_origin() {
        let check = |written: &str, expected: Option<(&str, &str)>| {
            let read = canonical_group(written).ok();
            assert_eq!(read.as_ref().map(|(origin, group)| (&**origin, *group)), expected, "{written}");
        };
        check("HTTPS://Shop:443 news", Some(("https://shop", "news")));
        check("http://shop:81/ a b", Some(("http://shop:81", "a b")));
        for wrong in
            ["news", "http://shop", "http://shop ", "shop news", "http://shop/x news", "http://shop é"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn tags_are_single_words() {
        let check = |written| checked_tag(written).map_err(|why| why.split(' ').next().map(str::to_owned));
        assert_eq!(check("product-17"), Ok("product-17"));
        assert_eq!(check("café"), Ok("café"));
        for bad in ["", "*", "a,b", "a b", "\t", "a\u{7f}"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
