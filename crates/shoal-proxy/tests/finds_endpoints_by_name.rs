//! Endpoints found by DNS: every address is one, changes cost no request, and what was good stays good.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::dns::{Mood, NameServer};
use support::{Origin, Seen, Stage, ok, wait_until};
use tokio::net::TcpListener;

/// A site whose endpoints are `endpoints`, looked up at `servers`.
fn site(endpoints: &str, dns: &NameServer, resolver: &str) -> String {
    format!(
        "listeners:\n  web: {{ address: \"127.0.0.1:1\", protocol: http }}\n\
         routes:\n  all: {{ upstream: app }}\n\
         upstreams:\n  app: {{ endpoints: [{endpoints}], resolver: {{ servers: [\"{}\"], allow_loopback: true, \
         timeout: 300ms, attempts: 2, min_ttl: 100ms{resolver} }} }}\n",
        dns.address
    )
}

/// Origins at `ips`, all on one port, which say where they are.
async fn origins(ips: &[&str]) -> u16 {
    let (port, listeners) = loop {
        // A port that is free at one address may be taken at another.
        if let Some(bound) = bind_all(ips).await {
            break bound;
        }
    };
    for (listener, ip) in listeners.into_iter().zip(ips) {
        let answer = ok(ip);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut stream = support::Downstream::new(stream);
                    while stream.read_head().await.is_some() {
                        stream.send(&answer).await;
                    }
                });
            }
        });
    }
    port
}

async fn bind_all(ips: &[&str]) -> Option<(u16, Vec<TcpListener>)> {
    let mut port = 0;
    let mut listeners = Vec::new();
    for ip in ips {
        let listener = TcpListener::bind(SocketAddr::new(ip.parse().unwrap(), port)).await.ok()?;
        port = listener.local_addr().unwrap().port();
        listeners.push(listener);
    }
    Some((port, listeners))
}

/// Where `count` requests went, sorted and without repetition.
async fn places(stage: &Stage, count: usize) -> Vec<String> {
    let mut places = Vec::new();
    for _ in 0..count {
        let answer = stage.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        places.push(answer.text());
    }
    places.sort();
    places.dedup();
    places
}

/// Waits until requests go to exactly `expected`.
async fn until_at(stage: &Stage, expected: &[&str]) {
    let deadline = std::time::Instant::now() + support::PATIENCE;
    loop {
        let seen = places(stage, expected.len() * 4).await;
        if seen == expected {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{seen:?}, not {expected:?}");
    }
}

#[tokio::test]
async fn every_address_is_an_endpoint() {
    let dns = NameServer::start().await;
    let port = origins(&["127.0.0.1", "127.0.0.2", "::1"]).await;
    dns.set_addresses("app.test", 60, &["127.0.0.1", "127.0.0.2", "::1"]);
    let stage = Stage::start(&site(&format!("\"app.test:{port}\""), &dns, ""));
    // The first request waits for the answer, and no longer.
    until_at(&stage, &["127.0.0.1", "127.0.0.2", "::1"]).await;
    for text in [format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}"), format!("[::1]:{port}")] {
        let labels = format!("{{upstream=\"app\",endpoint=\"{text}\",source=\"local\"}}");
        assert_eq!(stage.metric(&format!("shoal_endpoint_up{labels}")), 1);
    }
    let labels = format!("{{upstream=\"app\",endpoint=\"app.test:{port}\"}}");
    assert_eq!(stage.metric(&format!("shoal_name_addresses{labels}")), 3);
    assert_eq!(stage.metric(&format!("shoal_name_failing{labels}")), 0);
    // Its records are good for a minute.
    assert_eq!(dns.asked("app.test"), 2, "A and AAAA, once for all workers");
    dig_agrees(&dns).await;
    let family = site(&format!("\"app.test:{port}\""), &dns, ", family: ipv6");
    stage.proxy.apply(stage.compile(2, &family)).unwrap();
    until_at(&stage, &["::1"]).await;
}

/// The name server of these tests says the same to others, where there is `dig` to ask.
async fn dig_agrees(dns: &NameServer) {
    let port = dns.address.port().to_string();
    let dig =
        move || Command::new("dig").args(["@127.0.0.1", "-p", &port, "+short", "app.test", "AAAA"]).output();
    if let Ok(said) = tokio::task::spawn_blocking(dig).await.unwrap() {
        assert_eq!(String::from_utf8_lossy(&said.stdout), "::1\n");
    }
}

#[tokio::test]
async fn services_are_found_with_ports_weights_and_priorities() {
    let dns = NameServer::start().await;
    let near = origins(&["127.0.0.1"]).await;
    let heavy = origins(&["127.0.0.2"]).await;
    let spare = origins(&["127.0.0.3"]).await;
    dns.set_addresses("a.test", 60, &["127.0.0.1"]);
    dns.set_addresses("b.test", 60, &["127.0.0.2"]);
    dns.set_addresses("c.test", 60, &["127.0.0.3"]);
    dns.set_service(
        "_http._tcp.app.test",
        1,
        &[(10, 1, near, "a.test"), (10, 3, heavy, "b.test"), (20, 9, spare, "c.test")],
    );
    let stage = Stage::start(&site("\"srv:_http._tcp.app.test\"", &dns, ""));
    until_at(&stage, &["127.0.0.1", "127.0.0.2"]).await;
    let mut shares = [0, 0];
    // Each connection may meet another worker: each of them keeps its own turn.
    for _ in 0..80 {
        match stage.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.text().as_str() {
            "127.0.0.1" => shares[0] += 1,
            _ => shares[1] += 1,
        }
    }
    assert!((17..=23).contains(&shares[0]), "one in four: {shares:?}");
    dns.set_service("_http._tcp.app.test", 1, &[(20, 9, spare, "c.test")]);
    until_at(&stage, &["127.0.0.3"]).await;
    // A service that is there no more is a mistake more often than a wish.
    let labels = "{upstream=\"app\",endpoint=\"srv:_http._tcp.app.test\"}";
    dns.set_service("_http._tcp.app.test", 1, &[(0, 0, 0, ".")]);
    wait_until("the failure", || stage.metric(&format!("shoal_name_failing{labels}")) == 1).await;
    assert_eq!(places(&stage, 4).await, ["127.0.0.3"]);
}

#[tokio::test]
async fn addresses_change_under_load_without_a_failed_request() {
    let dns = NameServer::start().await;
    let port = origins(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]).await;
    dns.set_addresses("app.test", 0, &["127.0.0.1"]);
    let stage = Arc::new(Stage::start(&site(&format!("\"app.test:{port}\""), &dns, "")));
    assert_eq!(places(&stage, 1).await, ["127.0.0.1"]);
    let done = Arc::new(AtomicBool::new(false));
    let downstreams: Vec<_> = (0..4)
        .map(|_| {
            let (stage, done) = (stage.clone(), done.clone());
            tokio::spawn(async move {
                let mut downstream = stage.connect().await;
                let mut count = 0;
                while !done.load(Ordering::SeqCst) {
                    downstream.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
                    let answer = downstream.answer().await;
                    assert_eq!((answer.status, answer.complete), (200, true), "{answer:?}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    for ips in [&["127.0.0.2"][..], &["127.0.0.1", "127.0.0.3"], &["127.0.0.2", "127.0.0.3"], &["127.0.0.1"]]
    {
        dns.set_addresses("app.test", 0, ips);
        until_at(&stage, ips).await;
    }
    done.store(true, Ordering::SeqCst);
    for downstream in downstreams {
        assert!(downstream.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn an_address_that_is_no_more_sees_its_connections_end() {
    let dns = NameServer::start().await;
    let left = Origin::start(|_| ok("left")).await;
    dns.set_addresses("app.test", 0, &["127.0.0.1"]);
    let stage = Stage::start(&site(&format!("\"app.test:{}\"", left.address.port()), &dns, ""));
    assert_eq!(places(&stage, 4).await, ["left"]);
    let before = left.connections();
    // Nobody asks any more, and nobody needs to.
    dns.set_addresses("app.test", 0, &["127.0.0.2"]);
    wait_until("the end of its connections", || left.ended() == before).await;
}

#[tokio::test]
async fn the_last_good_addresses_stay() {
    let dns = NameServer::start().await;
    let port = origins(&["127.0.0.1", "127.0.0.2"]).await;
    dns.set_addresses("app.test", 0, &["127.0.0.1"]);
    let stage = Stage::start(&site(&format!("\"app.test:{port}\""), &dns, ", max_ttl: 200ms"));
    until_at(&stage, &["127.0.0.1"]).await;
    let labels = format!("{{upstream=\"app\",endpoint=\"app.test:{port}\"}}");
    let failing = || stage.metric(&format!("shoal_name_failing{labels}"));
    let harms: [(&str, &dyn Fn()); 5] = [
        ("ServFail", &|| dns.set_mood(Mood::Failing)),
        ("silence", &|| dns.set_mood(Mood::Silent)),
        ("NXDOMAIN", &|| dns.remove("app.test")),
        ("an empty answer", &|| dns.set_addresses("app.test", 0, &[])),
        ("a turn to a forbidden place", &|| dns.set_addresses("app.test", 0, &["169.254.169.254"])),
    ];
    for (what, harm) in harms {
        harm();
        wait_until(what, || failing() == 1).await;
        assert_eq!(places(&stage, 4).await, ["127.0.0.1"], "{what}");
        let config = stage.config.load_full();
        let failures = stage.proxy.names().failures(&config);
        assert_eq!((failures.len(), failures[0].kept), (1, 1), "{what}: {failures:?}");
        dns.set_mood(Mood::Honest);
        dns.set_addresses("app.test", 0, &["127.0.0.1"]);
        wait_until("the end of it", || failing() == 0).await;
    }
    dns.set_addresses("app.test", 0, &["127.0.0.2"]);
    until_at(&stage, &["127.0.0.2"]).await;
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_told_at_once() {
    let dns = NameServer::start().await;
    dns.set_addresses("home.test", 0, &["127.0.0.1"]);
    let site = site("\"gone.test:80\", \"home.test:80\"", &dns, "").replace("allow_loopback: true, ", "");
    let stage = Stage::start(&site);
    let answer = stage.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(answer.status, 502);
    let failures = stage.proxy.names().failures(&stage.config.load_full());
    let mut seen: Vec<_> = failures.iter().map(|failure| (&*failure.endpoint, &*failure.why)).collect();
    seen.sort_unstable();
    let home = "it leads to 127.0.0.1, where names may not lead";
    assert_eq!(seen, [("gone.test:80", "the name has no address"), ("home.test:80", home)]);
}

#[tokio::test]
async fn hosts_of_the_system_are_known_without_a_name_server() {
    let origin = Origin::start(|_: Seen| ok("home")).await;
    let port = origin.address.port();
    let site = support::site(&[origin.address], "", ", resolver: { family: ipv4 }");
    let stage = Stage::start(&site.replace(&origin.address.to_string(), &format!("localhost:{port}")));
    assert_eq!(places(&stage, 2).await, ["home"]);
}
