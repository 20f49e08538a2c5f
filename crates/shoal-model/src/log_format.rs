//! The fields of an access log line, and templates made of them.

/// What a line of the access log can say; the names are those of the JSON line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as its field, and described with the access log")]
pub enum LogField {
    TimeMs,
    Node,
    Listener,
    Route,
    Upstream,
    Endpoint,
    Tries,
    ClientAddr,
    Method,
    Host,
    Target,
    Version,
    Status,
    Reason,
    Rule,
    Detail,
    RequestBytes,
    ResponseBytes,
    ConnectUs,
    FirstByteUs,
    TotalUs,
    Cache,
    UserAgent,
    RequestId,
    TraceId,
    SpanId,
    ParentId,
    ClientCertSubject,
    ClientCertSha256,
    Protocol,
    ServerName,
}

use LogField as F;

/// Every field by name.
const FIELDS: [(&str, LogField); 31] = [
    ("time_ms", F::TimeMs),
    ("node", F::Node),
    ("listener", F::Listener),
    ("route", F::Route),
    ("upstream", F::Upstream),
    ("endpoint", F::Endpoint),
    ("tries", F::Tries),
    ("client_addr", F::ClientAddr),
    ("method", F::Method),
    ("host", F::Host),
    ("target", F::Target),
    ("version", F::Version),
    ("status", F::Status),
    ("reason", F::Reason),
    ("rule", F::Rule),
    ("detail", F::Detail),
    ("request_bytes", F::RequestBytes),
    ("response_bytes", F::ResponseBytes),
    ("connect_us", F::ConnectUs),
    ("first_byte_us", F::FirstByteUs),
    ("total_us", F::TotalUs),
    ("cache", F::Cache),
    ("user_agent", F::UserAgent),
    ("request_id", F::RequestId),
    ("trace_id", F::TraceId),
    ("span_id", F::SpanId),
    ("parent_id", F::ParentId),
    ("client_cert_subject", F::ClientCertSubject),
    ("client_cert_sha256", F::ClientCertSha256),
    ("protocol", F::Protocol),
    ("server_name", F::ServerName),
];

/// What a line can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSubject {
    /// A request.
    Request,
    /// A connection that is carried as it is.
    Connection,
}

impl LogField {
    /// Lines about `subject` can have it.
    fn tells_of(self, subject: LogSubject) -> bool {
        match self {
            F::TimeMs
            | F::Node
            | F::Listener
            | F::Upstream
            | F::Endpoint
            | F::Tries
            | F::ClientAddr
            | F::Reason
            | F::Detail
            | F::RequestBytes
            | F::ResponseBytes
            | F::ConnectUs
            | F::TotalUs => true,
            F::Protocol | F::ServerName => subject == LogSubject::Connection,
            F::Route
            | F::Method
            | F::Host
            | F::Target
            | F::Version
            | F::Status
            | F::Rule
            | F::FirstByteUs
            | F::Cache
            | F::UserAgent
            | F::RequestId
            | F::TraceId
            | F::SpanId
            | F::ParentId
            | F::ClientCertSubject
            | F::ClientCertSha256 => subject == LogSubject::Request,
        }
    }
}

/// How a line is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Every field, as a JSON object.
    #[default]
    Json,
    /// Text and fields in turn.
    Template(Box<[LogPart]>),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// Written as it is.
    Text(Box<str>),
    /// Replaced by the value.
    Field(LogField),
}

/// Reads `json` or a template for lines about `subject`; `$$` is a dollar sign.
pub(crate) fn parse_format(text: &str, subject: LogSubject) -> Result<LogFormat, String> {
    if text == "json" {
        return Ok(LogFormat::Json);
    }
    if text.contains(|c: char| c.is_control()) {
        return Err("a line is one line: no control characters".to_owned());
    }
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        literal.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(after) = after.strip_prefix('$') {
            literal.push('$');
            rest = after;
            continue;
        }
        let named = after.strip_prefix('{').ok_or("write `$$` for a dollar sign, `${field}` for a field")?;
        let (name, after) = named.split_once('}').ok_or("a `${` is never closed")?;
        if !literal.is_empty() {
            parts.push(LogPart::Text(std::mem::take(&mut literal).into()));
        }
        parts.push(LogPart::Field(field(name, subject)?));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(LogPart::Text(literal.into()));
    }
    if !parts.iter().any(|part| matches!(part, LogPart::Field(_))) {
        return Err("it is `json`, or a template with at least one `${field}`".to_owned());
    }
    Ok(LogFormat::Template(parts.into()))
}

fn field(name: &str, subject: LogSubject) -> Result<LogField, String> {
    let fields = FIELDS.iter().filter(|(_, field)| field.tells_of(subject));
    let found = fields.clone().find(|(known, _)| *known == name);
    found.map(|(_, field)| *field).ok_or_else(|| {
        let names: Vec<_> = fields.map(|(name, _)| *name).collect();
        let of = match subject {
            LogSubject::Request => "a request",
            LogSubject::Connection => "a connection",
        };
        format!("the line of {of} has no field {name:?}; it has {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_text_and_fields() {
        let check_of = |subject, text: &str, expected: Result<LogFormat, &str>| match (
            parse_format(text, subject),
            expected,
        ) {
            (Ok(format), Ok(expected)) => assert_eq!(format, expected, "{text}"),
            (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
            (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
        };
        let check = |text: &str, expected| check_of(LogSubject::Request, text, expected);
        let text = |text: &str| LogPart::Text(text.into());
        let template = |parts: Vec<LogPart>| Ok(LogFormat::Template(parts.into()));
        check("json", Ok(LogFormat::Json));
        check("${status}", template(vec![LogPart::Field(F::Status)]));
        check(
            "a ${method}$$${target}.",
            template(vec![
                text("a "),
                LogPart::Field(F::Method),
                text("$"),
                LogPart::Field(F::Target),
                text("."),
            ]),
        );
        check("combined", Err("at least one"));
        check("", Err("at least one"));
        check("$status", Err("`$$`"));
        check("${nothing}", Err("client_addr"));
        check("${status", Err("never closed"));
        check("${status}\n", Err("control"));
        check("${server_name}", Err("the line of a request has no field \"server_name\""));
        let connection = |text: &str, expected| check_of(LogSubject::Connection, text, expected);
        connection("${server_name}", template(vec![LogPart::Field(F::ServerName)]));
        connection("${reason}", template(vec![LogPart::Field(F::Reason)]));
        connection("${status}", Err("the line of a connection has no field \"status\""));
    }
}
