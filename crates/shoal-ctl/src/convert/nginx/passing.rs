//! How requests are passed on from a location: fields, times, and when another endpoint is tried.

use shoal_model::site::{RetryOn, RetryRule, RouteTimeouts};
use shoal_model::units::Period;

use super::location::Location;
use super::scope::Scope;
use super::upstream::{Pass, time};
use crate::convert::directive::Directive;
use crate::convert::draft::Draft;
use crate::convert::pattern::Paths;
use crate::convert::units::nginx_time;

/// Most tries of one request.
const MAX_ATTEMPTS: u32 = 10;

/// What the fields that a location sets say.
pub(super) struct Fields {
    /// Connections may be upgraded.
    pub(super) has_upgrade: bool,
}

/// Looks at `proxy_set_header`: what Shoal says anyway, and what it does not.
pub(super) fn fields(scope: &Scope<'_>, pass: &Pass, at: &Directive, draft: &mut Draft) -> Fields {
    let mut fields = Fields { has_upgrade: false };
    let mut keeps_host = false;
    for field in scope.all(&format!("{}_set_header", pass.module())) {
        let name = field.first().to_ascii_lowercase();
        let value = field.args.get(1).map_or("", String::as_str);
        let is_one_of = |variables: &[&str]| variables.contains(&value);
        match name.as_str() {
            "host" => {
                keeps_host = true;
                if !value.starts_with("$host") && !value.starts_with("$http_host") {
                    draft.left_out(field, "the endpoint sees the `Host` of the request");
                }
            }
            "upgrade" => fields.has_upgrade = true,
            "connection" | "proxy" => {}
            "x-real-ip" if value.starts_with('$') => {}
            "x-forwarded-for" if is_one_of(&["$proxy_add_x_forwarded_for", "$remote_addr"]) => {}
            "x-forwarded-proto" if is_one_of(&["$scheme", "$http_x_forwarded_proto"]) => {}
            "x-forwarded-host" if is_one_of(&["$host", "$http_host", "$host:$server_port"]) => {}
            "x-request-id" if value == "$request_id" => {}
            "forwarded" if value.starts_with('$') => {}
            _ => draft.left_out(field, "Shoal sets no fields of requests beside those that say who called"),
        }
    }
    if !keeps_host {
        let sent = &pass.host;
        draft.changed(at, format!("the endpoint sees the `Host` of the request; nginx sends {sent}"));
    }
    fields
}

/// A URI behind the host takes the place of what the location has matched.
pub(super) fn explain_path(location: &Location<'_>, pass: &Pass, at: &Directive, draft: &mut Draft) {
    let Some(uri) = &pass.uri else { return };
    let (Paths::Exact(written) | Paths::Prefix(written) | Paths::Regex(written)) = &location.paths;
    let matched = location.prefix.unwrap_or(written);
    if uri != matched {
        let why = format!("paths go on as they came: that {matched} becomes {uri} is up to the endpoint");
        draft.left_out(at, why);
    }
}

/// How long an endpoint may take.
pub(super) fn timeouts(scope: &Scope<'_>, module: &str, draft: &mut Draft) -> Option<RouteTimeouts> {
    let read = time(scope.find(&format!("{module}_read_timeout")), draft)?;
    let timeouts = RouteTimeouts {
        first_byte: Some(read).filter(|time| *time != Period::seconds(30)),
        idle: Some(read).filter(|time| *time != Period::seconds(60)),
        ..RouteTimeouts::default()
    };
    Some(timeouts)
}

/// A tunnel may be silent for as long as `proxy_read_timeout` says, if that is longer than a listener lets it.
pub(super) fn let_tunnels_rest(scope: &Scope<'_>, module: &str, listeners: &[&str], draft: &mut Draft) {
    let rest = scope.word(&format!("{module}_read_timeout")).and_then(nginx_time);
    let Some(rest) = rest.filter(|time| *time > Period::seconds(600)) else { return };
    for name in listeners {
        let Some(listener) = draft.listener_mut(name) else { continue };
        let limits = listener.limits.get_or_insert_default();
        limits.tunnel_idle_timeout = limits.tunnel_idle_timeout.max(Some(rest));
    }
}

/// When another endpoint is tried.
pub(super) fn retry(scope: &Scope<'_>, module: &str, draft: &mut Draft) -> Option<RetryRule> {
    let mut rule = RetryRule::default();
    if let Some(at) = scope.find(&format!("{module}_next_upstream")) {
        let has = |word: &str| at.args.iter().any(|arg| arg == word);
        if has("off") {
            return Some(RetryRule { attempts: Some(1), ..rule });
        }
        rule.on = retry_on(at);
        if has("timeout") {
            draft.changed(
                at,
                "a try that takes too long is given up for another one only with `retry.per_try_timeout`",
            );
        }
        if has("non_idempotent") {
            let methods = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH"];
            rule.methods = Some(methods.map(str::to_owned).to_vec());
        }
    }
    if let Some(at) = scope.find(&format!("{module}_next_upstream_tries")) {
        rule.attempts = match at.first().parse() {
            Ok(0 | 3) | Err(_) => None,
            Ok(tries) => Some(tries.min(MAX_ATTEMPTS)),
        };
    }
    (rule != RetryRule::default()).then_some(rule)
}

/// None where it is what Shoal does anyway.
fn retry_on(at: &Directive) -> Option<Vec<RetryOn>> {
    let has = |word: &str| at.args.iter().any(|arg| arg == word);
    let mut on = Vec::new();
    if has("error") || has("timeout") {
        on.extend([RetryOn::ConnectFailure, RetryOn::Reset]);
    }
    let mut statuses: Vec<u16> =
        at.args.iter().filter_map(|arg| arg.strip_prefix("http_")?.parse().ok()).collect();
    statuses.retain(|status| (400..600).contains(status));
    if [502, 503, 504].iter().all(|status| statuses.contains(status)) {
        on.push(RetryOn::GatewayError);
        statuses.retain(|status| !(502..=504).contains(status));
    }
    on.extend(statuses.into_iter().map(RetryOn::Status));
    let is_default = on.is_empty() || on == [RetryOn::ConnectFailure, RetryOn::Reset];
    (!is_default).then_some(on)
}
