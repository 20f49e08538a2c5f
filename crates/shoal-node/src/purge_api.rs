//! Purges over plain HTTP, for programs that have a token: `POST /v1/purge` and `GET /v1/purge/SEQ` on the ops address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, Response, StatusCode, Uri};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::{Deserialize, Serialize};
use shoal_cluster::join::{ROLE_PURGE, Token, TokenError};
use shoal_configlog::on_behalf_of;
use shoal_model::units::{Period, millis_u32};
use shoal_proto::admin::{PurgeInfo, PurgeRequest, PurgeStatusRequest};

use crate::admin::{purge_order, purge_status};
use crate::asking::Who;
use crate::node::Node;
use crate::purge_reply::{reply, trouble};

/// Bytes of a request body: a thousand URLs of a kilobyte.
const MAX_BODY: usize = 1 << 20;
/// Longest wait that a caller may ask for: connections to the ops address do not live longer.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    urls: Vec<String>,
    prefixes: Vec<String>,
    hosts: Vec<String>,
    tags: Vec<String>,
    groups: Vec<String>,
    all: bool,
    soft: bool,
    wait: Wait,
    timeout: Option<Period>,
    request_id: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wait {
    Committed,
    #[default]
    Complete,
}

/// What became of a purge.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    purge: &'a PurgeInfo,
    /// No node serves what it forgets.
    complete: bool,
}

/// Why a caller is not listened to. Of a token that is good for nothing here it is not told why: to none but its owner that
/// would be news.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Denied {
    #[error(
        "a token is needed, as `Authorization: Bearer TOKEN`; `shoal token create --role purge` makes one"
    )]
    NoToken,
    #[error("the token cannot be read: {0}")]
    Malformed(#[from] TokenError),
    #[error(
        "the token is not known here: it has expired, was revoked, or is another cluster's; `shoal token create --role \
         purge` makes one"
    )]
    Unknown,
    #[error(
        "the token is for another role, and does not allow purges; `shoal token create --role purge` makes one"
    )]
    OfAnotherRole,
}

/// The paths of the API.
pub fn routes() -> Router<Arc<Node>> {
    let purge = post(purge).fallback(|| async { wrong_method("POST") });
    let status = get(status).fallback(|| async { wrong_method("GET") });
    Router::new().route("/v1/purge", purge).route("/v1/purge/{seq}", status)
}

async fn purge(
    State(node): State<Arc<Node>>,
    from: Option<Extension<SocketAddr>>,
    fields: HeaderMap,
    body: Body,
) -> Response<Body> {
    // Who has no token is not listened to.
    let token = match authorized(&node, &fields) {
        Ok(token) => token,
        Err(denied) => return deny(&denied),
    };
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return respond(StatusCode::PAYLOAD_TOO_LARGE, trouble("a body of more than 1 MiB is not read"));
    };
    let asked = match read(&body) {
        Ok(asked) => asked,
        Err(why) => return respond(StatusCode::BAD_REQUEST, trouble(&why)),
    };
    if let Some(timeout) = asked.timeout.filter(|timeout| timeout.0 > MAX_WAIT) {
        let why = format!("timeout: {timeout} is more than {}s, the longest wait", MAX_WAIT.as_secs());
        return respond(StatusCode::BAD_REQUEST, trouble(&why));
    }
    let was_awaited = asked.wait == Wait::Complete;
    let order = match purge_order(&node, asked.into(), format!("token {token}")) {
        Ok(order) => order,
        Err(why) => return respond(StatusCode::BAD_REQUEST, trouble(&why)),
    };
    let from = from.map_or_else(String::new, |Extension(from)| from.to_string());
    let asker = node.asker(Who::with_token(&token, ROLE_PURGE, from), "POST /v1/purge");
    let (status, json) = reply(&on_behalf_of(asker, node.purge(order)).await, was_awaited);
    respond(status, json)
}

async fn status(State(node): State<Arc<Node>>, uri: Uri, fields: HeaderMap) -> Response<Body> {
    if let Err(denied) = authorized(&node, &fields) {
        return deny(&denied);
    }
    let written = uri.path().rsplit('/').next().unwrap_or_default();
    let Ok(seq) = written.parse() else {
        let why = format!("{written:?} is not the number of a purge");
        return respond(StatusCode::BAD_REQUEST, trouble(&why));
    };
    match purge_status(&node, &PurgeStatusRequest { seq, limit: 1 }).await {
        Ok(found) => {
            let told = found.purges.first().map(|purge| Told { complete: is_complete(purge), purge });
            let json = told.and_then(|told| serde_json::to_string(&told).ok());
            respond(StatusCode::OK, json.unwrap_or_default() + "\n")
        }
        Err(status) => respond(StatusCode::NOT_FOUND, trouble(status.message())),
    }
}

fn is_complete(purge: &PurgeInfo) -> bool {
    purge.acks.iter().all(|ack| ack.lease_until_ms == 0)
}

impl From<Asked> for PurgeRequest {
    fn from(asked: Asked) -> Self {
        let wait = asked.timeout.map_or(Duration::ZERO, |timeout| timeout.0);
        Self {
            urls: asked.urls,
            prefixes: asked.prefixes,
            hosts: asked.hosts,
            tags: asked.tags,
            groups: asked.groups,
            all: asked.all,
            soft: asked.soft,
            wait_complete: asked.wait == Wait::Complete,
            timeout_ms: millis_u32(wait),
            author: String::new(),
            request_id: asked.request_id,
        }
    }
}

/// What is asked for by the fields of an object. Without their names, as serde would take them from an array, nobody sees
/// what they mean.
fn read(body: &[u8]) -> Result<Asked, String> {
    match body.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(body).map_err(|error| error.to_string()),
        Some(_) | None => {
            Err("the body is not a JSON object; write {\"urls\": [\"http://host/path\"]}".to_owned())
        }
    }
}

/// The public part of the token that the caller has, if it is good for purges.
fn authorized(node: &Node, fields: &HeaderMap) -> Result<String, Denied> {
    let token: Token = bearer(fields).ok_or(Denied::NoToken)?.parse()?;
    let record = node.record_of(&token).ok_or(Denied::Unknown)?;
    match [&*token.role, &*record.role] {
        [ROLE_PURGE, ROLE_PURGE] => Ok(token.id),
        _ => Err(Denied::OfAnotherRole),
    }
}

fn deny(denied: &Denied) -> Response<Body> {
    let why = trouble(&denied.to_string());
    if *denied == Denied::OfAnotherRole {
        return respond(StatusCode::FORBIDDEN, why);
    }
    let mut refused = respond(StatusCode::UNAUTHORIZED, why);
    refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

fn wrong_method(allowed: &'static str) -> Response<Body> {
    let why = format!("this path takes {allowed}");
    let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, trouble(&why));
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    refused
}

fn bearer(fields: &HeaderMap) -> Option<&str> {
    let (scheme, token) = fields.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn respond(status: StatusCode, json: String) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
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
    use shoal_proto::admin::PurgeAck;

    use super::*;

    #[test]
    fn what_is_asked_for_is_read_strictly() {
        let read = |text: &str| read(text.as_bytes()).map(PurgeRequest::from);
        let request = read(r#"{"urls":["http://a/"],"soft":true,"timeout":"9s"}"#).unwrap();
        assert_eq!((request.urls.len(), request.soft, request.wait_complete), (1, true, true));
        assert_eq!(request.timeout_ms, 9000);
        assert!(!read(r#"{"all":true,"wait":"committed"}"#).unwrap().wait_complete);
        assert!(read(" \r\n\t{\"all\":true}\n").unwrap().all);
        for wrong in [r#"{"url":"http://a/"}"#, r#"{"urls":"http://a/"}"#, r#"{"wait":"ever"}"#, "{", "{}x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for wrong in ["[[],[],[],[],[],true]", "[]", "7", "null", "", " "] {
            assert!(read(wrong).unwrap_err().contains("is not a JSON object"), "{wrong}");
        }
    }

    #[test]
    fn a_purge_is_complete_once_nobody_serves_what_it_forgets() {
        let check = |acks: &[(&str, u64)], expected: bool| {
            let ack = |&(state, lease_until_ms): &(&str, u64)| PurgeAck {
                state: state.to_owned(),
                lease_until_ms,
                ..PurgeAck::default()
            };
            let purge = PurgeInfo { acks: acks.iter().map(ack).collect(), ..PurgeInfo::default() };
            assert_eq!(is_complete(&purge), expected, "{acks:?}");
        };
        check(&[], true);
        check(&[("acknowledged", 0), ("lapsed", 0), ("left", 0), ("behind", 0)], true);
        check(&[("acknowledged", 0), ("behind", 7)], false);
        check(&[("silent", 7), ("acknowledged", 0)], false);
    }

    #[test]
    fn tokens_are_borne() {
        let check = |value: &'static str, expected: Option<&str>| {
            let fields = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(bearer(&fields), expected, "{value}");
        };
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Basic abc", None);
        check("abc", None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
