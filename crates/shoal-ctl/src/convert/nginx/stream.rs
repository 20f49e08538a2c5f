//! `stream`: connections that are carried as they are.

use std::collections::{BTreeMap, HashMap};

use shoal_model::site::{Endpoint, Listener, ListenerLimits, Protocol, ProxyVersion, Upstream};
use shoal_model::units::Period;

use super::listen::read_address;
use super::upstream::{name_of_address, of_block, time};
use crate::convert::directive::Directive;
use crate::convert::draft::{Draft, listener_at};

/// Settings that say how nginx works inside, or that are read where they are needed.
const HARMLESS: [&str; 14] = [
    "upstream",
    "server",
    "map",
    "listen",
    "proxy_pass",
    "proxy_timeout",
    "proxy_connect_timeout",
    "proxy_protocol",
    "proxy_buffer_size",
    "tcp_nodelay",
    "log_format",
    "error_log",
    "ssl_preread",
    "preread_buffer_size",
];
/// For a connection that nobody uses.
const TUNNEL_IDLE: Period = Period::seconds(600);

/// The servers of a `stream` block as listeners.
pub(super) fn convert(block: &[Directive], draft: &mut Draft) {
    let upstreams: HashMap<&str, &Directive> =
        block.iter().filter(|one| one.name == "upstream").map(|one| (one.first(), one)).collect();
    let servers = block.iter().filter(|one| one.name == "server");
    for directive in block.iter().filter(|one| !HARMLESS.contains(&one.name.as_str())) {
        draft.left_out(directive, "carried connections have nothing like it");
    }
    for at in servers {
        server(at, block, &upstreams, draft);
    }
}

fn server(at: &Directive, block: &[Directive], upstreams: &HashMap<&str, &Directive>, draft: &mut Draft) {
    for directive in at.body().iter().filter(|one| !HARMLESS.contains(&one.name.as_str())) {
        draft.left_out(directive, "carried connections have nothing like it");
    }
    let Some(pass) = at.find("proxy_pass") else {
        return draft.left_out(at, "it leads to no endpoint");
    };
    let upstream = |target: &str, draft: &mut Draft| -> String {
        let mut upstream = match upstreams.get(target) {
            Some(block) => of_block(block, draft),
            None => Upstream { endpoints: vec![Endpoint::at(target)], ..Upstream::default() },
        };
        upstream.connect_timeout =
            time(at.find("proxy_connect_timeout"), draft).filter(|time| *time != Period::seconds(3));
        let tells = at.find("proxy_protocol").is_some_and(|one| one.first() == "on");
        upstream.proxy_protocol = tells.then_some(ProxyVersion::V1);
        draft.upstream(&name_of_address(target), upstream, pass)
    };
    let (protocol, fallback, sni) = match pass.first().strip_prefix('$') {
        None => (Protocol::Tcp, Some(upstream(pass.first(), draft)), BTreeMap::new()),
        Some(_) => {
            let by_name = |one: &&Directive| {
                one.name == "map"
                    && one.first() == "$ssl_preread_server_name"
                    && one.args.get(1) == pass.args.first()
            };
            let Some(map) = block.iter().find(by_name) else {
                return draft.left_out(
                    pass,
                    "an upstream is known beforehand, or by the server name in the TLS greeting",
                );
            };
            let (mut fallback, mut sni) = (None, BTreeMap::new());
            for entry in map.body() {
                match (entry.name.as_str(), entry.first()) {
                    ("hostnames", _) => {}
                    ("default", target) => fallback = Some(upstream(target, draft)),
                    (name, target) if !name.starts_with('~') => {
                        sni.insert(name.to_ascii_lowercase(), upstream(target, draft));
                    }
                    _ => draft.left_out(entry, "names are exact, or `*.` and the end of one"),
                }
            }
            (Protocol::TlsPassthrough, fallback, sni)
        }
    };
    let idle = time(at.find("proxy_timeout"), draft).filter(|time| *time != TUNNEL_IDLE);
    let limits =
        idle.map(|idle| ListenerLimits { tunnel_idle_timeout: Some(idle), ..ListenerLimits::default() });
    for listen in at.body().iter().filter(|one| one.name == "listen") {
        let ends =
            ["ssl", "udp", "proxy_protocol"].iter().find(|word| listen.args.iter().any(|arg| arg == *word));
        if let Some(word) = ends {
            draft.left_out(listen, format!("connections are carried as they are: there is no {word:?}"));
            continue;
        }
        match read_address(listen.first()) {
            Ok(address) => {
                let name = format!("tcp-{}", address.trim_start_matches(':').replace([':', '[', ']'], "-"));
                let listener = Listener {
                    upstream: fallback.clone(),
                    sni: sni.clone(),
                    limits: limits.clone(),
                    ..listener_at(address, protocol)
                };
                draft.listener(name, listener, listen);
            }
            Err(why) => draft.left_out(listen, why),
        }
    }
}
