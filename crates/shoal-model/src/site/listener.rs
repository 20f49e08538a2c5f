//! A socket that downstreams connect to.

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::networks;
use super::{AccessLog, CipherSuite, ClientAuth, HeaderCase, Overload, Tracing};
use crate::units::{ByteSize, Period};

/// A socket that downstreams connect to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// `":8080"` binds the node's `--listen-ip`; `"127.0.0.1:8080"` or `"[::1]:8080"` is taken as it is.
    pub address: String,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Names of certificates, chosen by SNI; the first answers when no name fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// Oldest TLS version that is accepted; default `"1.2"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tls: Option<TlsVersion>,
    /// Cipher suites that are accepted, by their IANA names; default all that are known. The downstream's order counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ciphers: Vec<CipherSuite>,
    /// Downstreams show certificates; default off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// Networks of callers that are believed about who called them, in `client_ip_header`, and by which scheme; default none.
    #[serde(default, deserialize_with = "networks", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// The one field in which `trusted_proxies` name their caller; default `X-Forwarded-For`. `Forwarded` is read as RFC 7239
    /// has it, any other (`X-Real-IP`, `CF-Connecting-IP`) as one address or a list of them, the nearest last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip_header: Option<String>,
    /// The PROXY protocol (version 1 or 2) is spoken before anything else; default off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Name of the upstream that connections go to: of all on a `tcp` listener, and on one of `tls_passthrough` of those
    /// whose name is not in `sni`. Not for HTTP, which has routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// `tls_passthrough` only: names of upstreams by the server name that is asked for; `*.example.com` is every name
    /// below. Exact names win, then the longest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sni: BTreeMap<String, String>,
    /// A log of its requests, or carried connections, with settings of its own; default: what `--access-log` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// Takes part in W3C traces; default off: `traceparent` and `tracestate` are passed on as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// When requests are refused because the node has more to do than it can; default: see there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overload: Option<Overload>,
    /// A new connection goes to the worker thread with the fewest when the one that accepted it has clearly more; default
    /// true. False: it stays where the kernel's hash put it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance_connections: Option<bool>,
    /// How names of fields are spelled in answers over HTTP/1; default `lower`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_case: Option<HeaderCase>,
    /// Limits that differ from the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ListenerLimits>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/2 with prior knowledge, in clear text.
    Http,
    /// TLS with HTTP/2 or HTTP/1.1 by ALPN.
    Https,
    /// Anything: bytes are carried to the upstream and back.
    Tcp,
    /// TLS that is not ended here: the server name that is asked for chooses the upstream.
    #[serde(rename = "tls_passthrough")]
    TlsPassthrough,
}

/// Who may say, in a PROXY header, on whose behalf it connects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Networks of the balancers in front; connections from anywhere else are closed.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "Vec<String>")]
    pub trusted: Vec<IpNet>,
    /// Time for the header to arrive; default 3s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

/// What one downstream may cost. Every field has a default, see [`crate::view::Limits`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerLimits {
    /// Time for the TLS handshake; default 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_handshake_timeout: Option<Period>,
    /// Time for a request head to arrive whole; default 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_timeout: Option<Period>,
    /// Bytes of a request head; default 32KiB, else 431.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_bytes: Option<ByteSize>,
    /// Fields in a request head; default 100, else 431.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_count: Option<usize>,
    /// Bytes of the request target; default 8KiB, else 414.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_uri_bytes: Option<ByteSize>,
    /// Bytes of a request body; default unlimited, else 413.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<ByteSize>,
    /// Longest pause between two parts of a request body; default 30s, else 408.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_idle_timeout: Option<Period>,
    /// Longest time without progress while a response is being written; default 30s. On HTTP/2 a stream makes progress when
    /// it takes half of `min_rate`, or a full DATA frame; the first byte is enough when it has taken none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_idle_timeout: Option<Period>,
    /// Bytes a second that a downstream must at least send of a body, or take of a response, while it is waited for;
    /// default 240, 0 = no minimum, else 408 or closed. Request bodies on routes with `trailers` have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rate: Option<ByteSize>,
    /// Time of waiting that later bytes may make up for, so that `min_rate` is an average; default 10s. What is faster saves up
    /// to three times as much for later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rate_window: Option<Period>,
    /// Longest silence between two requests of a connection; default 75s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_timeout: Option<Period>,
    /// Requests after which a connection is closed politely; default 1000000 (one busy HTTP/2
    /// connection carries 10000 in less than a second).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<u64>,
    /// Age at which a connection is closed politely, or up to a tenth of it before; default 1h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_age: Option<Period>,
    /// Connections open at once on this listener of one node; default 16384.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<usize>,
    /// Connections open at once from one address, or from one /64 of IPv6; default unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections_per_address: Option<usize>,
    /// New connections a second on this listener of one node, with bursts of as many; default unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_rate: Option<u32>,
    /// New connections a second from one address, or from one /64 of IPv6, with bursts of as many; default unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_rate_per_address: Option<u32>,
    /// HTTP/2 streams open at once on a connection; default 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h2_max_streams: Option<u32>,
    /// Streams that an HTTP/2 connection may reset in 10 s, or have refused or reset because of what it sends; default 200,
    /// else GOAWAY with ENHANCE_YOUR_CALM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h2_max_resets: Option<u32>,
    /// Frames that ask for nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones) that an HTTP/2
    /// connection may send in 10 s, beside a few for each DATA frame that it gets; default 1000, else GOAWAY with
    /// ENHANCE_YOUR_CALM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h2_max_idle_frames: Option<u32>,
    /// Longest silence in both directions of an upgraded connection, or of one that is carried as it is; default 10m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_idle_timeout: Option<Period>,
    /// Silence after which the kernel asks whether the other side is still there; default never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<Period>,
    /// Time that sent bytes may stay unacknowledged before the connection is given up; default the kernel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_user_timeout: Option<Period>,
}
