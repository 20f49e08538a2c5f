//! Sessions: a signed cookie leads back to the endpoint it came from, and means nothing when it is not good.

mod support;

use shoal_proxy::StickySeed;
use support::{Answer, Downstream, Origin, Seen, Stage, ok, serve_raw, site};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn get_with(cookie: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; {cookie}\r\n\r\n")
}

/// The cookie that an answer sets, as a request sends it back.
fn cookie(answer: &Answer) -> Option<String> {
    answer
        .field("set-cookie")
        .map(|cookie| cookie.split_once(';').map_or(cookie, |(pair, _)| pair).to_owned())
}

async fn origins(count: usize) -> Vec<Origin> {
    let mut origins = Vec::new();
    for n in 0..count {
        origins.push(Origin::start(move |_| ok(&n.to_string())).await);
    }
    origins
}

fn addresses(origins: &[Origin]) -> Vec<std::net::SocketAddr> {
    origins.iter().map(|origin| origin.address).collect()
}

#[tokio::test]
async fn a_cookie_leads_back_on_every_node() {
    let origins = origins(4).await;
    let site = site(&addresses(&origins), "", ", sticky: { name: node, ttl: 1h }");
    let (one, other) = (Stage::start(&site), Stage::start(&site));
    let first = one.ask(GET).await;
    let set = first.field("set-cookie").unwrap();
    assert!(set.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"), "{set}");
    assert_eq!(first.field("cache-control"), Some("private=\"set-cookie\""));
    let cookie = cookie(&first).unwrap();
    for stage in [&one, &other].repeat(10) {
        let again = stage.ask(&get_with(&cookie)).await;
        assert_eq!(again.text(), first.text());
        assert_eq!((again.field("set-cookie"), again.field("cache-control")), (None, None));
    }
    // Those without a cookie are balanced.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        seen.insert(one.ask(GET).await.text());
    }
    assert_eq!(seen.len(), 4);
}

#[tokio::test]
async fn cookies_that_are_not_good_are_replaced() {
    let origins = origins(3).await;
    let text = site(&addresses(&origins), "", ", sticky: { name: node }");
    let stage = Stage::start(&text);
    let good = cookie(&stage.ask(GET).await).unwrap();
    let forged = Stage::start_with_sticky_seed(&text, StickySeed([8; 32]));
    let foreign = cookie(&forged.ask(GET).await).unwrap();
    for bad in ["node=", "node=v1.x", &foreign, &good[..good.len() - 1], &good.replace("v1.", "v2.")] {
        let answer = stage.ask(&get_with(bad)).await;
        assert_eq!(answer.status, 200, "{bad}");
        let replaced = cookie(&answer).unwrap();
        let again = stage.ask(&get_with(&replaced)).await;
        assert_eq!((again.text(), cookie(&again)), (answer.text(), None), "{bad}");
    }
}

#[tokio::test]
async fn a_dead_endpoint_is_replaced() {
    let origin = Origin::start(|_| ok("alive")).await;
    let sticky = ", sticky: { name: node }";
    let living = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = living.local_addr().unwrap();
    let stage = Stage::start(&site(&[dead], "", sticky));
    let answering = tokio::spawn(async move {
        let (stream, _) = living.accept().await.unwrap();
        let mut stream = Downstream::new(stream);
        stream.read_head().await.unwrap();
        stream.send(ok("not dead yet")).await;
    });
    let there = cookie(&stage.ask(GET).await).unwrap();
    answering.await.unwrap();
    let stage = Stage::start(&site(&[dead, origin.address], "", sticky));
    let answer = stage.ask(&get_with(&there)).await;
    assert_eq!(answer.text(), "alive");
    let moved = cookie(&answer).unwrap();
    assert_ne!(moved, there);
    assert_eq!(cookie(&stage.ask(&get_with(&moved)).await), None);
}

#[tokio::test]
async fn errors_tie_nobody() {
    let failing = "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n";
    let origin = Origin::start(move |_| failing).await;
    let stage = Stage::start(&site(&[origin.address], "", ", sticky: { name: node }"));
    let answer = stage.ask(GET).await;
    assert_eq!((answer.status, cookie(&answer)), (500, None));
}

#[tokio::test]
async fn a_drained_endpoint_keeps_its_sessions_and_gets_no_others() {
    let origins = origins(2).await;
    let [a, b] = [origins[0].address, origins[1].address];
    let site = |drain: bool| {
        site(&[b], "", ", sticky: { name: node }")
            .replace("endpoints: [", &format!("endpoints: [{{ address: \"{a}\", drain: {drain} }}, "))
    };
    let stage = Stage::start(&site(false));
    let mut sessions: [Option<String>; 2] = [None, None];
    while sessions.iter().any(Option::is_none) {
        let answer = stage.ask(GET).await;
        sessions[answer.text().parse::<usize>().unwrap()] = cookie(&answer);
    }
    stage.proxy.apply(stage.compile(2, &site(true))).unwrap();
    for _ in 0..10 {
        assert_eq!(stage.ask(GET).await.text(), "1");
    }
    for (n, session) in sessions.iter().enumerate() {
        let answer = stage.ask(&get_with(session.as_deref().unwrap())).await;
        assert_eq!((answer.text(), cookie(&answer)), (n.to_string(), None));
    }
}

#[tokio::test]
async fn what_is_under_way_at_a_drained_endpoint_goes_on() {
    let (release, held) = tokio::sync::watch::channel(false);
    let slow = serve_raw(Default::default(), move |stream, _| {
        let mut held = held.clone();
        async move {
            let mut stream = Downstream::new(stream);
            while stream.read_head().await.is_some() {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
                held.wait_for(|released| *released).await.unwrap();
                stream.send("half").await;
            }
        }
    })
    .await;
    let other = Origin::start(|_| ok("other")).await;
    let stage = Stage::start(&site(&[slow], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send(GET).await;
    downstream.read_until(b"half").await.unwrap();
    let drained = site(&[other.address], "", "")
        .replace("endpoints: [", &format!("endpoints: [{{ address: \"{slow}\", weight: 0 }}, "));
    stage.proxy.apply(stage.compile(2, &drained)).unwrap();
    for _ in 0..4 {
        assert_eq!(stage.ask(GET).await.text(), "other");
    }
    release.send(true).unwrap();
    downstream.read_until(b"half").await.unwrap();
    downstream.send(GET).await;
    assert_eq!(downstream.answer().await.text(), "other");
}

#[tokio::test]
async fn upgrades_belong_to_the_session() {
    let endpoint = |n: usize| {
        serve_raw(Default::default(), move |stream, _| async move {
            let mut stream = Downstream::new(stream);
            while stream.read_head().await.is_some() {
                let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
                let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket";
                stream
                    .send(format!("{switch}\r\nSec-WebSocket-Accept: {accept}\r\nX-From: {n}\r\n\r\n"))
                    .await;
                stream.read_to_end().await;
            }
        })
    };
    let endpoints = [endpoint(0).await, endpoint(1).await, endpoint(2).await];
    let stage = Stage::start(&site(&endpoints, "", ", sticky: { name: node }"));
    let switch = async |cookie: Option<&str>| {
        let mut downstream = stage.connect().await;
        let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        downstream
            .send(format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{cookie}\r\n"
            ))
            .await;
        let head = downstream.read_head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let field = |name| support::field(&head, name).map(str::to_owned);
        (field("x-from"), field("set-cookie"))
    };
    let (from, set) = switch(None).await;
    let cookie = set.unwrap().split(';').next().unwrap().to_owned();
    for _ in 0..6 {
        assert_eq!(switch(Some(&cookie)).await, (from.clone(), None));
    }
}

#[tokio::test]
async fn what_is_shared_sets_no_cookie() {
    let origin = Origin::start(|seen: Seen| {
        let control = if seen.path() == "/shared" { "max-age=60" } else { "no-store" };
        format!("HTTP/1.1 200 OK\r\ncache-control: {control}\r\ncontent-length: 2\r\n\r\nhi")
    })
    .await;
    let cache = ", cache: { set_cookie: allow }";
    let stage = Stage::start(&site(&[origin.address], cache, ", sticky: { name: node }"));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..3 {
        let shared = stage.ask(&get("/shared")).await;
        assert_eq!((shared.text().as_str(), cookie(&shared)), ("hi", None));
        assert_eq!(shared.field("cache-control"), Some("max-age=60"));
    }
    assert_eq!(origin.requests(), 1, "it was stored");
    for _ in 0..3 {
        let own = stage.ask(&get("/own")).await;
        assert!(cookie(&own).is_some(), "nobody else gets this answer: {}", own.head);
    }
    let posted = stage.ask("POST /own HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert!(cookie(&posted).is_some());
}
