//! What listeners write down by settings of their own: templates, files, samples, and W3C trace context.

mod support;

use std::path::Path;

use support::{Origin, Seen, Stage, field, ok, site, wait_until};

fn site_with(origin: &Origin, setting: &str) -> String {
    let listener = format!("protocol: http, {setting} }}");
    site(&[origin.address], "", "").replace("protocol: http }", &listener)
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_template_goes_to_its_file_and_the_file_may_be_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, renamed) = (dir.path().join("web.log"), dir.path().join("web.log.1"));
    let origin = Origin::start(|_| ok("hello")).await;
    let format =
        "${method} ${target} ${status} ${upstream} ${endpoint} ${tries} \\\"${user_agent}\\\" ${reason}";
    let log = format!("access_log: {{ format: \"{format}\", path: {path:?} }}");
    let stage = Stage::start(&site_with(&origin, &log));
    stage.ask("GET /x?y=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: b\"c\r\n\r\n").await;
    wait_until("a line in the file", || lines(&path).len() == 1).await;
    let expected = format!("GET /x?y=1 200 app {} 1 \"b\\x22c\" ok", origin.address);
    assert_eq!(lines(&path), [expected]);
    assert_eq!(stage.log().len(), 0, "the node's own output has nothing of it");

    std::fs::rename(&path, &renamed).unwrap();
    let mut asked = 0;
    while !path.exists() {
        stage.ask("GET /again HTTP/1.1\r\nHost: a\r\n\r\n").await;
        asked += 1;
    }
    wait_until("every line", || lines(&path).len() + lines(&renamed).len() == asked + 1).await;
    assert!(lines(&path).iter().all(|line| line.starts_with("GET /again 200 ")));
}

#[tokio::test]
async fn a_sample_of_nothing_is_nothing() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site_with(&origin, "access_log: { sample: 0 }"));
    assert_eq!(stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200);
    stage.proxy.apply(stage.compile(2, &site_with(&origin, "access_log: {}"))).unwrap();
    assert_eq!(stage.ask("GET /logged HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200);
    assert_eq!(stage.log_of(1).await[0]["target"], "/logged");
}

#[tokio::test]
async fn traces_go_on_begin_or_are_left_alone() {
    let echo = |seen: Seen| {
        let sent = |name| field(&seen.head, name).unwrap_or("none").to_owned();
        ok(&format!("{} {}", sent("traceparent"), sent("tracestate")))
    };
    let origin = Origin::start(echo).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let ask = |parent: &str| {
        format!("GET / HTTP/1.1\r\nHost: a\r\ntraceparent: {parent}\r\ntracestate: v=1\r\n\r\n")
    };
    let valid = ask(&format!("00-{trace}-b7ad6b7169203331-01"));

    let stage = Stage::start(&site(&[origin.address], "", ""));
    let untouched = stage.ask(&valid).await.text();
    assert_eq!(untouched, format!("00-{trace}-b7ad6b7169203331-01 v=1"));

    let stage = Stage::start(&site_with(&origin, "tracing: { sample: 1 }"));
    let went_on = stage.ask(&valid).await.text();
    let line = &stage.log_of(1).await[0];
    assert_eq!(
        (line["trace_id"].as_str(), line["parent_id"].as_str()),
        (Some(trace), Some("b7ad6b7169203331"))
    );
    assert_eq!(went_on, format!("00-{trace}-{}-01 v=1", line["span_id"].as_str().unwrap()));

    let begun = stage.ask(&ask("00-not-a-parent-01")).await.text();
    let line = &stage.log_of(2).await[1];
    let (trace_id, span_id) = (line["trace_id"].as_str().unwrap(), line["span_id"].as_str().unwrap());
    assert_eq!(begun, format!("00-{trace_id}-{span_id}-03 none"));
    assert!(line["parent_id"].is_null() && trace_id != trace, "{line}");

    let stage = Stage::start(&site_with(&origin, "tracing: {}"));
    assert_eq!(stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "none none");
    assert!(stage.log_of(1).await[0]["trace_id"].is_null());
}
