//! The access log: one JSON line a request, written by a thread of its own.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, Version};
use serde::Serialize;
use shoal_policy::failure::Failure;

use crate::exchange::{Exchange, Record};
use crate::listener::Connection;

/// Lines that may wait for the writer; more are dropped and counted.
const MAX_WAITING: usize = 8192;

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
}

/// The line of a request that has ended. Every text is escaped as JSON demands.
pub(crate) fn line(connection: &Connection, exchange: &Exchange, record: &Record, total: Duration) -> String {
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
    };
    serde_json::to_string(&line).unwrap_or_default()
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Starts the writer: it ends when the last sender is gone.
pub(crate) fn start(mut out: Box<dyn Write + Send>) -> std::io::Result<SyncSender<String>> {
    let (lines, waiting): (SyncSender<String>, Receiver<String>) = sync_channel(MAX_WAITING);
    thread::Builder::new().name("access-log".into()).spawn(move || {
        while let Ok(line) = waiting.recv() {
            let mut written = writeln!(out, "{line}");
            for line in waiting.try_iter() {
                written = written.and_then(|()| writeln!(out, "{line}"));
            }
            if let Err(error) = written.and_then(|()| out.flush()) {
                tracing::warn!(%error, "could not write to the access log");
            }
        }
    })?;
    Ok(lines)
}
