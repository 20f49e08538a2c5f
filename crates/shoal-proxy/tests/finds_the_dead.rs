//! Connections whose other side is gone without a word.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::frames::{ACK, PING, SETTINGS, frame};
use support::outcome::next;
use support::{Origin, Stage, ok, serve_raw, site, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// An IPv4 address as the kernel writes it.
fn written(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("{address} is none of IPv4") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

/// What the kernel waits for on the socket that is connected to `remote`: its timer, by kind (00 is none, 02 silence), and
/// seconds until it runs out. `local`: which end of the connection is meant.
fn timer(local: impl Fn(&str) -> bool, remote: &str) -> (String, u64) {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    // Number, both addresses, state (01 is established), queues, timer in hundredths of a second.
    let socket = lines.find(|line| local(line[1]) && line[2] == remote && line[3] == "01");
    let (kind, when) = socket.expect("a connection")[5].split_once(':').unwrap();
    (kind.to_owned(), u64::from_str_radix(when, 16).unwrap() / 100)
}

#[tokio::test]
async fn the_kernel_asks_whether_anybody_is_there() {
    let settings = (", limits: { tcp_keepalive: 50s }", ", tcp_keepalive: 70s");
    for (listener, upstream, kind, seconds) in
        [(settings.0, settings.1, "02", (45..=50, 65..=70)), ("", "", "00", (0..=0, 0..=0))]
    {
        let origin = Origin::start(|_| ok("")).await;
        let site = site(&[origin.address], "", upstream);
        let stage = Stage::start(&site.replace("protocol: http", &format!("protocol: http{listener}")));
        let mut downstream = stage.connect().await;
        downstream.send(GET).await;
        assert_eq!(downstream.answer().await.status, 200);
        let (here, there) = (written(stage.address("web")), written(downstream.stream.local_addr().unwrap()));
        let endpoint = written(origin.address);
        // Until then what was sent may not have been acknowledged.
        wait_until("the timers of a quiet connection", || {
            let to_downstream = timer(|local| local == here, &there);
            let to_endpoint = timer(|local| local != here, &endpoint);
            to_downstream.0 == kind
                && to_endpoint.0 == kind
                && seconds.0.contains(&to_downstream.1)
                && seconds.1.contains(&to_endpoint.1)
        })
        .await;
    }
}

#[tokio::test]
async fn an_endpoint_on_http2_that_answers_no_ping_is_given_up() {
    let (pings, counted) = (Arc::new(AtomicUsize::new(0)), Arc::<AtomicUsize>::default());
    let seen = pings.clone();
    let address = serve_raw(counted, move |mut stream, _| {
        let seen = seen.clone();
        async move {
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
            stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
            while let Some((kind, _)) = next(&mut stream).await {
                seen.fetch_add(usize::from(kind == PING), Ordering::SeqCst);
            }
        }
    })
    .await;
    let settings = ", protocol: h2c, ping_interval: 1s, ping_timeout: 100ms";
    let stage = Stage::start(&site(&[address], ", timeouts: { first_byte: 1h }", settings));
    let began = Instant::now();
    assert_eq!(stage.ask(GET).await.status, 502);
    assert!(began.elapsed() < Duration::from_secs(10), "the default for an answer is 20 s");
    assert!(pings.load(Ordering::SeqCst) > 0);
}
