//! How the endpoints of an upstream are spoken to: in clear text or by TLS, in which version of HTTP.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pin::Pin;
use super::{Certificate, Problem, ProblemKind, Upstream, pem};
use crate::address::EndpointAddress;

/// The version of HTTP spoken to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1: a connection for each request under way.
    #[default]
    Http1,
    /// HTTP/2 over TLS, and nothing else.
    H2,
    /// HTTP/2 in clear text, known to be spoken beforehand.
    H2c,
    /// HTTP/2 where the endpoint offers it in the TLS handshake (ALPN), else HTTP/1.1.
    Auto,
}

/// TLS towards endpoints. `{}` verifies them by the roots of the node's system and the host they are written with.
///
/// As written: `ca_file` is read where `shoal apply` runs. In the log and in `shoal get`: its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// PEM file with the authorities that are believed, and perhaps with the certificates of endpoints themselves, which are
    /// believed for these endpoints alone unless they are authorities (`CA:TRUE`); absent = those of the node's system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The authorities themselves, instead of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// Name that is asked for (SNI) and verified; default the host of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Verify the endpoint's certificate; default true. `false` lets anybody in between read and change everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// Name of the certificate shown to endpoints that ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// SHA-256 digests of public keys (SubjectPublicKeyInfo), in base64; only an endpoint whose own certificate has one of
    /// these keys is spoken to. In addition to what `verify` says; default any key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
}

/// What is wrong with how the endpoints of `upstream` shall be spoken to: problems are told with paths below `path`.
pub(super) fn validate_transport(
    path: &str,
    upstream: &Upstream,
    certificates: &BTreeMap<String, Certificate>,
    problems: &mut Vec<Problem>,
) {
    let protocol = upstream.protocol.unwrap_or_default();
    let clash = match (protocol, &upstream.tls) {
        (UpstreamProtocol::H2, None) => Some("`h2` is spoken over `tls: {}`; in clear text it is `h2c`"),
        (UpstreamProtocol::H2c, Some(_)) => Some("`h2c` is clear text; over `tls` it is `h2` or `auto`"),
        (UpstreamProtocol::Auto, None) => Some("`auto` is settled in the TLS handshake: it needs `tls: {}`"),
        _ => None,
    };
    if let Some(message) = clash {
        problems.push(Problem::at(format!("{path}.protocol"), message));
    }
    if protocol != UpstreamProtocol::Http1 && upstream.proxy_protocol.is_some() {
        let message =
            "with `proxy_protocol` every caller has connections of its own: only `http1` can be spoken";
        problems.push(Problem::at(format!("{path}.protocol"), message));
    }
    if upstream.max_streams_per_connection == Some(0) {
        problems.push(Problem::at(format!("{path}.max_streams_per_connection"), "must be at least 1"));
    }
    if upstream.ping_interval.is_some_and(|period| period.0.as_millis() < 1000) {
        problems.push(Problem::at(format!("{path}.ping_interval"), "must be at least 1s"));
    }
    if let Some(tls) = &upstream.tls {
        validate_tls(path, tls, upstream, certificates, problems);
    }
}

fn validate_tls(
    path: &str,
    tls: &UpstreamTls,
    upstream: &Upstream,
    certificates: &BTreeMap<String, Certificate>,
    problems: &mut Vec<Problem>,
) {
    if tls.ca_file.is_some() && tls.ca_pem.is_some() {
        problems.push(Problem::at(format!("{path}.tls"), "has both `ca_file` and `ca_pem`; keep one"));
    }
    pem::validate_text(|| format!("{path}.tls.ca_pem"), tls.ca_pem.as_ref(), problems);
    if tls.verify == Some(false) && (tls.ca_file.is_some() || tls.ca_pem.is_some()) {
        let message = "nothing is verified: authorities have no use with `verify: false`";
        problems.push(Problem::at(format!("{path}.tls.verify"), message));
    }
    if let Some(name) = &tls.client_certificate
        && !certificates.contains_key(name)
    {
        let message = format!("there is no certificate {name:?}");
        let problem = Problem::at(format!("{path}.tls.client_certificate"), message);
        problems.push(problem.of_kind(ProblemKind::Absent));
    }
    match &tls.server_name {
        Some(name) => {
            if !is_server_name(name) {
                let message = format!("{name:?} is neither a host name nor an address");
                problems.push(Problem::at(format!("{path}.tls.server_name"), message));
            }
        }
        None => {
            let is_path =
                |address: &str| matches!(EndpointAddress::parse(address), Ok(EndpointAddress::Unix(_)));
            if upstream.endpoints.iter().any(|endpoint| is_path(&endpoint.address)) {
                let message = "needs `server_name`: a Unix socket has no host to verify";
                problems.push(Problem::at(format!("{path}.tls"), message));
            }
        }
    }
}

/// A name that can be asked for in a TLS handshake: an address, or labels of letters, digits, `-` and `_`.
fn is_server_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.parse::<std::net::IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(label))
}

#[cfg(test)]
mod tests {
    use crate::site::read_site;

    #[test]
    fn what_cannot_be_spoken_is_said_with_its_place() {
        let check = |upstream: &str, expected: Option<(&str, &str)>| {
            let text = format!(
                "upstreams:\n  app: {{ endpoints: [\"unix:/run/app.sock\", \"10.0.0.1:80\"], {upstream} }}\n"
            );
            let site = read_site("site.yaml", &text).map_err(|problems| problems.0[0].clone());
            let seen = site.err().map(|problem| (problem.path.clone(), problem.message.clone()));
            let seen = seen.as_ref().map(|(path, message)| (path.as_str(), message.as_str()));
            match (seen, expected) {
                (None, None) => {}
                (Some((path, message)), Some((at, part))) => {
                    assert_eq!(path, at, "{upstream}: {message}");
                    assert!(message.contains(part), "{upstream}: {message}");
                }
                (seen, _) => panic!("{upstream}: {seen:?}"),
            }
        };
        check("protocol: h2c", None);
        check("protocol: http1", None);
        check("protocol: h2, tls: { server_name: app.internal }", None);
        check("protocol: auto, tls: { server_name: 10.0.0.9, verify: false }", None);
        check("protocol: h2", Some(("upstreams.app.protocol", "`h2c`")));
        check("protocol: auto", Some(("upstreams.app.protocol", "`tls: {}`")));
        check("protocol: h2c, tls: { server_name: a }", Some(("upstreams.app.protocol", "clear text")));
        check("protocol: h2c, proxy_protocol: v2", Some(("upstreams.app.protocol", "`proxy_protocol`")));
        check("tls: {}", Some(("upstreams.app.tls", "`server_name`")));
        check("tls: { server_name: \"a b\" }", Some(("upstreams.app.tls.server_name", "neither")));
        check(
            "tls: { server_name: a, ca_file: a, ca_pem: b }",
            Some(("upstreams.app.tls", "both `ca_file` and `ca_pem`")),
        );
        check(
            "tls: { server_name: a, ca_file: a, verify: false }",
            Some(("upstreams.app.tls.verify", "nothing is verified")),
        );
        check(
            "tls: { server_name: a, client_certificate: me }",
            Some(("upstreams.app.tls.client_certificate", "no certificate \"me\"")),
        );
        check(
            "protocol: h2c, max_streams_per_connection: 0",
            Some(("upstreams.app.max_streams_per_connection", "at least 1")),
        );
        check("protocol: h2c, ping_interval: 10ms", Some(("upstreams.app.ping_interval", "at least 1s")));
    }
}
