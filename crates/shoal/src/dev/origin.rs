//! Two small origins for a demo cluster: a page with its style and picture, a clock, and something slow.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::layout::Layout;

/// Connections that one origin serves at once.
const MAX_CONNECTIONS: usize = 1024;
/// How long `/slow` takes: long enough to see that many callers wait for one answer.
const SLOW: Duration = Duration::from_secs(2);
/// How long pages may be cached.
const PAGE_FRESHNESS: &str = "max-age=60, stale-while-revalidate=30";

const PAGES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("demo/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("demo/style.css")),
    ("/logo.svg", "image/svg+xml", include_str!("demo/logo.svg")),
];

type Answer = Response<Full<Bytes>>;

/// Starts the origins; they end with the returned set.
pub async fn start(layout: &Layout) -> anyhow::Result<JoinSet<()>> {
    let mut origins = JoinSet::new();
    for (n, port) in layout.origins.into_iter().enumerate() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("cannot serve an origin on 127.0.0.1:{port}"))?;
        origins.spawn(serve(listener, Arc::new(Origin { number: n + 1, answered: AtomicU64::new(0) })));
    }
    Ok(origins)
}

/// One of them.
struct Origin {
    number: usize,
    answered: AtomicU64,
}

async fn serve(listener: TcpListener, origin: Arc<Origin>) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed; if it were, there would be nothing left to serve.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        // A connection that died in the queue is no reason to stop.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let origin = origin.clone();
        connections.spawn(async move {
            serve_connection(stream, origin).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(stream: TcpStream, origin: Arc<Origin>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let origin = origin.clone();
        async move {
            Ok::<_, Infallible>(
                origin.answer(request.method(), request.uri().path(), request.headers()).await,
            )
        }
    });
    // A caller that breaks off is its own affair.
    _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

impl Origin {
    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            let mut answer = self.text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/healthz" => self.text(StatusCode::OK, "ok\n"),
            "/time" => self.time(),
            "/slow" => {
                tokio::time::sleep(SLOW).await;
                let mut answer = self.text(StatusCode::OK, "that took a while\n");
                answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=30"));
                answer
            }
            _ => match PAGES.iter().find(|(page, ..)| *page == path) {
                Some((_, kind, text)) => self.page(kind, text, headers),
                None => self.text(StatusCode::NOT_FOUND, "there is no such page\n"),
            },
        }
    }

    fn page(&self, kind: &'static str, text: &'static str, headers: &HeaderMap) -> Answer {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        let known = headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|one| one.trim().trim_start_matches("W/") == etag));
        let mut answer = if known {
            self.respond(StatusCode::NOT_MODIFIED, Bytes::new())
        } else {
            let mut answer = self.respond(StatusCode::OK, Bytes::from_static(text.as_bytes()));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            answer
        };
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(PAGE_FRESHNESS));
        answer.headers_mut().insert("cache-tag", HeaderValue::from_static("demo"));
        if let Ok(etag) = HeaderValue::try_from(etag) {
            answer.headers_mut().insert(ETAG, etag);
        }
        answer
    }

    fn time(&self) -> Answer {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let answered = self.answered.load(Ordering::Relaxed);
        let text = format!("{{\"origin\":{},\"now_ms\":{now_ms},\"answered\":{answered}}}\n", self.number);
        let mut answer = self.respond(StatusCode::OK, Bytes::from(text));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    fn text(&self, status: StatusCode, text: &'static str) -> Answer {
        let mut answer = self.respond(status, Bytes::from_static(text.as_bytes()));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    fn respond(&self, status: StatusCode, body: Bytes) -> Answer {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let mut answer = Response::new(Full::new(body));
        *answer.status_mut() = status;
        answer.headers_mut().insert("x-demo-origin", HeaderValue::from(self.number));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(
        method: Method,
        path: &str,
        etag: Option<&HeaderValue>,
        status: u16,
        cache_control: &str,
    ) -> Answer {
        let origin = Origin { number: 1, answered: AtomicU64::new(0) };
        let mut headers = HeaderMap::new();
        headers.extend(etag.map(|etag| (IF_NONE_MATCH, etag.clone())));
        let answer = origin.answer(&method, path, &headers).await;
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        assert_eq!(answer.headers()[CACHE_CONTROL], cache_control, "{method} {path}");
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn pages_are_cacheable_and_the_clock_is_not() {
        let page = check(Method::GET, "/", None, 200, PAGE_FRESHNESS).await;
        check(Method::GET, "/", page.headers().get(ETAG), 304, PAGE_FRESHNESS).await;
        check(Method::GET, "/style.css", page.headers().get(ETAG), 200, PAGE_FRESHNESS).await;
        check(Method::HEAD, "/logo.svg", None, 200, PAGE_FRESHNESS).await;
        check(Method::GET, "/time", None, 200, "no-store").await;
        check(Method::GET, "/healthz", None, 200, "no-store").await;
        check(Method::GET, "/slow", None, 200, "max-age=30").await;
        check(Method::GET, "/nowhere", None, 404, "no-store").await;
        check(Method::POST, "/", None, 405, "no-store").await;
    }
}
