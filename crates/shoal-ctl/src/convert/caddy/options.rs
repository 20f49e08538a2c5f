//! What a Caddyfile says of sockets and TLS: in a site it is said of listeners.

use std::path::Path;

use shoal_model::site::{ClientAuth, ClientAuthMode, Listener, ProxyProtocol, TlsVersion};
use shoal_model::units::{ByteSize, Period};

use super::address::Ports;
use super::values::{networks, period, trusted};
use crate::convert::directive::Directive;
use crate::convert::draft::Draft;
use crate::convert::units::caddy_size;

/// About Caddy itself.
const HARMLESS: [&str; 9] = [
    "admin",
    "debug",
    "grace_period",
    "shutdown_delay",
    "order",
    "persist_config",
    "storage",
    "metrics",
    "log",
];

/// The ports of the global options.
pub(super) fn ports(options: &[Directive], draft: &mut Draft) -> Ports {
    let mut ports = Ports { http: 80, https: 443, has_auto_https: true };
    for at in options {
        match at.name.as_str() {
            "http_port" => ports.http = at.first().parse().unwrap_or(ports.http),
            "https_port" => ports.https = at.first().parse().unwrap_or(ports.https),
            "auto_https" => ports.has_auto_https = at.first() != "off",
            "servers" => {}
            "email" | "acme_ca" | "acme_ca_root" | "acme_dns" | "acme_eab" | "cert_issuer"
            | "local_certs" | "on_demand_tls" | "skip_install_trust" | "pki" | "ocsp_stapling"
            | "renew_interval" | "key_type" | "preferred_chains" => {
                draft.left_out(at, "Shoal gets and makes no certificates: it is given files")
            }
            name if HARMLESS.contains(&name) => {}
            _ => draft.left_out(at, "Shoal has nothing like it"),
        }
    }
    ports
}

/// `servers` of the global options, for every listener, or those of its address.
pub(super) fn servers(options: &[Directive], draft: &mut Draft) {
    for block in options.iter().filter(|one| one.name == "servers") {
        let names: Vec<String> = draft
            .listeners()
            .iter()
            .filter(|(_, listener)| block.args.is_empty() || block.first() == listener.address)
            .map(|(name, _)| name.clone())
            .collect();
        for at in block.body() {
            server_option(at, &names, draft);
        }
    }
}

fn server_option(at: &Directive, names: &[String], draft: &mut Draft) {
    match at.name.as_str() {
        "trusted_proxies" => {
            let words: Vec<String> = trusted(&at.args).collect();
            let believed = networks(&words);
            if believed.len() < words.len() {
                draft.left_out(at, "`trusted_proxies` are networks, as 10.0.0.0/8");
            }
            each(names, draft, |listener| listener.trusted_proxies.clone_from(&believed));
        }
        "client_ip_headers" => {
            let field = at.args.iter().find(|name| !name.eq_ignore_ascii_case("X-Forwarded-For"));
            if at.args.len() > 1 {
                draft.changed(at, "one field names the client: `client_ip_header`");
            }
            each(names, draft, |listener| listener.client_ip_header = field.cloned());
        }
        "timeouts" => at.body().iter().for_each(|one| timeout(one, names, draft)),
        "max_header_size" => match caddy_size(at.first()) {
            Some(size) => each(names, draft, |listener| {
                listener.limits.get_or_insert_default().max_header_bytes = Some(size.max(ByteSize::kib(8)));
            }),
            None => draft.left_out(at, "it is no size that is known"),
        },
        "listener_wrappers" => at.body().iter().for_each(|one| wrapper(one, names, draft)),
        "protocols"
        | "metrics"
        | "name"
        | "keepalive_interval"
        | "log_credentials"
        | "trusted_proxies_strict" => {}
        _ => draft.left_out(at, "a listener of Shoal has nothing like it"),
    }
}

fn timeout(at: &Directive, names: &[String], draft: &mut Draft) {
    let Some(time) = period(at, draft) else { return };
    let default = match at.name.as_str() {
        "read_header" => 10,
        "read_body" => 30,
        "idle" => 75,
        _ => {
            return draft
                .left_out(at, "`limits.write_idle_timeout` and `limits.min_rate` are about slow readers");
        }
    };
    if time == Period::seconds(default) {
        return;
    }
    each(names, draft, |listener| {
        let limits = listener.limits.get_or_insert_default();
        match default {
            10 => limits.header_timeout = Some(time),
            30 => limits.body_idle_timeout = Some(time),
            _ => limits.keepalive_timeout = Some(time),
        }
    });
}

fn wrapper(at: &Directive, names: &[String], draft: &mut Draft) {
    match at.name.as_str() {
        "tls" | "http_redirect" => {}
        "proxy_protocol" => {
            let allowed = at.body().iter().filter(|one| one.name == "allow").flat_map(|one| one.args.clone());
            let trusted = networks(&allowed.collect::<Vec<_>>());
            if trusted.is_empty() {
                return draft
                    .left_out(at, "`proxy_protocol.trusted` names the networks of the balancers in front");
            }
            let timeout = at
                .find("timeout")
                .and_then(|one| period(one, draft))
                .filter(|time| *time != Period::seconds(3));
            each(names, draft, |listener| {
                listener.proxy_protocol = Some(ProxyProtocol { trusted: trusted.clone(), timeout });
            });
        }
        _ => draft.left_out(at, "a listener of Shoal has nothing like it"),
    }
}

pub(super) fn each(names: &[String], draft: &mut Draft, mut set: impl FnMut(&mut Listener)) {
    for name in names {
        if let Some(listener) = draft.listener_mut(name) {
            set(listener);
        }
    }
}

/// What the block of `tls` says.
pub(super) fn tls(at: &Directive, names: &[String], home: &Path, draft: &mut Draft) {
    for one in at.body() {
        match one.name.as_str() {
            "protocols" if one.first() == "tls1.3" => {
                each(names, draft, |listener| listener.min_tls = Some(TlsVersion::V1_3));
            }
            "protocols" => {}
            "client_auth" => client_auth(one, names, home, draft),
            "ciphers" => draft.left_out(one, "`ciphers` of the listener takes one of each version of TLS"),
            "issuer"
            | "dns"
            | "ca"
            | "ca_root"
            | "key_type"
            | "on_demand"
            | "resolvers"
            | "propagation_timeout" => {
                draft.left_out(one, "Shoal gets and makes no certificates: it is given files");
            }
            _ => draft.left_out(one, "a listener of Shoal has nothing like it"),
        }
    }
}

fn client_auth(at: &Directive, names: &[String], home: &Path, draft: &mut Draft) {
    let mode = match at.find("mode").map_or("require_and_verify", Directive::first) {
        "require_and_verify" => None,
        "verify_if_given" => Some(ClientAuthMode::Optional),
        _ => return draft.left_out(at, "a certificate that nobody vouches for ends the connection"),
    };
    let pool = at.find("trust_pool").filter(|pool| pool.first() == "file").and_then(|pool| pool.args.get(1));
    let file = pool.or_else(|| at.find("trusted_ca_cert_file").and_then(|one| one.args.first()));
    let Some(file) = file else {
        return draft
            .left_out(at, "`client_auth.ca_file` is a PEM file with the authorities that are believed");
    };
    let auth = ClientAuth { ca_file: Some(home.join(file)), mode, ..ClientAuth::default() };
    draft.changed(at, "it holds for all names on the listener here");
    each(names, draft, |listener| listener.client_auth = Some(auth.clone()));
}
