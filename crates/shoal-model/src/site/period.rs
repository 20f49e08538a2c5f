//! Times of nothing: `0s` is refused wherever it would let everything fail at once, and the complaint says what to write
//! instead.
//!
//! It is taken where it means something: `queue_timeout`, `fill_queue_timeout` and `expect_continue` (nobody waits), `max_stale_on_disconnect`
//! (nothing stale), `slow_start` and `max_queue_delay` (off), those of answers over DNS (not kept). Settings with a least time
//! of their own are checked with their nouns.

use super::{Listener, Problem, Route, Site, Upstream, step};
use crate::units::Period;

const OR_LONG: &str = "leave it out for the default, or write a long time (`1d`)";
const OR_ABSENT: &str = "leave it out for none";
const OR_KERNEL: &str = "leave it out for the kernel's";
const OR_ONE_REQUEST: &str = "`max_requests_per_connection: 1` uses a connection only once";
const OR_NO_RATE: &str = "`min_rate: 0` asks for no minimum";
const OR_NO_EJECTION: &str = "`consecutive_errors: 0` keeps endpoints from being ejected";

/// A setting below its object, what was written, and what to write instead of nothing.
type Setting = (&'static str, Option<Period>, &'static str);

/// Refuses every time of nothing in `site` that would be an outage.
pub(super) fn validate_periods(site: &Site, problems: &mut Vec<Problem>) {
    for (name, listener) in &site.listeners {
        refuse_nothing("listeners", name, of_listener(listener), problems);
    }
    for (name, route) in &site.routes {
        refuse_nothing("routes", name, of_route(route), problems);
    }
    for (name, upstream) in &site.upstreams {
        refuse_nothing("upstreams", name, of_upstream(upstream), problems);
    }
}

fn refuse_nothing(kind: &str, name: &str, settings: Vec<Setting>, problems: &mut Vec<Problem>) {
    for (field, period, instead) in settings {
        if period.is_some_and(|period| period.0.is_zero()) {
            let message = format!("a time of 0 would be over at once; {instead}");
            problems.push(Problem::at(format!("{kind}.{}.{field}", step(name)), message));
        }
    }
}

fn of_listener(listener: &Listener) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(proxy) = &listener.proxy_protocol {
        settings.push(("proxy_protocol.timeout", proxy.timeout, OR_LONG));
    }
    if let Some(limits) = &listener.limits {
        settings.extend([
            ("limits.tls_handshake_timeout", limits.tls_handshake_timeout, OR_LONG),
            ("limits.header_timeout", limits.header_timeout, OR_LONG),
            ("limits.body_idle_timeout", limits.body_idle_timeout, OR_LONG),
            ("limits.write_idle_timeout", limits.write_idle_timeout, OR_LONG),
            ("limits.min_rate_window", limits.min_rate_window, OR_NO_RATE),
            ("limits.keepalive_timeout", limits.keepalive_timeout, OR_ONE_REQUEST),
            ("limits.max_connection_age", limits.max_connection_age, OR_ONE_REQUEST),
            ("limits.tunnel_idle_timeout", limits.tunnel_idle_timeout, OR_LONG),
            ("limits.tcp_user_timeout", limits.tcp_user_timeout, OR_KERNEL),
        ]);
    }
    settings
}

fn of_route(route: &Route) -> Vec<Setting> {
    let Some(timeouts) = &route.timeouts else { return Vec::new() };
    vec![
        ("timeouts.first_byte", timeouts.first_byte, OR_LONG),
        ("timeouts.idle", timeouts.idle, OR_LONG),
        ("timeouts.total", timeouts.total, OR_ABSENT),
    ]
}

fn of_upstream(upstream: &Upstream) -> Vec<Setting> {
    let mut settings = vec![
        ("connect_timeout", upstream.connect_timeout, OR_LONG),
        ("idle_timeout", upstream.idle_timeout, OR_ONE_REQUEST),
        ("max_connection_age", upstream.max_connection_age, OR_ONE_REQUEST),
        ("ping_timeout", upstream.ping_timeout, OR_LONG),
        ("tcp_user_timeout", upstream.tcp_user_timeout, OR_KERNEL),
    ];
    if let Some(passive) = &upstream.passive {
        settings.extend([
            ("passive.base_ejection", passive.base_ejection, OR_NO_EJECTION),
            ("passive.max_ejection", passive.max_ejection, OR_NO_EJECTION),
        ]);
    }
    settings
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Site, parse_site, validate};

    /// Every time that a site can hold, and whether `0s` is taken there.
    const SETTINGS: [(&str, bool); 42] = [
        ("/listeners/l/proxy_protocol/timeout", false),
        ("/listeners/l/limits/tls_handshake_timeout", false),
        ("/listeners/l/limits/header_timeout", false),
        ("/listeners/l/limits/body_idle_timeout", false),
        ("/listeners/l/limits/write_idle_timeout", false),
        ("/listeners/l/limits/min_rate_window", false),
        ("/listeners/l/limits/keepalive_timeout", false),
        ("/listeners/l/limits/max_connection_age", false),
        ("/listeners/l/limits/tunnel_idle_timeout", false),
        ("/listeners/l/limits/tcp_keepalive", false),
        ("/listeners/l/limits/tcp_user_timeout", false),
        ("/listeners/l/tracing/otlp/timeout", false),
        ("/listeners/l/overload/max_queue_delay", true),
        ("/routes/r/timeouts/first_byte", false),
        ("/routes/r/timeouts/expect_continue", true),
        ("/routes/r/timeouts/idle", false),
        ("/routes/r/timeouts/total", false),
        ("/routes/r/retry/per_try_timeout", false),
        ("/routes/r/cache/max_stale_on_disconnect", true),
        ("/routes/r/cache/negative_ttl/404", false),
        ("/routes/r/cache/error_ttl", false),
        ("/upstreams/u/slow_start", true),
        ("/upstreams/u/queue_timeout", true),
        ("/upstreams/u/fill_queue_timeout", true),
        ("/upstreams/u/ping_interval", false),
        ("/upstreams/u/ping_timeout", false),
        ("/upstreams/u/connect_timeout", false),
        ("/upstreams/u/idle_timeout", false),
        ("/upstreams/u/max_connection_age", false),
        ("/upstreams/u/tcp_keepalive", false),
        ("/upstreams/u/tcp_user_timeout", false),
        ("/upstreams/u/passive/base_ejection", false),
        ("/upstreams/u/passive/max_ejection", false),
        ("/upstreams/u/passive/success_rate/interval", false),
        ("/upstreams/u/health/interval", false),
        ("/upstreams/u/health/timeout", false),
        ("/upstreams/u/sticky/ttl", false),
        ("/upstreams/u/resolver/timeout", false),
        ("/upstreams/u/resolver/min_ttl", false),
        ("/upstreams/u/resolver/max_ttl", false),
        ("/dns_zones/example/ttl", true),
        ("/dns_zones/example/negative_ttl", true),
    ];

    fn problems_with(pointer: &str, period: &str) -> Vec<String> {
        let mut site = json!({
            "listeners": { "l": {
                "address": ":80", "protocol": "http", "limits": {}, "overload": {},
                "proxy_protocol": { "trusted": ["10.0.0.0/8"] },
                "tracing": { "otlp": { "endpoint": "http://collector" } },
            } },
            "routes": { "r": { "upstream": "u", "timeouts": {}, "retry": {}, "cache": { "negative_ttl": {} } } },
            "upstreams": { "u": {
                "endpoints": ["h:1"], "passive": { "success_rate": {} }, "health": { "tcp": {} },
                "sticky": { "name": "node" }, "resolver": {}, "protocol": "h2c", "max_requests": 9,
                "ping_interval": "5m",
            } },
            "dns_zones": { "example": { "nameservers": { "ns.example": ["192.0.2.1"] } } },
        });
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        site.pointer_mut(parent).unwrap()[field] = Value::from(period);
        let site = parse_site("site.json", &site.to_string()).unwrap();
        validate(&site).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_time_of_nothing_is_an_outage() {
        for (pointer, taken) in SETTINGS {
            for nothing in ["0s", "0.1ms"] {
                let problems = problems_with(pointer, nothing);
                assert_eq!(problems.len(), usize::from(!taken), "{pointer}: {problems:?}");
                let path = pointer[1..].replace('/', ".");
                assert!(problems.iter().all(|problem| problem.starts_with(&path)), "{problems:?}");
            }
            let something = if pointer.ends_with("error_ttl") { "5s" } else { "1m" };
            assert_eq!(problems_with(pointer, something), Vec::<String>::new(), "{pointer}");
        }
        let schema = Site::json_schema().to_string();
        let known = schema.matches("\"#/$defs/Period\"").count();
        assert_eq!(known, SETTINGS.len(), "a time that is not in the table");
    }

    #[test]
    fn a_complaint_says_what_to_write_instead() {
        let check = |pointer: &str, expected: &str| {
            let problems = problems_with(pointer, "0s");
            assert!(problems[0].contains(expected), "{pointer}: {problems:?}");
        };
        check("/routes/r/timeouts/total", "leave it out for none");
        check("/routes/r/timeouts/first_byte", "or write a long time (`1d`)");
        check("/listeners/l/limits/keepalive_timeout", "`max_requests_per_connection: 1`");
        check("/listeners/l/limits/tcp_keepalive", "must be at least 1s");
        check("/upstreams/u/health/interval", "at least 50ms");
    }
}
