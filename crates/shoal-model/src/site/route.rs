//! Which requests go to which upstream, and how.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache_key::CacheKeyRule;
use super::purge_method::PurgeMethod;
use super::retry::RetryRule;
use crate::units::{ByteSize, Period};

/// A rule: requests that match go to the upstream.
///
/// The most specific route wins, whatever the order in the file: exact host before wildcard (longest first) before any
/// host; within a host an exact path before a regex (longest pattern first) before a prefix (longest first).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Host names, `*.example.com` for every name below; none = any host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// This path and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// This path and everything below it, by whole segments: `/shop` matches `/shop` and `/shop/1`, not `/shopping`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// A regular expression that must match the whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<String>,
    /// Names of listeners; none = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<String>,
    /// Name of the upstream.
    pub upstream: String,
    /// Absent = not cached; `{}` = RFC 9111 with the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheRule>,
    /// Protocols a connection may be upgraded to; default `[websocket]`, `[]` = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrades: Option<Vec<String>>,
    /// Pass request and response trailers on; default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trailers: bool,
    /// Times that differ from the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RouteTimeouts>,
    /// When a request is sent again; absent = when no connection came about or it was lost before the answer began, if
    /// the request is idempotent and has no body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryRule>,
}

/// How long the upstream may take. Every field has a default, see [`crate::view::RouteView`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// From the request sent to the response head; default 30s, else 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Period>,
    /// How long the body of a request with `Expect: 100-continue` waits for the endpoint to ask for it; default 1s, `0s` = the
    /// endpoint is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_continue: Option<Period>,
    /// Between two parts of the response body; default 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Period>,
    /// For the whole exchange; default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Period>,
}

/// How responses of a route are cached. `{}` is RFC 9111 for a shared cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheRule {
    /// Largest body that is stored in one piece; default 64MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_object_size: Option<ByteSize>,
    /// Bodies from this size on, of which a strong validator and the length are known, are kept in chunks of 1 MiB, each by
    /// itself and however large the body is; default 8MiB. A `max_object_size` below it: none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunked_from: Option<ByteSize>,
    /// What a request with `Range` does when nothing of the object is there; default `part`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_miss: Option<RangeMiss>,
    /// When the second copy is made; default `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicate: Option<Replicate>,
    /// Whether responses with `Set-Cookie` may be stored; default `deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_cookie: Option<SetCookie>,
    /// Whether `Cache-Control` of requests is obeyed; default `honor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_directives: Option<RequestDirectives>,
    /// How long past its expiry an object may be served while the origin cannot be reached; default 60s, `0s` = not
    /// at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_stale_on_disconnect: Option<Period>,
    /// What happens to hits while this node cannot know of purges; default `revalidate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purge_unverified: Option<PurgeUnverified>,
    /// Who may purge by the method `PURGE`; absent = nobody, it is a method like any other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purge_method: Option<PurgeMethod>,
    /// What tells objects apart beside the URL; default nothing, and `Vary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<CacheKeyRule>,
    /// How long responses with these statuses are kept when they do not say so themselves, as in `404: 10s`; default not at
    /// all.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub negative_ttl: BTreeMap<String, Period>,
    /// How long 500, 502, 503 and 504 are kept when they do not say so themselves, 5s at most: less work for an upstream in
    /// trouble. Default not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_ttl: Option<Period>,
    /// Whether errors that anybody can cause (400, 405, 413, 414, 431) are stored where the upstream allows it; default
    /// `store`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_errors: Option<RequestErrors>,
    /// Only paths that end so are cached, as `[css, js]`, and only when `Content-Type` agrees; default all paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Vec<String>>,
    /// Only these fields of requests reach the upstream when their responses are to be stored, beside those of content
    /// negotiation, `key` and `Vary`; default all fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_fill: Option<Vec<String>>,
    /// Whether objects in use are fetched again a little before they expire, and expire up to a twentieth of their time
    /// earlier, so that not all of them do at once; default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_refresh: Option<bool>,
    /// Whether responses may say which parameters of the query do not count (`No-Vary-Search`); default `honor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_vary_search: Option<NoVarySearch>,
}

impl CacheRule {
    /// Where `max_object_size` is not set.
    pub const MAX_OBJECT_SIZE: ByteSize = ByteSize::mib(64);
    /// Where `chunked_from` is not set.
    pub const CHUNKED_FROM: ByteSize = ByteSize::mib(8);
}

/// What a request with `Range` does when nothing of the object is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RangeMiss {
    /// It fetches that range, of what is kept in chunks whole chunks.
    #[default]
    Part,
    /// It fetches the whole object, and is answered as that comes.
    Whole,
    /// It is passed on, and its answer is not stored.
    Pass,
}

/// When the second copy of an object is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Replicate {
    /// Up to 256 KiB as soon as it is stored, larger on the second hit.
    #[default]
    Auto,
    /// As soon as it is stored, whatever its size.
    Always,
    /// Never: one copy, lost with its node.
    Never,
}

/// Whether responses with `Set-Cookie` may be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SetCookie {
    /// Not stored.
    #[default]
    Deny,
    /// Stored, field included, when freshness is explicit.
    Allow,
}

/// Whether errors that anybody can cause are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestErrors {
    /// When the upstream allows it.
    #[default]
    Store,
    /// Never: they are passed on.
    Pass,
}

/// Whether `Cache-Control` of requests is obeyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestDirectives {
    /// As RFC 9111 §5.2.1 says.
    #[default]
    Honor,
    /// Ignored: nobody outside can make the origin work.
    Ignore,
}

/// Whether responses may say which parameters of the query do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NoVarySearch {
    /// URLs that the response makes equal share an object.
    #[default]
    Honor,
    /// Each query has its own object.
    Ignore,
}

/// What happens to hits while this node cannot know of purges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PurgeUnverified {
    /// Every hit is validated with the origin first.
    #[default]
    Revalidate,
    /// Hits are served; availability first.
    Serve,
    /// Hits are refused with 504.
    Fail,
}
