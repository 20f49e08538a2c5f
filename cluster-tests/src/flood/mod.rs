//! Floods: what hostile downstreams do to a node, in a table, each for a bounded time with bounded means.

mod bystander;
mod frames;
mod places;
mod script;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout_at};

pub use bystander::{Bystander, Latencies};
pub use places::{Apart, Places};
pub use script::{FLOODS, Flood};

use crate::certificate::SelfSigned;
use crate::node::{NodeProcess, Ports};
use crate::origin::{Origin, Reply, pattern};
use crate::site::SiteFile;
use crate::wait::wait_until;
use crate::weight::Weight;

/// Connections that the site lets one address have.
pub const MAX_PER_ADDRESS: usize = 200;
/// After so long without a request, the site ends a connection.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Before a connection that was ended is opened anew.
const COMES_BACK: Duration = Duration::from_millis(50);
/// Between two looks at the process.
const LOOK: Duration = Duration::from_millis(50);
/// For a node to get rid of what a flood has left.
const AFTERMATH: Duration = Duration::from_secs(60);
/// Content of `/large`: more than a node holds of it.
const LARGE: usize = 1 << 20;
/// Content of `/medium`: more than a node holds of a stream, and not too much for the kernel if thousands ask for it.
const MEDIUM: usize = 128 << 10;

/// What a process may take beyond its connections, KiB.
const SLACK_KIB: usize = 48 << 10;
/// A connection: 256 KiB of buffer and 32 KiB of head (`max_header_bytes`), and as much towards the endpoint.
const CONNECTION_KIB: usize = 2 * (256 + 32);
/// A stream: 64 KiB that wait to be sent, and a response head's worth of buffer towards the endpoint.
const STREAM_KIB: usize = 64 + 32;
/// A stream that is reset at once: its head, and the task that was begun for it (in a debug build, the larger part).
const FLEETING_STREAM_KIB: usize = 8;

/// What came of a flood.
pub struct Aftermath {
    /// The process before it.
    pub before: Weight,
    /// The most memory and the most descriptors that it had at any time.
    pub peak: Weight,
    /// How the bystander fared.
    pub bystander: Latencies,
    /// Connections that were opened.
    pub opened: u64,
    /// Those that the node ended.
    pub ended: u64,
}

/// An origin with small answers, and a large one.
pub async fn origin() -> Result<Origin> {
    let (large, medium): (Bytes, Bytes) = (pattern("/large", LARGE), pattern("/medium", MEDIUM));
    Origin::start(move |seen| match &*seen.path {
        "/large" => Reply::ok(large.clone()),
        "/medium" => Reply::ok(medium.clone()),
        _ => Reply::ok("small"),
    })
    .await
}

/// What a flood meets.
pub struct Backdrop<'a> {
    /// Behind everything that is asked for by a flood.
    pub origin: &'a Origin,
    /// Behind what the bystander asks for: how busy the other one is says nothing of the node.
    pub bystander_origin: &'a Origin,
    /// Of the listener with TLS.
    pub certificate: &'a SelfSigned,
    /// The listeners' `max_connection_rate_per_address`.
    pub rate_per_address: Option<u32>,
}

/// A site whose limits leave a flood little time; whatever is not named is as by default.
pub fn site(backdrop: &Backdrop<'_>) -> SiteFile {
    let mut limits = json!({
        "max_connections_per_address": MAX_PER_ADDRESS,
        "tls_handshake_timeout": "1s",
        "header_timeout": "1s",
        "body_idle_timeout": "1s",
        "write_idle_timeout": "1s",
        "min_rate_window": "1s",
        "keepalive_timeout": format!("{}s", KEEPALIVE.as_secs()),
    });
    if let Some(rate) = backdrop.rate_per_address {
        limits["max_connection_rate_per_address"] = rate.into();
    }
    let listener = |port: u16, more: serde_json::Value| {
        let mut listener = json!({ "address": format!(":{port}"), "limits": limits });
        for (key, value) in more.as_object().into_iter().flatten() {
            listener[key] = value.clone();
        }
        listener
    };
    SiteFile::new()
        .upstream("app", json!({ "endpoints": [backdrop.origin.endpoint()], "idle_timeout": "1s" }))
        .upstream("bystander", json!({ "endpoints": [backdrop.bystander_origin.endpoint()] }))
        .route("app", json!({ "path_prefix": "/", "upstream": "app" }))
        .route("bystander", json!({ "hosts": [bystander::HOST], "upstream": "bystander" }))
        .secure("tls", &backdrop.certificate.chain_file, &backdrop.certificate.key_file)
        .set("listeners", "web", listener(Ports::HTTP, json!({ "protocol": "http" })))
        .set(
            "listeners",
            "secure",
            listener(Ports::HTTPS, json!({ "protocol": "https", "certificates": ["tls"] })),
        )
}

/// Floods `node` from the address `from` for so long, beside a bystander, and waits until it is rid of it.
pub async fn endure(
    node: &NodeProcess,
    flood: &'static Flood,
    from: IpAddr,
    lasts: Duration,
    places: &Places,
) -> Result<Aftermath> {
    let weigh = || Weight::of_node(&node.data_dir())?.pop().context("the node does not run");
    let before = weigh()?;
    let bystander = Bystander::start(&places.near, node.at(Ports::HTTP), "/small");
    let end = Instant::now() + lasts;
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let mut callers = JoinSet::new();
    for _ in 0..flood.connections {
        callers.spawn_on(call(flood, from, node.at(flood.port), end, counts.clone()), &places.far);
    }
    let mut peak = before;
    let mut looks = interval(LOOK);
    while Instant::now() < end {
        looks.tick().await;
        let now = weigh()?;
        peak.rss_kib = peak.rss_kib.max(now.rss_kib);
        peak.descriptors = peak.descriptors.max(now.descriptors);
    }
    while callers.join_next().await.is_some() {}
    let bystander = bystander.finish().await.with_context(|| format!("beside {}", flood.name))?;
    wait_until(&format!("the end of {}", flood.name), AFTERMATH, async || {
        weigh().is_ok_and(|now| now.descriptors <= before.descriptors + FEW_LEFT)
    })
    .await?;
    let [opened, ended] = [&counts[0], &counts[1]].map(|count| count.load(Relaxed));
    ensure!(opened > 0, "{} opened no connection", flood.name);
    Ok(Aftermath { before, peak, bystander, opened, ended })
}

/// Descriptors that come and go without any flood.
const FEW_LEFT: u64 = 16;

impl Flood {
    /// Connections of it that the node lets in at a time.
    fn admitted(&self) -> usize {
        self.connections.min(MAX_PER_ADDRESS)
    }

    /// The most memory that the limits let it take, KiB: for each connection its head and buffers, for each stream beyond
    /// the first what it may have waiting, and the ends of both towards the endpoint; for each that is reset at once what
    /// it begins; and what allocators do not give back.
    pub fn memory_bound_kib(&self) -> u64 {
        let streams = self.streams * STREAM_KIB + self.fleeting * FLEETING_STREAM_KIB;
        (SLACK_KIB + self.admitted() * (CONNECTION_KIB + streams)) as u64
    }

    /// The most descriptors: a connection, and one to the endpoint for each request under way. Those that are turned away
    /// are open for a moment.
    pub fn descriptor_bound(&self) -> u64 {
        (self.connections + self.admitted() * (1 + self.streams)) as u64 + FEW_LEFT
    }
}

/// One connection after the other, until `end`.
async fn call(
    flood: &'static Flood,
    from: IpAddr,
    to: SocketAddr,
    end: Instant,
    counts: Arc<[AtomicU64; 2]>,
) {
    while Instant::now() < end {
        if let Ok(Ok(stream)) = timeout_at(end, connect(from, to)).await {
            counts[0].fetch_add(1, Relaxed);
            if timeout_at(end, hold(flood, stream)).await.is_ok() {
                counts[1].fetch_add(1, Relaxed);
            }
        }
        sleep(COMES_BACK).await;
    }
}

async fn connect(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    Ok(socket.connect(to).await?)
}

/// Sends what the flood sends; returns when the node has ended the connection.
async fn hold(flood: &Flood, stream: TcpStream) {
    let (mut read, mut write) = stream.into_split();
    let sending = async {
        write.write_all(&(flood.begin)()).await?;
        for n in 0.. {
            let piece = (flood.more)(n);
            if piece.is_empty() {
                break;
            }
            write.write_all(&piece).await?;
            sleep(flood.pause).await;
        }
        // It stays as it is.
        std::future::pending::<std::io::Result<()>>().await
    };
    let reading = async {
        let mut scratch = vec![0; 16 << 10];
        while flood.reads && read.read(&mut scratch).await.is_ok_and(|count| count > 0) {}
        if !flood.reads {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = sending => {}
        () = reading => {}
    }
}
