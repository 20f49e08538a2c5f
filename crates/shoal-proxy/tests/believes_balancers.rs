//! The PROXY protocol, in from balancers that are trusted and out to endpoints that ask for it.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::{env, fs, io};

use support::{Downstream, Origin, PATIENCE, Seen, Stage, ok, site};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 80\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\xc6\x33\x64\x01\x12\x67\0\x50";
const REFUSED: &str = "shoal_connections_refused_total{reason=\"proxy_header\"}";

fn proxied(endpoint: SocketAddr, settings: &str) -> String {
    let listener = format!("protocol: http, proxy_protocol: {{ {settings} }} }}");
    site(&[endpoint], "", "").replace("protocol: http }", &listener)
}

async fn caller_shown() -> Origin {
    Origin::start(|seen: Seen| ok(seen.field("x-real-ip").unwrap_or_default())).await
}

#[tokio::test]
async fn the_address_in_the_header_becomes_the_callers() {
    let origin = caller_shown().await;
    let stage = Stage::start(&proxied(origin.address, "trusted: [\"127.0.0.0/8\"]"));
    let table: [(&[u8], &str); 4] = [
        (V1, "203.0.113.9"),
        (V2, "203.0.113.9"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "127.0.0.1"),
    ];
    for (number, (header, caller)) in table.into_iter().enumerate() {
        let mut downstream = stage.connect().await;
        downstream.send([header, REQUEST.as_bytes()].concat()).await;
        assert_eq!(downstream.answer().await.text(), caller, "{header:?}");
        downstream.send(REQUEST).await;
        assert_eq!(downstream.answer().await.text(), caller, "it holds for the whole connection");
        assert_eq!(stage.log_of(2 * number + 1).await[2 * number]["client_addr"], caller);
    }
    // In pieces: each is looked at as soon as it is there.
    let mut downstream = stage.connect().await;
    downstream.stream.set_nodelay(true).unwrap();
    for byte in [V2, REQUEST.as_bytes()].concat() {
        downstream.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(downstream.answer().await.text(), "203.0.113.9");
    assert_eq!(stage.metric(REFUSED), 0);
}

fn behind_proxies(endpoints: &[SocketAddr], upstream: &str, header: &str) -> String {
    let listener = "protocol: http, trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]";
    let listener = format!("{listener}, client_ip_header: {header} }}");
    site(endpoints, "", upstream).replace("protocol: http }", &listener)
}

#[tokio::test]
async fn a_client_is_one_and_the_same_to_everybody() {
    let told = ["x-real-ip", "x-forwarded-for", "x-forwarded-proto", "forwarded"];
    let origin = Origin::start(move |seen: Seen| {
        ok(&told.map(|name| seen.field(name).unwrap_or_default().to_owned()).join("|"))
    })
    .await;
    let table = [
        (
            "X-Forwarded-For",
            "X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.7\r\nX-Forwarded-Proto: https\r\n",
            "1.2.3.4|6.6.6.6, 1.2.3.4, 10.0.0.7, 127.0.0.1|https|for=1.2.3.4;host=a;proto=https, for=127.0.0.1",
            "1.2.3.4",
        ),
        (
            "Forwarded",
            "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=1.2.3.4;proto=https\r\n",
            "1.2.3.4|1.2.3.4, 127.0.0.1|https|for=1.2.3.4;proto=https, for=127.0.0.1;host=a",
            "1.2.3.4",
        ),
        (
            "CF-Connecting-IP",
            "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nCF-Connecting-IP: 1.2.3.4\r\n",
            "1.2.3.4|1.2.3.4, 127.0.0.1|http|for=1.2.3.4;host=a;proto=http, for=127.0.0.1",
            "1.2.3.4",
        ),
        ("X-Real-IP", "", "127.0.0.1|127.0.0.1|http|for=127.0.0.1;host=a;proto=http", "127.0.0.1"),
    ];
    for (header, fields, expected, address) in table {
        let stage = Stage::start(&behind_proxies(&[origin.address], "", header));
        let answer = stage.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        assert_eq!(answer.text(), expected, "{fields}");
        assert_eq!(stage.log_of(1).await[0]["client_addr"], address, "{fields}");
    }
}

#[tokio::test]
async fn clients_of_one_balancer_are_spread_by_their_addresses() {
    let origins = [Origin::start(|_| ok("0")).await, Origin::start(|_| ok("1")).await];
    let hash = ", balance: consistent_hash, hash_key: address, hash_balance_factor: 0";
    let endpoints = origins.each_ref().map(|origin| origin.address);
    let mut seen = Vec::new();
    for (header, field) in [("X-Forwarded-For", "X-Forwarded-For: "), ("Forwarded", "Forwarded: for=")] {
        let stage = Stage::start(&behind_proxies(&endpoints, hash, header));
        let mut downstream = stage.connect().await;
        for client in 0..16 {
            downstream.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}1.2.3.{client}\r\n\r\n")).await;
            seen.push(downstream.answer().await.text());
        }
    }
    assert!(seen.contains(&"0".to_owned()) && seen.contains(&"1".to_owned()), "{seen:?}");
    assert_eq!(seen[..16], seen[16..], "whoever says it");
}

#[tokio::test]
async fn tls_begins_after_the_header() {
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let origin = caller_shown().await;
    let listener = "protocol: https, certificates: [a], proxy_protocol: { trusted: [127.0.0.0/8] } }";
    let stage = Stage::with_certificates(
        &site(&[origin.address], "", "").replace("protocol: http }", listener),
        vec![("a".to_owned(), made.cert.pem(), made.signing_key.serialize_pem())],
    );
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut stream = TcpStream::connect(stage.address("web")).await.unwrap();
    stream.write_all(V2).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("a.example").unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client));
    let mut downstream = Downstream::new(connector.connect(name, stream).await.unwrap());
    downstream.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(downstream.answer().await.text(), "203.0.113.9");
}

#[tokio::test]
async fn without_a_proper_header_nobody_is_served() {
    let origin = caller_shown().await;
    let stage = Stage::start(&proxied(origin.address, "trusted: [\"127.0.0.1/32\"], timeout: 300ms"));
    let closed = async |bytes: Vec<u8>| {
        let mut downstream = stage.connect().await;
        downstream.send(bytes).await;
        let mut got = Vec::new();
        // Closed with bytes unread it may be a reset.
        let _ = downstream.stream.read_to_end(&mut got).await;
        assert!(got.is_empty(), "{:?}", String::from_utf8_lossy(&got));
    };
    closed(REQUEST.into()).await;
    closed([&V1[..20], b"\r\n", REQUEST.as_bytes()].concat()).await;
    closed(b"PROXY TCP4 203.0.113.9".to_vec()).await;
    closed(V2[..20].to_vec()).await;
    closed(Vec::new()).await;
    closed([b"PROXY UNKNOWN ", &[b'x'; 5000][..]].concat()).await;
    assert_eq!(stage.metric(REFUSED), 6);

    let stranger = Stage::start(&proxied(origin.address, "trusted: [\"10.0.0.0/8\"]"));
    let mut downstream = stranger.connect().await;
    downstream.send([V1, REQUEST.as_bytes()].concat()).await;
    let mut got = Vec::new();
    let _ = downstream.stream.read_to_end(&mut got).await;
    assert!(got.is_empty());
    assert_eq!(stranger.metric(REFUSED), 1);
    assert_eq!(origin.requests(), 0);
}

/// A running nginx that wants a PROXY header, and answers with what it says and the number of the connection.
struct Nginx {
    child: Child,
    address: SocketAddr,
    directory: std::path::PathBuf,
}

impl Nginx {
    /// `None` = it is not installed here.
    async fn start() -> Option<Self> {
        // Nobody else uses this address, so that the port stays free until nginx has it.
        let address = TcpListener::bind("127.77.19.4:0").unwrap().local_addr().unwrap();
        let directory = env::temp_dir().join(format!("shoal-nginx-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {kind};\n"))
            .collect();
        let config = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
             server {{ listen {address} proxy_protocol; location / {{ return 200 \
             \"$proxy_protocol_addr $proxy_protocol_port $connection\"; }} }}\n}}\n"
        );
        fs::write(directory.join("nginx.conf"), config).unwrap();
        let spawned = Command::new("nginx")
            .args(["-e", "error.log", "-c", "nginx.conf", "-p"])
            .arg(&directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match spawned {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            spawned => spawned.unwrap(),
        };
        let nginx = Self { child, address, directory };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            let log = fs::read_to_string(nginx.directory.join("error.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "nginx does not listen: {log}");
            sleep(std::time::Duration::from_millis(10)).await;
        }
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn nginx_is_told_who_called() {
    let Some(nginx) = Nginx::start().await else {
        // Past the capture of the test runner: a skip must never look like a pass.
        let _ = writeln!(io::stderr(), "SKIPPED nginx_is_told_who_called: nginx is not installed");
        assert!(env::var_os("SHOAL_NO_SKIP").is_none(), "nothing may be skipped");
        return;
    };
    for version in ["v1", "v2"] {
        let upstream = format!(", proxy_protocol: {version}");
        let text = site(&[nginx.address], "", &upstream);
        let stage = Stage::start(&text);
        let mut connections = Vec::new();
        for _ in 0..2 {
            let mut downstream = stage.connect().await;
            let source = downstream.stream.local_addr().unwrap();
            let expected = format!("{} {} ", source.ip(), source.port());
            for _ in 0..2 {
                downstream.send(REQUEST).await;
                let answer = downstream.answer().await;
                let text = answer.text();
                let connection = text.strip_prefix(&*expected).unwrap_or_else(|| panic!("{version}: {text}"));
                connections.push(connection.to_owned());
            }
        }
        assert!(connections[..2].iter().all(|one| !connections[2..].contains(one)), "callers share nothing");

        let both =
            text.replace("protocol: http }", "protocol: http, proxy_protocol: { trusted: [127.0.0.1/32] } }");
        let stage = Stage::start(&both);
        let mut downstream: Downstream<TcpStream> = stage.connect().await;
        downstream.send([V1, REQUEST.as_bytes()].concat()).await;
        let answer = downstream.answer().await;
        assert!(answer.text().starts_with("203.0.113.9 4711 "), "passed on: {}", answer.text());
    }
}
