//! Few long-lived connections are spread over the workers, whatever the kernel's hash says.

mod support;

use support::{Origin, Stage, ok, site};

const CONNECTIONS: usize = 40;

async fn opened(setting: &str) -> (Stage, [u64; 2]) {
    let origin = Origin::start(|_| ok("hello")).await;
    let text =
        site(&[origin.address], "", "").replace("protocol: http }", &format!("protocol: http{setting} }}"));
    let stage = Stage::start(&text);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut downstream = stage.connect().await;
        downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(downstream.answer().await.status, 200);
        connections.push(downstream);
    }
    let of = |worker: usize| stage.metric(&format!("shoal_worker_connections{{worker=\"{worker}\"}}"));
    let spread = [of(0), of(1)];
    assert_eq!(spread[0] + spread[1], CONNECTIONS as u64);
    assert_eq!(stage.proxy.open_connections(), CONNECTIONS);
    // They go on where they are.
    for downstream in &mut connections {
        downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(downstream.answer().await.text(), "hello");
    }
    assert_eq!(stage.proxy.drain(std::time::Duration::ZERO, shoal_proxy::Ports::Closed).await, 0);
    for downstream in &mut connections {
        assert!(downstream.is_closed().await, "an idle connection ends politely");
    }
    (stage, spread)
}

#[tokio::test]
async fn workers_have_about_the_same() {
    let (stage, [one, other]) = opened("").await;
    // An eighth of the mean, and one that comes before the last is counted.
    assert!(one.abs_diff(other) <= 4, "{one} and {other}");
    // Forty coins that never come to a difference of two by themselves do not exist.
    assert!(stage.metric("shoal_connections_handed_over_total") > 0);
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let (stage, _) = opened(", balance_connections: false").await;
    assert_eq!(stage.metric("shoal_connections_handed_over_total"), 0);
}
