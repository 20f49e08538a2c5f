//! Who asked in the first place, and how, as far as those in between are believed.

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use shoal_model::view::TrustedProxiesView;

use super::Caller;
use super::caller::text_of;
use super::forwarded::{Element, from_the_right, is_balanced, node, parameter, value_of};
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
    /// The client of a request with these fields: the first from the right in the field that `proxies` write which is none of
    /// them. Its scheme is what `Forwarded`, if that is the field, or else `X-Forwarded-Proto` says at its place.
    pub fn of(headers: &HeaderMap, caller: &Caller, proxies: &TrustedProxiesView) -> Self {
        if !caller.trusted {
            return Self { address: caller.address, https: caller.https };
        }
        let mut walk = Walk { address: caller.address, hops: 0 };
        let is_proxy = |address| proxies.include(address);
        let name = &proxies.client_ip_header;
        let said = if *name == FORWARDED {
            let addresses = from_the_right(headers, name).map(|element| node(parameter(element, "for")?));
            walk.follow(addresses, is_proxy);
            walk.at_its_place(from_the_right(headers, name)).and_then(|element| parameter(element, "proto"))
        } else {
            walk.follow(from_the_right(headers, name).map(node), is_proxy);
            walk.at_its_place(from_the_right(headers, &X_FORWARDED_PROTO))
        };
        Self { address: walk.address, https: said.and_then(is_https).unwrap_or(caller.https) }
    }

    /// Its scheme.
    pub(super) fn scheme(self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Tells the endpoint of it, and of `caller`, in the name of which it is believed. What the proxies write is written on;
    /// the other fields, which they may have passed on as they came, are made anew, and so all say the same.
    pub(super) fn introduce(
        self,
        headers: &mut HeaderMap,
        caller: &Caller,
        host: &HeaderValue,
        believed: &HeaderName,
    ) {
        let is_named = self.address != caller.address;
        let own_address = text_of(self.address);
        let host = (!headers.contains_key(&X_FORWARDED_HOST)).then_some(host);
        let is_written = |name: &HeaderName| believed == name && headers.contains_key(name);
        let (has_list, has_elements) = (is_written(&X_FORWARDED_FOR), is_written(&FORWARDED));
        // Else what is added would stand within a string that a stranger has opened, for those who read from the left.
        let is_sound = |value: &HeaderValue| is_balanced(value.as_bytes());
        let has_elements = has_elements && headers.get_all(FORWARDED).iter().all(is_sound);
        if is_named && !has_list {
            headers.insert(X_FORWARDED_FOR, own_address.clone());
        }
        append(headers, X_FORWARDED_FOR, caller.text(), has_list || is_named);
        let first = Element { address: self.address, host, scheme: Some(self.scheme()) };
        let last = Element { address: caller.address, host: None, scheme: None };
        match (has_elements, is_named) {
            (true, _) => {
                // What the hop to this node was is left out where another scheme is the client's: some read the last one.
                let scheme = (caller.https == self.https).then_some(self.scheme());
                append(headers, FORWARDED, &value_of(&[Element { host, scheme, ..last }]), true);
            }
            (false, true) => _ = headers.insert(FORWARDED, value_of(&[first, last])),
            (false, false) => _ = headers.insert(FORWARDED, value_of(&[first])),
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

/// Whether that is an encrypted scheme; `None` = it is none that is known.
fn is_https(scheme: &str) -> Option<bool> {
    let is = |known: &str| scheme.trim().eq_ignore_ascii_case(known);
    if is("https") || is("wss") { Some(true) } else { (is("http") || is("ws")).then_some(false) }
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

    fn proxies(client_ip_header: &str) -> TrustedProxiesView {
        TrustedProxiesView::new(vec!["10.0.0.0/8".parse().unwrap()], client_ip_header.parse().unwrap())
    }

    fn read(header: &str, from: &str, fields: &str) -> String {
        let proxies = proxies(header);
        let caller = Caller::new(from.parse().unwrap(), false, &proxies);
        let client = Client::of(&headers(fields), &caller, &proxies);
        format!("{} {}", client.scheme(), client.address)
    }

    #[test]
    fn the_client_is_whom_trusted_proxies_name() {
        let check = |from: &str, fields: &str, expected: &str| {
            assert_eq!(read("x-forwarded-for", from, fields), expected, "{from} {fields}");
        };
        // Others are not believed.
        check("192.0.2.9", "x-forwarded-for: 1.1.1.1\nx-forwarded-proto: https", "http 192.0.2.9");
        // From the right.
        check("10.0.0.1", "", "http 10.0.0.1");
        check("10.0.0.1", "x-forwarded-for: 6.6.6.6, 1.1.1.1, 10.0.0.2", "http 1.1.1.1");
        check("10.0.0.1", "x-forwarded-for: 6.6.6.6\nx-forwarded-for: 1.1.1.1", "http 1.1.1.1");
        check("10.0.0.1", "x-forwarded-for: nonsense, 10.0.0.3", "http 10.0.0.3");
        check("10.0.0.1", "x-forwarded-for: 6.6.6.6, ", "http 10.0.0.1");
        check("10.0.0.1", "x-forwarded-for: 6.6.6.6\nx-forwarded-for: \u{e9}", "http 10.0.0.1");
        check("10.0.0.1", "x-forwarded-for: \u{e9}, 1.1.1.1", "http 1.1.1.1");
        check("10.0.0.1", "x-forwarded-for: 6.6.6.6, \u{e9}, 10.0.0.2", "http 10.0.0.2");
        check("::ffff:10.0.0.1", "x-forwarded-for: ::ffff:1.1.1.1", "http 1.1.1.1");
        check("10.0.0.1", "x-forwarded-for: 1.1.1.1:4711", "http 1.1.1.1");
        check("10.0.0.1", "x-forwarded-for: [2001:db8::1]:4711", "http 2001:db8::1");
        // What they do not write may be a stranger's.
        check("10.0.0.1", "forwarded: for=6.6.6.6;proto=https\nx-real-ip: 6.6.6.6", "http 10.0.0.1");
        check("10.0.0.1", "forwarded: for=6.6.6.6\nx-forwarded-for: 2.2.2.2", "http 2.2.2.2");
    }

    #[test]
    fn they_may_name_it_in_another_field() {
        let check = |header: &str, fields: &str, expected: &str| {
            assert_eq!(read(header, "10.0.0.1", fields), expected, "{fields}");
        };
        check("forwarded", "forwarded: for=1.1.1.1;proto=https", "https 1.1.1.1");
        check("forwarded", "forwarded: for=6.6.6.6, For=\"1.1.1.1:80\" ; Proto=HTTPS", "https 1.1.1.1");
        check("forwarded", "forwarded: for=\"[2001:db8::1]\";host=\"a,b;c\"", "http 2001:db8::1");
        check("forwarded", "forwarded: for=_hidden;proto=https", "https 10.0.0.1");
        check("forwarded", "forwarded: for=unknown, for=10.0.0.2", "http 10.0.0.2");
        check("forwarded", "forwarded: for=1.1.1.1\nx-forwarded-for: 6.6.6.6", "http 1.1.1.1");
        check("forwarded", "forwarded: for=1.1.1.1\nx-forwarded-proto: https", "http 1.1.1.1");
        // A quote that a stranger opens is not closed by what comes behind it.
        check("forwarded", "forwarded: for=\", for=1.1.1.1;proto=http", "http 1.1.1.1");
        check("forwarded", "forwarded: for=6.6.6.6;x=\"\u{e9}\", for=1.1.1.1", "http 1.1.1.1");
        // What is escaped does not end a string.
        let quoted = r#"forwarded: for=1.1.1.1;host="a\", for=6.6.6.6;x=\"";proto=https"#;
        check("forwarded", quoted, "https 1.1.1.1");
        check("forwarded", r#"forwarded: x="a\";for=6.6.6.6;y=\"";for=1.1.1.1"#, "http 1.1.1.1");
        check("forwarded", r#"forwarded: for=6.6.6.6, for=1.1.1.1;host="a\\""#, "http 1.1.1.1");
        check("x-real-ip", "x-real-ip: 1.1.1.1\nx-forwarded-for: 6.6.6.6", "http 1.1.1.1");
        check("x-real-ip", "x-real-ip: 1.1.1.1\nx-forwarded-proto: http, https", "https 1.1.1.1");
        check("true-client-ip", "true-client-ip: 1.1.1.1\nx-forwarded-for: 6.6.6.6", "http 1.1.1.1");
        check("true-client-ip", "true-client-ip: 6.6.6.6\ntrue-client-ip: 1.1.1.1", "http 1.1.1.1");
        check("true-client-ip", "x-forwarded-for: 6.6.6.6", "http 10.0.0.1");
    }

    #[test]
    fn the_scheme_is_that_of_the_client() {
        let check = |header: &str, fields: &str, expected: &str| {
            let read = read(header, "10.0.0.1", fields);
            assert_eq!(read.split(' ').next(), Some(expected), "{fields}");
        };
        let by_list = |fields: &str, expected: &str| check("x-forwarded-for", fields, expected);
        by_list("x-forwarded-proto: https", "https");
        by_list("x-forwarded-proto: HTTPS", "https");
        by_list("x-forwarded-proto: wss", "https");
        by_list("x-forwarded-proto: gopher", "http");
        by_list("forwarded: proto=https", "http");
        // A list has one for every hop; what a stranger claims stands further to the left.
        by_list("x-forwarded-proto: https, http\nx-forwarded-for: 6.6.6.6, 1.1.1.1", "http");
        by_list("x-forwarded-proto: http, https, http\nx-forwarded-for: 6.6.6.6, 1.1.1.1, 10.0.0.2", "https");
        by_list("x-forwarded-proto: https\nx-forwarded-for: 1.1.1.1, 10.0.0.2", "https");
        let by_element = |fields: &str, expected: &str| check("forwarded", fields, expected);
        by_element("forwarded: proto=https", "https");
        by_element("forwarded: for=1.1.1.1;proto=https, for=10.0.0.2;proto=http", "https");
        by_element("forwarded: for=6.6.6.6;proto=https, for=1.1.1.1;proto=http", "http");
    }

    #[test]
    fn all_fields_say_the_same() {
        let check = |header: &str, fields: &str, expected: [&str; 4]| {
            let before = proxies(header);
            let mut headers = headers(fields);
            let caller = Caller::new("10.0.0.1".parse().unwrap(), false, &before);
            let client = Client::of(&headers, &caller, &before);
            client.introduce(
                &mut headers,
                &caller,
                &HeaderValue::from_static("a:81"),
                &before.client_ip_header,
            );
            let seen = ["x-forwarded-for", "x-forwarded-proto", "x-real-ip", "forwarded"]
                .map(|name| headers[name].to_str().unwrap());
            assert_eq!(seen, expected, "{fields}");
            for next in ["x-forwarded-for", "forwarded", "x-real-ip"] {
                let read = Client::of(&headers, &caller, &proxies(next));
                assert_eq!(read.address, client.address, "{next} of the next one: {headers:?}");
            }
        };
        let alone = ["10.0.0.1", "http", "10.0.0.1", "for=10.0.0.1;host=\"a:81\";proto=http"];
        let named = |scheme: &str| format!("for=1.1.1.1;host=\"a:81\";proto={scheme}, for=10.0.0.1");
        check("x-forwarded-for", "x-real-ip: 6.6.6.6\nforwarded: for=6.6.6.6", alone);
        check(
            "x-forwarded-for",
            "x-forwarded-proto: https",
            ["10.0.0.1", "https", "10.0.0.1", "for=10.0.0.1;host=\"a:81\";proto=https"],
        );
        check(
            "x-forwarded-for",
            "x-forwarded-for: 1.1.1.1\nx-forwarded-proto: https\nx-real-ip: 6.6.6.6\nforwarded: for=6.6.6.6",
            ["1.1.1.1, 10.0.0.1", "https", "1.1.1.1", &named("https")],
        );
        check(
            "x-forwarded-for",
            "x-forwarded-for: 1.1.1.1\nx-forwarded-host: b",
            ["1.1.1.1, 10.0.0.1", "http", "1.1.1.1", "for=1.1.1.1;proto=http, for=10.0.0.1"],
        );
        check(
            "x-forwarded-for",
            "x-forwarded-for: nonsense",
            ["nonsense, 10.0.0.1", alone[1], alone[2], alone[3]],
        );
        check("forwarded", "x-forwarded-for: 6.6.6.6", alone);
        // The endpoint may read from the left.
        check(
            "forwarded",
            "forwarded: for=6.6.6.6;x=\", for=1.1.1.1",
            ["1.1.1.1, 10.0.0.1", "http", "1.1.1.1", &named("http")],
        );
        let own = "for=10.0.0.1;host=\"a:81\"";
        check(
            "forwarded",
            "forwarded: for=1.1.1.1;proto=https\nx-forwarded-for: 6.6.6.6",
            ["1.1.1.1, 10.0.0.1", "https", "1.1.1.1", &format!("for=1.1.1.1;proto=https, {own}")],
        );
        check(
            "forwarded",
            "forwarded: for=\"[2001:db8::1]\";proto=http",
            [
                "2001:db8::1, 10.0.0.1",
                "http",
                "2001:db8::1",
                &format!("for=\"[2001:db8::1]\";proto=http, {own};proto=http"),
            ],
        );
        check(
            "x-real-ip",
            "x-real-ip: 1.1.1.1\nx-forwarded-for: 6.6.6.6",
            ["1.1.1.1, 10.0.0.1", "http", "1.1.1.1", &named("http")],
        );
        check(
            "true-client-ip",
            "true-client-ip: 1.1.1.1",
            ["1.1.1.1, 10.0.0.1", "http", "1.1.1.1", &named("http")],
        );
    }
}
