//! What a listener asks of TLS beyond its certificates: who calls, and which ciphers.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Listener, Problem, Protocol, Site, TlsVersion, pem, step};

/// Certificates that downstreams show (mutual TLS).
///
/// As written: files, read where `shoal apply` runs. In the log and in `shoal get`: their texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientAuth {
    /// PEM file with the authorities that are believed; needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The authorities themselves, instead of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// PEM file with lists of revoked certificates, one of every authority that issues one; default none. Certificates of
    /// an authority without a list are refused then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl_file: Option<PathBuf>,
    /// The lists themselves, instead of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl_pem: Option<String>,
    /// Whether a certificate must be shown; default `require`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClientAuthMode>,
    /// Tell endpoints which certificate was verified, in `Client-Cert` (RFC 9440); default false. What downstreams write
    /// into that field never arrives.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forward: bool,
}

/// Whether a certificate must be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// Without a certificate there is no connection.
    #[default]
    Require,
    /// A downstream may show none; one that is not believed ends the connection all the same.
    Optional,
}

/// A cipher suite by its name in the IANA registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "each is the suite of its name")]
pub enum CipherSuite {
    #[serde(rename = "TLS_AES_256_GCM_SHA384")]
    Aes256Gcm,
    #[serde(rename = "TLS_AES_128_GCM_SHA256")]
    Aes128Gcm,
    #[serde(rename = "TLS_CHACHA20_POLY1305_SHA256")]
    Chacha20,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")]
    EcdheEcdsaAes256Gcm,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")]
    EcdheEcdsaAes128Gcm,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")]
    EcdheEcdsaChacha20,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")]
    EcdheRsaAes256Gcm,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")]
    EcdheRsaAes128Gcm,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")]
    EcdheRsaChacha20,
}

impl CipherSuite {
    /// The version of TLS that it belongs to.
    pub fn version(self) -> TlsVersion {
        match self {
            Self::Aes256Gcm | Self::Aes128Gcm | Self::Chacha20 => TlsVersion::V1_3,
            _ => TlsVersion::V1_2,
        }
    }
}

/// What is wrong with what `listener` asks of TLS: problems are told with paths below `path`.
pub(super) fn validate_listener_tls(path: &str, listener: &Listener, problems: &mut Vec<Problem>) {
    let ends_tls = listener.protocol == Protocol::Https;
    let settings =
        [("client_auth", listener.client_auth.is_some()), ("ciphers", !listener.ciphers.is_empty())];
    for (setting, is_there) in settings {
        if is_there && !ends_tls {
            let message = "is about TLS that ends here: it needs `protocol: https`";
            problems.push(Problem::at(format!("{path}.{setting}"), message));
        }
    }
    if let Some(auth) = &listener.client_auth {
        validate_client_auth(&format!("{path}.client_auth"), auth, problems);
    }
    validate_ciphers(&format!("{path}.ciphers"), listener, problems);
}

fn validate_client_auth(path: &str, auth: &ClientAuth, problems: &mut Vec<Problem>) {
    match (&auth.ca_file, &auth.ca_pem) {
        (None, None) => problems.push(Problem::at(path, "needs `ca_file`: whom to believe")),
        (Some(_), Some(_)) => problems.push(Problem::at(path, "has both `ca_file` and `ca_pem`; keep one")),
        _ => {}
    }
    if auth.crl_file.is_some() && auth.crl_pem.is_some() {
        problems.push(Problem::at(path, "has both `crl_file` and `crl_pem`; keep one"));
    }
    for (field, text) in [("ca_pem", &auth.ca_pem), ("crl_pem", &auth.crl_pem)] {
        pem::validate_text(|| format!("{path}.{field}"), text.as_ref(), problems);
    }
}

/// Every version that is spoken needs a suite of its own, and no suite may be without a use.
fn validate_ciphers(path: &str, listener: &Listener, problems: &mut Vec<Problem>) {
    if listener.ciphers.is_empty() {
        return;
    }
    let has = |version| listener.ciphers.iter().any(|suite| suite.version() == version);
    if !has(TlsVersion::V1_3) {
        let message = "none of them is of TLS 1.3; add one, such as TLS_AES_128_GCM_SHA256";
        problems.push(Problem::at(path, message));
    }
    match (listener.min_tls.unwrap_or(TlsVersion::V1_2), has(TlsVersion::V1_2)) {
        (TlsVersion::V1_2, false) => {
            let message = "none of them is of TLS 1.2; add one, or say `min_tls: \"1.3\"`";
            problems.push(Problem::at(path, message));
        }
        (TlsVersion::V1_3, true) => {
            let message = "has suites of TLS 1.2, which have no use with `min_tls: \"1.3\"`";
            problems.push(Problem::at(path, message));
        }
        _ => {}
    }
    for (n, suite) in listener.ciphers.iter().enumerate() {
        if listener.ciphers[..n].contains(suite) {
            problems.push(Problem::at(format!("{path}[{n}]"), "is written twice"));
        }
    }
}

/// Looks into whom listeners believe, as far as the texts are there. `inspect` reads authorities and revocation lists
/// (PEM).
pub fn check_client_auth(
    site: &Site,
    inspect: impl Fn(&str, Option<&str>) -> Result<(), String>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, listener) in &site.listeners {
        let Some(auth) = &listener.client_auth else { continue };
        let looked = auth.ca_pem.as_deref().map(|ca| inspect(ca, auth.crl_pem.as_deref()));
        if let Some(Err(message)) = looked {
            problems.push(Problem::at(format!("listeners.{}.client_auth", step(name)), message));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::read_site;

    #[test]
    fn what_cannot_be_meant_is_told_with_its_place() {
        let check = |listener: &str, expected: Option<(&str, &str)>| {
            let protocol = if listener.contains("protocol") { "" } else { "protocol: https, " };
            let text = format!(
                "listeners:\n  web: {{ address: \":443\", certificates: [c], {protocol}{listener} }}\n\
                certificates:\n  c: {{ chain_file: a, key_file: b }}\n"
            );
            let problems = read_site("site.yaml", &text).map_or_else(|problems| problems.0, |_| Vec::new());
            let of_tls = problems.iter().find(|problem| problem.path != "listeners.web.certificates");
            let seen = of_tls.map(|problem| (problem.path.clone(), problem.message.clone()));
            match (&seen, expected) {
                (None, None) => {}
                (Some((path, message)), Some((at, part))) => {
                    assert_eq!(path, at, "{listener}: {message}");
                    assert!(message.contains(part), "{listener}: {message}");
                }
                (seen, _) => panic!("{listener}: {seen:?}"),
            }
        };
        check("client_auth: { ca_file: a }", None);
        check("client_auth: { ca_pem: a, crl_file: b, mode: optional, forward: true }", None);
        check("client_auth: {}", Some(("listeners.web.client_auth", "needs `ca_file`")));
        check(
            "client_auth: { ca_file: a, ca_pem: b }",
            Some(("listeners.web.client_auth", "both `ca_file`")),
        );
        check(
            "client_auth: { ca_file: a, crl_file: a, crl_pem: b }",
            Some(("listeners.web.client_auth", "both `crl_file`")),
        );
        check(
            "client_auth: { ca_file: a, mode: maybe }",
            Some(("listeners.web.client_auth.mode", "optional")),
        );
        check(
            "client_auth: { ca_file: a }, protocol: tcp, upstream: u",
            Some(("listeners.web.client_auth", "`protocol: https`")),
        );
        let ciphers = Some("listeners.web.ciphers");
        let at_ciphers = |part: &'static str| ciphers.map(|path| (path, part));
        check("ciphers: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]", None);
        check("ciphers: [TLS_AES_128_GCM_SHA256], min_tls: \"1.3\"", None);
        check("ciphers: [TLS_AES_128_GCM_SHA256]", at_ciphers("of TLS 1.2; add one"));
        check("ciphers: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]", at_ciphers("of TLS 1.3; add one"));
        check(
            "ciphers: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256], min_tls: \"1.3\"",
            at_ciphers("no use"),
        );
        check(
            "ciphers: [TLS_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256], min_tls: \"1.3\"",
            Some(("listeners.web.ciphers[1]", "twice")),
        );
        check(
            "ciphers: [TLS_RSA_WITH_3DES_EDE_CBC_SHA]",
            Some(("listeners.web.ciphers[0]", "TLS_CHACHA20_POLY1305_SHA256")),
        );
    }
}
