//! What tells cached objects apart beside URL and route, and whether what a cache rule says means anything.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache_extension::ContentClass;
use super::{CacheRule, Problem};
use crate::units::ByteSize;

/// Most fields and cookies of one key, each.
const MAX_NAMES: usize = 8;
/// Most query parameters of one rule.
const MAX_PARAMETERS: usize = 64;
/// Longest time for which an error is kept unasked, seconds.
const MAX_ERROR_SECONDS: u64 = 5;
/// What is smaller has less than one chunk.
const LEAST_CHUNKED: ByteSize = ByteSize::mib(1);
/// Errors that anybody can cause by how a request is written.
const CAUSED_BY_REQUESTS: [u16; 5] = [400, 405, 413, 414, 431];

/// What of a request tells objects apart beside its URL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheKeyRule {
    /// The only query parameters that count; the others do not reach the upstream. Default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_query: Option<Vec<String>>,
    /// Query parameters that do not count and do not reach the upstream; `utm_*` is every name that begins so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_query: Option<Vec<String>>,
    /// Fields whose values tell objects apart, whether or not `Vary` names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Cookies whose values tell objects apart. The others do not count, even where `Vary` names `Cookie`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<String>,
}

/// Whether a rule means anything.
pub(super) fn validate_cache(path: &str, rule: &CacheRule, problems: &mut Vec<Problem>) {
    if let Some(key) = &rule.key {
        validate_key(&format!("{path}.key"), key, problems);
    }
    for (status, ttl) in &rule.negative_ttl {
        let path = format!("{path}.negative_ttl.{status}");
        let number = status.parse::<u16>().ok().filter(|number| status.len() == 3 && *number != 304);
        match number {
            Some(number) if CAUSED_BY_REQUESTS.contains(&number) => {
                let message =
                    format!("anybody can cause a {number}; only the upstream may say how long it is kept");
                problems.push(Problem::at(path, message));
            }
            Some(300..=599) if ttl.0.is_zero() => {
                problems.push(Problem::at(path, "a time of 0 keeps nothing; leave it out"));
            }
            Some(300..=599) => {}
            Some(_) | None => {
                let message = format!("{status:?} is not a status from 300 to 599 that is kept");
                problems.push(Problem::at(path, message));
            }
        }
    }
    if rule
        .error_ttl
        .is_some_and(|ttl| ttl.0.is_zero() || ttl.0.as_millis() > u128::from(MAX_ERROR_SECONDS) * 1000)
    {
        let message = format!("must be more than 0s and at most {MAX_ERROR_SECONDS}s; leave it out for none");
        problems.push(Problem::at(format!("{path}.error_ttl"), message));
    }
    for (n, extension) in rule.extensions.iter().flatten().enumerate() {
        if ContentClass::of_extension(extension).is_none() {
            let message =
                format!("what {extension:?} stands for is not known; known are {}", ContentClass::known());
            problems.push(Problem::at(format!("{path}.extensions[{n}]"), message));
        }
    }
    if let Some(least) = rule.chunked_from {
        if least < LEAST_CHUNKED {
            let message = format!("must be at least {LEAST_CHUNKED}, which is what a chunk has");
            problems.push(Problem::at(format!("{path}.chunked_from"), message));
        } else if rule.max_object_size.unwrap_or(CacheRule::MAX_OBJECT_SIZE) < least {
            let why = "nothing above `max_object_size` is stored";
            problems.push(Problem::no_effect(format!("{path}.chunked_from"), why));
        }
    }
    let allowed = rule.strict_fill.as_deref().unwrap_or_default();
    validate_names(&format!("{path}.strict_fill"), allowed, MAX_PARAMETERS, problems);
}

fn validate_key(path: &str, key: &CacheKeyRule, problems: &mut Vec<Problem>) {
    if key.include_query.is_some() && key.exclude_query.is_some() {
        let why = "`include_query` leaves out everything else";
        problems.push(Problem::no_effect(format!("{path}.exclude_query"), why));
    }
    let lists = [("include_query", &key.include_query), ("exclude_query", &key.exclude_query)];
    for (field, list) in lists {
        let list = list.as_deref().unwrap_or_default();
        check_count(&format!("{path}.{field}"), list, MAX_PARAMETERS, problems);
        for (n, name) in list.iter().enumerate() {
            let is_plain = |name: &str| !name.is_empty() && !name.contains(['&', '=', '*', '#', ' ']);
            if !is_plain(name.strip_suffix('*').unwrap_or(name)) {
                let message = format!(
                    "{name:?} is not a query parameter; write its name, or how it begins, as in `utm_*`"
                );
                problems.push(Problem::at(format!("{path}.{field}[{n}]"), message));
            }
        }
    }
    validate_names(&format!("{path}.headers"), &key.headers, MAX_NAMES, problems);
    check_count(&format!("{path}.cookies"), &key.cookies, MAX_NAMES, problems);
    for (n, name) in key.cookies.iter().enumerate() {
        // A cookie is called by a token, as a field is.
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            let message = format!("{name:?} is not the name of a cookie");
            problems.push(Problem::at(format!("{path}.cookies[{n}]"), message));
        }
    }
    for (n, name) in key.headers.iter().enumerate() {
        if name.eq_ignore_ascii_case("cookie") {
            let message = "every downstream has other cookies; name those that count in `cookies`";
            problems.push(Problem::at(format!("{path}.headers[{n}]"), message));
        }
    }
}

fn validate_names(path: &str, names: &[String], most: usize, problems: &mut Vec<Problem>) {
    check_count(path, names, most, problems);
    for (n, name) in names.iter().enumerate() {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            problems
                .push(Problem::at(format!("{path}[{n}]"), format!("{name:?} is not the name of a field")));
        }
    }
}

fn check_count(path: &str, list: &[String], most: usize, problems: &mut Vec<Problem>) {
    if list.len() > most {
        problems.push(Problem::at(path.to_owned(), format!("at most {most}, not {}", list.len())));
    }
}

#[cfg(test)]
mod tests {
    use crate::site::read_site;

    #[test]
    fn rules_are_read_and_looked_through() {
        let check = |rule: &str, complaint: Option<&str>| {
            let text = format!(
                "listeners:\n  web: {{ address: \":80\", protocol: http }}\n\
                 routes:\n  all:\n    upstream: app\n    cache: {rule}\n\
                 upstreams:\n  app: {{ endpoints: [\"10.0.0.1:80\"] }}\n"
            );
            let problems = read_site("site.yaml", &text).err().map(|problems| problems.to_string());
            match (problems, complaint) {
                (None, None) => {}
                (Some(problems), Some(complaint)) => {
                    assert!(problems.contains(complaint), "{rule}: {problems}");
                    assert!(problems.contains("site.yaml:"), "{rule}: {problems}");
                }
                (problems, _) => panic!("{rule}: {problems:?}"),
            }
        };
        check("{ negative_ttl: { 404: 10s, 410: 1m }, error_ttl: 2s, request_errors: pass }", None);
        check("{ key: { exclude_query: [fbclid, utm_*], headers: [X-Tenant], cookies: [kind] } }", None);
        check(
            "{ key: { include_query: [] }, extensions: [css, woff2], early_refresh: false, no_vary_search: ignore }",
            None,
        );
        check("{ strict_fill: [] }", None);
        check("{ chunked_from: 1MiB, range_miss: whole }", None);
        check("{ max_object_size: 1MiB }", None);
        check("{ chunked_from: 1023KiB }", Some("must be at least 1MiB"));
        check(
            "{ chunked_from: 2MiB, max_object_size: 1MiB }",
            Some("nothing above `max_object_size` is stored"),
        );
        check("{ chunked_from: 64MiB }", None);
        check("{ chunked_from: 65MiB }", Some("nothing above `max_object_size` is stored"));
        check("{ chunked_from: 65MiB, max_object_size: 65MiB }", None);
        check("{ chunked_from: 2097152, range_miss: slice }", Some("slice"));
        check("{ negative_ttl: { 400: 10s } }", Some("anybody can cause a 400"));
        check("{ negative_ttl: { 304: 10s } }", Some("not a status from 300 to 599"));
        check("{ negative_ttl: { 200: 10s } }", Some("not a status from 300 to 599"));
        check("{ negative_ttl: { 404: 0s } }", Some("leave it out"));
        check("{ error_ttl: 6s }", Some("at most 5s"));
        check("{ error_ttl: 0s }", Some("more than 0s"));
        check("{ extensions: [blob] }", Some("what \"blob\" stands for is not known"));
        check("{ key: { include_query: [a], exclude_query: [b] } }", Some("leaves out everything else"));
        check("{ key: { exclude_query: [\"a=b\"] } }", Some("not a query parameter"));
        check("{ key: { exclude_query: [\"*\"] } }", Some("not a query parameter"));
        check("{ key: { headers: [cookie] } }", Some("name those that count in `cookies`"));
        check("{ key: { headers: [\"a b\"] } }", Some("not the name of a field"));
        check("{ key: { cookies: [\"a=\"] } }", Some("not the name of a cookie"));
        check("{ key: { cookies: [a, b, c, d, e, f, g, h, i] } }", Some("at most 8, not 9"));
        check("{ strict_fill: [\"a b\"] }", Some("not the name of a field"));
    }
}
