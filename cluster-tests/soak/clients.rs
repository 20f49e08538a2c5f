//! Everybody who calls: each kind of client in a loop of its own until it is told to stop.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cluster_tests::{Answer, Connection, Ports, Speak, empty, pattern};
use futures_util::future::{BoxFuture, join_all};
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::origins::{LARGE, SMALL};
use crate::pace::Pace;
use crate::tally::Tally;

/// Whom everybody asks for.
pub const HOST: &str = "soak.example.com";

/// Connections of each node with one request at a time, in clear text and over TLS.
const PLAIN_CLIENTS: usize = 8;
const TLS_CLIENTS: usize = 3;
/// Streams of the one HTTP/2 connection.
const STREAMS: usize = 8;
/// Requests that a connection lives for: new ones are part of the load.
const REQUESTS_PER_CONNECTION: usize = 2_000;
/// Different small answers.
const PATHS: usize = 64;
/// Between two turns of those that are there to be odd, not many.
const ODD_PACE: Duration = Duration::from_millis(200);
/// Between two reads of a slow reader.
const SLOW_READ: Duration = Duration::from_millis(30);
const UPLOAD: usize = 256 << 10;
/// Messages of a WebSocket's life, at [`ODD_PACE`].
const MESSAGES: usize = 20;
/// Nothing takes longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// One go of an odd client; answers how many bytes it was about.
type Act = for<'a> fn(&'a Client) -> BoxFuture<'a, Result<usize>>;

/// Those that are there to be odd.
const ODD: [(&str, Act); 6] = [
    ("upload", |client| Box::pin(client.upload())),
    ("download", |client| Box::pin(client.download())),
    ("abort", |client| Box::pin(client.abort())),
    ("slow read", |client| Box::pin(client.read_slowly())),
    ("websocket", |client| Box::pin(client.chat())),
    ("grpc", |client| Box::pin(client.call())),
];

/// A node, and what it takes to talk to it over TLS.
#[derive(Clone)]
pub struct Place {
    pub ip: IpAddr,
    pub h1: Arc<ClientConfig>,
    pub h2: Arc<ClientConfig>,
}

/// Clients at work until [`Clients::finish`].
pub struct Clients {
    stopping: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// What a client needs to know.
#[derive(Clone)]
struct Client {
    node: usize,
    place: Place,
    tally: Arc<Tally>,
    pace: Arc<Pace>,
    stopping: Arc<AtomicBool>,
    next: Arc<AtomicUsize>,
    /// The right answers to the small requests, by path.
    small: Arc<Vec<(String, Bytes)>>,
}

impl Clients {
    /// Only those whose rate counts.
    pub fn start_plain(places: &[Place], tally: &Arc<Tally>, pace: &Arc<Pace>) -> Self {
        let mut clients = Self { stopping: Arc::default(), tasks: JoinSet::new() };
        for client in clients.of(places, tally, pace) {
            for _ in 0..PLAIN_CLIENTS {
                clients.tasks.spawn(client.clone().ask(Speak::Http1));
            }
            for _ in 0..TLS_CLIENTS {
                let speak = Speak::Tls(client.place.h1.clone(), HOST.to_owned());
                clients.tasks.spawn(client.clone().ask(speak));
            }
            clients.tasks.spawn(client.ask_by_streams());
        }
        clients
    }

    /// Those, and all the odd ones.
    pub fn start_all(places: &[Place], tally: &Arc<Tally>, pace: &Arc<Pace>) -> Self {
        let mut clients = Self::start_plain(places, tally, pace);
        for client in clients.of(places, tally, pace) {
            for (kind, act) in ODD {
                clients.tasks.spawn(client.clone().repeat(kind, act));
            }
        }
        clients
    }

    /// Lets every client end its exchange.
    pub async fn finish(mut self, patience: Duration) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        timeout(patience, all).await.context("clients did not end")
    }

    fn of(&self, places: &[Place], tally: &Arc<Tally>, pace: &Arc<Pace>) -> Vec<Client> {
        let path = |n: usize| if n.is_multiple_of(4) { format!("/cached/{n}") } else { format!("/live/{n}") };
        let small = (0..PATHS).map(|n| (path(n), pattern(&path(n), SMALL))).collect();
        let small: Arc<Vec<(String, Bytes)>> = Arc::new(small);
        let client = |(node, place): (usize, &Place)| Client {
            node,
            place: place.clone(),
            tally: tally.clone(),
            pace: pace.clone(),
            stopping: self.stopping.clone(),
            next: Arc::default(),
            small: small.clone(),
        };
        places.iter().enumerate().map(client).collect()
    }
}

impl Client {
    fn stops(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn address(&self, speak: &Speak) -> SocketAddr {
        let port = match speak {
            Speak::Http1 | Speak::Http2 => Ports::HTTP,
            Speak::Tls(..) => Ports::HTTPS,
        };
        SocketAddr::new(self.place.ip, port)
    }

    async fn open(&self, speak: &Speak) -> Result<Connection> {
        Connection::open(self.address(speak), speak.clone()).await.context("open")
    }

    fn over_tls(&self) -> Speak {
        Speak::Tls(self.place.h2.clone(), HOST.to_owned())
    }

    /// One request at a time, on one connection after the other.
    async fn ask(self, speak: Speak) {
        let kind = if matches!(speak, Speak::Http1) { "http/1.1" } else { "https/1.1" };
        while !self.stops() {
            match self.open(&speak).await {
                Ok(connection) => self.use_up(connection, kind).await,
                Err(error) => self.tally.fault(self.node, kind, error),
            }
        }
    }

    /// Several at a time on one HTTP/2 connection.
    async fn ask_by_streams(self) {
        while !self.stops() {
            match self.open(&self.over_tls()).await {
                Ok(connection) => {
                    let streams = (0..STREAMS).filter_map(|_| connection.share());
                    join_all(streams.map(|stream| self.use_up(stream, "h2"))).await;
                }
                Err(error) => self.tally.fault(self.node, "h2", error),
            }
        }
    }

    /// Until the server ends the connection between two requests, which is no fault, or somebody has had enough.
    async fn use_up(&self, mut connection: Connection, kind: &str) {
        for _ in 0..REQUESTS_PER_CONNECTION {
            self.pace.turn().await;
            if self.stops() || !connection.is_usable().await {
                return;
            }
            let (path, expected) = &self.small[self.next.fetch_add(1, Ordering::Relaxed) % PATHS];
            let since = Instant::now();
            let answer = async {
                let request = request("GET", path, kind == "h2", empty())?;
                check(connection.send(request).await?, expected)
            };
            match answer.await {
                Ok(answer) => {
                    self.tally.answered(self.node, answer.body.len(), Some(since.elapsed()));
                    if answer.field("connection").eq_ignore_ascii_case("close") {
                        return;
                    }
                }
                // The server ended the connection before it was sent: it will be, on the next one.
                Err(error) if is_unsent(&error) => return,
                Err(error) => return self.tally.fault(self.node, kind, error),
            }
        }
    }

    /// An odd thing again and again.
    async fn repeat(self, kind: &'static str, act: Act) {
        while !self.stops() {
            sleep(ODD_PACE).await;
            let acted = timeout(DEADLINE, act(&self)).await.context("it did not end in time");
            match acted.and_then(|acted| acted) {
                Ok(bytes) => self.tally.answered(self.node, bytes, None),
                Err(error) => self.tally.fault(self.node, kind, error),
            }
        }
    }

    async fn upload(&self) -> Result<usize> {
        let body = Full::new(Bytes::from(vec![b'x'; UPLOAD])).map_err(|never| match never {}).boxed();
        let answer = self.open(&Speak::Http1).await?.send(request("POST", "/upload", false, body)?).await?;
        check(answer, UPLOAD.to_string().as_bytes())?;
        Ok(UPLOAD)
    }

    async fn download(&self) -> Result<usize> {
        let mut connection = self.open(&self.over_tls()).await?;
        let answer = connection.send(request("GET", "/large/down", true, empty())?).await?;
        Ok(check(answer, &pattern("/large/down", LARGE))?.body.len())
    }

    /// Leaves as soon as the answer begins: by closing the connection, or by resetting the stream.
    async fn abort(&self) -> Result<usize> {
        let h2 = self.next.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let mut connection = self.open(&if h2 { self.over_tls() } else { Speak::Http1 }).await?;
        let response = connection.begin(request("GET", "/large/abort", h2, empty())?).await?;
        ensure!(response.status() == 200, "status {}", response.status());
        Ok(0)
    }

    async fn read_slowly(&self) -> Result<usize> {
        let mut connection = self.open(&Speak::Http1).await?;
        let response = connection.begin(request("GET", "/large/slow", false, empty())?).await?;
        let (mut body, mut length) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
            sleep(SLOW_READ).await;
        }
        ensure!(length == LARGE, "{length} bytes");
        Ok(length)
    }

    async fn chat(&self) -> Result<usize> {
        let stream = TcpStream::connect(self.address(&Speak::Http1)).await?;
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{HOST}/chat"), stream).await?;
        for n in 0..MESSAGES {
            let message = Message::text(format!("message {n}"));
            socket.send(message.clone()).await?;
            ensure!(socket.next().await.context("it ended")?? == message, "another message");
            sleep(ODD_PACE).await;
        }
        socket.close(None).await?;
        Ok(MESSAGES)
    }

    /// A unary call whose message is whatever its five bytes of prefix say.
    async fn call(&self) -> Result<usize> {
        let message = Bytes::from_static(b"\0\0\0\0\x05hello");
        let body = Full::new(message.clone()).map_err(|never| match never {}).boxed();
        let mut request = request("POST", "/soak.Echo/Say", true, body)?;
        request.headers_mut().insert("content-type", "application/grpc".parse()?);
        request.headers_mut().insert("te", "trailers".parse()?);
        let answer = check(self.open(&self.over_tls()).await?.send(request).await?, &message)?;
        let status = answer.trailers.get("grpc-status").or(answer.headers.get("grpc-status"));
        ensure!(status.is_some_and(|status| status == "0"), "grpc-status {status:?}");
        Ok(message.len())
    }
}

fn request(
    method: &str,
    path: &str,
    h2: bool,
    body: BoxBody<Bytes, anyhow::Error>,
) -> Result<Request<BoxBody<Bytes, anyhow::Error>>> {
    let request = Request::builder().method(method);
    Ok(if h2 {
        request.uri(format!("https://{HOST}{path}")).body(body)?
    } else {
        request.uri(path).header("host", HOST).body(body)?
    })
}

fn check(answer: Answer, expected: &[u8]) -> Result<Answer> {
    ensure!(answer.status == 200, "status {}: {:.80}", answer.status, String::from_utf8_lossy(&answer.body));
    ensure!(answer.body == expected, "other bytes");
    Ok(answer)
}

fn is_unsent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
}
