//! What a server says of its sockets: in a site it is said once, of the listener.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use shoal_model::site::{
    AccessLog, ClientAuth, ClientAuthMode, Listener, ListenerLimits, ProxyProtocol, TlsVersion,
};
use shoal_model::units::{ByteSize, Period};

use super::hosts::hosts_of;
use super::listen::Listen;
use super::scope::Scope;
use super::upstream::time;
use crate::convert::directive::Directive;
use crate::convert::draft::{Draft, UNLIMITED};
use crate::convert::units::nginx_size;

/// A limit of a listener.
type Limit<T> = fn(&mut ListenerLimits) -> &mut Option<T>;

/// Sets up the `listeners` of the server `at`: its certificates, limits and log.
pub(super) fn set_up(
    at: &Directive,
    scope: &Scope<'_>,
    listens: &[Listen<'_>],
    listeners: &[(String, Option<bool>)],
    home: &Path,
    draft: &mut Draft,
) {
    let names: Vec<&str> = listeners.iter().map(|(name, _)| name.as_str()).collect();
    certificates(scope, listeners, home, draft);
    client_auth(scope, &names, home, draft);
    protocols(scope, &names, draft);
    let believed = believed(scope, draft);
    if let Some(listen) = listens.iter().find(|listen| listen.proxy_protocol) {
        proxy_protocol(listen.at(), &believed, &names, draft);
    }
    if !believed.is_empty() && scope.word("real_ip_header") != Some("proxy_protocol") {
        let field = scope.word("real_ip_header").unwrap_or("X-Real-IP");
        for_each(&names, draft, |listener| {
            listener.trusted_proxies.clone_from(&believed);
            let is_default = field.eq_ignore_ascii_case("X-Forwarded-For");
            listener.client_ip_header = (!is_default).then(|| field.to_owned());
        });
    }
    limits(scope, &names, draft);
    access_log(at, scope, &names, draft);
}

fn for_each(names: &[&str], draft: &mut Draft, mut set: impl FnMut(&mut Listener)) {
    for name in names {
        if let Some(listener) = draft.listener_mut(name) {
            set(listener);
        }
    }
}

fn certificates(scope: &Scope<'_>, listeners: &[(String, Option<bool>)], home: &Path, draft: &mut Draft) {
    let hosts = hosts_of(scope, None);
    let wish = hosts.first().map_or("default", |host| host.trim_start_matches("*."));
    for (chain, key) in scope.all("ssl_certificate").iter().zip(scope.all("ssl_certificate_key")) {
        if [chain, key].iter().any(|file| file.first().contains('$') || file.first().starts_with("data:")) {
            draft.left_out(
                chain,
                "files are read where `shoal apply` runs: write one certificate for each name",
            );
            continue;
        }
        let (chain_file, key_file) = (home.join(chain.first()), home.join(key.first()));
        let ends_tls = |name: &str, draft: &Draft| {
            let listener = draft.listeners().get(name);
            listener.is_some_and(|listener| listener.protocol == shoal_model::site::Protocol::Https)
        };
        let on: Vec<&(String, Option<bool>)> =
            listeners.iter().filter(|(name, _)| ends_tls(name, draft)).collect();
        if on.is_empty() {
            continue;
        }
        let certificate = draft.certificate(wish, chain_file, key_file, chain);
        for (name, fallback) in on {
            let Some(listener) = draft.listener_mut(name) else { continue };
            if listener.certificates.contains(&certificate) {
                continue;
            }
            // The first answers where no name fits.
            let place = if fallback.is_some() { 0 } else { listener.certificates.len() };
            listener.certificates.insert(place, certificate.clone());
        }
    }
}

fn client_auth(scope: &Scope<'_>, names: &[&str], home: &Path, draft: &mut Draft) {
    let Some(at) = scope.find("ssl_verify_client") else { return };
    let mode = match at.first() {
        "on" => None,
        "optional" => Some(ClientAuthMode::Optional),
        "off" => return,
        _ => return draft.left_out(at, "a certificate that nobody vouches for ends the connection"),
    };
    let Some(ca) = scope.find("ssl_client_certificate") else {
        return draft.left_out(at, "`client_auth` needs `ca_file`: there is no `ssl_client_certificate`");
    };
    let auth = ClientAuth {
        ca_file: Some(home.join(ca.first())),
        crl_file: scope.find("ssl_crl").map(|crl| home.join(crl.first())),
        mode,
        ..ClientAuth::default()
    };
    draft.changed(at, "it holds for all names on the listener here");
    for_each(names, draft, |listener| {
        if listener.protocol == shoal_model::site::Protocol::Https {
            listener.client_auth = Some(auth.clone());
        }
    });
}

fn protocols(scope: &Scope<'_>, names: &[&str], draft: &mut Draft) {
    let Some(at) = scope.find("ssl_protocols") else { return };
    let has = |version: &str| at.args.iter().any(|arg| arg == version);
    if has("TLSv1") || has("TLSv1.1") || has("SSLv3") {
        draft.changed(at, "nothing older than TLS 1.2 is spoken");
    }
    if has("TLSv1.3") && at.args.len() == 1 {
        for_each(names, draft, |listener| {
            if listener.protocol == shoal_model::site::Protocol::Https {
                listener.min_tls = Some(TlsVersion::V1_3);
            }
        });
    }
}

/// Networks of `set_real_ip_from`.
fn believed(scope: &Scope<'_>, draft: &mut Draft) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for at in scope.all("set_real_ip_from") {
        let text = at.first();
        match text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)) {
            Some(network) if !networks.contains(&network) => networks.push(network),
            Some(_) => {}
            None => draft.left_out(at, "`trusted_proxies` are networks, as 10.0.0.0/8"),
        }
    }
    networks
}

fn proxy_protocol(at: &Directive, believed: &[IpNet], names: &[&str], draft: &mut Draft) {
    let mut trusted = believed.to_vec();
    if trusted.is_empty() {
        let anybody = ["0.0.0.0/0", "::/0"];
        trusted.extend(anybody.iter().filter_map(|network| network.parse::<IpNet>().ok()));
        draft.changed(
            at,
            "whoever connects is believed about who calls: name the balancers in `proxy_protocol.trusted`",
        );
    } else {
        draft.changed(at, "connections from elsewhere than `set_real_ip_from` are closed");
    }
    for_each(names, draft, |listener| {
        listener.proxy_protocol = Some(ProxyProtocol { trusted: trusted.clone(), timeout: None });
    });
}

fn limits(scope: &Scope<'_>, names: &[&str], draft: &mut Draft) {
    const TIMES: [(&str, u64, Limit<Period>); 4] = [
        ("client_header_timeout", 10, |limits| &mut limits.header_timeout),
        ("client_body_timeout", 30, |limits| &mut limits.body_idle_timeout),
        ("send_timeout", 30, |limits| &mut limits.write_idle_timeout),
        ("keepalive_time", 3600, |limits| &mut limits.max_connection_age),
    ];
    for (setting, default, limit) in TIMES {
        let value = time(scope.find(setting), draft).filter(|time| *time != Period::seconds(default));
        set_limit(scope.find(setting), value, names, limit, draft);
    }
    let keepalive = scope.find("keepalive_timeout");
    if keepalive.is_some_and(|at| matches!(at.first(), "0" | "0s")) {
        set_limit(keepalive, Some(1), names, |limits| &mut limits.max_requests_per_connection, draft);
    } else {
        let value = time(keepalive, draft).filter(|time| *time != Period::seconds(75));
        set_limit(keepalive, value, names, |limits| &mut limits.keepalive_timeout, draft);
        let at = scope.find("keepalive_requests");
        let value = at.and_then(|at| at.first().parse().ok()).filter(|n| *n > 0);
        set_limit(at, value, names, |limits| &mut limits.max_requests_per_connection, draft);
    }
    let at = scope.find("http2_max_concurrent_streams");
    let value = at.and_then(|at| at.first().parse().ok()).filter(|n| *n > 0 && *n != 128);
    set_limit(at, value, names, |limits| &mut limits.h2_max_streams, draft);
    if let Some(at) = scope.find("large_client_header_buffers")
        && let [number, size] = &at.args[..]
        && let (Ok(number), Some(size)) = (number.parse::<u64>(), nginx_size(size))
    {
        let head = ByteSize(size.0.saturating_mul(number));
        let head = Some(head).filter(|head| *head > ByteSize::kib(32));
        set_limit(Some(at), head, names, |limits| &mut limits.max_header_bytes, draft);
        let target = Some(size).filter(|size| *size > ByteSize::kib(8));
        set_limit(Some(at), target, names, |limits| &mut limits.max_uri_bytes, draft);
    }
    max_body(scope.find("client_max_body_size"), names, draft);
    connections(scope, names, draft);
}

/// Sets a limit that no server has set before; says so where another one has.
fn set_limit<T: Copy + PartialEq + ToString>(
    at: Option<&Directive>,
    value: Option<T>,
    names: &[&str],
    limit: Limit<T>,
    draft: &mut Draft,
) {
    let (Some(at), Some(value)) = (at, value) else { return };
    for name in names {
        let Some(listener) = draft.listener_mut(name) else { continue };
        let slot = limit(listener.limits.get_or_insert_default());
        match *slot {
            None => *slot = Some(value),
            Some(known) if known == value => {}
            Some(known) => {
                let known = known.to_string();
                draft.changed(at, format!("it is {known} on listener {name:?}, for all its servers"));
            }
        }
    }
}

/// `client_max_body_size`: of several the largest, lest one is refused that was taken.
pub(super) fn max_body(at: Option<&Directive>, names: &[&str], draft: &mut Draft) {
    let Some(at) = at else { return };
    let Some(size) = nginx_size(at.first()) else { return draft.left_out(at, "it is no size that is known") };
    let size = if size.0 == 0 { UNLIMITED } else { size };
    for name in names {
        let Some(listener) = draft.listener_mut(name) else { continue };
        let slot = &mut listener.limits.get_or_insert_default().max_body_bytes;
        let known = *slot;
        *slot = known.max(Some(size));
        if known.is_some_and(|known| known != size) {
            draft.changed(at, format!("listener {name:?} has one for all paths and servers: the largest"));
        }
    }
}

/// `limit_conn` by the address of the client.
fn connections(scope: &Scope<'_>, names: &[&str], draft: &mut Draft) {
    for at in scope.all("limit_conn") {
        let zone = format!("zone={}:", at.first());
        let zones = scope.all("limit_conn_zone");
        let by_address = zones.iter().any(|one| {
            let is_address = matches!(one.first(), "$binary_remote_addr" | "$remote_addr");
            is_address && one.args.iter().any(|arg| arg.starts_with(&zone))
        });
        let number = at.args.get(1).and_then(|number| number.parse().ok()).filter(|number| *number > 0);
        match number.filter(|_| by_address) {
            None => draft.left_out(at, "connections are counted for each address, or for the listener"),
            number => {
                draft.changed(at, "connections are counted here, whatever is asked for on them");
                set_limit(Some(at), number, names, |limits| &mut limits.max_connections_per_address, draft);
            }
        }
    }
}

fn access_log(server: &Directive, scope: &Scope<'_>, names: &[&str], draft: &mut Draft) {
    let Some(at) = scope.find("access_log") else { return };
    let path = at.first();
    if path == "off" {
        return;
    }
    if !path.starts_with('/') || path.ends_with('/') || path.contains('$') {
        return draft
            .left_out(at, "`access_log.path` is the absolute path of a file; without one it goes to stderr");
    }
    let log = AccessLog { path: Some(path.to_owned()), ..AccessLog::default() };
    let mut others = Vec::new();
    for_each(names, draft, |listener| match &listener.access_log {
        None => listener.access_log = Some(log.clone()),
        Some(known) if *known == log => {}
        Some(known) => others.extend(known.path.clone()),
    });
    for other in others {
        draft.left_out(at, format!("the listener has one log for all its servers: {other}"));
    }
    draft.changed(at, "a line is a JSON object here, unless `access_log.format` has a template");
    let in_locations = server.body().iter().filter(|one| one.name == "location");
    for at in in_locations.filter_map(|location| location.find("access_log")) {
        draft.left_out(at, "the listener has one log for all its paths");
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::site::Protocol;

    use super::*;
    use crate::convert::draft::listener_at;

    #[test]
    fn the_largest_body_counts() {
        let check = |sizes: &[&str], expected: Option<u64>, warnings: usize| {
            let place = crate::convert::Place { file: "t".into(), line: 1, column: 1 };
            let directive = |size: &&str| Directive {
                name: "client_max_body_size".into(),
                args: vec![size.to_string()],
                place: place.clone(),
                block: None,
            };
            let directives: Vec<Directive> = sizes.iter().map(directive).collect();
            let mut draft = Draft::default();
            draft.listener("l".into(), listener_at(":80".into(), Protocol::Http), &directives[0]);
            for at in &directives {
                max_body(Some(at), &["l"], &mut draft);
            }
            let limits = draft.listeners()["l"].limits.clone().unwrap_or_default();
            assert_eq!(limits.max_body_bytes, expected.map(ByteSize), "{sizes:?}");
            assert_eq!(draft.report().len(), warnings, "{sizes:?}");
        };
        check(&["1m"], Some(1 << 20), 0);
        check(&["1m", "2m", "1m"], Some(2 << 20), 2);
        check(&["2m", "0", "1m"], Some(u64::MAX), 2);
        check(&["x"], None, 1);
    }
}
