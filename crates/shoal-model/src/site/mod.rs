//! The site as operators write it: listeners, certificates, routes, upstreams and zones of DNS, each a map keyed by name.
//!
//! Every optional setting stays absent when it was not written; defaults are filled in when a [`crate::ConfigView`]
//! is compiled, so that `shoal get` shows what was written and a new default needs no migration.

mod assign;
mod cache_extension;
mod cache_key;
mod certificate;
mod diff;
mod dns_zone;
mod files;
mod header_case;
mod listener;
mod listener_tls;
mod locate;
mod merge;
mod naming;
mod network;
mod no_effect;
mod object;
mod object_count;
mod observe;
mod otlp;
mod overload;
mod passive;
mod path_rule;
mod pem;
mod period;
mod pin;
mod problem;
mod purge_method;
mod read;
mod regions;
mod resolver;
mod retry;
mod route;
mod schema;
mod sticky;
mod transport;
mod trusted_proxies;
mod upstream;
mod validate;
mod validate_tcp;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use assign::assign;
pub use cache_extension::ContentClass;
pub use cache_key::CacheKeyRule;
pub use certificate::{Certificate, CertificateFacts, KeyForm, StapleFacts, check_staples};
pub use diff::{Action, Change, FieldChange, diff};
pub use dns_zone::DnsZone;
pub(crate) use dns_zone::{is_within, mailbox};
pub use files::NamedFile;
pub use header_case::HeaderCase;
pub use listener::{Listener, ListenerLimits, Protocol, ProxyProtocol, TlsVersion};
pub use listener_tls::{CipherSuite, ClientAuth, ClientAuthMode, check_client_auth};
pub use locate::locate;
pub use merge::{Absent, merge};
pub use naming::tell_in_use;
pub use object::{Delta, Kind, ObjectName};
pub use object_count::{MAX_OBJECTS, check_count, count_objects};
pub(crate) use observe::log_subject;
pub use observe::{AccessLog, Tracing};
pub use otlp::Otlp;
pub(crate) use otlp::parse_endpoint;
pub use overload::Overload;
pub use passive::{PassiveHealth, SuccessRate};
pub use path_rule::PathRule;
pub(crate) use path_rule::compile_pattern;
pub use pem::holds_private_key;
pub use pin::Pin;
pub use problem::{Problem, ProblemKind, Problems, step};
pub use purge_method::PurgeMethod;
pub(crate) use purge_method::read_sha256;
pub use read::{holds, parse_object, parse_site, read_site};
pub use regions::{Failback, boundless_failover};
pub use resolver::{AddressFamily, Resolver};
pub use retry::{RetryOn, RetryRule};
pub use route::{
    CacheRule, NoVarySearch, PurgeUnverified, RangeMiss, Replicate, RequestDirectives, RequestErrors, Route,
    RouteTimeouts, SetCookie,
};
pub use sticky::{SameSite, Sticky};
pub use transport::{UpstreamProtocol, UpstreamTls};
pub use upstream::{
    Balance, Endpoint, GrpcCheck, HashKey, HealthCheck, HttpCheck, ProxyVersion, TcpCheck, Upstream,
};
pub use validate::{check_authorities, check_certificates, validate, validate_next};
pub use yaml::MAX_SITE_BYTES;

/// The whole configuration of a cluster. A revision is one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Sockets that downstreams connect to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listeners: BTreeMap<String, Listener>,
    /// Certificates with their private keys, chosen by SNI.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub certificates: BTreeMap<String, Certificate>,
    /// Which requests go to which upstream, and how.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Route>,
    /// Named groups of endpoints.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upstreams: BTreeMap<String, Upstream>,
    /// Domains that nodes with `--dns-listen` answer for, keyed by the domain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dns_zones: BTreeMap<String, DnsZone>,
}

impl Site {
    /// Names of the routes that `other` answers otherwise, or not: of another definition, or with an upstream that is of
    /// another one, or shows endpoints another certificate.
    pub fn answered_otherwise(&self, other: &Self) -> BTreeSet<String> {
        let is_same = |name: &String, route: &Route| {
            other.routes.get(name) == Some(route)
                && other.upstreams.get(&route.upstream) == self.upstreams.get(&route.upstream)
                && other.shown_to(&route.upstream) == self.shown_to(&route.upstream)
        };
        self.routes
            .iter()
            .filter(|(name, route)| !is_same(name, route))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The certificate that endpoints of `upstream` are shown. A key that was sealed anew is the same.
    fn shown_to(&self, upstream: &str) -> Option<Certificate> {
        let name = self.upstreams.get(upstream)?.tls.as_ref()?.client_certificate.as_ref()?;
        self.certificates.get(name).map(Certificate::redacted)
    }

    /// Nothing is configured at all.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
            && self.certificates.is_empty()
            && self.routes.is_empty()
            && self.upstreams.is_empty()
            && self.dns_zones.is_empty()
    }

    /// The text that is stored in the log and hashed: JSON with every map in key order.
    pub fn to_canonical_json(&self) -> String {
        serde_json::to_string(self).expect("a site holds only strings, numbers and maps with string keys")
    }

    /// Reads back [`Site::to_canonical_json`].
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// JSON Schema of the site file, for editors.
    pub fn json_schema() -> serde_json::Value {
        let mut schema = schemars::schema_for!(Self).to_value();
        schema::complete(&mut schema);
        schema
    }
}
