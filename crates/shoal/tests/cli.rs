//! The command line as operators and scripts meet it: the real binary, its texts and its exit codes.
#![allow(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const VERBS: [&str; 87] = [
    "",
    "run",
    "dev",
    "apply",
    "confirm",
    "abort",
    "plan",
    "validate",
    "convert",
    "get",
    "set",
    "delete",
    "edit",
    "history",
    "diff",
    "export",
    "watch",
    "audit",
    "rollback",
    "rollout",
    "rollout status",
    "rollout pause",
    "rollout resume",
    "rollout promote",
    "rollout abort",
    "rollout policy",
    "status",
    "node",
    "node list",
    "node describe",
    "node drain",
    "node undrain",
    "node cordon",
    "node uncordon",
    "node promote",
    "node demote",
    "node remove",
    "node revoke",
    "region",
    "region drain",
    "region undrain",
    "zone",
    "zone drain",
    "zone undrain",
    "raft",
    "raft transfer-leader",
    "health",
    "cache",
    "cache get",
    "cache locate",
    "cache purge",
    "cache purge-status",
    "cache stats",
    "cache top",
    "cache warm",
    "token create",
    "token list",
    "token revoke",
    "operator create",
    "operator renew",
    "operator list",
    "operator revoke",
    "login",
    "context list",
    "context use",
    "context remove",
    "cluster",
    "cluster keys",
    "cluster node-life",
    "cluster rotate",
    "cluster setup",
    "config",
    "config schema",
    "completion",
    "version",
    "upgrade",
    "recover",
    "recover plan",
    "recover apply",
    "recover site",
    "snapshot",
    "snapshot save",
    "snapshot inspect",
    "snapshot restore",
    "upgrade status",
    "upgrade finalize",
    "upgrade hold",
];

const GOOD_SITE: &str = "\
listeners:
  web: { address: \":8080\", protocol: http }
routes:
  shop: { path_prefix: /, upstream: shop }
upstreams:
  shop: { endpoints: [\"10.0.0.1:9000\"] }
";

/// The binary, away from whatever the environment says of a real cluster.
fn shoal() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    for name in [
        "SHOAL_ADDR",
        "SHOAL_SOCKET",
        "SHOAL_IDENTITY",
        "SHOAL_CACERT",
        "SHOAL_CERT",
        "SHOAL_KEY",
        "SHOAL_SERVER_NAME",
        "SHOAL_CONTEXT",
        "SHOAL_TOKEN",
    ] {
        command.env_remove(name);
    }
    command.env("SHOAL_CONTEXTS", "/nonexistent/contexts.yaml");
    command.env_remove("RUST_LOG").env("COLUMNS", "100").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    shoal().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs `arguments`, which fail with `code` and one line of error.
fn check_error(arguments: &[&str], code: i32, expected: &str) {
    let output = run(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{stderr}");
    assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    assert!(stderr.contains("; try: "), "{arguments:?}: {stderr}");
}

fn site_file(dir: &Path, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join("site.yaml");
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn every_verb_explains_itself() {
    for verb in VERBS {
        let arguments: Vec<&str> = verb.split_whitespace().chain(["--help"]).collect();
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        let help = text(&output.stdout);
        assert!(help.contains("Example"), "{verb} has no example:\n{help}");
        let name = if verb.is_empty() { "shoal".to_owned() } else { verb.replace(' ', "_") };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/help").join(name + ".txt");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&file, &help).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(help, expected, "{} differs; UPDATE_EXPECT=1 rewrites it", file.display());
    }
}

#[test]
fn verbs_that_need_no_node_work_alone() {
    let version = format!("shoal {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&run(&["version"]).stdout), version);
    assert_eq!(text(&run(&["--version"]).stdout), version);

    for arguments in [["version", "-o", "json"], ["-o", "json", "version"]] {
        let answer: serde_json::Value = serde_json::from_slice(&run(&arguments).stdout).unwrap();
        assert_eq!(answer, serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }));
    }

    let schema: serde_json::Value = serde_json::from_slice(&run(&["config", "schema"]).stdout).unwrap();
    assert!(schema["$defs"]["Route"]["properties"]["path_prefix"].is_object(), "{schema}");

    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(&["completion", shell]).stdout);
        assert!(script.contains("shoal") && script.contains("rollback"), "{shell}: {script}");
    }
}

#[test]
fn wrong_usage_ends_with_1() {
    check_error(
        &["status", "--bogus"],
        1,
        "error: unexpected argument '--bogus' found; try: shoal status --help",
    );
    check_error(&["backends"], 1, "unrecognized subcommand 'backends'");
    check_error(&["cache", "purge"], 1, "required arguments were not provided");
    check_error(&["get", "backends"], 1, "\"backends\" is no kind of object");
    check_error(&["--addr", "127.0.0.1:1", "status"], 1, "an address needs an operator's identity");
    check_error(&["status", "--addr", "127.0.0.1:1", "--cert", "x.pem"], 1, "belong together");
    check_error(&["apply", "-f", "x", "--timeout", "5"], 1, "; try: shoal apply --help");
    check_error(&["status", "--addr", ""], 1, "--addr names no address");
    check_error(&["status", "--addr", "nonsense"], 1, "\"nonsense\" is not HOST:PORT");
    check_error(&["status", "-c", "prod"], 1, "there is no \"prod\"; no cluster has a name here");
    check_error(&["login", "prod"], 1, "it takes the address or the socket of a node");
    check_error(&["status", "--timeout", "0s"], 1, "in no time");
    check_error(&["get", "-r", "0"], 1, "invalid value '0'");
    check_error(&["get", "-o", "table"], 1, "there is no table");
    check_error(&["token", "create", "--ttl", "8d"], 1, "a token lives 1s to 7d");
    let output = run(&["status", "--bogus", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&error["code"], &error["try"]), (&1.into(), &"shoal status --help".into()));
    let bare = run(&[]);
    assert_eq!(bare.status.code(), Some(1));
    assert!(text(&bare.stderr).contains("Usage: shoal"), "{}", text(&bare.stderr));
}

#[test]
fn a_start_that_cannot_be_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let taken = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let free = [(); 3].map(|()| {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().to_string()
    });
    let flags = ["--cluster-addr", "--admin-addr", "--ops-addr"];
    for (place, flag) in flags.into_iter().enumerate() {
        let data_dir = dir.path().join(flag);
        let mut command = shoal();
        command.env("RUST_LOG", "error").arg("run").arg("--data-dir").arg(&data_dir);
        for (other, address) in flags.into_iter().zip(&free) {
            let taken = taken[place].local_addr().unwrap().to_string();
            command.args([other, if other == flag { &taken } else { address }]);
        }
        let output = command.output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("cannot listen on") && stderr.contains(flag), "{stderr}");
        let left = fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["lock"], "{flag}");
    }
    let data_dir = dir.path().join("new");
    let output = shoal().args(["run", "--data-dir"]).arg(&data_dir).env("SHOAL_TOKEN", "shj1.x").output();
    let output = output.unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("give --join ADDR as well"), "{stderr}");
    assert!(!data_dir.exists());
}

/// Nothing is to be seen on a machine that writes no core files at all.
#[test]
#[cfg(target_os = "linux")]
fn a_node_that_crashes_leaves_no_core_unless_it_may() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;

    /// Runs what follows with no limit but that of the machine.
    const AMPLE: &str = "ulimit -S -c \"$(ulimit -H -c)\" && exec \"$0\" \"$@\"";
    let dir = tempfile::tempdir().unwrap();
    let ample = || {
        let mut command = Command::new("sh");
        command.args(["-c", AMPLE]).current_dir(dir.path()).env_remove("SHOAL_TOKEN").stdin(Stdio::null());
        command
    };
    let crash = ample().args(["sh", "-c", "kill -ABRT $$"]).status().unwrap();
    if !crash.core_dumped() {
        // What a test prints is kept from whoever looks on.
        _ = writeln!(
            std::io::stderr(),
            "SKIPPED a_node_that_crashes_leaves_no_core_unless_it_may: no core files are written here"
        );
        return;
    }
    for may in [false, true] {
        let mut command = ample();
        command.args([env!("CARGO_BIN_EXE_shoal"), "run", "--data-dir"]);
        command.arg(dir.path().join(if may { "open" } else { "closed" }));
        if may {
            command.arg("--enable-core-dump");
        }
        for flag in ["--cluster-addr", "--admin-addr", "--ops-addr"] {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            command.args([flag, &socket.local_addr().unwrap().to_string()]);
        }
        let mut node = command.env("RUST_LOG", "info").stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(node.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_ne!(line, "", "it ended before it was to");
        assert!(Command::new("kill").args(["-ABRT", &node.id().to_string()]).status().unwrap().success());
        let ended = node.wait().unwrap();
        assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), may), "after {line}");
    }
}

#[test]
fn a_cluster_that_is_not_there_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let socket = socket.to_str().unwrap();
    for verb in [&["status"][..], &["history"], &["cache", "purge", "--all"], &["token", "create"]] {
        let arguments: Vec<&str> = [&["--socket", socket], verb].concat();
        check_error(&arguments, 2, "no node answers");
        let after: Vec<&str> = [verb, &["--socket", socket]].concat();
        check_error(&after, 2, socket);
    }
    let output = run(&["--socket", socket, "status", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&error["code"], &error["node"]), (&2.into(), &socket.into()));
    assert!(error.get("revision").is_none(), "{error}");

    let by_environment = shoal().env("SHOAL_SOCKET", socket).arg("health").output().unwrap();
    assert_eq!(by_environment.status.code(), Some(2));
    assert!(text(&by_environment.stderr).contains(socket));
}

#[test]
fn a_bad_site_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = site_file(dir.path(), GOOD_SITE);
    let path = file.to_str().unwrap();
    let valid = run(&["validate", "-f", path]);
    assert_eq!(valid.status.code(), Some(0), "{}", text(&valid.stderr));
    assert!(text(&valid.stdout).contains("is valid: listeners 1, certificates 0, routes 1, upstreams 1"));

    let valid = run(&["validate", "-f", path, "-o", "json"]);
    let valid: serde_json::Value = serde_json::from_slice(&valid.stdout).unwrap();
    let expected = serde_json::json!({
        "file": path, "listeners": 1, "certificates": 0, "routes": 1, "upstreams": 1, "dns_zones": 0,
    });
    assert_eq!(valid, expected);

    // The socket is never asked: nothing listens there, and the exit would be 2.
    for verb in ["validate", "plan", "apply"] {
        let arguments = if verb == "validate" {
            vec![verb, "-f", path]
        } else {
            vec![verb, "-f", path, "--socket", "/nonexistent/admin.sock"]
        };
        for (content, expected) in [
            (
                GOOD_SITE.replace("protocol", "protocl").into_bytes(),
                format!("{path}:2:28: listeners.web.protocl: unknown field"),
            ),
            (b"listeners: \xff\xfe".to_vec(), "is not UTF-8 text: byte 0xff at offset 11".to_owned()),
            (Vec::new(), "the file is empty".to_owned()),
            (b"[1, 2".to_vec(), format!("{path}:1:")),
        ] {
            site_file(dir.path(), content);
            check_error(&arguments, 1, &expected);
        }
    }
    // What is not in the file may be in the cluster, if anybody can be asked.
    site_file(dir.path(), GOOD_SITE.replace("upstream: shop", "upstream: shpo"));
    let absent =
        format!("{path}:4:37: routes.shop.upstream: there is no upstream \"shpo\"; upstreams are: shop");
    check_error(&["validate", "-f", path], 1, &absent);
    check_error(&["plan", "-f", path, "--prune"], 1, &absent);
    for verb in ["plan", "apply"] {
        check_error(&[verb, "-f", path, "--socket", "/nonexistent/admin.sock"], 2, "no node answers (");
    }
    check_error(
        &["validate", "-f", "/nonexistent/site.yaml"],
        1,
        "error: validate /nonexistent/site.yaml: /nonexistent/site.yaml cannot be read: No such file",
    );
}

#[test]
fn a_configuration_of_another_proxy_becomes_a_site() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nginx.conf");
    let path = file.to_str().unwrap();
    let good = "server { listen 80 default_server; location / { proxy_pass http://10.0.0.1:9000; } }\n";
    fs::write(&file, good).unwrap();
    let site = run(&["convert", "--from", "nginx", path]);
    assert_eq!(site.status.code(), Some(0), "{}", text(&site.stderr));
    let written = site_file(dir.path(), &site.stdout);
    assert_eq!(run(&["validate", "-f", written.to_str().unwrap()]).status.code(), Some(0));
    let strict = run(&["convert", "--strict", "--from", "nginx", path]);
    assert_eq!((strict.status.code(), strict.stdout), (Some(0), site.stdout));

    // What is lost is told on stderr and in a file; the site is printed all the same.
    fs::write(&file, good.replace("location", "gzip on; location")).unwrap();
    let report = dir.path().join("report.json");
    let lossy = ["convert", "--from", "nginx", path, "-o", "json", "--report", report.to_str().unwrap()];
    let output = run(&lossy);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let place = format!("{path}:1:36: gzip on: not carried over: Shoal compresses nothing");
    assert!(text(&output.stderr).contains(&place), "{}", text(&output.stderr));
    let site: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(site["upstreams"]["10.0.0.1-9000"]["endpoints"][0], "10.0.0.1:9000");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!((&report[0]["line"], &report[0]["column"]), (&1.into(), &36.into()));
    assert_eq!((&report[0]["kind"], &report[0]["directive"]), (&"left_out".into(), &"gzip on".into()));
    let strict = run(&[&lossy[..], &["--strict"]].concat());
    assert_eq!((strict.status.code(), strict.stdout), (Some(1), output.stdout));

    // A certificate that is not here has to be brought.
    let secure = "server { listen 443 ssl default_server; ssl_certificate a.pem; ssl_certificate_key a.key;\n\
                  location / { proxy_pass http://app; } }\n";
    fs::write(&file, secure).unwrap();
    let output = run(&["convert", "--from", "nginx", path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let missing = "before the site can be applied: certificates.default.chain_file: ";
    assert!(text(&output.stderr).contains(missing), "{}", text(&output.stderr));

    fs::write(&file, "http {\n  server {\n").unwrap();
    check_error(&["convert", "--from", "nginx", path], 1, &format!("{path}:2:10: this `{{` is never closed"));
    fs::write(&file, "server { return 200; }").unwrap();
    check_error(&["convert", "--from", "nginx", path], 1, "nothing in it leads to an endpoint");
    check_error(
        &["convert", "--from", "nginx", "/nonexistent/nginx.conf"],
        1,
        "cannot be read: No such file",
    );
    check_error(&["convert", "--from", "nginx", path, "-o", "table"], 1, "there is no table");
    check_error(&["convert", "--from", "apache", path], 1, "invalid value 'apache'");
    fs::write(&file, "a.example.com {\n").unwrap();
    check_error(&["convert", "--from", "caddy", path], 1, "it cannot be read as a Caddyfile");
}

#[test]
fn a_part_of_a_site_is_checked_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = site_file(dir.path(), "routes: { shop: { upstream: shop } }\n");
    let path = file.to_str().unwrap();
    check_error(&["validate", "-f", path], 1, "; try: shoal plan -f ");
    let part = run(&["validate", "--partial", "-f", path]);
    assert_eq!(part.status.code(), Some(0), "{}", text(&part.stderr));
    assert!(text(&part.stdout).contains("there is no upstream \"shop\""), "{}", text(&part.stdout));
    site_file(dir.path(), "routes: { shop: { upstream: shop, path: x } }\n");
    check_error(&["validate", "--partial", "-f", path], 1, "does not start with '/'");
    site_file(dir.path(), "# to come\n");
    assert!(text(&run(&["validate", "-f", path]).stdout).contains("warning: there is nothing in it"));
}

#[test]
fn a_site_can_come_from_stdin() {
    let mut child =
        shoal().args(["validate", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(GOOD_SITE.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).contains("is valid")), (Some(0), true));
}

#[test]
fn a_closed_pipe_is_quiet() {
    let mut child =
        shoal().args(["config", "schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn an_upgrade_is_waited_for_as_long_as_somebody_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let upgrade = |front: &[&str], back: &[&str]| {
        let mut command = shoal();
        command.args(front).args(["upgrade", "--data-dir", path]).args(back).output().unwrap()
    };
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let nobody = upgrade(&[], &["--timeout", "1s"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(told(&nobody).contains("no node runs on this directory"), "{}", told(&nobody));
    // Somebody is there, and never answers; it is not even asked to start what is not there.
    let _door = std::os::unix::net::UnixListener::bind(dir.path().join("upgrade.sock")).unwrap();
    for (front, back) in [(&[][..], &["--timeout", "100ms"][..]), (&["--timeout", "100ms"], &[])] {
        let late = upgrade(front, back);
        assert_eq!(late.status.code(), Some(2), "{}", told(&late));
        assert!(told(&late).contains("no answer within 100ms; the upgrade goes on"), "{}", told(&late));
    }
    let missing = upgrade(&[], &["--binary", "no-such-file", "--timeout", "100ms"]);
    let file = std::env::current_dir().unwrap().join("no-such-file");
    assert_eq!(missing.status.code(), Some(1), "{}", told(&missing));
    assert!(told(&missing).contains(&format!("there is no file {}", file.display())), "{}", told(&missing));
}
