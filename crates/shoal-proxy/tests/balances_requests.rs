//! Which endpoint gets a request: keys, weights, health, priorities, zones and regions, as they are seen from both sides of the
//! proxy.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use shoal_cluster::{ClusterView, EndpointState, NodeView};
use shoal_model::{EndpointId, NodeId, UpstreamId};
use shoal_policy::health::Availability;
use support::numbered::{addresses, numbered};
use support::{PATIENCE, Stage, nowhere, ok, site};
use tokio::sync::Semaphore;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn equal_keys_meet_equal_endpoints() {
    let origins = numbered(4).await;
    let cases: [(&str, &dyn Fn(usize) -> String); 5] = [
        ("path", &|n| format!("GET /{n}?x=7 HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("{ query: user }", &|n| format!("GET /?page=1&user={n} HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("{ header: X-User }", &|n| format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {n}\r\n\r\n")),
        ("{ cookie: user }", &|n| format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; user={n}\r\n\r\n")),
        ("address", &|n| format!("PROXY TCP4 203.0.113.{n} 198.51.100.1 4711 80\r\n{GET}")),
    ];
    for (key, request) in cases {
        let balance = format!(", balance: consistent_hash, hash_key: {key}");
        let mut text = site(&addresses(&origins), "", &balance);
        if key == "address" {
            let told = "protocol: http, proxy_protocol: { trusted: [127.0.0.0/8] } }";
            text = text.replace("protocol: http }", told);
        }
        let stage = Stage::start(&text);
        let mut met = BTreeSet::new();
        for n in 0..16 {
            let first = stage.ask(&request(n)).await.text();
            assert_eq!(stage.ask(&request(n)).await.text(), first, "{key}");
            met.insert(first);
        }
        assert!(met.len() > 1, "{key}: {met:?}");
    }
}

/// Origins that say who they are when they have a permit.
async fn held(count: usize) -> (Vec<SocketAddr>, Vec<Arc<AtomicUsize>>, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let (mut addresses, mut begun) = (Vec::new(), Vec::new());
    for n in 0..count {
        let (gate, requests) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
        begun.push(requests.clone());
        let address = support::serve_raw(Arc::default(), move |stream, _| {
            let (gate, requests) = (gate.clone(), requests.clone());
            async move {
                let mut stream = support::Downstream::new(stream);
                while stream.read_head().await.is_some() {
                    requests.fetch_add(1, SeqCst);
                    let Ok(place) = gate.acquire().await else { return };
                    place.forget();
                    stream.send(ok(&n.to_string())).await;
                }
            }
        });
        addresses.push(address.await);
    }
    (addresses, begun, gate)
}

#[tokio::test]
async fn a_hot_key_spills_to_the_next_endpoint_and_comes_back() {
    // Of eight requests under way at two endpoints, each may have 125 % of four.
    for (factor, expected) in
        [("", [5, 3]), (", hash_balance_factor: 200", [8, 0]), (", hash_balance_factor: 0", [8, 0])]
    {
        let (addresses, begun, gate) = held(2).await;
        let stage = Stage::start(&site(&addresses, "", &format!(", balance: consistent_hash{factor}")));
        // What is under way is counted by worker: one connection is served by one of them.
        let stream = tokio::net::TcpStream::connect(stage.address("web")).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let get = || {
            let request = http::Request::get("http://a/hot").body(Empty::<bytes::Bytes>::new()).unwrap();
            let sent = sender.clone().send_request(request);
            async move { sent.await.unwrap().into_body().collect().await.unwrap().to_bytes() }
        };
        let seen = || begun.iter().map(|requests| requests.load(SeqCst)).collect::<Vec<_>>();
        let mut answers = Vec::new();
        for n in 1..=8 {
            answers.push(tokio::spawn(get()));
            support::wait_until("a request at an endpoint", || seen().iter().sum::<usize>() == n).await;
        }
        let mut spread = seen();
        let home = if spread[0] > spread[1] { 0 } else { 1 };
        spread.sort_by(|a, b| b.cmp(a));
        assert_eq!(spread, expected, "{factor}");
        gate.add_permits(8);
        for answer in answers {
            answer.await.unwrap();
        }
        gate.add_permits(4);
        for _ in 0..4 {
            assert_eq!(get().await, home.to_string(), "{factor}: with nothing under way the key is at home");
        }
    }
}

#[tokio::test]
async fn health_is_ignored_where_too_little_is_left() {
    let origins = numbered(4).await;
    // How many are down, the threshold, how many get requests, whether health is ignored for them.
    for (down, threshold, used, panics) in [
        (0, "", 4, false),
        (1, "", 3, false),
        (2, "", 2, false),
        (3, "", 4, true),
        (4, "", 4, true),
        (3, ", panic_threshold_percent: 0", 1, false),
        (2, ", panic_threshold_percent: 75", 4, true),
        // What is left carries everything.
        (1, ", panic_threshold_percent: 100", 3, false),
    ] {
        let stage = Stage::start(&site(&addresses(&origins), "", threshold));
        stage.cluster.store(cluster_of(vec![node(1, "", "", 0)], &addresses(&origins)[..down]));
        let mut downstream = stage.connect().await;
        let mut met = BTreeSet::new();
        for _ in 0..12 {
            downstream.send(GET).await;
            met.insert(downstream.answer().await.text());
        }
        assert_eq!(met.len(), used, "{down} down{threshold}: {met:?}");
        let ignored = stage.metric("shoal_upstream_panic_total{upstream=\"app\"}");
        assert_eq!(ignored, if panics { 12 } else { 0 }, "{down} down{threshold}");
    }
    // Where health is never ignored, nothing is left at last.
    let stage = Stage::start(&site(&addresses(&origins), "", ", panic_threshold_percent: 0"));
    stage.cluster.store(cluster_of(vec![node(1, "", "", 0)], &addresses(&origins)));
    let answer = stage.ask(GET).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("no_endpoint"), "{}", answer.text());
}

#[tokio::test]
async fn weights_are_shares() {
    let origins = numbered(2).await;
    // Where chance or a hash decides, a fifth is as far from a quarter as it gets in 400 requests.
    for (balance, exact) in [("round_robin", true), ("consistent_hash", false)] {
        let weighed = [(origins[0].address, "weight: 3"), (origins[1].address, "weight: 1")];
        let stage = Stage::start(&spread_out(&weighed, &format!("balance: {balance}")));
        let before = origins[1].requests();
        let mut downstream = stage.connect().await;
        for n in 0..400 {
            downstream.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!(downstream.answer().await.status, 200);
        }
        let lighter = origins[1].requests() - before;
        let is_share = if exact { lighter == 100 } else { (60..140).contains(&lighter) };
        assert!(is_share, "{balance}: {lighter} of 400");
    }
}

#[tokio::test]
async fn what_a_priority_or_a_zone_cannot_carry_goes_on() {
    let origins = numbered(4).await;
    let all = addresses(&origins);
    let zones = ["zone: a", "zone: a", "zone: b", "zone: b"];
    let priorities = ["priority: 0", "priority: 0", "priority: 1", "priority: 1"];
    // Settings, and the percentages that may go to the others when half of the first ones are down: of a priority 1.4 times
    // its usable half stays; of a zone that needs half of all, and has a third of what is left, two thirds.
    for (places, more, share) in
        [(priorities, "balance: round_robin", 22..=38), (zones, "prefer_own_zone: true", 25..=42)]
    {
        let endpoints: Vec<_> = all.iter().copied().zip(places).collect();
        let stage = Stage::start(&spread_out(&endpoints, more));
        let mut downstream = stage.connect().await;
        for (down, share) in [(&all[..0], 0..=0), (&all[..1], share)] {
            let nodes = vec![node(1, "", "a", 0), node(2, "", "b", 0)];
            stage.cluster.store(cluster_of(nodes, down));
            let mut elsewhere = 0;
            for _ in 0..600 {
                downstream.send(GET).await;
                let at: usize = downstream.answer().await.text().parse().unwrap();
                assert!(down.is_empty() || at != 0, "{more}: one that is down");
                elsewhere += usize::from(at >= 2);
            }
            assert!(share.contains(&(elsewhere / 6)), "{more}: {elsewhere} of 600, not {share:?}");
        }
    }
}

#[tokio::test]
async fn the_next_priority_stands_in_for_the_first() {
    let (dead, spare) = (nowhere().await, numbered(1).await.remove(0));
    let stage = Stage::start(&format!(
        "listeners:\n  web: {{ address: \"127.0.0.1:1\", protocol: http }}\n\
         routes:\n  all: {{ upstream: app }}\n\
         upstreams:\n  app:\n    endpoints: [{{ address: \"{dead}\" }}, {{ address: \"{}\", priority: 1 }}]\n",
        spare.address
    ));
    for _ in 0..5 {
        assert_eq!(stage.ask(GET).await.status, 200);
    }
    assert_eq!(spare.requests(), 5);
}

/// A node that serves, and is asked so many times a second for the upstream `app`.
fn node(id: u64, region: &str, zone: &str, rate: u32) -> NodeView {
    NodeView {
        region: region.into(),
        zone: zone.into(),
        offered: [(UpstreamId::of("app"), rate)].into(),
        ..NodeView::serving(NodeId(id))
    }
}

/// A site whose upstream has these endpoints, each with further settings, and `more`.
fn spread_out(endpoints: &[(SocketAddr, &str)], more: &str) -> String {
    let endpoint =
        |(address, fields): &(SocketAddr, &str)| format!("      - {{ address: \"{address}\", {fields} }}\n");
    format!(
        "listeners:\n  web: {{ address: \"127.0.0.1:1\", protocol: http }}\n\
         routes:\n  all: {{ upstream: app }}\n\
         upstreams:\n  app:\n    {more}\n    endpoints:\n{}",
        endpoints.iter().map(endpoint).collect::<String>()
    )
}

/// The cluster of `nodes`, whose checkers say that `down` are.
fn cluster_of(nodes: Vec<NodeView>, down: &[SocketAddr]) -> Arc<ClusterView> {
    let endpoints = down.iter().map(|address| {
        let state = EndpointState { availability: Availability::Down, since: 0 };
        (EndpointId::of("app", &address.to_string()), state)
    });
    let endpoints = endpoints.collect();
    Arc::new(ClusterView { local: NodeId(1), nodes, placement_id: 1, endpoints, ..ClusterView::default() })
}

#[tokio::test]
async fn another_region_stands_in_where_the_site_says_so() {
    let origins = numbered(3).await;
    let [eu, us, ap] = [0, 1, 2].map(|n| origins[n].address);
    let regions = [(eu, "region: eu"), (us, "region: us"), (ap, "region: ap")];
    let stage = Stage::start(&spread_out(&regions, "failover: [us]"));
    let mut downstream = stage.connect().await;
    let mut check = async |down: &[SocketAddr], expected: &str| {
        stage.cluster.store(cluster_of(vec![node(1, "eu", "a", 0)], down));
        for _ in 0..20 {
            downstream.send(GET).await;
            assert_eq!(downstream.answer().await.text(), expected, "{down:?}");
        }
    };
    check(&[], "0").await;
    check(&[us], "0").await;
    check(&[eu], "1").await;
    // Nothing comes back before a minute is over.
    check(&[], "1").await;
    check(&[us], "0").await;
    // Neither is well: better the own one, whatever is said of it, than one that was not asked for.
    check(&[eu, us], "0").await;
    let tries = |place: &str| {
        stage.metric(&format!("shoal_upstream_place_tries_total{{upstream=\"app\",region=\"{place}\""))
    };
    assert_eq!((tries("eu"), tries("us"), tries("ap")), (80, 40, 0));
}

#[tokio::test]
async fn a_region_without_room_is_left_alone() {
    let origins = numbered(3).await;
    let [well, ill, us] = [0, 1, 2].map(|n| origins[n].address);
    let regions = [(well, "region: eu"), (ill, "region: eu"), (us, "region: us")];
    let regions = regions.map(|(address, region)| (address, format!("{region}, capacity: 100000")));
    let regions = [0, 1, 2].map(|n| (regions[n].0, &*regions[n].1));
    let stage = Stage::start(&spread_out(&regions, "failover: [us]"));
    let mut downstream = stage.connect().await;
    let full = vec![node(1, "eu", "a", 0), node(2, "us", "a", 90_000)];
    stage.cluster.store(cluster_of(full.clone(), &[]));
    let deadline = Instant::now() + PATIENCE;
    // It is known that the other region is full once this one has looked around.
    while stage.proxy.offered().iter().all(|(_, rate)| *rate == 0) {
        assert!(Instant::now() < deadline, "this node has no rate");
        downstream.send(GET).await;
        assert_eq!(downstream.answer().await.status, 200);
    }
    stage.cluster.store(cluster_of(full, &[ill]));
    for _ in 0..200 {
        downstream.send(GET).await;
        assert_eq!(downstream.answer().await.text(), "0");
    }
    // When it has room, what the own one should not carry climbs into it.
    stage.cluster.store(cluster_of(vec![node(1, "eu", "a", 0), node(2, "us", "a", 0)], &[ill]));
    while origins[2].requests() == 0 {
        assert!(Instant::now() < deadline, "nothing climbs");
        downstream.send(GET).await;
        assert_eq!(downstream.answer().await.status, 200);
    }
}

#[tokio::test]
async fn endpoints_of_the_own_zone_go_first() {
    let origins = numbered(2).await;
    let stage = Stage::start(&format!(
        "listeners:\n  web: {{ address: \"127.0.0.1:1\", protocol: http }}\n\
         routes:\n  all: {{ upstream: app }}\n\
         upstreams:\n  app:\n    prefer_own_zone: true\n    endpoints: [{{ address: \"{}\", zone: a }}, \
         {{ address: \"{}\", zone: b }}]\n",
        origins[0].address, origins[1].address
    ));
    for (placement_id, zones, expected) in [(1, ["a", "b"], "0"), (2, ["b", "a"], "1")] {
        let nodes = vec![node(1, "eu", zones[0], 0), node(2, "eu", zones[1], 0)];
        let view = ClusterView { local: NodeId(1), nodes, placement_id, ..ClusterView::default() };
        stage.cluster.store(Arc::new(view));
        for _ in 0..10 {
            assert_eq!(stage.ask(GET).await.text(), expected);
        }
    }
}

#[tokio::test]
async fn a_new_endpoint_starts_slowly() {
    let origins = numbered(2).await;
    let slow = ", slow_start: 1h";
    let stage = Stage::start(&site(&addresses(&origins)[..1], "", slow));
    // A worker spares only what is new to it: one connection is served by one of them.
    let mut downstream = stage.connect().await;
    downstream.send(GET).await;
    assert_eq!(downstream.answer().await.text(), "0");
    stage.proxy.apply(stage.compile(2, &site(&addresses(&origins), "", slow))).unwrap();
    for _ in 0..44 {
        downstream.send(GET).await;
        assert_eq!(downstream.answer().await.status, 200);
    }
    assert_eq!(origins[1].requests(), 4, "a tenth of the share of the other one");
}
