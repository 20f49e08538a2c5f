//! Purges that requests ask for: by the method `PURGE` (who may, for what, and the answer of whoever carries it out), and by
//! what the origin answers to those that change something.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::response::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use shoal_cache::CacheRequest;
use shoal_model::state::{PurgeKind, PurgeScope};
use shoal_model::view::PurgeMethodView;
use shoal_policy::cache::purge_call::PurgeCall;
use tokio::sync::{mpsc, oneshot};

use crate::body::Payload;
use crate::listener::Connection;
use crate::metrics::PurgeResult;

/// How long the answer to a write is held back until no node serves the groups that it has changed: longer than any lease.
const GROUPS_PATIENCE: Duration = Duration::from_secs(12);

/// Who wants something to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeAsker {
    /// Somebody who says so, and may be asked to come again.
    Caller {
        /// From where.
        address: IpAddr,
        /// The URL that is meant, as it was asked for.
        url: Box<str>,
    },
    /// The origin, which has changed it: it is forgotten sooner or later. Where there are too many changes, all of the host
    /// is.
    Origin {
        /// As scopes have it.
        host: u64,
    },
}

/// A purge on its way to whoever carries it out.
#[derive(Debug)]
pub struct AskedPurge {
    /// What is to be forgotten.
    pub scopes: Vec<PurgeScope>,
    /// Who wants that.
    pub asker: PurgeAsker,
    /// Forget, or only treat as stale.
    pub kind: PurgeKind,
    /// Answer when no node serves it any more.
    pub wait_complete: bool,
    /// Takes what came of it.
    pub answer: oneshot::Sender<PurgeAnswer>,
}

/// What came of a purge, as its caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeAnswer {
    /// Of the response.
    pub status: StatusCode,
    /// Its body.
    pub json: String,
}

/// The rule by which this request is a purge; `None` = it is not.
pub(crate) fn asked<'a>(request: &CacheRequest<'a>) -> Option<&'a PurgeMethodView> {
    let rule = request.rule.purge_method.as_deref()?;
    is_purge(&request.head.method).then_some(rule)
}

fn is_purge(method: &Method) -> bool {
    method.as_str() == "PURGE"
}

/// Purges the URL of `request`, if its caller may.
pub(crate) async fn carry_out(
    connection: &Connection,
    request: &CacheRequest<'_>,
    rule: &PurgeMethodView,
    caller: IpAddr,
) -> Response<Payload> {
    let worker = &connection.worker;
    let fields = &request.head.headers;
    let address = caller.to_canonical();
    if !rule.admits(address) || !has_token(rule, fields) {
        worker.metrics.purge(PurgeResult::Forbidden);
        return refuse(StatusCode::FORBIDDEN, "this caller may not purge here");
    }
    let PurgeCall { kind, wait_complete } = match PurgeCall::read(fields) {
        Ok(call) => call,
        Err(why) => {
            worker.metrics.purge(PurgeResult::Malformed);
            return refuse(StatusCode::BAD_REQUEST, &why);
        }
    };
    let (answer, answered) = oneshot::channel();
    let scope = connection.listener.sources.cache.purge_scope(request);
    let asker = PurgeAsker::Caller { address, url: url_of(request) };
    let order = AskedPurge { scopes: vec![scope], asker, kind, wait_complete, answer };
    let answer = match worker.purges.try_send(order) {
        Ok(()) => answered.await.ok(),
        Err(mpsc::error::TrySendError::Full(_) | mpsc::error::TrySendError::Closed(_)) => None,
    };
    let Some(PurgeAnswer { status, json }) = answer else {
        worker.metrics.purge(PurgeResult::Failed);
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "this node cannot take on a purge now");
    };
    worker.metrics.purge(if status.is_success() { PurgeResult::Done } else { PurgeResult::Failed });
    respond(status, json)
}

fn url_of(request: &CacheRequest<'_>) -> Box<str> {
    let scheme = if request.https { "https" } else { "http" };
    let target = request.head.uri.path_and_query().map_or("/", |target| target.as_str());
    format!("{scheme}://{}{target}", request.host).into()
}

/// Has the groups forgotten that the origin's answer to `request` makes invalid; returns when no node serves them any more,
/// or when that takes too long: then they are forgotten later.
pub(crate) async fn forget_groups(connection: &Connection, request: &CacheRequest<'_>, answer: &Parts) {
    let cache = &connection.listener.sources.cache;
    let scopes = cache.invalidated_groups(request, answer.status, &answer.headers);
    if scopes.is_empty() {
        return;
    }
    let (told, done) = oneshot::channel();
    let asker = PurgeAsker::Origin { host: cache.host_scope(request) };
    let order = AskedPurge { scopes, asker, kind: PurgeKind::Hard, wait_complete: true, answer: told };
    let purges = &connection.worker.purges;
    if let Err(mpsc::error::TrySendError::Full(order)) = purges.try_send(order) {
        // It goes on when this request is given up.
        let purges = purges.clone();
        tokio::task::spawn_local(async move { purges.send(order).await });
    }
    _ = tokio::time::timeout(GROUPS_PATIENCE, done).await;
}

/// The token is there, and only once. It is compared by its hash, and that without telling where the two differ.
fn has_token(rule: &PurgeMethodView, fields: &HeaderMap) -> bool {
    let Some((header, sha256)) = &rule.token else { return true };
    let mut shown = fields.get_all(header).iter();
    match (shown.next(), shown.next()) {
        (Some(token), None) => {
            verify_slices_are_equal(digest(&SHA256, token.as_bytes()).as_ref(), sha256).is_ok()
        }
        _ => false,
    }
}

fn refuse(status: StatusCode, why: &str) -> Response<Payload> {
    // What is told may quote the caller.
    let why = why.replace('\\', "\\\\").replace('"', "\\\"");
    respond(status, format!("{{\"error\":\"{why}\"}}\n"))
}

fn respond(status: StatusCode, json: String) -> Response<Payload> {
    let mut response = Response::new(Payload::Text(Bytes::from(json)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

#[cfg(test)]
mod tests {
    use shoal_model::site::read_site;
    use shoal_model::{ConfigView, Revision};

    use super::*;

    fn rule(settings: &str) -> PurgeMethodView {
        let text = format!(
            "listeners:\n  l: {{ address: \":80\", protocol: http }}\n\
             upstreams:\n  u: {{ endpoints: [\"127.0.0.1:1\"] }}\n\
             routes:\n  r: {{ upstream: u, cache: {{ purge_method: {{ {settings} }} }} }}\n"
        );
        let view = ConfigView::compile(Revision(1), &read_site("site.yaml", &text).unwrap()).unwrap();
        let route = view.routes.by_name("r").unwrap().clone();
        PurgeMethodView::clone(route.cache.as_ref().unwrap().purge_method.as_deref().unwrap())
    }

    #[test]
    fn the_token_is_there_once() {
        // The hash of "test".
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let check = |settings: &str, fields: &[(&'static str, &'static str)], expected| {
            let fields = fields
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            let mut headers = HeaderMap::new();
            fields.for_each(|(name, value)| _ = headers.append(name, value));
            assert_eq!(has_token(&rule(settings), &headers), expected, "{settings} {headers:?}");
        };
        let plain = &format!("token_sha256: \"{hash}\"");
        check(plain, &[("x-purge-token", "test")], true);
        check(plain, &[("x-purge-token", "Test")], false);
        check(plain, &[("x-purge-token", "")], false);
        check(plain, &[], false);
        check(plain, &[("x-purge-token", "test"), ("x-purge-token", "test")], false);
        check(&format!("{plain}, token_header: X-Secret"), &[("x-secret", "test")], true);
        check(&format!("{plain}, token_header: X-Secret"), &[("x-purge-token", "test")], false);
        check("networks: [10.0.0.0/8]", &[], true);
    }

    #[test]
    fn callers_are_in_a_network() {
        let check = |settings: &str, address: &str, expected| {
            assert_eq!(rule(settings).admits(address.parse().unwrap()), expected, "{settings} {address}");
        };
        check("networks: [10.0.0.0/8, \"::1\"]", "10.1.2.3", true);
        check("networks: [10.0.0.0/8, \"::1\"]", "::1", true);
        check("networks: [10.0.0.0/8]", "11.0.0.1", false);
    }
}
