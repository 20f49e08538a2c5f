//! What a URL means that an operator writes: what its objects are kept as, and the request that fetches one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Request, Uri, Version};
use shoal_model::ConfigView;
use shoal_model::site::Protocol;
use shoal_model::view::{ListenerView, RouteView};

use super::content::is_cached_path;
use super::key::{KeyParts, write_key, write_route};
use super::query::write_counted;
use crate::failure::Failure;
use crate::forwarding::{Caller, Client, OwnName, RequestFields, prepare_request};
use crate::gate::{Admitted, Gate, Rule};
use crate::http1::Wire;

/// Fields that would make a request one for something else than the whole of the newest version.
static REFUSED_FIELDS: [HeaderName; 13] = [
    HOST,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A URL that is to be fetched into the cache.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// `http://host/path?query`.
    pub url: &'a str,
    /// The request's host, where it is not the URL's.
    pub host: Option<&'a str>,
    /// The listener that the request would come in on; `None` = it makes no difference.
    pub listener: Option<&'a str>,
    /// More fields of the request.
    pub fields: &'a HeaderMap,
    /// Who we are.
    pub own: &'a OwnName,
    /// The id of the request.
    pub request_id: &'a HeaderValue,
}

/// The request that fetches an object.
#[derive(Debug)]
pub struct Errand {
    /// The text of the object's key.
    pub text: String,
    /// The route it takes.
    pub route: Arc<RouteView>,
    /// The head, as the origin gets it.
    pub head: Parts,
}

/// Why there is no such request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unaskable {
    /// It cannot be read.
    #[error("it is not a URL; write \"http://host/path?query\"")]
    NotAUrl,
    /// It has something in it that no URL has.
    #[error("a URL has no spaces, and other than ASCII is written %C3%A9 in it, in its host in punycode")]
    NotAscii,
    /// No listener is called so.
    #[error("there is no listener {0:?}")]
    NoListener(String),
    /// The listener speaks something else.
    #[error("the listener {0:?} does not take such URLs: it speaks {1}")]
    OtherScheme(String, &'static str),
    /// Nothing takes it.
    #[error("no route takes it")]
    NoRoute,
    /// Its answers are not stored.
    #[error("the route {0:?} does not cache it")]
    NotCached(String),
    /// Different listeners lead it to different places.
    #[error("it depends on the listener where it leads to ({0}); name one with --listener")]
    Ambiguous(Leads),
    /// The gate would refuse it.
    #[error("a request for it would be refused: {}", .0.name())]
    Refused(Rule),
    /// It could not be forwarded.
    #[error("a request for it would be refused: {0}")]
    Failed(Failure),
    /// That is no matter of fields.
    #[error("the host of a request is named by --host, and not as a field")]
    HostField,
    /// A field that such a request may not have.
    #[error("the field {0:?} cannot be set: what is fetched is the whole of the newest version")]
    Field(String),
}

/// Listeners and the routes a URL takes on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leads(Vec<(String, String)>);

impl fmt::Display for Leads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (listener, route)) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{listener}: {route}")?;
        }
        Ok(())
    }
}

/// The request for `wish` on a node that serves `config`.
///
/// # Errors
/// No such request is served from the cache, or it is not clear which.
pub fn errand(config: &ConfigView, wish: &Wish<'_>) -> Result<Errand, Unaskable> {
    // A listener would escape it, and keep the object under another key.
    if !wish.url.trim().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Unaskable::NotAscii);
    }
    let target = Target::read(wish.url).ok_or(Unaskable::NotAUrl)?;
    if let Some(name) = REFUSED_FIELDS.iter().find(|name| wish.fields.contains_key(*name)) {
        return Err(if *name == HOST { Unaskable::HostField } else { Unaskable::Field(name.to_string()) });
    }
    let authority = wish.host.unwrap_or(target.authority);
    let mut refused = Unaskable::NoRoute;
    let mut leads: Vec<(Way<'_>, Parts, Admitted)> = Vec::new();
    for listener in target.listeners(config, wish.listener)? {
        let mut head = target.head(authority, wish.fields)?;
        match gate(listener).admit(&mut head, Wire::default(), false) {
            Ok(admitted) => {
                let route = config.routes.find(listener.index, admitted.host(), head.uri.path());
                leads.extend(route.map(|route| (Way { listener, route }, head, admitted)));
            }
            Err(rule) => refused = Unaskable::Refused(rule),
        }
    }
    let chosen = choose(&leads, target.port())?;
    let Some((Way { listener, route }, mut head, admitted)) = chosen.map(|place| leads.swap_remove(place))
    else {
        return Err(refused);
    };
    let rule = route.cache.as_ref().filter(|rule| is_cached_path(rule, head.uri.path()));
    let rule = rule.ok_or_else(|| Unaskable::NotCached(route.name.to_string()))?;
    // Nothing that does not count reaches the origin.
    let path_and_query = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut counted = Vec::new();
    write_counted(&mut counted, &rule.key.query, path_and_query);
    let mut text = Vec::new();
    write_key(&mut text, target.https, admitted.authority.to_str().unwrap_or_default(), "");
    text.extend_from_slice(&counted);
    write_route(&mut text, &route.key_name);
    head.uri = Uri::from_maybe_shared(counted).map_err(|_| Unaskable::NotAUrl)?;
    let caller = Caller::new(IpAddr::V4(Ipv4Addr::LOCALHOST), target.https, &listener.trusted_proxies);
    let fields = RequestFields {
        caller: &caller,
        client: Client { address: caller.address, https: target.https },
        proxies: &listener.trusted_proxies,
        own: wish.own,
        request_id: wish.request_id,
        keep_trailers: route.trailers,
        keep_expect: false,
    };
    if let Some(own) = prepare_request(&mut head, &admitted, fields).map_err(Unaskable::Failed)? {
        own.add_to(&mut head.headers);
    }
    // All of it has passed the gate: it is ASCII.
    Ok(Errand { text: String::from_utf8_lossy(&text).into_owned(), route: route.clone(), head })
}

/// The URLs that objects of `url` are kept under, as the routes let its query count: nearly always one.
pub fn kept_urls(config: &ConfigView, url: &str) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    if let Some(target) = Target::read(url) {
        let host = KeyParts::of(url).host;
        let path = target.path_and_query.split('?').next().unwrap_or("/");
        for listener in target.listeners(config, None).unwrap_or_default() {
            let route = config.routes.find(listener.index, host, path);
            if let Some(rule) = route.and_then(|route| route.cache.as_ref()) {
                let mut text = Vec::new();
                write_key(&mut text, target.https, target.authority, "");
                write_counted(&mut text, &rule.key.query, &target.path_and_query);
                let text = String::from_utf8_lossy(&text).into_owned();
                if !kept.contains(&text) {
                    kept.push(text);
                }
            }
        }
    }
    if kept.is_empty() {
        kept.push(url.to_owned());
    }
    kept
}

/// Where a URL leads on a listener.
struct Way<'a> {
    listener: &'a ListenerView,
    route: &'a Arc<RouteView>,
}

/// The one that counts: all lead to one route, or only those on the URL's port count, and they do.
fn choose(leads: &[(Way<'_>, Parts, Admitted)], port: Option<u16>) -> Result<Option<usize>, Unaskable> {
    let is_one = |places: &[usize]| {
        places.windows(2).all(|pair| leads[pair[0]].0.route.name == leads[pair[1]].0.route.name)
    };
    let all: Vec<usize> = (0..leads.len()).collect();
    if is_one(&all) {
        return Ok(all.first().copied());
    }
    let is_on_port = |place: &usize| port == Some(leads[*place].0.listener.address.port());
    let on_port: Vec<usize> = all.into_iter().filter(is_on_port).collect();
    if !on_port.is_empty() && is_one(&on_port) {
        return Ok(on_port.first().copied());
    }
    let name =
        |(way, ..): &(Way<'_>, Parts, Admitted)| (way.listener.name.to_string(), way.route.name.to_string());
    Err(Unaskable::Ambiguous(Leads(leads.iter().map(name).collect())))
}

fn gate(listener: &ListenerView) -> Gate {
    Gate {
        https: listener.protocol == Protocol::Https,
        max_uri_bytes: listener.limits.max_uri_bytes,
        max_field_count: listener.limits.max_header_count,
        default_authority: HeaderValue::from_static("localhost"),
    }
}

/// The parts of a URL.
struct Target<'a> {
    https: bool,
    authority: &'a str,
    path_and_query: String,
}

impl<'a> Target<'a> {
    fn read(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.trim().split_once("://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path_and_query = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        (!authority.is_empty()).then_some(Self { https, authority, path_and_query })
    }

    /// Those that take its scheme, or the one that is `named`.
    fn listeners<'v>(
        &self,
        config: &'v ConfigView,
        named: Option<&str>,
    ) -> Result<Vec<&'v ListenerView>, Unaskable> {
        let wanted = if self.https { Protocol::Https } else { Protocol::Http };
        let Some(name) = named else {
            let speaking = config.listeners.iter().filter(|listener| listener.protocol == wanted);
            return Ok(speaking.map(AsRef::as_ref).collect());
        };
        let found = config.listeners.iter().find(|listener| *listener.name == *name);
        let found = found.ok_or_else(|| Unaskable::NoListener(name.to_owned()))?;
        if found.protocol != wanted {
            return Err(Unaskable::OtherScheme(name.to_owned(), protocol_name(found.protocol)));
        }
        Ok(vec![found])
    }

    /// Its port, also where it is not written.
    fn port(&self) -> Option<u16> {
        match self.authority.rsplit_once(':') {
            Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok(),
            Some(_) | None => Some(if self.https { 443 } else { 80 }),
        }
    }

    fn head(&self, authority: &str, fields: &HeaderMap) -> Result<Parts, Unaskable> {
        let uri = self.path_and_query.parse().map_err(|_| Unaskable::NotAUrl)?;
        let host = HeaderValue::from_str(authority).map_err(|_| Unaskable::NotAUrl)?;
        let mut head = Request::new(()).into_parts().0;
        (head.uri, head.version, head.headers) = (uri, Version::HTTP_11, fields.clone());
        head.headers.insert(HOST, host);
        Ok(head)
    }
}

const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Https => "https",
        Protocol::Tcp => "tcp",
        Protocol::TlsPassthrough => "tls_passthrough",
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::Revision;
    use shoal_model::site::read_site;

    use super::*;

    const SITE: &str = r#"
listeners:
  web: { address: ":80", protocol: http }
  inner: { address: ":8080", protocol: http }
  raw: { address: ":9000", protocol: tcp, upstream: u }
upstreams:
  u: { endpoints: ["127.0.0.1:1"] }
routes:
  shop: { hosts: [shop.example], upstream: u, cache: { key: { exclude_query: ["utm_*"] } } }
  api: { hosts: [shop.example], path_prefix: /api, upstream: u }
  css: { hosts: [shop.example], path_prefix: /css, upstream: u, cache: { extensions: [css] } }
  public: { hosts: [both.example], listeners: [web], upstream: u, cache: {} }
  private: { hosts: [both.example], listeners: [inner], upstream: u, cache: {} }
"#;

    fn view() -> ConfigView {
        ConfigView::compile(Revision(1), &read_site("site.yaml", SITE).unwrap()).unwrap()
    }

    fn asked(
        url: &str,
        host: Option<&str>,
        listener: Option<&str>,
        fields: &HeaderMap,
    ) -> Result<Errand, Unaskable> {
        let (own, request_id) = (OwnName::new("n1"), HeaderValue::from_static("warm-1"));
        errand(&view(), &Wish { url, host, listener, fields, own: &own, request_id: &request_id })
    }

    #[test]
    fn a_url_is_asked_for_as_a_browser_would() {
        let check = |url, host, listener, expected: Result<&str, &str>| {
            let asked = asked(url, host, listener, &HeaderMap::new());
            let seen = asked.as_ref().map(|errand| errand.text.as_str()).map_err(ToString::to_string);
            match (&seen, expected) {
                (Ok(seen), Ok(expected)) => assert_eq!(*seen, expected, "{url}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{url}: {why}"),
                _ => panic!("{url}: {seen:?}, not {expected:?}"),
            }
        };
        check("http://Shop.example:80/%7Ea?b=1&utm_x=2#c", None, None, Ok("http://shop.example/~a?b=1 shop"));
        check("http://10.0.0.1:8080/a", Some("shop.example"), None, Ok("http://shop.example/a shop"));
        check("http://shop.example", None, Some("inner"), Ok("http://shop.example/ shop"));
        check("http://shop.example/css/a.css", None, None, Ok("http://shop.example/css/a.css css"));
        check("http://shop.example/css/a", None, None, Err("\"css\" does not cache it"));
        check("http://shop.example/api/x", None, None, Err("\"api\" does not cache it"));
        check("http://both.example/", None, None, Ok("http://both.example/ public"));
        check("http://both.example:8080/", None, None, Ok("http://both.example:8080/ private"));
        check("http://both.example:81/", None, None, Err("(inner: private, web: public)"));
        check("http://both.example:81/", None, Some("inner"), Ok("http://both.example:81/ private"));
        check("http://both.example/", None, Some("outer"), Err("no listener \"outer\""));
        check("http://both.example/", None, Some("raw"), Err("it speaks tcp"));
        check("https://both.example/", None, None, Err("no route"));
        check("http://other.example/", None, None, Err("no route"));
        check("http://shop.example/%zz", None, None, Err("refused: "));
        check("http://user@shop.example/", None, None, Err("refused: "));
        check("shop.example/", None, None, Err("not a URL"));
        check("ftp://shop.example/", None, None, Err("not a URL"));
    }

    #[test]
    fn fields_reach_the_origin_with_those_of_the_node() {
        let fields = |name: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("gzip"))])
        };
        let head =
            asked("http://shop.example/a?utm_x=1", None, None, &fields("accept-encoding")).unwrap().head;
        assert_eq!(head.uri, "/a");
        let seen = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(seen("accept-encoding"), Some("gzip"));
        assert_eq!(seen("host"), Some("shop.example"));
        assert_eq!(seen("via"), Some("1.1 shoal-n1"));
        assert_eq!(seen("x-request-id"), Some("warm-1"));
        assert_eq!(
            asked("http://shop.example/a", None, None, &fields("host")).err(),
            Some(Unaskable::HostField)
        );
        for name in ["range", "if-none-match", "upgrade"] {
            assert!(matches!(
                asked("http://shop.example/a", None, None, &fields(name)),
                Err(Unaskable::Field(_))
            ));
        }
    }

    #[test]
    fn what_does_not_count_is_in_no_key() {
        let check = |url: &str, expected: &str| assert_eq!(kept_urls(&view(), url), [expected]);
        check("http://shop.example/a?utm_x=1&b", "http://shop.example/a?b");
        check("http://shop.example/api?utm_x=1", "http://shop.example/api?utm_x=1");
        check("http://unknown.example/?utm_x=1", "http://unknown.example/?utm_x=1");
        check("no url", "no url");
    }
}
