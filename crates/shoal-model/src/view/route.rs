//! A compiled route.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::cache_key::{CacheKeyView, field_names};
use super::{PurgeMethodView, RetryView, UpstreamView};
use crate::id::Revision;
use crate::site::{
    CacheRule, NoVarySearch, PurgeUnverified, RangeMiss, Replicate, RequestDirectives, RequestErrors, Route,
    SetCookie,
};
use crate::units::Period;

/// A compiled route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteView {
    /// Its name in the site.
    pub name: Arc<str>,
    /// The same in the keys of what is cached: with the revision behind it while that is tried on some nodes only and says
    /// otherwise how this route is answered. What is fetched by it is nobody else's, then.
    pub key_name: Arc<str>,
    /// Its place among the routes, in the order of their names.
    pub index: usize,
    /// Where its requests go.
    pub upstream: Arc<UpstreamView>,
    /// How its responses are cached; `None` = not at all.
    pub cache: Option<CacheRuleView>,
    /// Protocols a connection may be upgraded to, lower case.
    pub upgrades: Vec<Box<str>>,
    /// Trailers are passed on.
    pub trailers: bool,
    /// From the request sent to the response head.
    pub first_byte_timeout: Duration,
    /// How long a body waits for the endpoint to say 100 (Continue); zero = the endpoint is not asked.
    pub expect_timeout: Duration,
    /// Between two parts of the response body.
    pub idle_timeout: Duration,
    /// For the whole exchange.
    pub total_timeout: Option<Duration>,
    /// When a request is sent again.
    pub retry: RetryView,
}

impl RouteView {
    pub(super) fn compile(
        name: &str,
        index: usize,
        route: &Route,
        upstream: Arc<UpstreamView>,
        tried_as: Option<Revision>,
    ) -> Self {
        let timeouts = route.timeouts.clone().unwrap_or_default();
        let upgrades = match &route.upgrades {
            None => vec!["websocket".into()],
            Some(protocols) => {
                protocols.iter().map(|protocol| protocol.to_ascii_lowercase().into()).collect()
            }
        };
        let name: Arc<str> = name.into();
        Self {
            // No name has this sign.
            key_name: tried_as.map_or_else(|| name.clone(), |revision| format!("{name}@{revision}").into()),
            name,
            index,
            upstream,
            cache: route.cache.as_ref().map(CacheRuleView::compile),
            upgrades,
            trailers: route.trailers,
            first_byte_timeout: timeouts.first_byte.unwrap_or(Period::seconds(30)).0,
            expect_timeout: timeouts.expect_continue.unwrap_or(Period::seconds(1)).0,
            idle_timeout: timeouts.idle.unwrap_or(Period::seconds(60)).0,
            total_timeout: timeouts.total.map(|period| period.0),
            retry: RetryView::compile(route.retry.as_ref()),
        }
    }
}

/// A compiled cache rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRuleView {
    /// Largest body that is stored in one piece, bytes.
    pub max_object_bytes: u64,
    /// The least body that is kept in chunks, bytes; `None` = none is.
    pub chunked_from_bytes: Option<u64>,
    /// What a request with `Range` does when nothing of the object is there.
    pub range_miss: RangeMiss,
    /// When the second copy is made.
    pub replicate: Replicate,
    /// Whether responses with `Set-Cookie` may be stored.
    pub set_cookie: SetCookie,
    /// Whether `Cache-Control` of requests is obeyed.
    pub request_directives: RequestDirectives,
    /// How long past its expiry an object may be served while the origin cannot be reached.
    pub max_stale_on_disconnect: Duration,
    /// What happens to hits while this node cannot know of purges.
    pub purge_unverified: PurgeUnverified,
    /// Who may purge by the method `PURGE`; `None` = it is a method like any other.
    pub purge_method: Option<Arc<PurgeMethodView>>,
    /// What tells objects apart beside the URL.
    pub key: CacheKeyView,
    /// How long responses are kept that do not say so themselves, by status.
    pub kept_statuses: Box<[(StatusCode, Duration)]>,
    /// Whether errors that anybody can cause are stored.
    pub request_errors: RequestErrors,
    /// Ends of the paths that are cached, in lower case; `None` = all paths are.
    pub extensions: Option<Box<[Box<str>]>>,
    /// The only fields that reach the upstream when a response is to be stored, beside those of negotiation; `None` = all
    /// do.
    pub fill_fields: Option<Box<[HeaderName]>>,
    /// Objects are fetched again a little before they expire.
    pub early_refresh: bool,
    /// Whether responses may say which parameters of the query do not count.
    pub no_vary_search: NoVarySearch,
}

impl CacheRuleView {
    /// `rule` with the defaults filled in.
    pub fn compile(rule: &CacheRule) -> Self {
        let max_object_bytes = rule.max_object_size.unwrap_or(CacheRule::MAX_OBJECT_SIZE).0;
        let chunked_from_bytes = rule.chunked_from.unwrap_or(CacheRule::CHUNKED_FROM).0;
        Self {
            max_object_bytes,
            chunked_from_bytes: Some(chunked_from_bytes).filter(|least| *least <= max_object_bytes),
            range_miss: rule.range_miss.unwrap_or_default(),
            replicate: rule.replicate.unwrap_or_default(),
            set_cookie: rule.set_cookie.unwrap_or_default(),
            request_directives: rule.request_directives.unwrap_or_default(),
            max_stale_on_disconnect: rule.max_stale_on_disconnect.unwrap_or(Period::seconds(60)).0,
            purge_unverified: rule.purge_unverified.unwrap_or_default(),
            purge_method: rule.purge_method.as_ref().map(|rule| Arc::new(PurgeMethodView::compile(rule))),
            key: CacheKeyView::compile(rule.key.as_ref()),
            kept_statuses: kept_statuses(rule),
            request_errors: rule.request_errors.unwrap_or_default(),
            extensions: rule
                .extensions
                .as_ref()
                .map(|ends| ends.iter().map(|end| end.as_str().into()).collect()),
            fill_fields: rule.strict_fill.as_deref().map(field_names),
            early_refresh: rule.early_refresh.unwrap_or(true),
            no_vary_search: rule.no_vary_search.unwrap_or_default(),
        }
    }
}

/// `negative_ttl`, then `error_ttl`: the first one of a status counts.
fn kept_statuses(rule: &CacheRule) -> Box<[(StatusCode, Duration)]> {
    let negative = rule.negative_ttl.iter().filter_map(|(status, ttl)| Some((status.parse().ok()?, ttl.0)));
    let errors = rule.error_ttl.iter().flat_map(|ttl| ERRORS.map(|status| (status, ttl.0)));
    negative.chain(errors).collect()
}

/// Statuses that an upstream in trouble answers with.
const ERRORS: [StatusCode; 4] = [
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::site::read_site;
    use crate::view::ConfigView;

    #[test]
    fn what_a_revision_on_trial_answers_otherwise_has_keys_of_its_own() {
        let read = |text: &str| read_site("site.yaml", text).unwrap();
        let before = "\
            upstreams: { u: { endpoints: ['127.0.0.1:1'] }, v: { endpoints: ['127.0.0.1:2'] } }\n\
            routes: { a: { hosts: [a], upstream: u }, b: { hosts: [b], upstream: v }, c: { hosts: [c], upstream: v } }\n";
        for (from, to, expected) in [
            ("", "", ["a", "b", "c"]),
            ("127.0.0.1:1", "127.0.0.1:3", ["a@7", "b", "c"]),
            ("127.0.0.1:2", "127.0.0.1:3", ["a", "b@7", "c@7"]),
            ("hosts: [c], upstream: v", "hosts: [c], upstream: u", ["a", "b", "c@7"]),
            ("hosts: [b]", "hosts: [b], cache: {}", ["a", "b@7", "c"]),
        ] {
            let after = read(&before.replace(from, to));
            let tried = after.answered_otherwise(&read(before));
            let view = ConfigView::compile_trial(Revision(7), &after, &tried).unwrap();
            let names = ["a", "b", "c"].map(|name| view.routes.by_name(name).unwrap().key_name.to_string());
            assert_eq!(names, expected, "{from:?} -> {to:?}");
        }
        // What an upstream is linked to is a part of how it answers.
        let linked = before
            .replace("['127.0.0.1:2']", "['127.0.0.1:2'], tls: { server_name: v, client_certificate: me }")
            + "certificates: { me: { chain_pem: one, key_sealed: once, key_sha256: k }, other: { chain_pem: one, key_sealed: once, key_sha256: k } }\n";
        for (from, to, expected) in [
            ("me: { chain_pem: one", "me: { chain_pem: two", &["b", "c"][..]),
            ("other: { chain_pem: one", "other: { chain_pem: two", &[]),
            ("key_sealed: once", "key_sealed: again", &[]),
            ("key_sha256: k", "key_sha256: l", &["b", "c"]),
        ] {
            let tried = read(&linked.replacen(from, to, 1)).answered_otherwise(&read(&linked));
            assert_eq!(tried.iter().collect::<Vec<_>>(), expected, "{from:?} -> {to:?}");
        }
        let all = read(before).answered_otherwise(&Default::default());
        assert_eq!(all, BTreeSet::from(["a", "b", "c"].map(str::to_owned)));
    }
}
