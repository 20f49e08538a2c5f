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
}

use LogField as F;

/// Every field by name.
const FIELDS: [(&str, LogField); 28] = [
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
];

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

/// Reads `json` or a template; `$$` is a dollar sign.
pub(crate) fn parse_format(text: &str) -> Result<LogFormat, String> {
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
        parts.push(LogPart::Field(field(name)?));
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

fn field(name: &str) -> Result<LogField, String> {
    let found = FIELDS.iter().find(|(known, _)| *known == name);
    found.map(|(_, field)| *field).ok_or_else(|| {
        let names: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
        format!("there is no field {name:?}; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_text_and_fields() {
        let check = |text: &str, expected: Result<LogFormat, &str>| match (parse_format(text), expected) {
            (Ok(format), Ok(expected)) => assert_eq!(format, expected, "{text}"),
            (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
            (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
        };
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
    }
}
