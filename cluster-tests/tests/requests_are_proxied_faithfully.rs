//! What one side sends is what the other side gets: bytes, fields, trailers, upgrades, over every protocol we speak.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cluster_tests::{
    Answer, Cluster, Connection, HOST, Origin, Payload, Ports, Reply, Seen, SelfSigned, SiteFile, Speak,
    empty, pattern, send,
};
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

const LARGE: usize = 8 << 20;

/// One node in front of an origin that answers as its paths say.
struct Stage {
    cluster: Cluster,
    origin: Origin,
    certificate: SelfSigned,
}

impl Stage {
    async fn set() -> Result<Self> {
        let cluster = Cluster::start(1).await?;
        let origin = Origin::start(answer).await?;
        let certificate = SelfSigned::create(cluster.dir(), &[HOST])?;
        let site = SiteFile::new()
            .upstream("shop", json!({ "endpoints": [origin.endpoint()] }))
            .route("shop", json!({ "path_prefix": "/", "upstream": "shop", "trailers": true }))
            .secure_by("shop", &certificate);
        cluster.put_in_force(&site).await?;
        Ok(Self { cluster, origin, certificate })
    }

    /// Every protocol a listener speaks, with its name.
    fn protocols(&self) -> Result<Vec<(&'static str, u16, Speak)>> {
        let tls = |alpn: &[&str]| -> Result<Arc<ClientConfig>> { self.certificate.trusting_client(alpn) };
        Ok(vec![
            ("h1", Ports::HTTP, Speak::Http1),
            ("h2 in clear text", Ports::HTTP, Speak::Http2),
            ("h1 over TLS", Ports::HTTPS, Speak::Tls(tls(&["http/1.1"])?, HOST.to_owned())),
            ("h2 over TLS", Ports::HTTPS, Speak::Tls(tls(&["h2", "http/1.1"])?, HOST.to_owned())),
        ])
    }

    async fn send(
        &self,
        port: u16,
        speak: &Speak,
        request: Request<BoxBody<Bytes, anyhow::Error>>,
    ) -> Result<Answer> {
        send(self.cluster.nodes[0].at(port), speak.clone(), request).await
    }

    fn last_seen(&self, path: &str) -> Result<Seen> {
        self.origin.seen(path).pop().with_context(|| format!("the origin never saw {path}"))
    }
}

fn answer(seen: &Seen) -> Reply {
    match seen.path.as_str() {
        "/large" => Reply::ok(pattern("/large", LARGE)),
        "/chunks" => {
            let chunks = (0..20).map(|n| pattern(&format!("chunk {n}"), 5_000)).collect();
            Reply::with(Payload::Chunked(chunks, HeaderMap::new()))
        }
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", http::HeaderValue::from_static("1234"));
            Reply::with(Payload::Chunked(vec!["body".into()], trailers)).field("trailer", "x-checksum")
        }
        "/cut" => Reply::with(Payload::Truncated { promised: 100_000, sent: pattern("/cut", 50_000) }),
        "/teapot" => Reply::ok("short and stout")
            .status(418)
            .field("x-kind", "pot")
            .field("set-cookie", "a=1")
            .field("set-cookie", "b=2"),
        "/hop" => Reply::ok("")
            .field("connection", "x-secret")
            .field("x-secret", "1")
            .field("keep-alive", "timeout=9")
            .field("x-open", "2"),
        "/nothing" => Reply::ok("").status(204),
        "/upload" => Reply::ok(format!("{} bytes", seen.body.len())),
        _ => Reply::ok("fine"),
    }
}

/// A request for `path` that fits every version: h1 takes the host from the field, h2 from the authority.
fn request(speak: &Speak, method: &str, path: &str) -> http::request::Builder {
    let h1 = match speak {
        Speak::Http1 => true,
        Speak::Http2 => false,
        Speak::Tls(config, _) => config.alpn_protocols == [b"http/1.1"],
    };
    let scheme = if matches!(speak, Speak::Tls(..)) { "https" } else { "http" };
    let builder = Request::builder().method(method);
    if h1 { builder.uri(path).header("host", HOST) } else { builder.uri(format!("{scheme}://{HOST}{path}")) }
}

/// Content in chunks of uneven sizes, then trailers if there are any.
fn streamed(content: Bytes, trailers: Option<HeaderMap>) -> BoxBody<Bytes, anyhow::Error> {
    let chunks: Vec<Bytes> = content.chunks(65_537).map(|chunk| content.slice_ref(chunk)).collect();
    let frames = chunks
        .into_iter()
        .map(|chunk| Ok(Frame::data(chunk)))
        .chain(trailers.map(|t| Ok(Frame::trailers(t))));
    BodyExt::boxed(StreamBody::new(stream::iter(frames)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_and_field_arrives_on_every_protocol() -> Result<()> {
    let stage = Stage::set().await?;
    for (name, port, speak) in stage.protocols()? {
        answers_arrive(&stage, port, &speak).await.with_context(|| format!("answers over {name}"))?;
        requests_arrive(&stage, port, &speak).await.with_context(|| format!("requests over {name}"))?;
    }
    Ok(())
}

async fn answers_arrive(stage: &Stage, port: u16, speak: &Speak) -> Result<()> {
    let get = async |path: &str| stage.send(port, speak, request(speak, "GET", path).body(empty())?).await;
    let large = get("/large").await?;
    ensure!(
        large.status == 200 && large.body == pattern("/large", LARGE),
        "/large: {} bytes",
        large.body.len()
    );
    ensure!(large.field("content-length") == LARGE.to_string(), "length: {:?}", large.headers);
    let chunks = get("/chunks").await?;
    let expected: Vec<u8> = (0..20).flat_map(|n| pattern(&format!("chunk {n}"), 5_000)).collect();
    ensure!(chunks.body == expected, "/chunks: {} bytes", chunks.body.len());

    let teapot = get("/teapot").await?;
    ensure!(
        teapot.status == 418 && teapot.field("x-kind") == "pot" && teapot.body == "short and stout",
        "{teapot:?}"
    );
    ensure!(
        teapot.headers.get_all("set-cookie").iter().count() == 2,
        "cookies are not lists: {:?}",
        teapot.headers
    );
    let hop = get("/hop").await?;
    ensure!(hop.field("x-open") == "2", "{:?}", hop.headers);
    ensure!(
        hop.field("x-secret").is_empty() && hop.field("keep-alive").is_empty(),
        "hop-by-hop: {:?}",
        hop.headers
    );
    let nothing = get("/nothing").await?;
    ensure!(nothing.status == 204 && nothing.body.is_empty(), "{nothing:?}");
    let head = stage.send(port, speak, request(speak, "HEAD", "/large").body(empty())?).await?;
    ensure!(head.status == 200 && head.body.is_empty(), "HEAD: {} {} bytes", head.status, head.body.len());
    ensure!(head.field("content-length") == LARGE.to_string(), "HEAD: {:?}", head.headers);

    let trailers = request(speak, "GET", "/trailers").header("te", "trailers").body(empty())?;
    let trailers = stage.send(port, speak, trailers).await?;
    ensure!(trailers.trailers.get("x-checksum").is_some_and(|value| value == "1234"), "{trailers:?}");
    ensure!(get("/cut").await.is_err(), "a truncated body looks whole");
    Ok(())
}

async fn requests_arrive(stage: &Stage, port: u16, speak: &Speak) -> Result<()> {
    let content = pattern("upload", LARGE);
    let upload = request(speak, "POST", "/upload?a=b%20c&d")
        .header("x-list", "one")
        .header("x-list", "two")
        .header("connection-free", "yes")
        .header("x-forwarded-for", "203.0.113.9")
        .body(streamed(content.clone(), None))?;
    let answer = stage.send(port, speak, upload).await?;
    ensure!(answer.body == format!("{LARGE} bytes"), "{:?}", answer.body);
    let seen = stage.last_seen("/upload")?;
    ensure!(seen.body == content, "the origin got {} other bytes", seen.body.len());
    ensure!(seen.query == "a=b%20c&d" && seen.method == "POST", "{} {:?}", seen.method, seen.query);
    ensure!(seen.field("host") == HOST, "Host: {:?}", seen.field("host"));
    let list: Vec<_> = seen.headers.get_all("x-list").iter().map(|value| value.as_bytes()).collect();
    ensure!(list == [b"one", b"two"], "{list:?}");
    ensure!(
        !seen.field("x-forwarded-for").contains("203.0.113.9"),
        "a stranger's word was forwarded: {:?}",
        seen.headers
    );
    ensure!(seen.field("x-forwarded-for").starts_with("127."), "X-Forwarded-For: {:?}", seen.headers);
    let scheme = if matches!(speak, Speak::Tls(..)) { "https" } else { "http" };
    ensure!(seen.field("x-forwarded-proto") == scheme, "X-Forwarded-Proto: {:?}", seen.headers);
    ensure!(!seen.field("via").is_empty() && !seen.field("x-request-id").is_empty(), "{:?}", seen.headers);

    let put =
        request(speak, "PUT", "/put").header("content-length", 5).body(streamed("exact".into(), None))?;
    ensure!(stage.send(port, speak, put).await?.status == 200, "PUT");
    let seen = stage.last_seen("/put")?;
    ensure!(seen.body == "exact" && seen.field("content-length") == "5", "{seen:?}");

    let mut trailers = HeaderMap::new();
    trailers.insert("x-digest", http::HeaderValue::from_static("abcd"));
    let post = request(speak, "POST", "/with-trailers").header("trailer", "x-digest");
    let post = post.body(streamed("content".into(), Some(trailers)))?;
    ensure!(stage.send(port, speak, post).await?.status == 200, "POST with trailers");
    let seen = stage.last_seen("/with-trailers")?;
    ensure!(seen.trailers.get("x-digest").is_some_and(|value| value == "abcd"), "{:?}", seen.trailers);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_carries_many_requests() -> Result<()> {
    let stage = Stage::set().await?;
    for (name, port, speak) in stage.protocols()? {
        let mut connection = Connection::open(stage.cluster.nodes[0].at(port), speak.clone()).await?;
        for n in 0..50 {
            let answer = connection.send(request(&speak, "GET", "/again").body(empty())?).await;
            let answer = answer.with_context(|| format!("request {n} over {name}"))?;
            ensure!(answer.status == 200 && answer.body == "fine", "{name}: {answer:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_continue_is_sent_before_the_body() -> Result<()> {
    let stage = Stage::set().await?;
    let mut stream = TcpStream::connect(stage.cluster.nodes[0].at(Ports::HTTP)).await?;
    let head =
        format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let interim = read_head(&mut stream).await?;
    ensure!(interim.starts_with("HTTP/1.1 100"), "{interim:?}");
    stream.write_all(b"12345").await?;
    let answer = read_head(&mut stream).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    ensure!(stage.last_seen("/upload")?.body == "12345", "the body is lost");
    Ok(())
}

/// Reads up to the empty line, byte by byte: what follows stays in the socket.
async fn read_head(stream: &mut TcpStream) -> Result<String> {
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        anyhow::Ok(String::from_utf8_lossy(&head).into_owned())
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.context("no head in time")?
}

/// A raw WebSocket origin: after the 101 it reads to the end of what it is sent, only then answers, and closes.
async fn half_close_origin() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_head(&mut stream).await?;
                let key = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
                });
                let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await?;
                let mut everything = Vec::new();
                stream.read_to_end(&mut everything).await?;
                stream.write_all(format!("I read {} bytes", everything.len()).as_bytes()).await?;
                stream.shutdown().await?;
                anyhow::Ok(())
            });
        }
    });
    Ok(endpoint)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_closes_one_side_at_a_time() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let origin = half_close_origin().await?;
    cluster.apply(0, &SiteFile::new().proxy("raw", &[origin])).await?;
    cluster
        .eventually("the listener is open", async || {
            TcpStream::connect(cluster.nodes[0].at(Ports::HTTP)).await.ok()
        })
        .await?;
    let mut stream = TcpStream::connect(cluster.nodes[0].at(Ports::HTTP)).await?;
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let head = format!(
        "GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let answer = read_head(&mut stream).await?;
    ensure!(answer.starts_with("HTTP/1.1 101"), "{answer:?}");
    ensure!(answer.contains(&derive_accept_key(key.as_bytes())), "another Sec-WebSocket-Accept: {answer:?}");
    let content = pattern("tunnel", 300_000);
    stream.write_all(&content).await?;
    stream.shutdown().await?;
    let mut rest = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut rest)).await??;
    ensure!(rest == "I read 300000 bytes", "{rest:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_messages_go_both_ways() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await?;
                while let Some(message) = socket.next().await {
                    let message = message?;
                    if message.is_text() || message.is_binary() {
                        socket.send(message).await?;
                    }
                }
                anyhow::Ok(())
            });
        }
    });
    cluster.apply(0, &SiteFile::new().proxy("chat", &[endpoint])).await?;
    let address = cluster.nodes[0].at(Ports::HTTP);
    let stream =
        cluster.eventually("the listener is open", async || TcpStream::connect(address).await.ok()).await?;
    let (socket, _) = tokio_tungstenite::client_async(format!("ws://{HOST}/chat"), stream).await?;
    messages_come_back(socket).await.context("over h1")?;
    let stream = open_stream(TcpStream::connect(address).await?).await?;
    messages_come_back(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
        .await
        .context("over h2")
}

/// A stream of HTTP/2 that has become a WebSocket (RFC 8441).
async fn open_stream(stream: TcpStream) -> Result<TokioIo<Upgraded>> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    // Whether it is offered is known once the settings of the node have come, which an answer shows.
    let plain = Request::get(format!("http://{HOST}/plain")).body(Empty::<Bytes>::new())?;
    sender.send_request(plain).await?;
    let request = Request::connect(format!("http://{HOST}/chat"))
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"));
    let answer = sender.send_request(request.body(Empty::new())?).await?;
    ensure!(answer.status() == 200, "{answer:?}");
    Ok(TokioIo::new(hyper::upgrade::on(answer).await?))
}

async fn messages_come_back<IO: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<IO>,
) -> Result<()> {
    for n in 0..20 {
        let sent = Message::binary(pattern(&format!("message {n}"), n * 5_000));
        socket.send(sent.clone()).await?;
        let back =
            tokio::time::timeout(Duration::from_secs(10), socket.next()).await?.context("closed")??;
        ensure!(back == sent, "message {n} came back changed");
    }
    socket.close(None).await?;
    Ok(())
}
