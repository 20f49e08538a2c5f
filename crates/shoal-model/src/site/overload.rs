//! When a node refuses requests of a listener so that it can answer the others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Listener, Problem, Protocol};
use crate::units::{ByteSize, Period};

/// Past these limits new requests are answered 503 with `Retry-After`, except those that the cache can answer at once.
/// What is under way goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overload {
    /// How long what is ready to go on may wait for its worker thread. When it has been longer for a second without a break,
    /// a growing share of requests is refused until it is not. Default 1s: a worker gets there when 16384 connections (the
    /// default of `max_connections`) have all something to do at the same moment. `0s` = never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue_delay: Option<Period>,
    /// Memory of the process, without what it maps from files: from 92 % on connections end with their answer, from 95 % on
    /// requests are refused and connections accepted slowly. Default: the memory limit of the process's control group, if
    /// it has any: past it the kernel would end the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<ByteSize>,
}

/// What is wrong with what `listener` says of overload.
pub(super) fn validate_overload(path: &str, listener: &Listener, problems: &mut Vec<Problem>) {
    let Some(overload) = &listener.overload else { return };
    if !matches!(listener.protocol, Protocol::Http | Protocol::Https) {
        let message = "only listeners that speak HTTP have requests to refuse; see `limits.max_connections`";
        problems.push(Problem::at(format!("{path}.overload"), message));
    }
    if overload.max_memory.is_some_and(|size| size.0 == 0) {
        problems.push(Problem::at(format!("{path}.overload.max_memory"), "must be at least 1"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_site;

    #[test]
    fn what_says_nothing_is_refused_where_it_is_written() {
        let check = |listener: &str, expected: Option<&str>| {
            let text = format!(
                "upstreams: {{ a: {{ endpoints: [\"127.0.0.1:1\"] }} }}\n\
                 listeners:\n  web: {{ address: \":80\", {listener} }}\n"
            );
            let problem = read_site("site.yaml", &text).err().map(|mut problems| problems.0.swap_remove(0));
            assert!(problem.iter().all(|problem| problem.place.is_some()), "{problem:?}");
            assert_eq!(problem.map(|problem| problem.path).as_deref(), expected, "{listener}");
        };
        check("protocol: http, overload: {}", None);
        check("protocol: http, overload: { max_queue_delay: 0s, max_memory: 1GiB }", None);
        check("protocol: http, overload: { max_memory: 0 }", Some("listeners.web.overload.max_memory"));
        check("protocol: tcp, upstream: a, overload: {}", Some("listeners.web.overload"));
        check("protocol: tcp, upstream: a, balance_connections: false", None);
    }
}
