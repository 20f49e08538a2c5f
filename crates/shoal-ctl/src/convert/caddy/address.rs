//! Addresses of sites: what they listen on, and for which hosts.

use std::net::IpAddr;

/// An address of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// None = any host.
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// What addresses without a port stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) https: u16,
    /// Names are served by TLS unless they say otherwise.
    pub(super) has_auto_https: bool,
}

impl Address {
    /// Reads `text`; `has_tls` is whether the site speaks of TLS. Errs with what has no counterpart.
    pub(super) fn read(text: &str, ports: Ports, has_tls: bool) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
        let (rest, path) = rest.split_once('/').map_or((rest, ""), |(rest, path)| (rest, path));
        if !path.is_empty() {
            return Err(format!("{text:?}: paths stand in matchers, not in addresses"));
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') && !port.is_empty() => (host, Some(port)),
            _ => (rest.trim_end_matches(':'), None),
        };
        let port = match port {
            None => None,
            Some(port) => {
                let number = port.parse::<u16>().ok().filter(|port| *port != 0);
                Some(number.ok_or_else(|| format!("{text:?}: {port:?} is no port"))?)
            }
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let host = Some(host).filter(|host| !host.is_empty() && host != "*");
        let tls = match scheme {
            Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(format!("{text:?}: Shoal speaks no {other} to downstreams")),
            None if port == Some(ports.http) => false,
            None if port == Some(ports.https) => ports.has_auto_https || has_tls,
            None => has_tls || (host.is_some() && ports.has_auto_https),
        };
        let port = port.unwrap_or(if tls { ports.https } else { ports.http });
        Ok(Self { host, port, tls })
    }

    /// It is only reached on this machine, or by number: no authority gives certificates for it.
    pub(super) fn is_internal(&self) -> bool {
        self.host.as_deref().is_some_and(|host| {
            host == "localhost"
                || [".localhost", ".internal", ".local"].iter().any(|end| host.ends_with(end))
                || host.parse::<IpAddr>().is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_host_port_and_scheme() {
        let check = |text: &str, has_tls: bool, expected: Option<(Option<&str>, u16, bool)>| {
            let ports = Ports { http: 80, https: 443, has_auto_https: true };
            let seen = Address::read(text, ports, has_tls).ok();
            let seen = seen.as_ref().map(|one| (one.host.as_deref(), one.port, one.tls));
            assert_eq!(seen, expected, "{text}");
        };
        check("example.com", false, Some((Some("example.com"), 443, true)));
        check("http://Example.com", false, Some((Some("example.com"), 80, false)));
        check("example.com:80", false, Some((Some("example.com"), 80, false)));
        check("example.com:8443", false, Some((Some("example.com"), 8443, true)));
        check("*.example.com", false, Some((Some("*.example.com"), 443, true)));
        check(":8080", false, Some((None, 8080, false)));
        check(":8443", true, Some((None, 8443, true)));
        check(":443", false, Some((None, 443, true)));
        check("http://", false, Some((None, 80, false)));
        check("https://*:8443", false, Some((None, 8443, true)));
        check("[::1]:8080", false, Some((Some("::1"), 8080, true)));
        check("example.com/", false, Some((Some("example.com"), 443, true)));
        check("example.com/path", false, None);
        check("example.com:x", false, None);
        check("ftp://example.com", false, None);
    }
}
