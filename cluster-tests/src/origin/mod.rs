//! An origin that does what the story says and remembers what it was asked.

pub(crate) mod nginx;
pub(crate) mod versions;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::address::LoopbackBlock;
use crate::network::Network;

/// Heads that are remembered; counts go on past it.
const REMEMBERED: usize = 10_000;

/// Bytes that a connection takes of a metered reply at once.
const PIECE_BYTES: usize = 64 * 1024;

/// From the last byte of a truncated reply to the end of its connection.
const CUT_DELAY: Duration = Duration::from_millis(50);

/// Origins stand on an address of their own, where no outgoing connection can take their port between two starts.
static ORIGIN_BLOCK: LazyLock<Option<LoopbackBlock>> = LazyLock::new(|| LoopbackBlock::claim().ok());

/// A request as the origin saw it, whole.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: Method,
    /// Path without query.
    pub path: String,
    /// Query, empty when there was none.
    pub query: String,
    /// Header section.
    pub headers: HeaderMap,
    /// Content.
    pub body: Bytes,
    /// Trailer section, empty when there was none.
    pub trailers: HeaderMap,
}

impl Seen {
    /// The first value of a field; empty when absent.
    pub fn field(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What the origin answers.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    payload: Payload,
    delay: Duration,
    gate: Option<Arc<Semaphore>>,
}

/// The content of a reply.
#[derive(Clone, Debug)]
pub enum Payload {
    /// All of it, with a length.
    Whole(Bytes),
    /// In these chunks, then these trailers.
    Chunked(Vec<Bytes>, HeaderMap),
    /// A length is promised, less is sent, the connection is closed.
    Truncated {
        /// What `Content-Length` says.
        promised: usize,
        /// What is sent.
        sent: Bytes,
    },
    /// All of it, with a length; what is behind `first` waits for the story.
    Paused {
        /// What is sent at once.
        first: Bytes,
        /// What is sent when the gate lets it through.
        rest: Bytes,
        /// One permit for each reply.
        gate: Arc<Semaphore>,
    },
    /// All of it, with a length; the meter counts what is taken of it.
    Metered(Bytes, Arc<Meter>),
    /// No answer at all, ever.
    Hang,
}

/// What was taken of replies, piece by piece, by the connections that they went over.
#[derive(Debug, Default)]
pub struct Meter {
    taken: AtomicUsize,
    under_way: AtomicUsize,
}

impl Meter {
    /// Bytes that were taken since this was asked last.
    pub fn taken(&self) -> usize {
        self.taken.swap(0, Ordering::SeqCst)
    }

    /// No reply is on its way: what was begun has ended, or whoever it was for has gone.
    pub fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) == 0
    }
}

/// A reply on its way.
struct UnderWay(Arc<Meter>);

impl UnderWay {
    fn of(meter: Arc<Meter>) -> Self {
        meter.under_way.fetch_add(1, Ordering::SeqCst);
        Self(meter)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Reply {
    /// 200 with this content.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::with(Payload::Whole(body.into()))
    }

    /// What `seen` asks for of `body`, which has the tag `etag`: a range, if it wants one and not of another version.
    pub fn of(body: &Bytes, etag: &str, seen: &Seen) -> Self {
        let range = Some(seen.field("range")).filter(|_| ["", etag].contains(&seen.field("if-range")));
        let span = range.and_then(|range| {
            let last = body.len() - 1;
            let (first, end) = range.strip_prefix("bytes=")?.split_once('-')?;
            match first.is_empty() {
                true => Some((body.len() - end.parse::<usize>().ok()?, last)),
                false => Some((first.parse().ok()?, end.parse().map_or(last, |end: usize| end.min(last)))),
            }
        });
        let reply = match span {
            None => Self::ok(body.clone()),
            Some((first, last)) => Self::ok(body.slice(first..=last))
                .status(206)
                .field("content-range", &format!("bytes {first}-{last}/{}", body.len())),
        };
        reply.field("etag", etag)
    }

    /// Bytes that are sent, at most.
    pub fn bytes(&self) -> usize {
        match &self.payload {
            Payload::Whole(body) => body.len(),
            Payload::Chunked(chunks, _) => chunks.iter().map(Bytes::len).sum(),
            Payload::Truncated { sent, .. } => sent.len(),
            Payload::Paused { first, rest, .. } => first.len() + rest.len(),
            Payload::Metered(body, _) => body.len(),
            Payload::Hang => 0,
        }
    }

    /// 200 with this payload.
    pub fn with(payload: Payload) -> Self {
        Self { status: 200, headers: Vec::new(), payload, delay: Duration::ZERO, gate: None }
    }

    /// Another status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// One more field.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What is taken of its content counts.
    pub fn metered(mut self, meter: &Arc<Meter>) -> Self {
        if let Payload::Whole(body) = self.payload {
            self.payload = Payload::Metered(body, meter.clone());
        }
        self
    }

    /// Thinks for a while first.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits for the story first: for one permit.
    pub fn behind(mut self, gate: &Arc<Semaphore>) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

fn patterns(size: usize, cache_control: &'static str) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    move |seen| Reply::ok(pattern(&seen.path, size)).field("cache-control", cache_control)
}

/// Bytes that depend on `name` and nothing else: whoever reads them can tell whose they are.
pub fn pattern(name: &str, length: usize) -> Bytes {
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

type Answerer = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A running origin; it ends with its value, open connections included.
pub struct Origin {
    address: SocketAddr,
    log: Arc<Log>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    counts: Mutex<HashMap<String, usize>>,
    seen: Mutex<Vec<Seen>>,
}

impl Origin {
    /// Starts on a free port.
    pub async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Result<Self> {
        let block = ORIGIN_BLOCK.as_ref().context("no loopback block for origins")?;
        Self::start_at(block.socket(200, 0), answer).await
    }

    /// Starts at an address: that of an origin that was stopped before.
    pub async fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("bind {address}"))?;
        let (address, log) = (listener.local_addr()?, Arc::new(Log::default()));
        let accepting = tokio::spawn(accept(listener, Arc::new(answer), log.clone()));
        Ok(Self { address, log, accepting })
    }

    /// Every path answers with its own [`pattern`] of `size` bytes and the `Cache-Control` given.
    pub async fn of_patterns(size: usize, cache_control: &'static str) -> Result<Self> {
        Self::start(patterns(size, cache_control)).await
    }

    /// The same in a [`Network`](crate::Network) of the story's own, where every node reaches it.
    pub async fn of_patterns_in_network(size: usize, cache_control: &'static str) -> Result<Self> {
        Self::start_at((Network::HERE, 0).into(), patterns(size, cache_control)).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `host:port`, as in a site file.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Requests for this path so far.
    pub fn count(&self, path: &str) -> usize {
        self.log.counts.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied().unwrap_or(0)
    }

    /// Requests for all paths that begin so.
    pub fn count_below(&self, prefix: &str) -> usize {
        let counts = self.log.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().filter(|(path, _)| path.starts_with(prefix)).map(|(_, count)| count).sum()
    }

    /// The requests for this path, oldest first.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        let seen = self.log.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Stops listening and drops every connection; returns once the port is free.
    pub async fn stop(mut self) -> SocketAddr {
        self.accepting.abort();
        // The join error says that it was aborted, which was the purpose.
        let _ = (&mut self.accepting).await;
        self.address
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, answer: Arc<Answerer>, log: Arc<Log>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(serve(stream, answer.clone(), log.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, answer: Arc<Answerer>, log: Arc<Log>) {
    // Only costs speed when it fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (answer, log) = (answer.clone(), log.clone());
        async move { exchange(request, &*answer, &log).await }
    });
    let mut first = [0; 3];
    let speaks_http2 = stream.peek(&mut first).await.is_ok_and(|count| first[..count] == *b"PRI");
    // A connection that ends early is the story's own doing.
    let _ = match speaks_http2 {
        true => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
        }
        false => {
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
        }
    };
}

async fn exchange(
    request: Request<Incoming>,
    answer: &Answerer,
    log: &Log,
) -> Result<Response<BoxBody<Bytes, anyhow::Error>>> {
    let (head, body) = request.into_parts();
    *log.counts
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(head.uri.path().to_owned())
        .or_default() += 1;
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let seen = Seen {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: collected.to_bytes(),
        trailers,
    };
    let reply = answer(&seen);
    remember(log, seen);
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    if let Some(gate) = &reply.gate
        && let Ok(permit) = gate.acquire().await
    {
        permit.forget();
    }
    respond(reply).await
}

fn remember(log: &Log, seen: Seen) {
    let mut all = log.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() < REMEMBERED {
        all.push(seen);
    }
}

async fn respond(reply: Reply) -> Result<Response<BoxBody<Bytes, anyhow::Error>>> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    let infallible = |never: Infallible| match never {};
    let body = match reply.payload {
        Payload::Whole(body) if body.is_empty() => Empty::new().map_err(infallible).boxed(),
        Payload::Whole(body) => Full::new(body).map_err(infallible).boxed(),
        Payload::Chunked(chunks, trailers) => {
            let chunks = chunks.into_iter().map(|chunk| Ok(Frame::data(chunk)));
            let trailers = (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)));
            BodyExt::boxed(StreamBody::new(stream::iter(chunks.chain(trailers))))
        }
        Payload::Truncated { promised, sent } => {
            response = response.header("content-length", promised);
            let cut = async {
                // What was sent before is on its way by then: an error at once would take the head with it.
                tokio::time::sleep(CUT_DELAY).await;
                Err(anyhow::anyhow!("the story cuts it here"))
            };
            let frames = stream::once(async { Ok(Frame::data(sent)) }).chain(stream::once(cut));
            BodyExt::boxed(StreamBody::new(frames))
        }
        Payload::Paused { first, rest, gate } => {
            response = response.header("content-length", first.len() + rest.len());
            let second = async move {
                gate.acquire_owned().await?.forget();
                Ok(Frame::data(rest))
            };
            let frames = stream::once(async { Ok(Frame::data(first)) }).chain(stream::once(second));
            BodyExt::boxed(StreamBody::new(frames))
        }
        Payload::Metered(body, meter) => {
            response = response.header("content-length", body.len());
            let under_way = UnderWay::of(meter);
            let pieces = (0..body.len()).step_by(PIECE_BYTES).map(move |at| {
                let piece = body.slice(at..body.len().min(at + PIECE_BYTES));
                under_way.0.taken.fetch_add(piece.len(), Ordering::SeqCst);
                Ok(Frame::data(piece))
            });
            BodyExt::boxed(StreamBody::new(stream::iter(pieces)))
        }
        Payload::Hang => std::future::pending().await,
    };
    Ok(response.body(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fetch;

    #[tokio::test]
    async fn an_origin_answers_counts_and_comes_back() {
        let origin = Origin::of_patterns(1000, "max-age=60").await.unwrap();
        let answer = fetch(origin.address(), "o", "/a?b=c").await.unwrap();
        assert_eq!((answer.status, answer.body), (200, pattern("/a", 1000)));
        assert_eq!((origin.count("/a"), origin.count_below("/"), origin.count("/b")), (1, 1, 0));
        assert_eq!(origin.seen("/a")[0].query, "b=c");
        let address = origin.stop().await;
        fetch(address, "o", "/a").await.unwrap_err();
        let origin = Origin::start_at(address, |_| Reply::ok("back").status(201)).await.unwrap();
        assert_eq!(fetch(origin.address(), "o", "/").await.unwrap().status, 201);
    }

    #[tokio::test]
    async fn a_truncated_reply_is_an_error_downstream() {
        let origin =
            Origin::start(|_| Reply::with(Payload::Truncated { promised: 100, sent: "few".into() })).await;
        fetch(origin.unwrap().address(), "o", "/").await.unwrap_err();
    }

    #[test]
    fn patterns_tell_their_names_apart() {
        assert_ne!(pattern("/a", 64), pattern("/b", 64));
        assert_eq!(pattern("/a", 64), pattern("/a", 128).slice(..64));
    }
}
