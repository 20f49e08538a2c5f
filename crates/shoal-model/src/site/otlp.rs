//! Where the spans of sampled requests are sent.

use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Period;

/// Port of OTLP over HTTP.
const DEFAULT_PORT: u16 = 4318;
/// Where collectors take traces.
const DEFAULT_PATH: &str = "/v1/traces";

/// An OpenTelemetry collector that is sent a span of every sampled request, with a child for each try at an endpoint, by
/// OTLP/HTTP in JSON. Requests never wait for it: what it does not take in time is dropped and counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// `http://HOST[:PORT][/PATH]`; default port 4318, default path `/v1/traces`. There is no https: let a collector on the
    /// same machine or network carry them farther.
    pub endpoint: String,
    /// `service.name` of the spans; default `shoal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// Time for one batch of at most 512 requests to be taken; default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}

/// An `endpoint`, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CollectorAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// Reads an `endpoint`.
pub(crate) fn parse_endpoint(text: &str) -> Result<CollectorAddress, String> {
    let form = "it is `http://HOST[:PORT][/PATH]`";
    let uri: Uri = text.parse().map_err(|error| format!("{error}; {form}"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("only http is spoken to a collector; {form}"));
    }
    let authority = uri.authority().ok_or(form)?;
    if authority.as_str().contains('@') || authority.host().is_empty() || uri.query().is_some() {
        return Err(form.to_owned());
    }
    let port = match authority.as_str().rsplit_once(':') {
        Some((_, digits)) if !digits.contains(']') => {
            digits.parse().ok().filter(|port| *port > 0).ok_or(form)?
        }
        _ => DEFAULT_PORT,
    };
    let path = if uri.path() == "/" { DEFAULT_PATH } else { uri.path() };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    Ok(CollectorAddress { host: host.to_owned(), port, path: path.to_owned() })
}

/// What is wrong with `otlp`: the field and why.
pub(super) fn check_otlp(otlp: &Otlp) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    if let Err(message) = parse_endpoint(&otlp.endpoint) {
        wrong.push(("endpoint", message));
    }
    if otlp.service_name.as_ref().is_some_and(|name| name.is_empty() || name.len() > 255) {
        wrong.push(("service_name", "must have 1 to 255 bytes".to_owned()));
    }
    if otlp.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
        wrong.push(("timeout", "must be more than nothing".to_owned()));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_defaults() {
        let check = |text: &str, expected: Option<(&str, u16, &str)>| {
            let found = parse_endpoint(text);
            let found = found.as_ref().ok().map(|at| (at.host.as_str(), at.port, at.path.as_str()));
            assert_eq!(found, expected, "{text}");
        };
        check("http://collector", Some(("collector", 4318, "/v1/traces")));
        check("http://collector:80/", Some(("collector", 80, "/v1/traces")));
        check("http://127.0.0.1:4318/v1/traces", Some(("127.0.0.1", 4318, "/v1/traces")));
        check("http://[::1]/otlp/v1/traces", Some(("::1", 4318, "/otlp/v1/traces")));
        check("http://[::1]:1", Some(("::1", 1, "/v1/traces")));
        check("https://collector", None);
        check("collector:4318", None);
        check("http://user@collector", None);
        check("http://collector:99999", None);
        check("http://collector:0", None);
        check("http://collector/?a=b", None);
        check("http://", None);
        check("", None);
    }
}
