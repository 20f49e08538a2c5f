//! What the access log says of a request.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, Version};
use serde::Serialize;
use shoal_model::log_format::{LogField, LogFormat, LogPart};
use shoal_policy::failure::Failure;

use crate::exchange::{Exchange, Record};
use crate::listener::Connection;

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    time_ms: u64,
    node: &'a str,
    listener: &'a str,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    endpoint: Option<&'a str>,
    tries: u32,
    client_addr: String,
    method: Option<&'a str>,
    host: Option<String>,
    target: &'a str,
    version: &'static str,
    status: u16,
    reason: &'static str,
    /// The rule of the gate that a refused request broke.
    rule: Option<&'static str>,
    request_bytes: u64,
    response_bytes: u64,
    connect_us: u64,
    first_byte_us: Option<u64>,
    total_us: u64,
    cache: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    trace_id: Option<String>,
    span_id: Option<String>,
    parent_id: Option<String>,
    client_cert_subject: Option<&'a str>,
    client_cert_sha256: Option<&'a str>,
}

/// The line of a request that has ended. Every text is escaped as JSON demands.
pub(super) fn line(connection: &Connection, exchange: &Exchange, record: &Record, total: Duration) -> String {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let us = |duration: Duration| duration.as_micros() as u64;
    let line = Line {
        time_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64),
        node: &connection.worker.node_name,
        listener: &connection.settings.view.name,
        route: exchange.route.as_ref().map(|route| &*route.name),
        upstream: exchange.route.as_ref().map(|route| &*route.upstream.name),
        endpoint: exchange.trace.endpoint.as_deref(),
        tries: exchange.trace.tries,
        client_addr: record.client_addr.unwrap_or(connection.caller.address).to_string(),
        method: record.method.as_ref().map(Method::as_str),
        host: record.host.as_ref().map(text),
        target: &record.target,
        version: version_text(record.version),
        status: exchange.status,
        rule: match exchange.failure {
            Some(Failure::BadRequest(rule)) => Some(rule),
            _ => None,
        },
        reason: exchange.failure.map_or("ok", Failure::reason),
        request_bytes: exchange.request_bytes(),
        response_bytes: exchange.response_bytes,
        connect_us: us(exchange.trace.connect),
        first_byte_us: exchange.trace.first_byte.map(us),
        total_us: us(total),
        cache: record.cache_status.as_ref().map(text),
        user_agent: record.user_agent.as_ref().map(text),
        request_id: record.request_id.as_ref().map(text),
        trace_id: record.span.map(|span| format!("{:032x}", span.trace_id)),
        span_id: record.span.map(|span| format!("{:016x}", span.span_id)),
        parent_id: record.span.and_then(|span| span.parent_id).map(|id| format!("{id:016x}")),
        client_cert_subject: connection.client.as_ref().map(|client| &*client.certificate.subject),
        client_cert_sha256: connection.client.as_ref().map(|client| &*client.certificate.sha256),
    };
    match connection.settings.view.access_log.as_ref().map(|log| &log.format) {
        None | Some(LogFormat::Json) => serde_json::to_string(&line).unwrap_or_default(),
        Some(LogFormat::Template(parts)) => line.by_template(parts),
    }
}

impl Line<'_> {
    fn by_template(&self, parts: &[LogPart]) -> String {
        let mut out = String::new();
        for part in parts {
            match part {
                LogPart::Text(text) => out.push_str(text),
                LogPart::Field(field) => self.write_field(*field, &mut out),
            }
        }
        out
    }

    fn write_field(&self, field: LogField, out: &mut String) {
        let written = match field {
            LogField::TimeMs => write!(out, "{}", self.time_ms),
            LogField::Tries => write!(out, "{}", self.tries),
            LogField::Status => write!(out, "{}", self.status),
            LogField::RequestBytes => write!(out, "{}", self.request_bytes),
            LogField::ResponseBytes => write!(out, "{}", self.response_bytes),
            LogField::ConnectUs => write!(out, "{}", self.connect_us),
            LogField::TotalUs => write!(out, "{}", self.total_us),
            LogField::FirstByteUs => match self.first_byte_us {
                Some(us) => write!(out, "{us}"),
                None => write!(out, "-"),
            },
            _ => {
                write_text(self.text(field), out);
                Ok(())
            }
        };
        // A string takes everything.
        debug_assert!(written.is_ok());
    }

    fn text(&self, field: LogField) -> Option<&str> {
        match field {
            LogField::Node => Some(self.node),
            LogField::Listener => Some(self.listener),
            LogField::Route => self.route,
            LogField::Upstream => self.upstream,
            LogField::Endpoint => self.endpoint,
            LogField::ClientAddr => Some(&self.client_addr),
            LogField::Method => self.method,
            LogField::Host => self.host.as_deref(),
            LogField::Target => Some(self.target),
            LogField::Version => Some(self.version),
            LogField::Reason => Some(self.reason),
            LogField::Rule => self.rule,
            LogField::Cache => self.cache.as_deref(),
            LogField::UserAgent => self.user_agent.as_deref(),
            LogField::RequestId => self.request_id.as_deref(),
            LogField::TraceId => self.trace_id.as_deref(),
            LogField::SpanId => self.span_id.as_deref(),
            LogField::ParentId => self.parent_id.as_deref(),
            LogField::ClientCertSubject => self.client_cert_subject,
            LogField::ClientCertSha256 => self.client_cert_sha256,
            LogField::TimeMs
            | LogField::Tries
            | LogField::Status
            | LogField::RequestBytes
            | LogField::ResponseBytes
            | LogField::ConnectUs
            | LogField::FirstByteUs
            | LogField::TotalUs => None,
        }
    }
}

/// A value that cannot break its line, nor a quoted field of it.
fn write_text(value: Option<&str>, out: &mut String) {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return out.push('-') };
    let mut utf8 = [0; 4];
    for c in value.chars() {
        if !c.is_control() && !matches!(c, '"' | '\\') {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut utf8).bytes() {
            out.push_str("\\x");
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
            }
        }
    }
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_their_line() {
        let check = |value: Option<&str>, expected: &str| {
            let mut out = String::new();
            write_text(value, &mut out);
            assert_eq!(out, expected);
        };
        check(None, "-");
        check(Some(""), "-");
        check(Some("/plain?a=é"), "/plain?a=é");
        check(Some("a\n\"b\\\u{85}"), "a\\x0A\\x22b\\x5C\\xC2\\x85");
    }
}
