//! A named group of endpoints, how they are balanced and how their health is known.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::header_case::HeaderCase;
use super::passive::PassiveHealth;
use super::regions::Failback;
use super::resolver::Resolver;
use super::sticky::Sticky;
use super::transport::{UpstreamProtocol, UpstreamTls};
use crate::units::Period;

/// A named group of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Addresses: `"10.0.0.1:9000"`, or a map with weight, region, zone, capacity and priority.
    pub endpoints: Vec<Endpoint>,
    /// How names of endpoints are looked up; default by the node's `/etc/hosts` and `/etc/resolv.conf`. Every address that
    /// is found is an endpoint of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<Resolver>,
    /// How an endpoint is chosen; default `round_robin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// What `consistent_hash` hashes; default `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_key: Option<HashKey>,
    /// Percent of its even share of the requests under way that `consistent_hash` may send to one endpoint; beyond it the
    /// next one of the hash is taken. Default 125, 0 = unbounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_balance_factor: Option<u32>,
    /// Regions whose endpoints stand in for those of the node's own (`--region`), in this order; `"*"` at the end: all
    /// further ones, by their names. Needed where endpoints have a `region`, else those of other regions are never used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failover: Vec<String>,
    /// When what went to regions of `failover` comes back; default `automatic`: once the own one could have carried it for
    /// 60 s. `manual`: when the site says `automatic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failback: Option<Failback>,
    /// Use endpoints of the node's own zone (`--zone`) as far as their capacity reaches; default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prefer_own_zone: bool,
    /// How long an endpoint that is new or was down takes to get its whole share, in a straight line; default `0s` = off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Period>,
    /// Requests under way at once per endpoint and node, spread evenly over its workers; more of them wait for
    /// `queue_timeout`. Default unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<usize>,
    /// How long a request waits while every endpoint has `max_requests`; default 1s, else 503. At most
    /// `max_pending_requests` wait; with `0s` nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Period>,
    /// Region (`--region`) whose nodes ask the endpoints on behalf of the caches of all other regions; default none: each
    /// region asks for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shield: Option<String>,
    /// Requests of the cache under way at once per node, from the question to the end of what is stored; more of them wait
    /// for `fill_queue_timeout`. Default 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fills: Option<usize>,
    /// How long the cache waits while `max_fills` are under way; default 5s, else what is stale, or 503. With `0s` it does
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill_queue_timeout: Option<Period>,
    /// Keeps a downstream at the endpoint it came to first, by a cookie; absent = off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// Active checks; absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Ejection by what traffic shows; always on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<PassiveHealth>,
    /// Below this share of available endpoints health is ignored and all are used; default 50, 0 = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_threshold_percent: Option<u8>,
    /// TLS to the endpoints; absent = clear text, `{}` = verified by the roots of the node's system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// What is spoken to the endpoints; default `http1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<UpstreamProtocol>,
    /// How names of fields are spelled in requests over HTTP/1, those of checks included; default `lower`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_case: Option<HeaderCase>,
    /// HTTP/2: requests under way at once on one connection before another is opened; default 100. An endpoint that
    /// allows fewer is obeyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_streams_per_connection: Option<u32>,
    /// HTTP/2: from one ping to the next while requests are under way, so that a dead connection is noticed; default none.
    /// Some servers forbid frequent pings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping_interval: Option<Period>,
    /// HTTP/2: how long a ping may go unanswered before the connection is given up; default 20s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping_timeout: Option<Period>,
    /// Time to connect, TLS included; default 3s, else 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Period>,
    /// How long an unused connection is kept; default 60s. Keep it below the endpoint's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Period>,
    /// Connections kept per endpoint and node although nobody has needed them for half a second; default 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_idle_connections: Option<usize>,
    /// Connections open at once per endpoint and node, spread evenly over its workers; default unlimited, else 503. A
    /// worker closes unused ones of its own to make room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<usize>,
    /// Tell endpoints who called, in a PROXY header; every caller then has connections of its own. Default off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyVersion>,
    /// Silence after which the kernel asks whether the endpoint is still there; default never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<Period>,
    /// Time that sent bytes may stay unacknowledged before a connection is given up; default the kernel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_user_timeout: Option<Period>,
    /// Requests of one node that wait for a connection to open, likewise; default 1024, else 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<usize>,
    /// Requests after which a connection is not used again; default unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<u64>,
    /// Age after which a connection is not used again, less up to a tenth of it; default 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connection_age: Option<Period>,
}

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Endpoint(#[schemars(with = "EndpointSchema")] pub EndpointFields);

impl std::ops::Deref for Endpoint {
    type Target = EndpointFields;

    fn deref(&self) -> &EndpointFields {
        &self.0
    }
}

impl Endpoint {
    /// An endpoint with the default weight.
    pub fn at(address: impl Into<String>) -> Self {
        Self(EndpointFields {
            address: address.into(),
            weight: None,
            drain: false,
            region: None,
            zone: None,
            capacity: None,
            priority: None,
        })
    }
}

/// The long form of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointFields {
    /// `ip:port`; `host:port`, every address of which is used; `srv:_http._tcp.name`, every address and port of which is
    /// used by the priorities and weights of its SRV records; or `unix:/path` of a socket on every node.
    pub address: String,
    /// Share of requests relative to the others; default 1, 0 = none but those of sessions that stick to it. Each address
    /// of a name has it; weights of SRV records are multiplied by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// It shall empty: what is under way ends, sessions that stick to it go on, nothing else is sent there. As `weight: 0`,
    /// but its weight stays written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
    /// The region it stands in; default: that of every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Requests a second that it can carry, from all nodes together: what `failover` then reckons with. Either all endpoints
    /// have one or none has; its `weight` is the same unless written. Each address of a name has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// Lower is used first; default 0. Priorities of SRV records are added to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
}

/// Schema stand-in: text or the long form.
struct EndpointSchema;

impl JsonSchema for EndpointSchema {
    fn schema_name() -> Cow<'static, str> {
        "EndpointAddress".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<EndpointFields>();
        json_schema!({ "anyOf": [{ "type": "string", "examples": ["10.0.0.1:9000"] }, fields] })
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            fields if *self == Self::at(fields.address.as_str()) => serializer.serialize_str(&fields.address),
            fields => fields.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrFields;
        impl<'de> Visitor<'de> for TextOrFields {
            type Value = Endpoint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an address or a map with address, weight, drain, region, zone, capacity, priority",
                )
            }

            fn visit_str<E>(self, text: &str) -> Result<Endpoint, E> {
                Ok(Endpoint::at(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
                EndpointFields::deserialize(MapAccessDeserializer::new(map)).map(Endpoint)
            }
        }
        deserializer.deserialize_any(TextOrFields)
    }
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How an endpoint is chosen among those available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, smoothly by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in flight for its weight.
    LeastRequests,
    /// The better of two picked at random, by latency (peak EWMA) times load.
    P2cEwma,
    /// By a hash of the request, so that equal keys meet equal endpoints.
    ConsistentHash,
}

/// What `consistent_hash` hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The path without the query.
    #[default]
    Path,
    /// The address of the downstream; `client_addr` means the same.
    #[serde(alias = "client_addr")]
    Address,
    /// The value of this request header.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The value of this parameter of the query, as it is written.
    Query(String),
}

/// Active checks of every endpoint, done by a few nodes for all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Ask by HTTP/1.1 GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// Only connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// Ask by `grpc.health.v1.Health/Check`, over the HTTP/2 that the upstream speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// From one check to the next, ± 10 %; default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Period>,
    /// For one check; default 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Failures in a row before it is down; default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
    /// Successes in a row before it is up again; default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
}

/// A check by HTTP/1.1 GET.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// Path and query.
    pub path: String,
    /// `Host` field; default the endpoint's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Statuses that count as success; default any 2xx or 3xx.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
}

/// A check that only connects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {}

/// A check by the gRPC health checking protocol: only `SERVING` counts as success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcCheck {
    /// The service that is asked for; default the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `:authority`; default the endpoint's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}
