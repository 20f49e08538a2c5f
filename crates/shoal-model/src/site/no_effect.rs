//! Settings that would change nothing: whoever writes them takes them for something else.

use super::{Balance, Problem, Route, Upstream, UpstreamProtocol};

/// What of `upstream` has no effect, because of how the rest is set.
pub(super) fn validate_upstream(path: &str, upstream: &Upstream, problems: &mut Vec<Problem>) {
    let hashes = upstream.balance.unwrap_or_default() == Balance::ConsistentHash;
    let speaks_h2 = upstream.protocol.unwrap_or_default() != UpstreamProtocol::Http1;
    let by_hash = "only `balance: consistent_hash` goes by a hash";
    let in_h2 = "only HTTP/2 has it: `protocol: h2c` in clear text, `h2` or `auto` over `tls`";
    let queued = "nobody waits without `max_requests`";
    let written = [
        ("hash_key", upstream.hash_key.is_some() && !hashes, by_hash),
        ("hash_balance_factor", upstream.hash_balance_factor.is_some() && !hashes, by_hash),
        ("ping_interval", upstream.ping_interval.is_some() && !speaks_h2, in_h2),
        (
            "ping_timeout",
            upstream.ping_timeout.is_some() && upstream.ping_interval.is_none(),
            "nobody is asked without `ping_interval`",
        ),
        ("max_streams_per_connection", upstream.max_streams_per_connection.is_some() && !speaks_h2, in_h2),
        ("queue_timeout", upstream.queue_timeout.is_some() && upstream.max_requests.is_none(), queued),
    ];
    for (field, _, why) in written.into_iter().filter(|(_, has_none, _)| *has_none) {
        problems.push(Problem::no_effect(format!("{path}.{field}"), why));
    }
}

/// What of `route` has no effect.
pub(super) fn validate_route(path: &str, route: &Route, problems: &mut Vec<Problem>) {
    let per_try = route.retry.as_ref().and_then(|retry| retry.per_try_timeout);
    let total = route.timeouts.as_ref().and_then(|timeouts| timeouts.total);
    if let (Some(per_try), Some(total)) = (per_try, total)
        && per_try.0 > total.0
    {
        let why = "it is longer than `timeouts.total`, which ends the whole exchange before";
        problems.push(Problem::no_effect(format!("{path}.retry.per_try_timeout"), why));
    }
}

#[cfg(test)]
mod tests {
    use crate::site::{parse_site, read_site, validate_next};
    use crate::{ConfigView, Revision};

    #[test]
    fn what_is_like_that_already_stays() {
        let text = |upstream: &str| {
            let site = format!("upstreams:\n  u: {{ endpoints: [\"h:1\"]{upstream} }}\n");
            parse_site("site.yaml", &site).unwrap()
        };
        let (vain, good) = (text(", hash_key: path"), text(""));
        let more = text(", hash_key: path, queue_timeout: 1s");
        for (next, active, expected) in
            [(&vain, &good, 1), (&vain, &vain, 0), (&more, &vain, 1), (&good, &vain, 0)]
        {
            let problems = validate_next(next, active);
            assert_eq!(problems.len(), expected, "{problems:?}");
        }
    }

    #[test]
    fn what_has_no_effect_is_refused_where_it_is_written() {
        let check = |upstream: &str, route: &str, expected: &[&str]| {
            let text = format!(
                "routes:\n  r: {{ upstream: u{route} }}\nupstreams:\n  u: {{ endpoints: [\"h:1\"]{upstream} }}\n"
            );
            let problems = read_site("site.yaml", &text).err().map(|problems| problems.0).unwrap_or_default();
            let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
            assert_eq!(paths, expected, "{upstream} {route}: {problems:?}");
            assert!(problems.iter().all(|problem| problem.place.is_some()), "{problems:?}");
            let site = parse_site("site.yaml", &text).unwrap();
            assert!(ConfigView::compile(Revision(1), &site).is_ok(), "it is served if it is in force");
        };
        let hashed = ", hash_key: address, hash_balance_factor: 150";
        check(&format!("{hashed}, balance: consistent_hash"), "", &[]);
        check(hashed, "", &["upstreams.u.hash_key", "upstreams.u.hash_balance_factor"]);
        check(", balance: round_robin, hash_key: path", "", &["upstreams.u.hash_key"]);
        let h2 = ", ping_interval: 5m, max_streams_per_connection: 10";
        check(&format!("{h2}, protocol: h2c"), "", &[]);
        check(&format!("{h2}, protocol: auto, tls: {{}}"), "", &[]);
        let both = ["upstreams.u.ping_interval", "upstreams.u.max_streams_per_connection"];
        check(h2, "", &both);
        check(&format!("{h2}, protocol: http1"), "", &both);
        check(", ping_timeout: 1s, ping_interval: 5m, protocol: h2c", "", &[]);
        check(", ping_timeout: 1s, protocol: h2c", "", &["upstreams.u.ping_timeout"]);
        check(", queue_timeout: 1s, max_requests: 5", "", &[]);
        check(", queue_timeout: 1s", "", &["upstreams.u.queue_timeout"]);
        let retry = |per_try: &str, total: &str| {
            format!(", retry: {{ per_try_timeout: {per_try} }}, timeouts: {{ {total} }}")
        };
        check("", &retry("2s", ""), &[]);
        check("", &retry("2s", "total: 2s"), &[]);
        check("", &retry("2001ms", "total: 2s"), &["routes.r.retry.per_try_timeout"]);
    }
}
