//! The sockets of all servers: nginx writes them with each server, a site once.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use shoal_model::site::{Listener, Protocol};

use crate::convert::directive::Directive;
use crate::convert::draft::{Draft, listener_at};

/// Parameters of `listen` about how nginx works inside.
const HARMLESS: [&str; 9] =
    ["bind", "deferred", "http2", "http3", "ipv6only", "reuseport", "backlog", "rcvbuf", "sndbuf"];

/// The port of listeners that name none.
const HTTP: u16 = 80;

/// One `listen` of one server.
pub(super) struct Listen<'a> {
    at: &'a Directive,
    bind: Bind,
    tls: bool,
    is_default: bool,
    pub(super) proxy_protocol: bool,
}

/// What a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bind {
    /// Every address of the machine.
    Port(u16),
    Address(SocketAddr),
}

/// A socket, as a listener of the site.
struct Socket<'a> {
    name: String,
    at: &'a Directive,
    bind: Bind,
    tls: bool,
    /// The server that answers names that nobody has, and whether that is written.
    fallback: (usize, bool),
}

/// The sockets of all servers.
#[derive(Default)]
pub(super) struct Sockets<'a> {
    sockets: Vec<Socket<'a>>,
    places: HashMap<Bind, usize>,
}

impl<'a> Listen<'a> {
    /// What a server listens on that does not say.
    pub(super) fn implied(server: &'a Directive) -> Self {
        Self { at: server, bind: Bind::Port(HTTP), tls: false, is_default: false, proxy_protocol: false }
    }

    /// Where it is written.
    pub(super) fn at(&self) -> &'a Directive {
        self.at
    }

    /// Reads `at`; errs with why there can be no such listener.
    pub(super) fn read(at: &'a Directive, has_ssl_on: bool) -> Result<Self, String> {
        let bind = read_bind(at.first())?;
        let has = |name: &str| at.args.iter().skip(1).any(|arg| arg == name);
        if has("udp") || has("quic") {
            return Err("Shoal speaks neither UDP nor HTTP/3".to_owned());
        }
        let tls = has("ssl") || has_ssl_on;
        let is_default = has("default_server") || has("default");
        Ok(Self { at, bind, tls, is_default, proxy_protocol: has("proxy_protocol") })
    }

    /// Parameters that mean something and have no counterpart.
    fn unknown(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        const READ: [&str; 5] = ["ssl", "default_server", "default", "proxy_protocol", "so_keepalive"];
        let name = |arg: &'a str| arg.split('=').next().unwrap_or(arg);
        let args = self.at.args.iter().skip(1).map(String::as_str);
        args.filter(move |arg| !READ.contains(&name(arg)) && !HARMLESS.contains(&name(arg)))
    }
}

impl<'a> Sockets<'a> {
    /// The sockets of `servers`, whose listeners come into the draft.
    pub(super) fn open(servers: &[Vec<Listen<'a>>], draft: &mut Draft) -> Self {
        let all = || {
            servers.iter().enumerate().flat_map(|(n, listens)| listens.iter().map(move |listen| (n, listen)))
        };
        let ports: HashSet<u16> = all().filter_map(|(_, listen)| listen.bind.any_port()).collect();
        let mut sockets = Self::default();
        for (server, listen) in all() {
            for parameter in listen.unknown() {
                draft.left_out(listen.at, format!("{parameter:?} has no counterpart"));
            }
            let bind = match listen.bind {
                Bind::Address(address) if ports.contains(&address.port()) => {
                    let port = address.port();
                    let how = match address.ip().is_unspecified() {
                        true => format!(
                            "\":{port}\" is opened at the node's --listen-ip: `--listen-ip ::` serves both versions of IP"
                        ),
                        false => {
                            format!("\":{port}\" is opened by another server: both have one listener here")
                        }
                    };
                    draft.changed(listen.at, how);
                    Bind::Port(port)
                }
                bind => bind,
            };
            sockets.add(bind, server, listen);
        }
        for socket in &sockets.sockets {
            let protocol = if socket.tls { Protocol::Https } else { Protocol::Http };
            draft.listener(socket.name.clone(), listener_at(socket.bind.written(), protocol), socket.at);
        }
        for (_, listen) in all() {
            if let Some(listener) = draft.listener_mut(sockets.name_of(listen)) {
                set_keepalive(listener, listen.at);
            }
        }
        sockets
    }

    fn add(&mut self, bind: Bind, server: usize, listen: &Listen<'a>) {
        // The place by what is written leads to the socket that was opened for it.
        let place = *self.places.entry(bind).or_insert_with(|| {
            let fallback = (server, listen.is_default);
            let socket = Socket { name: String::new(), at: listen.at, bind, tls: listen.tls, fallback };
            self.sockets.push(socket);
            self.sockets.len() - 1
        });
        self.places.insert(listen.bind, place);
        let socket = &mut self.sockets[place];
        socket.tls |= listen.tls;
        socket.name = socket.bind.name(socket.tls);
        if listen.is_default && !socket.fallback.1 {
            socket.fallback = (server, true);
        }
    }

    fn name_of(&self, listen: &Listen<'_>) -> &str {
        &self.sockets[self.places[&listen.bind]].name
    }

    /// The listeners of a server: those on which it answers names that nobody has, and whether that is written; and all.
    pub(super) fn of(&self, server: usize, listens: &[Listen<'_>]) -> Vec<(String, Option<bool>)> {
        let mut found: Vec<(String, Option<bool>)> = Vec::new();
        for listen in listens {
            let socket = &self.sockets[self.places[&listen.bind]];
            let fallback = (socket.fallback.0 == server).then_some(socket.fallback.1);
            if !found.iter().any(|(name, _)| *name == socket.name) {
                found.push((socket.name.clone(), fallback));
            }
        }
        found
    }
}

impl Bind {
    fn any_port(&self) -> Option<u16> {
        match self {
            Self::Port(port) => Some(*port),
            Self::Address(_) => None,
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Port(port) => format!(":{port}"),
            Self::Address(address) => address.to_string(),
        }
    }

    /// What a listener is called after it.
    fn name(&self, tls: bool) -> String {
        let protocol = if tls { "https" } else { "http" };
        match self {
            Self::Port(80) if !tls => protocol.to_owned(),
            Self::Port(443) if tls => protocol.to_owned(),
            Self::Port(port) => format!("{protocol}-{port}"),
            Self::Address(address) => {
                let ip = address.ip().to_string().replace(':', "_");
                format!("{protocol}-{ip}-{}", address.port())
            }
        }
    }
}

/// What `*:80`, `80`, `127.0.0.1`, `[::1]:8080` and `localhost:80` are bound to.
pub(super) fn read_address(text: &str) -> Result<String, String> {
    read_bind(text).map(|bind| bind.written())
}

fn read_bind(text: &str) -> Result<Bind, String> {
    if text.starts_with("unix:") {
        return Err("Shoal listens on TCP, not on Unix sockets".to_owned());
    }
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    if let Some(port) = port(text) {
        return Ok(Bind::Port(port));
    }
    let (host, number) = match text.rsplit_once(':') {
        Some((host, number)) if !number.ends_with(']') => (host, port(number)),
        _ => (text, Some(HTTP)),
    };
    let number = number.ok_or_else(|| format!("{text:?} is no address and port"))?;
    let ip: IpAddr = match host {
        "*" | "0.0.0.0" => return Ok(Bind::Port(number)),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        "[::]" => Ipv6Addr::UNSPECIFIED.into(),
        host => {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            bare.parse().map_err(|_| format!("{host:?} is no address; listeners are not opened by name"))?
        }
    };
    Ok(Bind::Address(SocketAddr::new(ip, number)))
}

/// `so_keepalive=IDLE:INTERVAL:COUNT`.
fn set_keepalive(listener: &mut Listener, at: &Directive) {
    let idle = at.args.iter().find_map(|arg| arg.strip_prefix("so_keepalive="));
    let idle = idle.and_then(|value| value.split(':').next()).and_then(crate::convert::units::nginx_time);
    if let Some(idle) = idle.filter(|idle| idle.0.as_secs() > 0) {
        listener.limits.get_or_insert_default().tcp_keepalive = Some(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_nginx_has_them() {
        for (text, expected) in [
            ("80", Some(":80")),
            ("*:8080", Some(":8080")),
            ("0.0.0.0:80", Some(":80")),
            ("127.0.0.1", Some("127.0.0.1:80")),
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("[::]:80", Some("[::]:80")),
            ("[::1]", Some("[::1]:80")),
            ("localhost:81", Some("127.0.0.1:81")),
            ("unix:/run/x", None),
            ("8000-8010", None),
            ("0", None),
            ("shop.example.com:80", None),
            ("", None),
        ] {
            assert_eq!(read_address(text).ok().as_deref(), expected, "{text}");
        }
    }
}
