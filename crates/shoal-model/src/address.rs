//! Addresses as written, read once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Where a listener binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `":8080"`: this port on the node's `--listen-ip`.
    Port(u16),
    /// `"127.0.0.1:8080"`: exactly this.
    Full(SocketAddr),
}

impl ListenAddress {
    /// Reads `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let complaint = || {
            format!(
                "{text:?} is not a listen address; write \":8080\" (the node's --listen-ip) or \"127.0.0.1:8080\""
            )
        };
        let address = match text.strip_prefix(':') {
            Some(port) => port.parse().map(Self::Port).map_err(|_| complaint())?,
            None => text.parse().map(Self::Full).map_err(|_| complaint())?,
        };
        match address.port() {
            0 => Err(format!("{text:?}: port 0 would be another port on every node")),
            _ => Ok(address),
        }
    }

    /// The socket address to bind on a node whose `--listen-ip` is `listen_ip`.
    pub fn on(self, listen_ip: IpAddr) -> SocketAddr {
        match self {
            Self::Port(port) => SocketAddr::new(listen_ip, port),
            Self::Full(address) => address,
        }
    }

    /// Both cannot be bound at once, whatever the node's `--listen-ip` is.
    pub fn overlaps(&self, other: &Self) -> bool {
        let wild = |address: &Self| match address {
            Self::Port(_) => true,
            Self::Full(address) => address.ip().is_unspecified(),
        };
        self.port() == other.port() && (self == other || wild(self) || wild(other))
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Port(port) => *port,
            Self::Full(address) => address.port(),
        }
    }
}

/// Longest path of a Unix socket, bytes: what `sockaddr_un` holds, less its end.
const MAX_SOCKET_PATH: usize = 107;

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// A literal address.
    Socket(SocketAddr),
    /// A name whose addresses are looked up (A and AAAA).
    Name {
        /// Lower case.
        host: Box<str>,
        /// Never 0.
        port: u16,
    },
    /// A name whose hosts and ports are looked up (SRV).
    Service(Box<str>),
    /// What a name led to. Never written.
    Found {
        /// Who is there, so far as TLS verifies it: the name that is written, of a service without what begins with `_`.
        host: Box<str>,
        /// Where.
        address: SocketAddr,
    },
    /// A Unix socket.
    Unix(Box<Path>),
}

impl EndpointAddress {
    /// Reads `ip:port`, `[ip6]:port`, `name:port`, `srv:name` or `unix:/path`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = path.starts_with('/') && path.len() <= MAX_SOCKET_PATH && !path.contains('\0');
            let complaint = || {
                format!(
                    "{text:?}: a Unix socket is written \"unix:/path\", with at most {MAX_SOCKET_PATH} bytes"
                )
            };
            return if fits { Ok(Self::Unix(Path::new(path).into())) } else { Err(complaint()) };
        }
        let complaint = || format!("{text:?} is not an endpoint; write \"10.0.0.1:9000\" or \"name:9000\"");
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(complaint()) } else { Ok(Self::Socket(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(complaint)?;
        // A host may be called `srv` as well.
        if host.eq_ignore_ascii_case("srv") && port.parse::<u16>().is_err() {
            let complaint = || format!("{text:?}: a service is written \"srv:_http._tcp.name\"");
            return is_name(port)
                .then(|| Self::Service(port.to_ascii_lowercase().into()))
                .ok_or_else(complaint);
        }
        let port: u16 = port.parse().map_err(|_| complaint())?;
        if port == 0 || !is_name(host) {
            return Err(complaint());
        }
        Ok(Self::Name { host: host.to_ascii_lowercase().into(), port })
    }

    /// It has to be looked up.
    pub fn is_name(&self) -> bool {
        matches!(self, Self::Name { .. } | Self::Service(_))
    }
}

fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(fits)
}

/// The host behind a service, as certificates name it: `_https._tcp.shop.internal` is `shop.internal`.
pub fn host_of_service(name: &str) -> &str {
    let mut host = name;
    while let Some((label, rest)) = host.split_once('.')
        && label.starts_with('_')
    {
        host = rest;
    }
    host
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Service(name) => write!(f, "srv:{name}"),
            Self::Found { address, .. } => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        let read = |text: &str| ListenAddress::parse(text).unwrap();
        assert_eq!(read(":8080").on([10, 0, 0, 7].into()).to_string(), "10.0.0.7:8080");
        assert_eq!(read("[::1]:8080").on([10, 0, 0, 7].into()).to_string(), "[::1]:8080");
        for text in ["8080", ":0", ":99999", "localhost:80", ""] {
            assert!(ListenAddress::parse(text).is_err(), "{text}");
        }
        for (a, b, overlap) in [
            (":80", ":80", true),
            (":80", "10.0.0.1:80", true),
            ("0.0.0.0:80", "10.0.0.1:80", true),
            ("10.0.0.2:80", "10.0.0.1:80", false),
            (":80", ":81", false),
        ] {
            assert_eq!(read(a).overlaps(&read(b)), overlap, "{a} {b}");
        }
    }

    #[test]
    fn endpoint_addresses() {
        for (text, good) in [
            ("10.0.0.1:9000", true),
            ("[::1]:9000", true),
            ("app.internal:80", true),
            ("app", false),
            ("app:0", false),
            ("http://app:80", false),
            ("10.0.0.1", false),
            ("unix:/run/app.sock", true),
            ("unix:run/app.sock", false),
            ("srv:_http._tcp.app.internal", true),
            ("srv:web.service.consul", true),
            ("srv:a b", false),
            ("srv:", false),
            ("unix:", false),
        ] {
            assert_eq!(EndpointAddress::parse(text).is_ok(), good, "{text}");
        }
        let port_80 = EndpointAddress::Name { host: "srv".into(), port: 80 };
        assert_eq!(EndpointAddress::parse("srv:80"), Ok(port_80), "a host may be called so");
    }

    #[test]
    fn hosts_of_services() {
        for (name, host) in [
            ("_https._tcp.shop.internal", "shop.internal"),
            ("web.service.consul", "web.service.consul"),
            ("_tcp", "_tcp"),
        ] {
            assert_eq!(host_of_service(name), host);
        }
    }
}
