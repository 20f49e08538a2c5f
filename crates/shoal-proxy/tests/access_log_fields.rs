//! The line of a request, field by field, as operators parse it: a change here is a change of the contract.
//!
//! `UPDATE_EXPECT=1` writes what is found to `testdata/access_log.txt`.

mod support;

use std::path::Path;

use support::{Origin, Stage, ok, site};

/// Values that differ from run to run: only what kind of value they are is pinned.
const VARYING: [&str; 6] = ["time_ms", "connect_us", "first_byte_us", "total_us", "request_id", "endpoint"];

#[tokio::test]
async fn the_fields_of_a_line_are_what_is_documented() {
    let cacheable = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\n\r\nhello";
    let origin = Origin::start(move |seen| match seen.path() {
        "/kept" => cacheable.to_owned(),
        _ => ok("hello"),
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], ", hosts: [a], cache: {}", ""));
    let requests = [
        (
            "passed to the origin",
            "POST /x?y=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nContent-Length: 2\r\n\r\nhi",
        ),
        ("filled the cache", "GET /kept HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("refused by the gate", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("without a route", "GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"),
    ];
    let mut found = String::new();
    for (number, (what, request)) in requests.iter().enumerate() {
        stage.ask(request).await;
        let line = stage.log_of(number + 1).await.swap_remove(number);
        found += &format!("# {what}\n");
        for (name, value) in line.as_object().unwrap() {
            let kind = match value {
                serde_json::Value::Number(_) => "<number>".to_owned(),
                serde_json::Value::String(_) => "<text>".to_owned(),
                other => other.to_string(),
            };
            let shown = if VARYING.contains(&name.as_str()) { kind } else { value.to_string() };
            found += &format!("{name} = {shown}\n");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/access_log.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&path).unwrap_or_default(), "see UPDATE_EXPECT");
    let documented = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md"));
    let documented = documented.unwrap();
    for name in found.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name) {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in the README");
    }
}
