//! Who asked in the first place, and how, as far as those in between are believed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::Caller;
use super::caller::{is_trusted, text_of};
use super::request::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REAL_IP, append};

/// Whoever asked in the first place: the caller, or whom trusted proxies name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// It asked over an encrypted connection.
    pub https: bool,
}

impl Client {
    /// The client of a request with these fields, counted from the right: the first that is not a trusted proxy, by
    /// `X-Forwarded-For`, by `Forwarded` if there is none, or by `X-Real-IP` alone. Its scheme is what `X-Forwarded-Proto`, or
    /// else the same `Forwarded`, says at its place.
    pub fn of(headers: &HeaderMap, caller: &Caller, trusted_proxies: &[IpNet]) -> Self {
        if !caller.trusted {
            return Self { address: caller.address, https: caller.https };
        }
        let is_proxy = |address| is_trusted(address, trusted_proxies);
        let mut walk = Walk { address: caller.address, hops: 0 };
        let has_list = headers.contains_key(&X_FORWARDED_FOR);
        if has_list {
            walk.follow(from_the_right(headers, &X_FORWARDED_FOR).map(node), is_proxy);
        } else if headers.contains_key(FORWARDED) {
            walk.follow(
                from_the_right(headers, &FORWARDED).map(|element| node(parameter(element, "for")?)),
                is_proxy,
            );
        } else {
            walk.follow(from_the_right(headers, &X_REAL_IP).map(node).take(1), is_proxy);
        }
        let https = match headers.contains_key(&X_FORWARDED_PROTO) {
            true => walk.at_its_place(from_the_right(headers, &X_FORWARDED_PROTO)).and_then(is_https),
            // Whoever wrote the one family need not know of the other: what it says then is a stranger's.
            false if has_list => None,
            false => walk
                .at_its_place(from_the_right(headers, &FORWARDED))
                .and_then(|element| is_https(parameter(element, "proto")?)),
        };
        Self { address: walk.address, https: https.unwrap_or(caller.https) }
    }

    /// Its scheme.
    pub(super) fn scheme(self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Tells the endpoint of it, and of `caller`, in the name of which it is believed: both families of fields say the same.
    pub(super) fn introduce(self, headers: &mut HeaderMap, caller: &Caller, host: &HeaderValue) {
        let is_named = self.address != caller.address;
        let (has_list, has_elements) =
            (headers.contains_key(&X_FORWARDED_FOR), headers.contains_key(FORWARDED));
        let names_host = !headers.contains_key(&X_FORWARDED_HOST);
        let own_address = text_of(self.address);
        if is_named && !has_list {
            headers.insert(X_FORWARDED_FOR, own_address.clone());
        }
        append(headers, X_FORWARDED_FOR, caller.text(), has_list || is_named);
        let host = names_host.then_some(host);
        if is_named && !has_elements {
            headers.insert(FORWARDED, element(self.address, host, Some(self.scheme())));
            append(headers, FORWARDED, &element(caller.address, None, None), true);
        } else {
            // What the hop to this node was is left out where another scheme is the client's: some read the last one.
            let scheme = (caller.https == self.https || !has_elements).then_some(self.scheme());
            append(headers, FORWARDED, &element(caller.address, host, scheme), has_elements);
        }
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme()));
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host.clone());
        }
        headers.insert(X_REAL_IP, own_address);
    }
}

/// On the way from the caller to the client.
struct Walk {
    /// The last address that was believed.
    address: IpAddr,
    /// How many were.
    hops: usize,
}

impl Walk {
    fn follow(&mut self, addresses: impl Iterator<Item = Option<IpAddr>>, is_proxy: impl Fn(IpAddr) -> bool) {
        for address in addresses {
            let Some(address) = address else { return };
            (self.address, self.hops) = (address, self.hops + 1);
            if !is_proxy(address) {
                return;
            }
        }
    }

    /// The one of `values` that was said of the client; the first of all if there are fewer.
    fn at_its_place<'a>(&self, values: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        values.take(self.hops.max(1)).last()
    }
}

/// The elements of a list, the last one first. What is no text is an element that says nothing.
fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    lines.rev().flat_map(|line| line.rsplit(outside_quotes(',')))
}

/// Finds `separator`, unless it stands in a quoted string.
fn outside_quotes(separator: char) -> impl FnMut(char) -> bool {
    let mut is_quoted = false;
    move |c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    }
}

/// The value of a parameter of a `Forwarded` element (RFC 7239 §4), without quotes.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = element.split(outside_quotes(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim_matches('"'))
}

/// The address of a node, with or without a port (RFC 7239 §6).
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse::<IpAddr>().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

/// Whether that is an encrypted scheme; `None` = it is none that is known.
fn is_https(scheme: &str) -> Option<bool> {
    let is = |known: &str| scheme.trim().eq_ignore_ascii_case(known);
    if is("https") || is("wss") { Some(true) } else { (is("http") || is("ws")).then_some(false) }
}

/// A `Forwarded` element.
fn element(address: IpAddr, host: Option<&HeaderValue>, scheme: Option<&str>) -> HeaderValue {
    let mut text = match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    // An authority has nothing in it that would end a quoted string.
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        let quote = if host.contains(':') { "\"" } else { "" };
        text += &format!(";host={quote}{host}{quote}");
    }
    if let Some(scheme) = scheme {
        text += &format!(";proto={scheme}");
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("for=unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields.lines() {
            let (name, value) = field.split_once(": ").unwrap();
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), value);
        }
        headers
    }

    fn caller(address: &str) -> (Caller, Vec<IpNet>) {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        (Caller::new(address.parse().unwrap(), false, &trusted), trusted)
    }

    #[test]
    fn the_client_is_whom_trusted_proxies_name() {
        let check = |from: &str, fields: &str, expected: &str| {
            let (caller, trusted) = caller(from);
            let client = Client::of(&headers(fields), &caller, &trusted);
            assert_eq!(format!("{} {}", client.scheme(), client.address), expected, "{from} {fields}");
        };
        // Others are not believed.
        check("192.0.2.9", "x-forwarded-for: 1.1.1.1\nx-forwarded-proto: https", "http 192.0.2.9");
        check("192.0.2.9", "forwarded: for=1.1.1.1;proto=https\nx-real-ip: 1.1.1.1", "http 192.0.2.9");
        // From the right.
        check("10.0.0.1", "", "http 10.0.0.1");
        check("10.0.0.1", "x-forwarded-for: 6.6.6.6, 1.1.1.1, 10.0.0.2", "http 1.1.1.1");
        check("10.0.0.1", "x-forwarded-for: 6.6.6.6\nx-forwarded-for: 1.1.1.1", "http 1.1.1.1");
        check("10.0.0.1", "x-forwarded-for: nonsense, 10.0.0.3", "http 10.0.0.3");
        check("10.0.0.1", "x-forwarded-for: 6.6.6.6, ", "http 10.0.0.1");
        check("10.0.0.1", "x-forwarded-for: 6.6.6.6\nx-forwarded-for: \u{e9}", "http 10.0.0.1");
        check("::ffff:10.0.0.1", "x-forwarded-for: ::ffff:1.1.1.1", "http 1.1.1.1");
        check("10.0.0.1", "x-forwarded-for: 1.1.1.1:4711", "http 1.1.1.1");
        check("10.0.0.1", "x-forwarded-for: [2001:db8::1]:4711", "http 2001:db8::1");
        // By the other family, if only that is there.
        check("10.0.0.1", "forwarded: for=1.1.1.1;proto=https", "https 1.1.1.1");
        check("10.0.0.1", "forwarded: for=6.6.6.6, For=\"1.1.1.1:80\" ; Proto=HTTPS", "https 1.1.1.1");
        check("10.0.0.1", "forwarded: for=\"[2001:db8::1]\";host=\"a,b;c\"", "http 2001:db8::1");
        check("10.0.0.1", "forwarded: for=_hidden;proto=https", "https 10.0.0.1");
        check("10.0.0.1", "forwarded: for=unknown, for=10.0.0.2", "http 10.0.0.2");
        check("10.0.0.1", "forwarded: for=1.1.1.1\nx-forwarded-for: 2.2.2.2", "http 2.2.2.2");
        check("10.0.0.1", "x-real-ip: 1.1.1.1", "http 1.1.1.1");
        check("10.0.0.1", "x-real-ip: 6.6.6.6\nx-forwarded-for: 1.1.1.1", "http 1.1.1.1");
        // A quote that a stranger opens is not closed by what comes behind it.
        check("10.0.0.1", "forwarded: for=\", for=1.1.1.1;proto=http", "http 1.1.1.1");
    }

    #[test]
    fn the_scheme_is_that_of_the_client() {
        let check = |fields: &str, expected: bool| {
            let (caller, trusted) = caller("10.0.0.1");
            assert_eq!(Client::of(&headers(fields), &caller, &trusted).https, expected, "{fields}");
        };
        check("x-forwarded-proto: https", true);
        check("x-forwarded-proto: HTTPS", true);
        check("x-forwarded-proto: wss", true);
        check("x-forwarded-proto: http\nforwarded: proto=https", false);
        check("x-forwarded-proto: gopher", false);
        check("forwarded: proto=https", true);
        check("forwarded: for=1.1.1.1;proto=https\nx-forwarded-for: 1.1.1.1", false);
        // A list has one for every hop; what a stranger claims stands further to the left.
        check("x-forwarded-proto: https, http\nx-forwarded-for: 6.6.6.6, 1.1.1.1", false);
        check("x-forwarded-proto: http, https, http\nx-forwarded-for: 6.6.6.6, 1.1.1.1, 10.0.0.2", true);
        check("x-forwarded-proto: https\nx-forwarded-for: 1.1.1.1, 10.0.0.2", true);
        check("forwarded: for=1.1.1.1;proto=https, for=10.0.0.2;proto=http", true);
        check("forwarded: for=6.6.6.6;proto=https, for=1.1.1.1;proto=http", false);
    }

    #[test]
    fn both_families_say_the_same() {
        let check = |fields: &str, expected: [&str; 4]| {
            let (caller, trusted) = caller("10.0.0.1");
            let mut headers = headers(fields);
            let client = Client::of(&headers, &caller, &trusted);
            client.introduce(&mut headers, &caller, &HeaderValue::from_static("a:81"));
            let seen = ["x-forwarded-for", "x-forwarded-proto", "x-real-ip", "forwarded"]
                .map(|name| headers[name].to_str().unwrap());
            assert_eq!(seen, expected, "{fields}");
            assert_eq!(Client::of(&headers, &caller, &trusted), client, "the next one reads the same");
            headers.remove("x-forwarded-for");
            headers.remove("x-forwarded-proto");
            let read = Client::of(&headers, &caller, &trusted);
            assert_eq!(read.address, client.address, "and by the other family: {headers:?}");
        };
        let own = "for=10.0.0.1;host=\"a:81\"";
        check("x-real-ip: 10.0.0.1", ["10.0.0.1", "http", "10.0.0.1", &format!("{own};proto=http")]);
        check("x-forwarded-proto: https", ["10.0.0.1", "https", "10.0.0.1", &format!("{own};proto=https")]);
        check(
            "x-forwarded-for: 1.1.1.1\nx-forwarded-proto: https\nx-real-ip: 6.6.6.6",
            ["1.1.1.1, 10.0.0.1", "https", "1.1.1.1", "for=1.1.1.1;host=\"a:81\";proto=https, for=10.0.0.1"],
        );
        check(
            "forwarded: for=1.1.1.1;proto=https",
            ["1.1.1.1, 10.0.0.1", "https", "1.1.1.1", &format!("for=1.1.1.1;proto=https, {own}")],
        );
        check(
            "forwarded: for=\"[2001:db8::1]\";proto=http\nx-forwarded-for: 2001:db8::1",
            [
                "2001:db8::1, 10.0.0.1",
                "http",
                "2001:db8::1",
                &format!("for=\"[2001:db8::1]\";proto=http, {own};proto=http"),
            ],
        );
        check(
            "x-forwarded-for: 1.1.1.1\nx-forwarded-host: b",
            ["1.1.1.1, 10.0.0.1", "http", "1.1.1.1", "for=1.1.1.1;proto=http, for=10.0.0.1"],
        );
        check(
            "x-forwarded-for: nonsense",
            ["nonsense, 10.0.0.1", "http", "10.0.0.1", &format!("{own};proto=http")],
        );
    }
}
