//! A proxy on ephemeral ports, origins that do as they are told, and raw downstream connections.
#![allow(dead_code, reason = "each test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

pub mod dns;
pub mod frames;
pub mod h2_endpoint;
pub mod numbered;
pub mod outcome;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use shoal_cache::{Cache, CacheSettings, Changed, LinkFuture, PeerIo, PeerLink};
use shoal_cluster::ClusterView;
use shoal_model::site::read_site;
use shoal_model::view::ListenAddress;
use shoal_model::{ConfigView, NodeId, Revision};
use shoal_proxy::{AskedPurge, HealthEvent, Proxy, ProxySettings, RequestSpan, StickySeed, TicketSeed};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Longest a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy that serves a site.
pub struct Stage {
    pub proxy: Arc<Proxy>,
    pub events: mpsc::Receiver<HealthEvent>,
    pub spans: mpsc::Receiver<Box<RequestSpan>>,
    pub purges: mpsc::Receiver<AskedPurge>,
    pub cluster: Arc<ArcSwap<ClusterView>>,
    pub config: Arc<ArcSwap<ConfigView>>,
    pub cache: Arc<Cache>,
    log: Log,
    certificates: Vec<(String, String, String)>,
}

/// The access log, kept in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct NoPeers;

impl PeerLink for NoPeers {
    fn connect(&self, _: NodeId) -> LinkFuture<Box<dyn PeerIo>> {
        Box::pin(async { Err(io::ErrorKind::NotConnected.into()) })
    }

    fn invalidate(&self, _: NodeId, _: Changed) -> LinkFuture<()> {
        Box::pin(async { Err(io::ErrorKind::NotConnected.into()) })
    }
}

impl Stage {
    /// Serves `site`. Listeners get free ports, each on a loopback address of its own.
    pub fn start(site: &str) -> Self {
        Self::with_certificates(site, Vec::new())
    }

    /// Serves `site` as a node of a cluster with this seed would.
    pub fn start_with_sticky_seed(site: &str, seed: StickySeed) -> Self {
        Self::with_seed(site, Vec::new(), seed)
    }

    /// Serves `site` with these certificates: name, chain, key.
    pub fn with_certificates(site: &str, certificates: Vec<(String, String, String)>) -> Self {
        Self::with_seed(site, certificates, StickySeed([7; 32]))
    }

    fn with_seed(site: &str, certificates: Vec<(String, String, String)>, sticky_seed: StickySeed) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = Arc::new(ArcSwap::from_pointee(ConfigView::default()));
        let cluster =
            Arc::new(ArcSwap::from_pointee(ClusterView { local: NodeId(1), ..ClusterView::default() }));
        let (sender, events) = mpsc::channel(64);
        let (span_sender, spans) = mpsc::channel(64);
        let (purge_sender, purges) = mpsc::channel(64);
        let cache = Cache::new(CacheSettings {
            node: NodeId(1),
            name: "one".into(),
            ram_bytes: 16 << 20,
            intake_bytes: 4 << 20,
            disk: None,
            key_seed: 7,
            cluster: cluster.clone(),
            config: config.clone(),
            peers: Arc::new(NoPeers),
            unconfirmed: mpsc::channel(1).0,
        });
        cache.set_lease(u64::MAX);
        let log = Log::default();
        let proxy = Proxy::start(ProxySettings {
            max_connections: None,
            workers: 2,
            listen_ip: [127, 0, 0, 1].into(),
            node_name: "one".into(),
            config: config.clone(),
            cluster: cluster.clone(),
            cache: cache.clone(),
            health_events: sender,
            spans: span_sender,
            purges: purge_sender,
            ticket_seed: TicketSeed([7; 32]),
            sticky_seed,
            access_log: Some(Box::new(log.clone())),
            trim_memory: || {},
        });
        let proxy = Arc::new(proxy.unwrap());
        let stage = Self { proxy, events, spans, purges, cluster, config, cache, log, certificates };
        stage.proxy.apply(stage.compile(1, site)).unwrap();
        stage
    }

    /// Compiles `site`. A listener written as `127.0.0.N:1` gets a free port of that address.
    pub fn compile(&self, revision: u64, site: &str) -> Arc<ConfigView> {
        let mut text = site.to_owned();
        for (n, (name, chain, key)) in self.certificates.iter().enumerate() {
            let heading = if n == 0 { "certificates:\n" } else { "" };
            let block =
                |pem: &str| pem.trim().lines().map(|line| format!("      {line}\n")).collect::<String>();
            let (chain, key) = (block(chain), block(key));
            text += &format!("{heading}  {name}:\n    chain_pem: |\n{chain}    key_pem: |\n{key}");
        }
        let site = read_site("site.yaml", &text).unwrap_or_else(|problems| panic!("{problems:?}"));
        let mut view =
            ConfigView::compile(Revision(revision), &site).unwrap_or_else(|problems| panic!("{problems:?}"));
        for listener in &mut view.listeners {
            let listener = Arc::make_mut(listener);
            if let ListenAddress::Full(address) = &mut listener.address
                && address.port() == 1
            {
                address.set_port(0);
            }
        }
        Arc::new(view)
    }

    /// Where the listener called `name` can be reached.
    pub fn address(&self, name: &str) -> SocketAddr {
        self.proxy.addresses().into_iter().find(|(known, _)| &**known == name).unwrap().1
    }

    /// A connection to the listener `web`.
    pub async fn connect(&self) -> Downstream<TcpStream> {
        Downstream::new(TcpStream::connect(self.address("web")).await.unwrap())
    }

    /// Sends `request` on a connection of its own; answers the response.
    pub async fn ask(&self, request: &str) -> Answer {
        let mut downstream = self.connect().await;
        downstream.send(request).await;
        downstream.answer().await
    }

    /// The lines of the access log so far.
    pub fn log(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The access log when it has `count` lines.
    pub async fn log_of(&self, count: usize) -> Vec<serde_json::Value> {
        wait_until("the lines of the access log", || self.log().len() >= count).await;
        self.log()
    }

    /// The value of a metric line that starts with `prefix`.
    pub fn metric(&self, prefix: &str) -> u64 {
        let mut text = String::new();
        self.proxy.render_metrics(&mut text);
        let line = text
            .lines()
            .find(|line| line.starts_with(prefix))
            .unwrap_or_else(|| panic!("{prefix} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// A site with the listener `web` and one route to `endpoints`; `more` goes into the upstream, two spaces deeper than
/// its name.
pub fn site(endpoints: &[SocketAddr], route: &str, upstream: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "listeners:\n  web: {{ address: \"127.0.0.1:1\", protocol: http }}\n\
         routes:\n  all: {{ upstream: app{route} }}\n\
         upstreams:\n  app: {{ endpoints: [{}]{upstream} }}\n",
        endpoints.join(", ")
    )
}

/// A downstream connection.
pub struct Downstream<T> {
    pub stream: T,
    buffer: Vec<u8>,
}

/// A response as it came over the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Trailers, as text.
    pub trailers: String,
    /// It came to its proper end.
    pub complete: bool,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The value of a field in a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

impl<T: AsyncRead + AsyncWrite + Unpin> Downstream<T> {
    pub fn new(stream: T) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads more; `false` = the other side has ended or broken off.
    async fn fill(&mut self) -> bool {
        self.buffer.reserve(16 << 10);
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        read.expect("nothing came for long").unwrap_or(0) > 0
    }

    /// Everything up to and with `end`; `None` = it never came.
    pub async fn read_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(place) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Some(self.buffer.drain(..place + end.len()).collect());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// So many bytes, or those that come before the end; `false` = it came too early.
    pub async fn read_exactly(&mut self, count: usize) -> (Vec<u8>, bool) {
        while self.buffer.len() < count {
            if !self.fill().await {
                return (std::mem::take(&mut self.buffer), false);
            }
        }
        (self.buffer.drain(..count).collect(), true)
    }

    /// Everything up to the end of the connection.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// The connection was closed, and nothing more came.
    pub async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill().await
    }

    /// The head of a message, without the empty line.
    pub async fn read_head(&mut self) -> Option<String> {
        let head = self.read_until(b"\r\n\r\n").await?;
        Some(String::from_utf8(head).unwrap().trim_end().to_owned())
    }

    /// The next response to something other than HEAD.
    pub async fn answer(&mut self) -> Answer {
        let head = self.read_head().await.expect("no response");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let (body, trailers, complete) = match () {
            () if matches!(status, 204 | 304 | 100..=199) => (Vec::new(), String::new(), true),
            () => self.read_body(&head).await,
        };
        Answer { status, head, body, trailers, complete }
    }

    /// A body as `head` frames it: bytes, trailers, whether it came to its end.
    pub async fn read_body(&mut self, head: &str) -> (Vec<u8>, String, bool) {
        if let Some(length) = field(head, "content-length") {
            let (body, complete) = self.read_exactly(length.parse().unwrap()).await;
            return (body, String::new(), complete);
        }
        if field(head, "transfer-encoding") != Some("chunked") {
            return match head.starts_with("HTTP/") {
                true => (self.read_to_end().await, String::new(), true),
                false => (Vec::new(), String::new(), true),
            };
        }
        let mut body = Vec::new();
        loop {
            let Some(line) = self.read_until(b"\r\n").await else { return (body, String::new(), false) };
            let line = String::from_utf8(line).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            if size == 0 {
                let mut trailers = String::new();
                loop {
                    let Some(line) = self.read_until(b"\r\n").await else { return (body, trailers, false) };
                    if line == b"\r\n" {
                        return (body, trailers, true);
                    }
                    trailers.push_str(std::str::from_utf8(&line).unwrap());
                }
            }
            let (part, complete) = self.read_exactly(size).await;
            body.extend(part);
            if !complete || self.read_until(b"\r\n").await.is_none() {
                return (body, String::new(), false);
            }
        }
    }
}

/// A request as an origin sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// Which request it is of all, counted from 0.
    pub number: usize,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }
}

/// An origin that reads requests whole and answers with raw bytes.
pub struct Origin {
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

/// What an origin sends back; an empty answer closes the connection, and `close` closes it after the bytes.
pub struct Reply {
    pub bytes: Vec<u8>,
    pub close: bool,
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Self { bytes: text.as_bytes().to_vec(), close: text.is_empty() }
    }
}

impl From<String> for Reply {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

/// `text`, and then the connection is closed.
pub fn and_close(text: &str) -> Reply {
    Reply { bytes: text.as_bytes().to_vec(), close: true }
}

/// A plain 200 with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

impl Origin {
    pub async fn start<R: Into<Reply>>(reply: impl Fn(Seen) -> R + Send + Sync + 'static) -> Self {
        let [requests, connections, ended] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
        let (counted, gone, reply) = (requests.clone(), ended.clone(), Arc::new(reply));
        let address = serve_raw(connections.clone(), move |stream, connection| {
            let (counted, gone, reply) = (counted.clone(), gone.clone(), reply.clone());
            async move {
                let mut stream = Downstream::new(stream);
                while let Some(head) = stream.read_head().await {
                    let (body, trailers, complete) = stream.read_body(&head).await;
                    if !complete {
                        break;
                    }
                    let number = counted.fetch_add(1, Ordering::SeqCst);
                    let reply: Reply = reply(Seen { head, body, trailers, connection, number }).into();
                    if stream.stream.write_all(&reply.bytes).await.is_err() || reply.close {
                        break;
                    }
                }
                gone.fetch_add(1, Ordering::SeqCst);
            }
        })
        .await;
        Self { address, requests, connections, ended }
    }

    /// Whole requests seen so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Connections seen so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections that have ended, one way or another.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

/// Accepts connections on a free port and hands each to `serve`.
pub async fn serve_raw<F>(
    connections: Arc<AtomicUsize>,
    serve: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, connections.fetch_add(1, Ordering::SeqCst)));
        }
    });
    address
}

/// An address where nothing listens.
pub async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Waits until `predicate` holds.
pub async fn wait_until(what: &str, mut predicate: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !predicate() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
