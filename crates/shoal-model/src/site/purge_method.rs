//! Who may forget an object by asking for it with the method `PURGE`.

use http::HeaderName;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Problem;
use super::network::networks;

/// Who may purge by the method `PURGE`: callers in `networks`, who know the token, or both where both are given. Without
/// this rule `PURGE` is a method like any other, and goes to the upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeMethod {
    /// Networks of callers, behind `trusted_proxies` of the clients they name; none = any.
    #[serde(deserialize_with = "networks", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub networks: Vec<IpNet>,
    /// SHA-256 of the token that callers send, as 64 hexadecimal digits (`printf %s TOKEN | sha256sum`); absent = none is
    /// asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<String>,
    /// The field that carries the token; default `X-Purge-Token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_header: Option<String>,
}

/// The 32 bytes that are written as 64 digits.
pub(crate) fn read_sha256(written: &str) -> Option<[u8; 32]> {
    let digits = written.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

/// Checks that somebody has to show something, and that what is written can be read.
pub(super) fn validate(path: &str, rule: &PurgeMethod, problems: &mut Vec<Problem>) {
    if rule.networks.is_empty() && rule.token_sha256.is_none() {
        let message = "needs `networks` or `token_sha256`: anybody could purge";
        problems.push(Problem::at(path, message));
    }
    if rule.token_sha256.as_deref().is_some_and(|written| read_sha256(written).is_none()) {
        let message = "is not a SHA-256 in 64 hexadecimal digits; `printf %s TOKEN | sha256sum` prints one";
        problems.push(Problem::at(format!("{path}.token_sha256"), message));
    }
    let Some(header) = &rule.token_header else { return };
    let path = format!("{path}.token_header");
    // Names with `_` are refused before anybody reads them.
    if header.contains('_') || HeaderName::from_bytes(header.as_bytes()).is_err() {
        problems.push(Problem::at(path, format!("{header:?} is not the name of a field")));
    } else if rule.token_sha256.is_none() {
        problems.push(Problem::no_effect(path, "no token is asked for without `token_sha256`"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_site;

    #[test]
    fn whoever_may_purge_has_to_show_something() {
        let check = |settings: &str, expected: Option<&str>| {
            let text = format!(
                "listeners:\n  l: {{ address: \":80\", protocol: http }}\n\
                 upstreams:\n  u: {{ endpoints: [\"127.0.0.1:1\"] }}\n\
                 routes:\n  r: {{ upstream: u, cache: {{ purge_method: {{ {settings} }} }} }}\n"
            );
            let found = read_site("site.yaml", &text).err().map(|problems| problems.0[0].to_string());
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some(part)) => {
                    assert!(found.contains(part) && found.contains("purge_method"), "{settings}: {found}");
                }
                _ => panic!("{settings}: {found:?}"),
            }
        };
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00A08";
        check("networks: [10.0.0.0/8]", None);
        check(&format!("token_sha256: \"{hash}\""), None);
        check(&format!("token_sha256: \"{hash}\", token_header: X-Secret"), None);
        check("", Some("anybody could purge"));
        check("networks: [anywhere]", Some("is no network"));
        check("token_sha256: \"secret\"", Some("is not a SHA-256"));
        check(&format!("token_sha256: \"g{}\"", &hash[1..]), Some("is not a SHA-256"));
        check(&format!("token_sha256: \"{hash}\", token_header: a b"), Some("is not the name of a field"));
        check("networks: [10.0.0.0/8], token_header: X-Secret", Some("no token is asked for"));
    }
}
