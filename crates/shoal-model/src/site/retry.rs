//! When a request is sent again.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer, de};

use super::problem::Problem;
use crate::units::{ByteSize, Period};

/// Most tries of one request.
const MAX_ATTEMPTS: u32 = 10;
/// Most bytes of a request body that may be kept for another try.
const MAX_REPLAY_BYTES: u64 = 16 << 20;

/// When a request is sent again: another endpoint first, after a random pause, never once a part of the answer went
/// downstream, and within the retry budget of the upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRule {
    /// What is worth another try; default `[connect_failure, reset]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<RetryOn>>,
    /// Tries of one request, the first included; default 3, 1 = none is repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// From the start of a try to its response head; past it, the endpoint is given up and another one tried. Default
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Period>,
    /// Methods that may be sent twice; default those that are idempotent (GET, HEAD, OPTIONS, TRACE, PUT, DELETE).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// Most of a request body that is kept for another try; default 64KiB, 0 = only requests without a body are repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replay_bytes: Option<ByteSize>,
}

/// What is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection came about: nothing was sent.
    ConnectFailure,
    /// The connection was lost before the answer began.
    Reset,
    /// The answer is 502, 503 or 504.
    GatewayError,
    /// The answer has this status.
    Status(u16),
}

impl RetryOn {
    const NAMES: [(&'static str, Self); 3] = [
        ("connect_failure", Self::ConnectFailure),
        ("reset", Self::Reset),
        ("gateway_error", Self::GatewayError),
    ];
}

impl Serialize for RetryOn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::ConnectFailure => serializer.serialize_str("connect_failure"),
            Self::Reset => serializer.serialize_str("reset"),
            Self::GatewayError => serializer.serialize_str("gateway_error"),
            Self::Status(status) => serializer.serialize_u16(*status),
        }
    }
}

impl<'de> Deserialize<'de> for RetryOn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrStatus;
        impl Visitor<'_> for NameOrStatus {
            type Value = RetryOn;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("connect_failure, reset, gateway_error or a status from 400 to 599")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RetryOn, E> {
                let known = RetryOn::NAMES.into_iter().find(|(name, _)| *name == text);
                let status = || text.parse().ok().map(RetryOn::Status);
                let found = known.map(|(_, on)| on).or_else(status);
                found.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: de::Error>(self, status: u64) -> Result<RetryOn, E> {
                let status = u16::try_from(status);
                let invalid = |_| E::custom("a status has three digits");
                status.map(RetryOn::Status).map_err(invalid)
            }

            fn visit_i64<E: de::Error>(self, status: i64) -> Result<RetryOn, E> {
                let status = u16::try_from(status);
                let invalid = |_| E::custom("a status has three digits");
                status.map(RetryOn::Status).map_err(invalid)
            }
        }
        deserializer.deserialize_any(NameOrStatus)
    }
}

impl JsonSchema for RetryOn {
    fn schema_name() -> Cow<'static, str> {
        "RetryOn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "enum": ["connect_failure", "reset", "gateway_error"] },
            { "type": "integer", "minimum": 400, "maximum": 599 },
        ] })
    }
}

/// Whether a rule means anything.
pub(super) fn validate_retry(path: &str, retry: &RetryRule, problems: &mut Vec<Problem>) {
    for (n, on) in retry.on.iter().flatten().enumerate() {
        if let RetryOn::Status(status) = on
            && !(400..600).contains(status)
        {
            let message = format!("{status} is not a status worth another try; they are 400 to 599");
            problems.push(Problem::at(format!("{path}.on[{n}]"), message));
        }
    }
    if retry.attempts.is_some_and(|attempts| !(1..=MAX_ATTEMPTS).contains(&attempts)) {
        problems.push(Problem::at(format!("{path}.attempts"), format!("must be 1 to {MAX_ATTEMPTS}")));
    }
    if retry.per_try_timeout.is_some_and(|timeout| timeout.0.as_millis() < 10) {
        problems.push(Problem::at(format!("{path}.per_try_timeout"), "must be at least 10ms"));
    }
    if retry.max_replay_bytes.is_some_and(|size| size.0 > MAX_REPLAY_BYTES) {
        problems.push(Problem::at(format!("{path}.max_replay_bytes"), "must be at most 16MiB"));
    }
    for (n, method) in retry.methods.iter().flatten().enumerate() {
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
            let message = format!("{method:?} is not a method; they are upper case, as in POST");
            problems.push(Problem::at(format!("{path}.methods[{n}]"), message));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::site::read_site;

    #[test]
    fn rules_are_read_and_looked_through() {
        let check = |rule: &str, complaint: Option<&str>| {
            let text = format!(
                "listeners:\n  web: {{ address: \":80\", protocol: http }}\n\
                 routes:\n  all:\n    upstream: app\n    retry: {rule}\n\
                 upstreams:\n  app: {{ endpoints: [\"10.0.0.1:80\"] }}\n"
            );
            let problems = read_site("site.yaml", &text).err().map(|problems| problems.to_string());
            match (problems, complaint) {
                (None, None) => {}
                (Some(problems), Some(complaint)) => {
                    assert!(problems.contains(complaint), "{rule}: {problems}");
                    assert!(problems.contains("site.yaml:"), "{rule}: {problems}");
                }
                (problems, _) => panic!("{rule}: {problems:?}"),
            }
        };
        check("{}", None);
        check("{ on: [connect_failure, reset, gateway_error, 429, 503], attempts: 2 }", None);
        check("{ per_try_timeout: 250ms, methods: [GET, POST], max_replay_bytes: 1MiB }", None);
        check("{ on: [sunshine] }", Some("sunshine"));
        check("{ on: [200] }", Some("400 to 599"));
        check("{ attempts: 0 }", Some("must be 1 to 10"));
        check("{ per_try_timeout: 1ms }", Some("at least 10ms"));
        check("{ max_replay_bytes: 1GiB }", Some("at most 16MiB"));
        check("{ methods: [post] }", Some("not a method"));
        check("{ tries: 3 }", Some("tries"));
    }
}
