//! The rules of the gate, each with its name and the failure it leads to.

use crate::failure::Failure;
use crate::http1::Ambiguous;

/// A rule that a request broke. Every rule has its own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A line of the head does not end in CR LF.
    LineEnd,
    /// `Transfer-Encoding` is not exactly one `chunked`, or not on HTTP/1.1.
    TransferEncoding,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndTransferEncoding,
    /// `Content-Length` is repeated, a list, or no plain number.
    ContentLength,
    /// The method never has a body, and this one has.
    BodyNotAllowed,
    /// No `Host` on HTTP/1.1, no authority on HTTP/2.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// The authority is malformed.
    HostInvalid,
    /// `Host` and the authority of the target differ.
    HostMismatch,
    /// The target names another scheme than the listener's.
    SchemeMismatch,
    /// CONNECT, `*`, a target without a path, or with characters that none may have.
    Target,
    /// The path holds a backslash, a NUL, a control character or a broken escape.
    Path,
    /// The target is too long.
    UriTooLong,
    /// Too many fields.
    FieldCount,
    /// A field would read as framing, host or forwarding if its `_` were `-`.
    UnderscoredField,
    /// `Connection` names a field that must not be taken off.
    ConnectionNames,
    /// A WebSocket opening handshake is incomplete.
    Upgrade,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// An extended CONNECT for something other than a WebSocket.
    Protocol,
    /// The host belongs to another certificate than the connection's.
    Misdirected,
    /// The parser itself gave up.
    Unparsable,
    /// Plain HTTP, where TLS is spoken.
    PlainHttp,
    /// TLS, where plain HTTP is spoken.
    UnexpectedTls,
}

/// Every rule, at the place of its number.
pub const RULES: [Rule; 23] = [
    Rule::LineEnd,
    Rule::TransferEncoding,
    Rule::LengthAndTransferEncoding,
    Rule::ContentLength,
    Rule::BodyNotAllowed,
    Rule::HostMissing,
    Rule::HostRepeated,
    Rule::HostInvalid,
    Rule::HostMismatch,
    Rule::SchemeMismatch,
    Rule::Target,
    Rule::Path,
    Rule::UriTooLong,
    Rule::FieldCount,
    Rule::UnderscoredField,
    Rule::ConnectionNames,
    Rule::Upgrade,
    Rule::Expectation,
    Rule::Protocol,
    Rule::Misdirected,
    Rule::Unparsable,
    Rule::PlainHttp,
    Rule::UnexpectedTls,
];

impl From<Ambiguous> for Rule {
    fn from(ambiguous: Ambiguous) -> Self {
        match ambiguous {
            Ambiguous::Coding => Self::TransferEncoding,
            Ambiguous::CodingAndLength => Self::LengthAndTransferEncoding,
            Ambiguous::Length => Self::ContentLength,
        }
    }
}

impl Rule {
    /// Its place in [`RULES`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics and in the body of the refusal.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LineEnd => "line_end",
            Self::TransferEncoding => "transfer_encoding",
            Self::LengthAndTransferEncoding => "length_and_transfer_encoding",
            Self::ContentLength => "content_length",
            Self::BodyNotAllowed => "body_not_allowed",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::HostMismatch => "host_mismatch",
            Self::SchemeMismatch => "scheme_mismatch",
            Self::Target => "target",
            Self::Path => "path",
            Self::UriTooLong => "uri_too_long",
            Self::FieldCount => "field_count",
            Self::UnderscoredField => "underscored_field",
            Self::ConnectionNames => "connection_names",
            Self::Upgrade => "upgrade",
            Self::Expectation => "expectation",
            Self::Protocol => "protocol",
            Self::Misdirected => "misdirected",
            Self::Unparsable => "unparsable",
            Self::PlainHttp => "plain_http_on_tls_port",
            Self::UnexpectedTls => "tls_on_plain_port",
        }
    }

    /// What whoever broke it should do, where its name does not say that.
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Self::PlainHttp => Some("plain HTTP was sent to a port that speaks TLS: ask for https://"),
            Self::UnexpectedTls => Some("TLS was sent to a port that speaks plain HTTP: ask for http://"),
            _ => None,
        }
    }

    /// How the request fails.
    pub const fn failure(self) -> Failure {
        match self {
            Self::UriTooLong => Failure::UriTooLong,
            Self::FieldCount => Failure::HeadTooLarge,
            Self::Expectation => Failure::ExpectationFailed,
            Self::Protocol => Failure::UnknownProtocol,
            Self::Misdirected => Failure::Misdirected,
            _ => Failure::BadRequest(self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        for (place, rule) in RULES.iter().enumerate() {
            assert_eq!(rule.index(), place, "{rule:?}");
        }
    }
}
