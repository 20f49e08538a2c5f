//! `proxy_cache` and what belongs to it.

use shoal_model::site::{CacheKeyRule, CacheRule, SetCookie};
use shoal_model::units::Period;

use super::known::is_in_request_directives;
use super::scope::Scope;
use crate::convert::directive::Directive;
use crate::convert::draft::Draft;
use crate::convert::units::nginx_time;

/// What every key of Shoal has.
const IN_EVERY_KEY: [&str; 7] =
    ["scheme", "proxy_host", "host", "http_host", "server_name", "request_method", "server_port"];
/// What has the query in it.
const WITH_QUERY: [&str; 3] = ["request_uri", "args", "query_string"];
/// Statuses that anybody can cause, or that are never kept.
const NEVER_KEPT: [u16; 6] = [304, 400, 405, 413, 414, 431];

/// The cache of a location; None where nothing is cached.
pub(super) fn rule(scope: &Scope<'_>, draft: &mut Draft) -> Option<CacheRule> {
    let zone = scope.find("proxy_cache")?;
    if zone.first() == "off" {
        return None;
    }
    let mut rule = CacheRule::default();
    for at in scope.all("proxy_cache_valid") {
        valid(&mut rule, at, draft);
    }
    if let Some(at) = scope.find("proxy_cache_key") {
        match key(at.first()) {
            Ok(key) => rule.key = (key != CacheKeyRule::default()).then_some(key),
            Err(variable) => {
                let why = format!(
                    "{variable} cannot be a part of the key, so nothing is cached: `cache.key` has parameters, fields and cookies"
                );
                draft.left_out(at, why);
                return None;
            }
        }
    }
    if is_personal(scope, draft) {
        return None;
    }
    if let Some(at) = scope.find("proxy_cache_use_stale") {
        use_stale(&mut rule, at, draft);
    }
    if let Some(at) = scope.find("proxy_cache_methods")
        && !at.args.iter().all(|method| matches!(method.as_str(), "GET" | "HEAD"))
    {
        draft.left_out(at, "GET and HEAD are answered from the cache, nothing else");
    }
    if let Some(at) = scope.find("proxy_ignore_headers") {
        let (cookies, others): (Vec<&String>, Vec<&String>) =
            at.args.iter().partition(|name| name.eq_ignore_ascii_case("set-cookie"));
        rule.set_cookie = (!cookies.is_empty()).then_some(SetCookie::Allow);
        if !others.is_empty() {
            draft.left_out(at, "fields of answers that speak of caching are obeyed; `Shoal-Cache-Control` goes before all others");
        }
    }
    Some(rule)
}

/// Some requests are kept away from the cache, by what a route cannot ask of them: then all are, lest somebody is sent what
/// was meant for another.
fn is_personal(scope: &Scope<'_>, draft: &mut Draft) -> bool {
    let mut is_personal = false;
    for at in ["proxy_cache_bypass", "proxy_no_cache"].into_iter().flat_map(|name| scope.all(name)) {
        if !at.args.iter().all(|arg| is_in_request_directives(arg)) {
            let why = "a route cannot ask for that, so it is not cached: write `cache: {}` if the endpoints mark what is personal (`Cache-Control: private`)";
            draft.left_out(at, why);
            is_personal = true;
        }
    }
    is_personal
}

/// `proxy_cache_valid [STATUS… | any] TIME`.
fn valid(rule: &mut CacheRule, at: &Directive, draft: &mut Draft) {
    let Some((time, statuses)) = at.args.split_last() else { return };
    let Some(time) = nginx_time(time) else { return draft.left_out(at, "it says no time that is known") };
    let mut others = Vec::new();
    for status in statuses {
        let number = status.parse().ok().filter(|number| !NEVER_KEPT.contains(number));
        match number {
            Some(number @ 300..=599) if !time.0.is_zero() => {
                rule.negative_ttl.insert(number.to_string(), time);
            }
            Some(300..=599) => {}
            _ => others.push(status.as_str()),
        }
    }
    if statuses.is_empty() || !others.is_empty() {
        let others = if others.is_empty() { "200".to_owned() } else { others.join(", ") };
        let seconds = time.0.as_secs();
        draft.left_out(
            at,
            format!(
                "how long {others} is fresh is said by the endpoint: `Cache-Control: s-maxage={seconds}`"
            ),
        );
    }
}

fn use_stale(rule: &mut CacheRule, at: &Directive, draft: &mut Draft) {
    let statuses: Vec<&str> =
        at.args.iter().map(String::as_str).filter(|arg| arg.starts_with("http_")).collect();
    if at.first() == "off" {
        rule.max_stale_on_disconnect = Some(Period::seconds(0));
    } else if !statuses.is_empty() {
        let statuses = statuses.join(", ");
        let why = format!("{statuses} is bridged only by objects that say `stale-if-error`");
        draft.left_out(at, why);
    }
    if at.args.iter().any(|arg| arg == "error" || arg == "timeout") {
        let how = "what is stale stands in for 60 s here while no endpoint can be reached: `cache.max_stale_on_disconnect`";
        draft.changed(at, how);
    }
}

/// Errs with the variable that no key can have.
fn key(text: &str) -> Result<CacheKeyRule, String> {
    let mut key = CacheKeyRule::default();
    let (mut has_query, mut parameters) = (false, Vec::new());
    for part in text.split('$').skip(1) {
        let part = part.strip_prefix('{').unwrap_or(part);
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
        let name = &part[..end];
        let named = |prefix: &str| name.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        if WITH_QUERY.contains(&name) {
            has_query = true;
        } else if IN_EVERY_KEY.contains(&name) || matches!(name, "uri" | "is_args" | "document_uri") {
        } else if let Some(field) = named("http_") {
            key.headers.push(field.replace('_', "-"));
        } else if let Some(cookie) = named("cookie_") {
            key.cookies.push(cookie.to_owned());
        } else if let Some(parameter) = named("arg_") {
            parameters.push(parameter.to_owned());
        } else {
            return Err(format!("${name}"));
        }
    }
    key.include_query = (!has_query).then_some(parameters);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_the_url_does_not() {
        let check = |text: &str, expected: Result<CacheKeyRule, &str>| {
            assert_eq!(key(text), expected.map_err(str::to_owned), "{text}");
        };
        check("$scheme$proxy_host$request_uri", Ok(CacheKeyRule::default()));
        check("$host$uri$is_args$args", Ok(CacheKeyRule::default()));
        check(
            "${scheme}://$host$uri",
            Ok(CacheKeyRule { include_query: Some(vec![]), ..Default::default() }),
        );
        check(
            "$host$uri$arg_page$http_accept_language$cookie_theme",
            Ok(CacheKeyRule {
                include_query: Some(vec!["page".into()]),
                headers: vec!["accept-language".into()],
                cookies: vec!["theme".into()],
                ..Default::default()
            }),
        );
        check("$request_uri$device", Err("$device"));
    }
}
