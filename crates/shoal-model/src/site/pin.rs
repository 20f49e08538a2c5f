//! The digest of a public key that an endpoint must have.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

/// SHA-256 of a public key with its algorithm (SubjectPublicKeyInfo, DER); written in base64, as curl's `--pinnedpubkey`
/// takes it, with or without `sha256//` in front.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    fn parse(text: &str) -> Option<Self> {
        let digest = text.strip_prefix("sha256//").unwrap_or(text);
        STANDARD.decode(digest).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(
                "is not a SHA-256 digest in base64, as `openssl dgst -sha256 -binary | base64` prints",
            )
        })
    }
}

impl JsonSchema for Pin {
    fn schema_name() -> Cow<'static, str> {
        "Pin".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(sha256//)?[A-Za-z0-9+/]{43}=$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_curl_reads() {
        let digest = STANDARD.encode([7; 32]);
        let check = |text: &str, good: bool| {
            assert_eq!(Pin::parse(text), good.then_some(Pin([7; 32])), "{text}");
        };
        check(&digest, true);
        check(&format!("sha256//{digest}"), true);
        check(&STANDARD.encode([7; 20]), false);
        check("not base64", false);
        check("", false);
        assert_eq!(Pin([7; 32]).to_string(), digest);
    }
}
