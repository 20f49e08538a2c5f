//! Connections to endpoints that nobody needs any more.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{Downstream, Stage, ok, serve_raw, site, wait_until};
use tokio::sync::Barrier;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn connections_that_nobody_needs_are_closed() {
    const AT_ONCE: usize = 6;
    let (open, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (together, counted) = (Arc::new(Barrier::new(AT_ONCE)), open.clone());
    let address = serve_raw(all.clone(), move |stream, _| {
        let (together, counted) = (together.clone(), counted.clone());
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut stream = Downstream::new(stream);
            while let Some(head) = stream.read_head().await {
                if head.starts_with("GET /together") {
                    together.wait().await;
                }
                stream.send(ok("")).await;
            }
            counted.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let stage = Stage::start(&site(&[address], "", ", max_idle_connections: 2"));
    let mut downstreams = Vec::new();
    for _ in 0..AT_ONCE {
        let mut downstream = stage.connect().await;
        downstream.send("GET /together HTTP/1.1\r\nHost: a\r\n\r\n").await;
        downstreams.push(downstream);
    }
    for downstream in &mut downstreams {
        assert_eq!(downstream.answer().await.status, 200);
    }
    assert_eq!(all.load(Ordering::SeqCst), AT_ONCE);
    wait_until("the end of all but two", || open.load(Ordering::SeqCst) <= 2).await;
    for downstream in &mut downstreams {
        downstream.send(GET).await;
        assert_eq!(downstream.answer().await.status, 200);
    }
    assert!(all.load(Ordering::SeqCst) < 2 * AT_ONCE, "what was kept is used again");
}
