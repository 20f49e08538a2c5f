//! Sampled requests leave a span, with a child for each try, and endpoints are told the try as their parent.

mod support;

use shoal_policy::failure::Failure;
use support::{Answer, Origin, Seen, Stage, field, nowhere, ok, site, wait_until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn site_with(endpoints: &[std::net::SocketAddr], tracing: &str, more: &str) -> String {
    let listener =
        format!("protocol: http, tracing: {{ {tracing} otlp: {{ endpoint: \"http://127.0.0.1:9\" }} }} }}");
    site(endpoints, more, "").replace("protocol: http }", &listener)
}

fn echo(seen: &Seen) -> String {
    ok(field(&seen.head, "traceparent").unwrap_or("none"))
}

async fn ask_within(stage: &Stage, flags: &str) -> Answer {
    stage
        .ask(&format!(
            "GET /x?y HTTP/1.1\r\nHost: a\r\ntraceparent: 00-{TRACE}-b7ad6b7169203331-{flags}\r\n\r\n"
        ))
        .await
}

#[tokio::test]
async fn a_request_and_its_tries_are_one_trace() {
    let origin = Origin::start(|seen| echo(&seen)).await;
    let dead = nowhere().await;
    let mut stage = Stage::start(&site_with(&[dead, origin.address], "", ""));
    // Endpoints take turns: the second request at the latest begins with the dead one.
    let (mut answer, mut span);
    loop {
        answer = ask_within(&stage, "01").await;
        span = stage.spans.recv().await.unwrap();
        if span.tries.len() > 1 {
            break;
        }
    }
    assert_eq!(format!("{:032x}", span.span.trace_id), TRACE);
    assert_eq!(span.span.parent_id, Some(0xb7ad_6b71_6920_3331));
    assert_eq!((&*span.target, span.host.as_deref(), span.status), ("/x?y", Some("a"), answer.status));
    assert_eq!((&*span.collector.host, span.collector.port), ("127.0.0.1", 9));
    assert_eq!(span.request_id.as_deref(), answer.field("x-request-id"));
    let [first, last] = &span.tries[..] else { panic!("{:?}", span.tries) };
    assert_eq!((&*first.endpoint, &*last.endpoint), (&*dead.to_string(), &*origin.address.to_string()));
    assert_eq!((first.outcome, last.outcome), (Err(Failure::UpstreamConnectFailed), Ok(200)));
    assert_ne!(first.span_id, last.span_id);
    assert!(first.began <= last.began && last.began + last.lasted <= span.duration);
    assert_eq!(answer.text(), format!("00-{TRACE}-{:016x}-01", last.span_id), "the try is the parent");
}

#[tokio::test]
async fn only_what_is_sampled_is_sent() {
    let origin = Origin::start(|seen| echo(&seen)).await;
    let mut stage = Stage::start(&site_with(&[origin.address], "sample: 0,", ""));
    assert_eq!(stage.ask("GET /none HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "none");
    assert!(
        ask_within(&stage, "00").await.text().ends_with("-00"),
        "whoever began the trace does not want it"
    );
    stage.proxy.apply(stage.compile(2, &site_with(&[origin.address], "sample: 1,", ""))).unwrap();
    let begun = stage.ask("GET /begun HTTP/1.1\r\nHost: a\r\n\r\n").await.text();
    let span = stage.spans.recv().await.unwrap();
    assert_eq!((&*span.target, span.span.parent_id), ("/begun", None), "nothing was sent before");
    let expected = format!("00-{:032x}-{:016x}-03", span.span.trace_id, span.tries[0].span_id);
    assert_eq!(begun, expected);
}

#[tokio::test]
async fn refusals_have_spans_and_a_full_queue_holds_up_nobody() {
    let mut stage = Stage::start(&site_with(&[nowhere().await], "sample: 1,", ", retry: { attempts: 1 }"));
    assert_eq!(stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 502);
    let span = stage.spans.recv().await.unwrap();
    assert_eq!(span.failure.map(|failure| failure.reason()), Some("upstream_connect_failed"));
    assert_eq!((span.status, span.tries.len()), (502, 1));
    for _ in 0..stage.spans.max_capacity() + 3 {
        assert_eq!(stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 502);
    }
    wait_until("what did not fit is counted", || stage.metric("shoal_trace_spans_dropped_total") == 3).await;
}
