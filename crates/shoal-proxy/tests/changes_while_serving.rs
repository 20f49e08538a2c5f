//! Listeners, certificates and routes change, and the proxy drains, without a request that fails.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_proxy::{Owner, Ports};
use support::{Origin, Seen, Stage, ok, site, wait_until};
use tokio::sync::Semaphore;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn two_listeners(endpoint: SocketAddr, second: &str) -> String {
    site(&[endpoint], "", "").replace("routes:", &format!("{second}routes:"))
}

const SECOND: &str = "  more: { address: \"127.0.0.2:1\", protocol: http }\n";

#[tokio::test]
async fn listeners_open_stay_and_close() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&two_listeners(origin.address, ""));
    let mut kept = stage.connect().await;
    kept.send(GET).await;
    assert_eq!(kept.answer().await.status, 200);
    let web = stage.address("web");

    stage.proxy.apply(stage.compile(2, &two_listeners(origin.address, SECOND))).unwrap();
    assert_eq!(stage.address("web"), web, "a listener that stays keeps its socket");
    let stream = tokio::net::TcpStream::connect(stage.address("more")).await.unwrap();
    let mut second = support::Downstream::new(stream);
    second.send(GET).await;
    assert_eq!(second.answer().await.status, 200);

    stage.proxy.apply(stage.compile(3, &two_listeners(origin.address, ""))).unwrap();
    assert!(second.is_closed().await, "connections of a listener that is gone end");
    kept.send(GET).await;
    assert_eq!(kept.answer().await.status, 200, "those of others go on");
}

#[tokio::test]
async fn names_are_spelled_as_they_came_from_the_next_answer_on() {
    let origin = Origin::start(|_| "HTTP/1.1 200 OK\r\nX-aBC: d\r\nContent-Length: 0\r\n\r\n").await;
    let with = |case: &str| {
        let listener = format!("protocol: http, header_case: {case}");
        site(&[origin.address], "", "").replace("protocol: http", &listener)
    };
    let stage = Stage::start(&with("lower"));
    for (revision, case, expected) in
        [(2, "lower", "\r\nx-abc: d"), (3, "preserve", "\r\nX-aBC: d"), (4, "title", "\r\nX-Abc: d")]
    {
        stage.proxy.apply(stage.compile(revision, &with(case))).unwrap();
        // On every worker, over connections that have been there before.
        for _ in 0..8 {
            let answer = stage.ask(GET).await;
            assert!(answer.head.contains(expected), "{case}: {}", answer.head);
        }
    }
    assert!(origin.connections() <= 2, "one a worker: {}", origin.connections());
}

#[tokio::test]
async fn a_port_of_somebody_else_is_an_error_and_changes_nothing() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let foreign = std::net::TcpListener::bind("127.0.0.3:0").unwrap();
    let address = foreign.local_addr().unwrap();
    let more = format!("  more: {{ address: \"{address}\", protocol: http }}\n");
    let errors = stage.proxy.apply(stage.compile(2, &two_listeners(origin.address, &more))).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].listener, "more");
    assert!(errors[0].message.contains(&address.to_string()), "{}", errors[0]);
    assert_eq!(stage.config.load().revision.0, 1);
    assert_eq!(stage.ask(GET).await.status, 200);
}

#[tokio::test]
async fn routes_change_under_load() {
    let origin = Origin::start(|seen: Seen| ok(seen.path())).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    for revision in 2..30 {
        let text = site(&[origin.address], &format!(", path_prefix: /r{revision}"), "");
        stage.proxy.apply(stage.compile(revision, &text)).unwrap();
        downstream.send(format!("GET /r{revision} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(downstream.answer().await.status, 200);
        downstream.send(format!("GET /r{} HTTP/1.1\r\nHost: a\r\n\r\n", revision - 1)).await;
        assert_eq!(downstream.answer().await.status, 404);
    }
    assert_eq!(origin.connections(), 1, "endpoints that stay keep their connections");
}

#[tokio::test]
async fn nothing_is_kept_of_what_was_served_before() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send(GET).await;
    assert_eq!(downstream.answer().await.status, 200);
    let before = Arc::downgrade(&stage.config.load_full());
    stage.proxy.apply(stage.compile(2, &site(&[origin.address], "", ""))).unwrap();
    // Also while that connection stays, and nobody asks for anything.
    wait_until("the end of what was served before", || before.strong_count() == 0).await;
    downstream.send(GET).await;
    assert_eq!(downstream.answer().await.status, 200);
}

#[tokio::test]
async fn an_endpoint_that_is_left_sees_its_connections_end() {
    // What is left of `left`, which `kept` stands beside, or of the whole site.
    let beside = |left: SocketAddr, kept: SocketAddr, fields: &str| {
        site(&[kept], "", ", idle_timeout: 1h")
            .replace("endpoints: [", &format!("endpoints: [{{ address: \"{left}\"{fields} }}, "))
    };
    type Change<'a> = &'a dyn Fn(SocketAddr, SocketAddr) -> String;
    let changes: [(&str, Change<'_>); 5] = [
        ("removed", &|_, kept| site(&[kept], "", ", idle_timeout: 1h")),
        ("drained", &|left, kept| beside(left, kept, ", drain: true")),
        ("without weight", &|left, kept| beside(left, kept, ", weight: 0")),
        ("of another upstream", &|_, kept| {
            site(&[kept], "", "").replace("app:", "new:").replace("upstream: app", "upstream: new")
        }),
        ("spoken to otherwise", &|left, kept| beside(left, kept, "").replace("1h", "1h, protocol: h2c")),
    ];
    for (what, change) in changes {
        let left = Origin::start(|_| ok("left")).await;
        // Its turn comes next, and its answer stays under way: that holds what it began with.
        let kept = Origin::start(|seen: Seen| match seen.path() {
            "/half" => "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf".to_owned(),
            _ => ok("kept"),
        })
        .await;
        let stage = Stage::start(&beside(left.address, kept.address, ""));
        let mut under_way = Vec::new();
        for _ in 0..4 {
            let mut downstream = stage.connect().await;
            loop {
                downstream.send(GET).await;
                if downstream.answer().await.text() == "left" {
                    break;
                }
            }
            downstream.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n").await;
            downstream.read_until(b"half").await.unwrap();
            under_way.push(downstream);
        }
        let before = left.connections();
        assert!(before > 0 && left.ended() == 0, "{what}");
        stage.proxy.apply(stage.compile(2, &change(left.address, kept.address))).unwrap();
        wait_until(&format!("the end of what is {what}"), || left.ended() == before).await;
    }
}

#[tokio::test]
async fn draining_finishes_what_is_under_way() {
    static GO: Semaphore = Semaphore::const_new(0);
    let reached = Arc::new(Semaphore::new(0));
    let signal = reached.clone();
    let address = support::serve_raw(Default::default(), move |stream, _| {
        let signal = signal.clone();
        async move {
            let mut stream = support::Downstream::new(stream);
            stream.read_head().await.unwrap();
            signal.add_permits(1);
            GO.acquire().await.unwrap().forget();
            stream.send(ok("late")).await;
        }
    })
    .await;
    let stage = Stage::start(&site(&[address], "", ""));
    let mut busy = stage.connect().await;
    busy.send(GET).await;
    reached.acquire().await.unwrap().forget();
    let proxy = stage.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain(Duration::from_secs(15), Ports::Closed).await });
    GO.add_permits(1);
    let answer = busy.answer().await;
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("late", Some("close")));
    assert!(busy.is_closed().await);
    assert_eq!(drained.await.unwrap(), 0);
    assert!(tokio::net::TcpStream::connect(stage.address("web")).await.is_err(), "nobody listens any more");
    let has_ended = || stage.proxy.pulses().iter().all(|pulse| pulse.threads().is_empty());
    wait_until("no worker is there to tick", has_ended).await;
}

/// Asks until an answer says that it is the last one, and sees the connection end.
async fn ask_to_the_end(downstream: &mut support::Downstream<tokio::net::TcpStream>) {
    let deadline = std::time::Instant::now() + support::PATIENCE;
    loop {
        downstream.send(GET).await;
        let answer = downstream.answer().await;
        assert_eq!(answer.status, 200);
        if answer.field("connection") == Some("close") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "no answer was the last one");
    }
    assert!(downstream.is_closed().await);
}

#[tokio::test]
async fn a_node_that_goes_says_so_before_it_closes() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut used: Vec<_> = Vec::new();
    for _ in 0..3 {
        let mut downstream = stage.connect().await;
        downstream.send(GET).await;
        assert_eq!(downstream.answer().await.field("connection"), None);
        used.push(downstream);
    }
    let mut silent = stage.connect().await;
    wait_until("all connections", || stage.proxy.open_connections() == 4).await;

    stage.proxy.retire();
    ask_to_the_end(&mut used[0]).await;
    ask_to_the_end(&mut stage.connect().await).await;

    let proxy = stage.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain(Duration::from_secs(3), Ports::Closed).await });
    let web = stage.address("web");
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while tokio::net::TcpStream::connect(web).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "it still accepts");
    }
    ask_to_the_end(&mut used[1]).await;
    ask_to_the_end(&mut silent).await;
    assert!(used[2].is_closed().await, "who asks nothing is sent away in the end");
    assert_eq!(drained.await.unwrap(), 0, "nobody was cut off");
}

#[tokio::test]
async fn a_proxy_at_rest_comes_back() {
    let origin = Origin::start(|seen: Seen| match seen.path() {
        "/half" => "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf".to_owned(),
        _ => ok(""),
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut idle = stage.connect().await;
    idle.send(GET).await;
    assert_eq!(idle.answer().await.field("connection"), None);
    let mut endless = stage.connect().await;
    endless.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n").await;
    endless.read_until(b"half").await.unwrap();
    let web = stage.address("web");
    assert_eq!(stage.proxy.rest(Duration::from_millis(200)).await, 1, "one was cut off");
    assert!(idle.is_closed().await && endless.is_closed().await);
    assert!(tokio::net::TcpStream::connect(web).await.is_err(), "nobody listens any more");
    assert!(stage.proxy.addresses().is_empty());

    // Sites change meanwhile; what could not be served is refused.
    let renamed = site(&[origin.address], ", path_prefix: /new", "");
    stage.proxy.apply(stage.compile(2, &renamed)).unwrap();
    assert!(stage.proxy.addresses().is_empty());
    stage.proxy.resume().unwrap();
    let mut downstream = stage.connect().await;
    for path in ["/new", "/new/again"] {
        downstream.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = downstream.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (200, None), "{path}");
    }
    assert_eq!(stage.proxy.drain(Duration::from_millis(200), Ports::Closed).await, 0);
}

#[tokio::test]
async fn connections_end_politely_after_enough_requests() {
    let origin = Origin::start(|_| ok("")).await;
    let text = site(&[origin.address], "", "")
        .replace("protocol: http }", "protocol: http, limits: { max_requests_per_connection: 3 } }");
    let stage = Stage::start(&text);
    let mut downstream = stage.connect().await;
    for expected in [None, None, Some("close")] {
        downstream.send(GET).await;
        assert_eq!(downstream.answer().await.field("connection"), expected);
    }
    assert!(downstream.is_closed().await);
}

#[tokio::test]
async fn too_many_connections_are_turned_away() {
    let origin = Origin::start(|_| ok("")).await;
    let text = site(&[origin.address], "", "")
        .replace("protocol: http }", "protocol: http, limits: { max_connections: 1 } }");
    let stage = Stage::start(&text);
    let mut first = stage.connect().await;
    first.send(GET).await;
    assert_eq!(first.answer().await.status, 200);
    assert!(stage.connect().await.is_closed().await);
    drop(first);
    wait_until("the place to be free", || stage.proxy.open_connections() == 0).await;
    assert_eq!(stage.ask(GET).await.status, 200);
}

async fn is_answered(address: SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return false };
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn a_listener_that_was_just_removed_can_be_added_again() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&two_listeners(origin.address, ""));
    let mut kept = stage.connect().await;
    let port = std::net::TcpListener::bind("127.0.0.4:0").unwrap().local_addr().unwrap();
    let more = format!("  more: {{ address: \"{port}\", protocol: http }}\n");
    for revision in 0..40 {
        // Nothing is awaited in between: the workers may not have closed their sockets yet.
        stage.proxy.apply(stage.compile(2 * revision + 2, &two_listeners(origin.address, &more))).unwrap();
        stage.proxy.apply(stage.compile(2 * revision + 3, &two_listeners(origin.address, ""))).unwrap();
    }
    stage.proxy.apply(stage.compile(100, &two_listeners(origin.address, &more))).unwrap();
    // A worker that has not yet noticed may take a connection with it: such a one ends without an answer.
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while !is_answered(port).await {
        assert!(std::time::Instant::now() < deadline, "nobody answers on the listener that came again");
    }
    kept.send(GET).await;
    assert_eq!(kept.answer().await.status, 200, "a connection that no change concerned goes on");

    stage.proxy.apply(stage.compile(101, &two_listeners(origin.address, ""))).unwrap();
    wait_until("the port is given up", || std::net::TcpListener::bind(port).is_ok()).await;
}

#[tokio::test]
async fn sockets_are_handed_to_a_successor_without_a_refused_connection() {
    let origin = Origin::start(|_| ok("")).await;
    let address = std::net::TcpListener::bind("127.0.0.5:0").unwrap().local_addr().unwrap();
    let with_more =
        two_listeners(origin.address, &format!("  more: {{ address: \"{address}\", protocol: http }}\n"));
    let before = Stage::start(&with_more);
    let connect = async || support::Downstream::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let mut used = connect().await;
    used.send(GET).await;
    assert_eq!(used.answer().await.status, 200);

    let after = Stage::start(&two_listeners(origin.address, ""));
    after.proxy.inherit(before.proxy.listening_sockets().unwrap(), Owner::Node);
    after.proxy.apply(after.compile(2, &with_more)).unwrap();
    after.proxy.close_unclaimed();
    assert_eq!(after.address("more"), address);
    let proxy = before.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain(Duration::from_secs(15), Ports::HandedOver).await });
    for _ in 0..20 {
        let mut fresh = connect().await;
        fresh.send(GET).await;
        assert_eq!(fresh.answer().await.status, 200);
    }
    ask_to_the_end(&mut used).await;
    assert_eq!(drained.await.unwrap(), 0);
    let mut fresh = connect().await;
    fresh.send(GET).await;
    assert_eq!(fresh.answer().await.status, 200);
}
