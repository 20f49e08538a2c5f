//! `shoal dev` as a newcomer meets it: one command, three nodes, one may die, and nothing is left behind.
#![allow(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A running demo cluster; its nodes end with it however the test ends.
struct Dev {
    process: Child,
    stdout: BufReader<ChildStdout>,
}

/// A node as the summary describes it.
#[derive(Debug)]
struct Node {
    web: String,
    pid: String,
}

impl Dev {
    fn start(temporary: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
        command.arg("dev").args(arguments).env("TMPDIR", temporary).env_remove("RUST_LOG");
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        Self { process, stdout }
    }

    /// Everything that is printed up to a line that contains `end`.
    fn read_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.lines().last().is_some_and(|line| line.contains(end)) {
            let more = self.stdout.read_line(&mut text).unwrap();
            assert_ne!(more, 0, "it ended before {end:?}:\n{text}");
        }
        text
    }

    fn nodes(summary: &str) -> Vec<Node> {
        let lines = summary.lines().filter(|line| line.contains(" pid "));
        let node = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let web = words[1].trim_start_matches("http://").trim_end_matches('/').to_owned();
            Node { web, pid: words[words.len() - 1].to_owned() }
        };
        lines.map(node).collect()
    }

    /// Asks it to stop, and returns what it still says and whether it ended well.
    fn stop(mut self) -> (String, bool) {
        signal("-TERM", &self.process.id().to_string());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.process.wait().unwrap().success())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Sends a signal; false when there is no such process.
fn signal(name: &str, pid: &str) -> bool {
    Command::new("kill").args([name, pid]).stderr(Stdio::null()).status().unwrap().success()
}

/// The head and body of `GET path`.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|why| panic!("{address}: {why}"));
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: demo.localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn check_page(node: &Node) -> String {
    let answer = get(&node.web, "/");
    assert!(answer.starts_with("HTTP/1.1 200"), "{node:?}: {answer}");
    assert!(answer.contains("It swims"), "{node:?}: {answer}");
    let field = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("cache-status:"));
    field.unwrap_or_else(|| panic!("{node:?} does not say where this is from: {answer}")).to_owned()
}

/// One after the other: two that start at once could choose the same ports.
#[test]
fn a_newcomer_runs_one_command() {
    one_command_shows_a_cluster_and_cleans_up();
    a_named_directory_is_resumed();
}

fn one_command_shows_a_cluster_and_cleans_up() {
    let temporary = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(temporary.path(), &[]);
    let nodes = Dev::nodes(&dev.read_until("Ctrl-C stops everything"));
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    for node in &nodes {
        check_page(node);
        let again = check_page(node);
        assert!(again.contains("hit"), "{again}");
        assert!(get(&node.web, "/time").contains("\"origin\":"));
    }

    assert!(signal("-KILL", &nodes[0].pid));
    let report = dev.read_until(" run --data-dir ");
    assert!(report.contains("node1 ended"), "{report}");
    for node in &nodes[1..] {
        check_page(node);
    }

    let (rest, well) = dev.stop();
    assert!(well && rest.contains("stopping the nodes"), "{rest}");
    for node in &nodes {
        assert!(!signal("-0", &node.pid), "{node:?} is still there");
    }
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

fn a_named_directory_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("demo");
    let arguments = ["--nodes", "2", "--dir", home.to_str().unwrap()];
    let mut first = Dev::start(dir.path(), &arguments);
    let before = Dev::nodes(&first.read_until("Ctrl-C stops everything"));
    assert!(first.stop().1);

    let mut second = Dev::start(dir.path(), &arguments[2..]);
    let after = Dev::nodes(&second.read_until("Ctrl-C stops everything"));
    assert_eq!(after.len(), 2);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.web, after.web);
        check_page(after);
    }
    assert!(second.stop().1);
    assert!(home.join("node2.log").is_file());
}
