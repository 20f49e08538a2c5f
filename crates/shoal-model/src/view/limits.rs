//! What one downstream may cost, with the defaults.

use std::time::Duration;

use super::Liveness;
use crate::site::ListenerLimits;
use crate::units::{ByteSize, Period};

/// Limits of a listener. [`Limits::default`] is what applies when nothing is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for the TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// Time for a request head to arrive whole.
    pub header_timeout: Duration,
    /// Bytes of a request head.
    pub max_header_bytes: usize,
    /// Fields in a request head.
    pub max_header_count: usize,
    /// Bytes of the request target.
    pub max_uri_bytes: usize,
    /// Bytes of a request body; `u64::MAX` = unlimited.
    pub max_body_bytes: u64,
    /// Longest pause between two parts of a request body.
    pub body_idle_timeout: Duration,
    /// Longest time without progress while a response is being written.
    pub write_idle_timeout: Duration,
    /// Bytes a second that a downstream must at least send or take while it is waited for; 0 = no minimum.
    pub min_rate: u64,
    /// Time of waiting that may be made up for by later bytes.
    pub min_rate_window: Duration,
    /// Longest silence between two requests.
    pub keepalive_timeout: Duration,
    /// Requests after which a connection is closed politely.
    pub max_requests_per_connection: u64,
    /// Age at which a connection is closed politely.
    pub max_connection_age: Duration,
    /// Connections open at once on this listener of one node.
    pub max_connections: usize,
    /// Connections open at once from one address; `None` = unlimited.
    pub max_connections_per_address: Option<usize>,
    /// New connections a second on this listener of one node; `None` = unlimited.
    pub max_connection_rate: Option<u32>,
    /// New connections a second from one address; `None` = unlimited.
    pub max_connection_rate_per_address: Option<u32>,
    /// HTTP/2 streams open at once on a connection.
    pub h2_max_streams: u32,
    /// Streams that an HTTP/2 connection may reset in 10 s.
    pub h2_max_resets: u32,
    /// Frames that ask for nothing that an HTTP/2 connection may send in 10 s.
    pub h2_max_idle_frames: u32,
    /// Longest silence in both directions of an upgraded connection, or of one that is carried as it is.
    pub tunnel_idle_timeout: Duration,
    /// How the kernel finds out that downstreams are gone.
    pub liveness: Liveness,
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(None)
    }
}

impl Limits {
    pub(super) fn of(written: Option<&ListenerLimits>) -> Self {
        let written = written.cloned().unwrap_or_default();
        let seconds = |value: Option<Period>, default: u64| value.unwrap_or(Period::seconds(default)).0;
        let bytes = |value: Option<ByteSize>, default: ByteSize| value.unwrap_or(default).0;
        Self {
            tls_handshake_timeout: seconds(written.tls_handshake_timeout, 10),
            header_timeout: seconds(written.header_timeout, 10),
            max_header_bytes: bytes(written.max_header_bytes, ByteSize::kib(32)) as usize,
            max_header_count: written.max_header_count.unwrap_or(100),
            max_uri_bytes: bytes(written.max_uri_bytes, ByteSize::kib(8)) as usize,
            max_body_bytes: bytes(written.max_body_bytes, ByteSize(u64::MAX)),
            body_idle_timeout: seconds(written.body_idle_timeout, 30),
            write_idle_timeout: seconds(written.write_idle_timeout, 30),
            min_rate: bytes(written.min_rate, ByteSize(240)),
            min_rate_window: seconds(written.min_rate_window, 10),
            keepalive_timeout: seconds(written.keepalive_timeout, 75),
            max_requests_per_connection: written.max_requests_per_connection.unwrap_or(1_000_000),
            max_connection_age: seconds(written.max_connection_age, 3600),
            max_connections: written.max_connections.unwrap_or(16_384),
            max_connections_per_address: written.max_connections_per_address,
            max_connection_rate: written.max_connection_rate,
            max_connection_rate_per_address: written.max_connection_rate_per_address,
            h2_max_streams: written.h2_max_streams.unwrap_or(128),
            h2_max_resets: written.h2_max_resets.unwrap_or(200),
            h2_max_idle_frames: written.h2_max_idle_frames.unwrap_or(1_000),
            tunnel_idle_timeout: seconds(written.tunnel_idle_timeout, 600),
            liveness: Liveness::of(written.tcp_keepalive, written.tcp_user_timeout),
        }
    }
}
