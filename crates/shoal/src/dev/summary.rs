//! What a demo cluster tells its operator once it serves.

use std::fmt::Write as _;

use super::home::Home;
use super::layout::{Layout, node_ip};
use super::nodes::{Nodes, quote};
use super::site::CHAIN_FILE;

/// Every address, and a few commands to try.
pub fn text(home: &Home, layout: &Layout, nodes: &Nodes<'_>) -> String {
    let mut text = String::new();
    _ = writeln!(text, "\nThe cluster serves. Any node takes any request and any command.\n");
    for node in layout.nodes() {
        let ip = node_ip(node);
        let pid = nodes.pid(node).unwrap_or_default();
        _ = writeln!(
            text,
            "  node{node}   http://{ip}:{}/   https://{ip}:{}/   pid {pid}",
            layout.http, layout.https
        );
        _ = writeln!(text, "          socket {}", quote(&home.socket(node).display().to_string()));
        _ = writeln!(text, "          ready  http://{}/readyz   /metrics", layout.ops_addr(node));
    }
    let [first, second] = layout.origins;
    let dir = quote(&home.dir().display().to_string());
    _ = writeln!(text, "\n  origins http://127.0.0.1:{first}/ and http://127.0.0.1:{second}/");
    _ = writeln!(text, "  site    {}", quote(&home.site_file().display().to_string()));
    _ = writeln!(text, "  logs    {dir}/node1.log …");
    text + &to_try(home, layout, nodes)
}

fn to_try(home: &Home, layout: &Layout, nodes: &Nodes<'_>) -> String {
    let mut text = String::from("\nTry, in another terminal:\n\n");
    let url = |node| format!("http://{}:{}", node_ip(node), layout.http);
    let last = layout.count;
    let shoal = quote(&nodes.program().display().to_string());
    let socket = quote(&home.socket(last).display().to_string());
    let chain = quote(&home.dir().join(CHAIN_FILE).display().to_string());
    let pid = nodes.pid(1).unwrap_or_default();
    let mut lines = vec![
        (format!("curl -i {}/", url(1)), "twice: see Cache-Status"),
        // The address is part of what an object is called; with one name for all nodes they share it.
        (
            format!("curl -i -H 'Host: demo' {}/", url(1)),
            if last > 1 { "fetched from an origin, kept on two nodes" } else { "fetched from an origin" },
        ),
        (format!("curl {}/time", url(1)), "not cached: the origins take turns"),
        (format!("curl --cacert {chain} https://{}:{}/", node_ip(last), layout.https), "HTTP/2 over TLS"),
    ];
    if last > 1 {
        let elsewhere = format!("curl -i -H 'Host: demo' {}/", url(last));
        lines.insert(2, (elsewhere, "another node, the same object: a hit"));
    }
    // Fewer could not agree on anything any more.
    if last > 2 {
        lines.push((format!("kill -9 {pid}"), "node1 is gone; the others serve on"));
    }
    for (command, why) in lines {
        _ = writeln!(text, "  {command:<52} # {why}");
    }
    _ = writeln!(text, "\n  export SHOAL_SOCKET={socket}");
    for verb in ["status", "health", "cache stats"] {
        _ = writeln!(text, "  {shoal} {verb}");
    }
    _ = writeln!(text, "  {shoal} apply -f {}", quote(&home.site_file().display().to_string()));
    _ = writeln!(text, "  {shoal} cache purge --prefix {}/", url(1));
    _ = writeln!(text, "\nCtrl-C stops everything.");
    text
}
