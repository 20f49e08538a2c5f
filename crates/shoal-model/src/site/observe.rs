//! What a listener writes down of its requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::otlp::check_otlp;
use super::{Listener, Otlp, Problem, Protocol};
use crate::log_format::{LogSubject, parse_format};

/// Where and how the requests of a listener are logged, or the connections of one that carries them as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// `json` (the default): one object a line with every field; else a template such as
    /// `"${client_addr} ${method} ${target} ${status} ${total_us}"`. Fields are named as in the JSON line; one that has no
    /// value is `-`, and what would break the line is written as `\xHH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Absolute path of the file on each node; it is opened anew when it was renamed. Default: the node's standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Share of requests or connections that are logged, 0 to 1; default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<f64>,
}

/// W3C trace context: `traceparent` is checked and passed on with a parent id of this node, which the access log names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// Share of requests without a `traceparent` for which a trace is begun, 0 to 1; default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<f64>,
    /// Where spans are sent: of traces that are begun here, and of those whose `traceparent` says that they are sampled.
    /// Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Otlp>,
}

/// What is wrong with what `listener` is to write down.
pub(super) fn validate_observation(path: &str, listener: &Listener, problems: &mut Vec<Problem>) {
    let mut refuse = |field: &str, message: String| {
        problems.push(Problem::at(format!("{path}.{field}"), message));
    };
    let subject = log_subject(listener.protocol);
    if let Some(log) = &listener.access_log {
        if let Some(Err(message)) = log.format.as_deref().map(|format| parse_format(format, subject)) {
            refuse("access_log.format", message);
        }
        if log.path.as_ref().is_some_and(|path| !path.starts_with('/') || path.ends_with('/')) {
            refuse("access_log.path", "must be the absolute path of a file".to_owned());
        }
        if log.sample.is_some_and(is_no_share) {
            refuse("access_log.sample", "must be a share from 0 to 1".to_owned());
        }
    }
    if let Some(tracing) = &listener.tracing {
        if subject != LogSubject::Request {
            refuse("tracing", "only listeners that speak HTTP have requests to trace".to_owned());
        }
        if tracing.sample.is_some_and(is_no_share) {
            refuse("tracing.sample", "must be a share from 0 to 1".to_owned());
        }
        for (field, message) in tracing.otlp.iter().flat_map(check_otlp) {
            refuse(&format!("tracing.otlp.{field}"), message);
        }
    }
}

/// What the lines of a listener are about.
pub(crate) fn log_subject(protocol: Protocol) -> LogSubject {
    match protocol {
        Protocol::Http | Protocol::Https => LogSubject::Request,
        Protocol::Tcp | Protocol::TlsPassthrough => LogSubject::Connection,
    }
}

fn is_no_share(sample: f64) -> bool {
    !(0.0..=1.0).contains(&sample)
}

#[cfg(test)]
mod tests {
    use super::super::read_site;

    #[test]
    fn what_cannot_be_logged_is_refused_where_it_is_written() {
        let check_on = |protocol: &str, setting: &str, expected: Option<(&str, &str)>| {
            let text = format!(
                "listeners:\n  web: {{ address: \":80\", protocol: {protocol}, {setting} }}\n\
                 upstreams:\n  u: {{ endpoints: [\"h:1\"] }}\n"
            );
            let problem = read_site("site.yaml", &text).err().map(|mut problems| problems.0.swap_remove(0));
            assert!(problem.iter().all(|problem| problem.place.is_some()), "{problem:?}");
            let found = problem.map(|problem| (problem.path, problem.message));
            match (found, expected) {
                (None, None) => {}
                (Some((path, message)), Some((field, part))) => {
                    assert_eq!(path, format!("listeners.web.{field}"), "{setting}");
                    assert!(message.contains(part), "{setting}: {message}");
                }
                (found, expected) => panic!("{setting}: {found:?}, not {expected:?}"),
            }
        };
        let check = |setting: &str, expected| check_on("http", setting, expected);
        let carried = |setting: &str, expected| {
            check_on("tcp", &format!("upstream: u, {setting}"), expected);
            check_on("tls_passthrough", &format!("sni: {{ a: u }}, {setting}"), expected);
        };
        carried("access_log: { path: /var/log/a.log, sample: 0.5 }", None);
        carried("access_log: { format: \"${client_addr} ${server_name} ${reason}\" }", None);
        carried("access_log: { format: \"${target}\" }", Some(("access_log.format", "a connection")));
        carried("tracing: {}", Some(("tracing", "requests")));
        check("access_log: {}", None);
        check("access_log: { format: json, path: /var/log/a.log, sample: 0.5 }", None);
        check("access_log: { format: \"${status} $${x} ${target}\" }", None);
        check("access_log: { format: \"${stauts}\" }", Some(("access_log.format", "stauts")));
        check("access_log: { format: \"${status\" }", Some(("access_log.format", "never closed")));
        check("access_log: { path: a.log }", Some(("access_log.path", "absolute")));
        check("access_log: { sample: 1.5 }", Some(("access_log.sample", "0 to 1")));
        check("tracing: { sample: 0.01 }", None);
        check("tracing: { otlp: { endpoint: \"http://collector\" } }", None);
        check("tracing: { otlp: { endpoint: collector } }", Some(("tracing.otlp.endpoint", "http://HOST")));
        let without = "tracing: { otlp: { endpoint: \"http://a\", service_name: \"\" } }";
        check(without, Some(("tracing.otlp.service_name", "255")));
        let never = "tracing: { otlp: { endpoint: \"http://a\", timeout: 0s } }";
        check(never, Some(("tracing.otlp.timeout", "more")));
        check("tracing: { sample: -1 }", Some(("tracing.sample", "0 to 1")));
        assert!(read_site("site.yaml", "listeners:\n  web: { access_log: { fromat: json } }\n").is_err());
    }
}
