//! `shoal cache warm`: has the owners of URLs fetch them, so many at once, so many in a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use shoal_cluster::tls::cause_of;
use shoal_model::NodeId;
use shoal_model::units::millis_u32;
use shoal_policy::cache::key::url_of;
use shoal_policy::cache::warming::{Errand, Wish, errand};
use shoal_policy::forwarding::OwnName;
use shoal_proto::admin::{CacheWarmRequest, CacheWarmResponse};
use shoal_proto::cache::cache_service_server::CacheService;
use shoal_proto::cache::{RequestField, WarmOutcome, WarmRequest, WarmResponse};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use super::failure::{Exit, with_exit};
use crate::node::{Node, now_ms};

/// URLs of one call.
const MAX_URLS: usize = 1000;
/// Bytes of one of them.
const MAX_URL_BYTES: usize = 8192;
/// Fields that a caller adds to each request.
const MAX_FIELDS: usize = 32;
/// URLs on their way at once, where nobody says how many.
const DEFAULT_CONCURRENCY: u32 = 8;
/// And at most.
const MAX_CONCURRENCY: u32 = 64;
/// URLs begun in a second, where nobody says how many.
const DEFAULT_PER_SECOND: u32 = 100;
/// And at most.
const MAX_PER_SECOND: u32 = 10_000;
/// For one URL, where nobody says how long.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// And at most: no call to another node lives longer.
const MAX_TIMEOUT: Duration = Duration::from_secs(55);
/// Calls that are worked on at once on a node.
pub const MAX_CALLS: usize = 4;

/// An answer for each URL, as it is done.
pub type Warmed = ReceiverStream<Result<CacheWarmResponse, Status>>;

/// What all URLs of a call have in common.
struct Batch {
    host: Option<String>,
    listener: Option<String>,
    fields: HeaderMap,
    own: OwnName,
    timeout: Duration,
}

/// Begins; what is wrong with all of it is said at once.
pub fn warm(node: &Arc<Node>, request: CacheWarmRequest, caller: &str) -> Result<Warmed, Status> {
    let misread = |why: String| with_exit(Code::InvalidArgument, Exit::Local, why);
    check_limits(&request).map_err(misread)?;
    let fields = read_fields(&request.fields).map_err(misread)?;
    let busy = |_| {
        let why = format!("{MAX_CALLS} others are warming the cache by way of this node; try again later");
        with_exit(Code::ResourceExhausted, Exit::Remote, why)
    };
    let place = node.warming.clone().try_acquire_owned().map_err(busy)?;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let timeout = match request.timeout_ms {
        0 => DEFAULT_TIMEOUT,
        ms => Duration::from_millis(ms.into()).min(MAX_TIMEOUT),
    };
    let batch = Batch {
        host: given(request.host),
        listener: given(request.listener),
        fields,
        own: OwnName::new(&node.identity.name),
        timeout,
    };
    let or = |asked, default| if asked == 0 { default } else { asked };
    let concurrency = or(request.concurrency, DEFAULT_CONCURRENCY) as usize;
    let period = Duration::from_secs(1) / or(request.per_second, DEFAULT_PER_SECOND);
    tracing::info!(urls = request.urls.len(), caller, "the cache is being warmed");
    let (told, telling) = mpsc::channel(MAX_CONCURRENCY as usize);
    let pace = Pace { concurrency, period };
    tokio::spawn(warm_all(node.clone(), request.urls, Arc::new(batch), pace, told, place));
    Ok(ReceiverStream::new(telling))
}

fn check_limits(request: &CacheWarmRequest) -> Result<(), String> {
    let too_many = |what: &str, count: usize, most: usize| {
        if count > most { Err(format!("{count} {what}; at most {most}")) } else { Ok(()) }
    };
    if request.urls.is_empty() {
        return Err("nothing to warm: name a URL".to_owned());
    }
    too_many("URLs in one call", request.urls.len(), MAX_URLS)?;
    too_many("fields", request.fields.len(), MAX_FIELDS)?;
    too_many("at once", request.concurrency as usize, MAX_CONCURRENCY as usize)?;
    too_many("a second", request.per_second as usize, MAX_PER_SECOND as usize)?;
    let longest = request.urls.iter().map(String::len).max().unwrap_or(0);
    too_many("bytes in a URL", longest, MAX_URL_BYTES)
}

fn read_fields(written: &[String]) -> Result<HeaderMap, String> {
    let mut fields = HeaderMap::new();
    for text in written {
        let misread = || format!("{text:?} is not a field; write \"name: value\"");
        let (name, value) = text.split_once(':').ok_or_else(misread)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| misread())?;
        fields.append(name, HeaderValue::from_str(value.trim()).map_err(|_| misread())?);
    }
    Ok(fields)
}

#[derive(Clone, Copy)]
struct Pace {
    concurrency: usize,
    period: Duration,
}

/// Until all are done, or nobody listens any more.
async fn warm_all(
    node: Arc<Node>,
    urls: Vec<String>,
    batch: Arc<Batch>,
    pace: Pace,
    told: mpsc::Sender<Result<CacheWarmResponse, Status>>,
    _place: OwnedSemaphorePermit,
) {
    let mut under_way = JoinSet::new();
    let mut next = tokio::time::Instant::now();
    for url in urls {
        if under_way.len() >= pace.concurrency {
            under_way.join_next().await;
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = told.closed() => return,
        }
        next = (next + pace.period).max(tokio::time::Instant::now());
        let (node, batch, told) = (node.clone(), batch.clone(), told.clone());
        under_way.spawn(async move {
            let warmed = warm_one(&node, &url, &batch).await;
            // Who does not listen any more is noticed above.
            _ = told.send(Ok(warmed)).await;
        });
    }
    while under_way.join_next().await.is_some() {
        if told.is_closed() {
            return;
        }
    }
}

async fn warm_one(node: &Arc<Node>, url: &str, batch: &Batch) -> CacheWarmResponse {
    let started = Instant::now();
    let mut response = CacheWarmResponse { url: url.to_owned(), ..CacheWarmResponse::default() };
    let request_id = HeaderValue::from_str(&format!("warm-{}-{:x}", node.id(), now_ms()));
    let request_id = request_id.unwrap_or_else(|_| HeaderValue::from_static("warm"));
    let wish = Wish {
        url,
        host: batch.host.as_deref(),
        listener: batch.listener.as_deref(),
        fields: &batch.fields,
        own: &batch.own,
        request_id: &request_id,
    };
    match errand(&node.config.load_full(), &wish) {
        Ok(errand) => {
            response.route = errand.route.name.to_string();
            let asked = tokio::time::timeout(batch.timeout, ask_owners(node, &errand, batch.timeout)).await;
            let late = || Asked { node: None, answer: Err(format!("no answer within {:?}", batch.timeout)) };
            let Asked { node: owner, answer } = asked.unwrap_or_else(|_| late());
            response.node = owner.unwrap_or_default();
            tell(&mut response, answer);
        }
        Err(why) => (response.state, response.detail) = ("refused".to_owned(), why.to_string()),
    }
    response.elapsed_ms = millis_u32(started.elapsed());
    response
}

fn tell(response: &mut CacheWarmResponse, answer: Result<WarmResponse, String>) {
    let answer = answer.unwrap_or_else(|why| WarmResponse {
        outcome: WarmOutcome::Failed.into(),
        detail: why,
        ..WarmResponse::default()
    });
    let state = match answer.outcome() {
        WarmOutcome::Fresh => "fresh",
        WarmOutcome::Stored => "stored",
        WarmOutcome::Uncacheable => "uncacheable",
        WarmOutcome::Failed | WarmOutcome::Unspecified => "failed",
    };
    response.state = state.to_owned();
    (response.status, response.body_bytes) = (answer.status, answer.body_bytes);
    (response.ttl_seconds, response.detail) = (answer.ttl_seconds, answer.detail);
}

/// Who was asked last, and what he said.
struct Asked {
    node: Option<String>,
    answer: Result<WarmResponse, String>,
}

/// Asks the primary, and the second owner where that cannot be reached.
async fn ask_owners(node: &Arc<Node>, errand: &Errand, timeout: Duration) -> Asked {
    let nobody = || Asked { node: None, answer: Err("no node of this region owns it".to_owned()) };
    let Some((_, owners)) = node.cache.locate(url_of(&errand.text)).into_iter().next() else {
        return nobody();
    };
    let mut asked = nobody();
    for (owner, primary_down) in [(owners.primary, false), (owners.secondary, true)] {
        let Some(owner) = owner else { continue };
        let name = node.members().remove(&owner).map(|member| member.name);
        let answer = ask(node, owner, request(node, errand, primary_down), timeout).await;
        let is_answered = answer.is_ok();
        asked = Asked { node: name, answer };
        if is_answered {
            break;
        }
    }
    asked
}

fn request(node: &Node, errand: &Errand, primary_down: bool) -> WarmRequest {
    let field = |(name, value): (&HeaderName, &HeaderValue)| RequestField {
        name: name.to_string(),
        value: value.as_bytes().to_vec(),
    };
    WarmRequest {
        text: errand.text.clone(),
        route: errand.route.name.to_string(),
        target: errand.head.uri.to_string(),
        fields: errand.head.headers.iter().map(field).collect(),
        primary_down,
        min_seq: node.cache.counters().purge_seq,
    }
}

async fn ask(
    node: &Node,
    owner: NodeId,
    request: WarmRequest,
    timeout: Duration,
) -> Result<WarmResponse, String> {
    let mut request = Request::new(request);
    request.set_timeout(timeout);
    let response = if owner == node.id() {
        node.cache.service().warm(request).await
    } else {
        let mut client = node.peers.cache(owner).map_err(|error| error.to_string())?;
        client.warm(request).await
    };
    response.map(tonic::Response::into_inner).map_err(|status| cause_of(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_bounded() {
        let check = |change: &dyn Fn(&mut CacheWarmRequest), expected: Option<&str>| {
            let mut request =
                CacheWarmRequest { urls: vec!["http://a/".into()], ..CacheWarmRequest::default() };
            change(&mut request);
            let checked = check_limits(&request).and_then(|()| read_fields(&request.fields).map(|_| ()));
            match (&checked, expected) {
                (Ok(()), None) => {}
                (Err(why), Some(part)) => assert!(why.contains(part), "{why}"),
                _ => panic!("{checked:?}, not {expected:?}"),
            }
        };
        check(&|_| {}, None);
        check(&|request| request.urls.clear(), Some("name a URL"));
        check(
            &|request| request.urls = vec![String::new(); 1001],
            Some("1001 URLs in one call; at most 1000"),
        );
        check(&|request| request.urls = vec!["x".repeat(9000)], Some("9000 bytes in a URL"));
        check(&|request| request.concurrency = 65, Some("65 at once; at most 64"));
        check(&|request| request.per_second = 10_001, Some("10001 a second"));
        check(&|request| request.fields = vec!["a: b".into(); 33], Some("33 fields"));
        check(&|request| request.fields = vec!["accept-encoding:br, gzip".into()], None);
        check(&|request| request.fields = vec!["gzip".into()], Some("is not a field"));
        check(&|request| request.fields = vec!["a b: c".into()], Some("is not a field"));
        check(&|request| request.fields = vec!["a: b\nc".into()], Some("is not a field"));
    }
}
