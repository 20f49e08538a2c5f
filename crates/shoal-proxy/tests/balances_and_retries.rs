//! Keys, zones, priorities, limits and retries, as they are seen from both sides of the proxy.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{join_all, select_all};
use shoal_cluster::{ClusterView, EndpointState, NodeState, NodeView};
use shoal_model::{EndpointId, NodeId, UpstreamId};
use shoal_policy::health::Availability;
use support::{Origin, PATIENCE, Reply, Seen, Stage, nowhere, ok, site};
use tokio::sync::Semaphore;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Origins that answer with their number.
async fn numbered(count: usize) -> Vec<Origin> {
    let mut origins = Vec::new();
    for n in 0..count {
        origins.push(Origin::start(move |_| ok(&n.to_string())).await);
    }
    origins
}

fn addresses(origins: &[Origin]) -> Vec<SocketAddr> {
    origins.iter().map(|origin| origin.address).collect()
}

/// An origin that does not answer.
async fn silent() -> Origin {
    Origin::start(|_| Reply { bytes: Vec::new(), close: false }).await
}

#[tokio::test]
async fn equal_keys_meet_equal_endpoints() {
    let origins = numbered(4).await;
    let cases: [(&str, &dyn Fn(usize) -> String); 5] = [
        ("path", &|n| format!("GET /{n}?x=7 HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("{ query: user }", &|n| format!("GET /?page=1&user={n} HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("{ header: X-User }", &|n| format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {n}\r\n\r\n")),
        ("{ cookie: user }", &|n| format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; user={n}\r\n\r\n")),
        ("address", &|_| GET.to_owned()),
    ];
    for (key, request) in cases {
        let balance = format!(", balance: consistent_hash, hash_key: {key}");
        let stage = Stage::start(&site(&addresses(&origins), "", &balance));
        let mut met = BTreeSet::new();
        for n in 0..16 {
            let first = stage.ask(&request(n)).await.text();
            assert_eq!(stage.ask(&request(n)).await.text(), first, "{key}");
            met.insert(first);
        }
        assert_eq!(met.len() > 1, key != "address", "{key}: {met:?}");
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
        id: NodeId(id),
        name: "".into(),
        cluster_addr: SocketAddr::from(([127, 0, 0, 1], 7400)),
        admin_addr: String::new(),
        region: region.into(),
        zone: zone.into(),
        state: NodeState::Ready,
        alive: true,
        load: 0,
        offered: [(UpstreamId::of("app"), rate)].into(),
        active_revision: 0,
        applied_index: 0,
        version: "".into(),
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
    Arc::new(ClusterView { local: NodeId(1), nodes, placement_id: 1, endpoints })
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

#[tokio::test]
async fn chosen_statuses_are_tried_elsewhere() {
    let bad = Origin::start(|_| "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy").await;
    let good = Origin::start(|seen: Seen| ok(&String::from_utf8(seen.body).unwrap())).await;
    let both = [bad.address, good.address];
    let passive = ", passive: { consecutive_errors: 0 }";
    let check = async |endpoints: &[SocketAddr], rule: &str, request: &str, expected: &[u16]| {
        let stage = Stage::start(&site(endpoints, rule, passive));
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            let answer = stage.ask(request).await;
            assert!(answer.complete, "{rule}");
            assert_eq!(
                answer.text(),
                match (answer.status, request.contains("hello")) {
                    (503, _) => "busy",
                    (_, true) => "hello",
                    (_, false) => "",
                }
            );
            seen.insert(answer.status);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected, "{rule} {request:?}");
    };
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    check(&both, "", GET, &[200, 503]).await;
    check(&both, ", retry: { on: [503] }", GET, &[200]).await;
    check(&both, ", retry: { on: [gateway_error] }", GET, &[200]).await;
    check(&both, ", retry: { on: [502] }", GET, &[200, 503]).await;
    check(&both, ", retry: { on: [503], attempts: 1 }", GET, &[200, 503]).await;
    check(&both, ", retry: { on: [503] }", put, &[200]).await;
    check(&both, ", retry: { on: [503] }", chunked, &[200]).await;
    check(&both, ", retry: { on: [503], max_replay_bytes: 4 }", put, &[200, 503]).await;
    check(&both, ", retry: { on: [503], max_replay_bytes: 4 }", chunked, &[200, 503]).await;
    check(&both, ", retry: { on: [503] }", post, &[200, 503]).await;
    check(&both, ", retry: { on: [503], methods: [POST] }", post, &[200]).await;
    // Nobody else is there: the answer goes on as it came.
    check(&[bad.address], ", retry: { on: [503] }", GET, &[503]).await;
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_given_up_for_another() {
    let (silent, good) = (silent().await, numbered(1).await.remove(0));
    let rule = ", retry: { per_try_timeout: 100ms }";
    let stage = Stage::start(&site(&[silent.address, good.address], rule, ""));
    for _ in 0..4 {
        assert_eq!(stage.ask(GET).await.status, 200);
    }
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let mut statuses = BTreeSet::new();
    for _ in 0..4 {
        statuses.insert(stage.ask(post).await.status);
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [200, 504], "what was sent is not sent twice");
}

#[tokio::test]
async fn a_full_endpoint_is_waited_for_and_not_for_ever() {
    let gate = Arc::new(Semaphore::new(0));
    let connections = Arc::default();
    let opened = gate.clone();
    let origin = support::serve_raw(connections, move |stream, _| {
        let gate = opened.clone();
        async move {
            let mut stream = support::Downstream::new(stream);
            while stream.read_head().await.is_some() {
                gate.acquire().await.unwrap().forget();
                stream.send(ok("done")).await;
            }
        }
    })
    .await;
    let limits = ", max_requests: 1, queue_timeout: 20s, max_pending_requests: 4";
    let stage = Stage::start(&site(&[origin], "", limits));
    let mut downstreams = Vec::new();
    for _ in 0..4 {
        let mut downstream = stage.connect().await;
        downstream.send(GET).await;
        downstreams.push(downstream);
    }
    gate.add_permits(4);
    let mut statuses = Vec::new();
    for downstream in &mut downstreams {
        statuses.push(downstream.answer().await.status);
    }
    // Each worker has one under way, which counts as pending while it connects, and lets one or two wait; which worker
    // has how many is the kernel's choice.
    assert!(statuses.iter().filter(|status| **status == 200).count() >= 2, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");

    gate.forget_permits(4);
    // Of three requests on two workers one must wait, and its answer is the first to come.
    let impatient = Stage::start(&site(&[origin], "", ", max_requests: 1, queue_timeout: 50ms"));
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut downstream = impatient.connect().await;
        downstream.send(GET).await;
        held.push(downstream);
    }
    let answers = held.iter_mut().map(|downstream| Box::pin(downstream.answer()));
    let (first, _, others) = select_all(answers).await;
    assert_eq!(first.status, 503);
    assert!(first.text().contains("node_overflow"), "{}", first.text());
    gate.add_permits(others.len());
    let statuses: Vec<u16> = join_all(others).await.iter().map(|answer| answer.status).collect();
    assert!(statuses.contains(&200), "{statuses:?}");
}

#[tokio::test]
async fn answers_with_5xx_eject_where_the_site_says_so() {
    let bad = Origin::start(|_| "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
    let good = numbered(1).await.remove(0);
    let check = async |passive: &str, expected: usize| {
        let before = bad.requests();
        let stage = Stage::start(&site(&[bad.address, good.address], "", passive));
        // One connection: one worker, whose turns are known.
        let mut downstream = stage.connect().await;
        for _ in 0..12 {
            downstream.send(GET).await;
            downstream.answer().await;
        }
        assert_eq!(bad.requests() - before, expected, "{passive}");
    };
    check("", 6).await;
    check(", passive: { consecutive_5xx: 2, base_ejection: 1h, max_ejection: 1h }", 2).await;
}
