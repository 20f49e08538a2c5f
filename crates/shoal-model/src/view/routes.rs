//! Host and path to route: the most specific match wins, whatever the order in the site file.

use std::sync::Arc;

use regex::Regex;
use rustc_hash::FxHashMap;

use super::RouteView;
use crate::site::{PathRule, Route, compile_pattern};

/// All routes. A lookup probes hash maps; nothing is allocated.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Host names as they are, lower case.
    exact: FxHashMap<Box<str>, PathTable>,
    /// `example.com` for `*.example.com`.
    wildcard: FxHashMap<Box<str>, PathTable>,
    any: PathTable,
    len: usize,
    /// While it is built: a pattern is compiled once, however many routes and hosts have it.
    patterns: FxHashMap<String, Regex>,
}

/// How a path is looked at, ready for use.
enum Matcher {
    Exact(String),
    Prefix(String),
    Pattern(Regex),
}

/// The routes of one host.
#[derive(Debug, Default)]
struct PathTable {
    exact: FxHashMap<Box<str>, Vec<Candidate>>,
    regex: Vec<(Regex, Candidate)>,
    prefix: FxHashMap<Box<str>, Vec<Candidate>>,
    /// The empty prefix.
    root: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    route: Arc<RouteView>,
    /// Places of the listeners it is on; empty = all.
    listeners: Box<[usize]>,
}

impl Candidate {
    fn is_on(&self, listener: usize) -> bool {
        self.listeners.is_empty() || self.listeners.contains(&listener)
    }
}

impl RouteTable {
    /// The route for a request that came in on `listener` (its place in the view), for `host` (lower case, no port)
    /// and `path` (no query).
    pub fn find(&self, listener: usize, host: &str, path: &str) -> Option<&Arc<RouteView>> {
        if let Some(found) = self.exact.get(host).and_then(|table| table.find(listener, path)) {
            return Some(found);
        }
        if !self.wildcard.is_empty() {
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(found) = self.wildcard.get(parent).and_then(|table| table.find(listener, path)) {
                    return Some(found);
                }
                rest = parent;
            }
        }
        self.any.find(listener, path)
    }

    /// A route names this host: exactly, by a wildcard, or by naming none.
    pub fn knows_host(&self, host: &str) -> bool {
        self.any.len() > 0
            || self.exact.contains_key(host)
            || host.match_indices('.').any(|(dot, _)| self.wildcard.contains_key(&host[dot + 1..]))
    }

    /// The route called `name`, whatever it matches.
    pub fn by_name(&self, name: &str) -> Option<&Arc<RouteView>> {
        let tables = self.exact.values().chain(self.wildcard.values()).chain([&self.any]);
        tables
            .flat_map(PathTable::candidates)
            .map(|candidate| &candidate.route)
            .find(|route| &*route.name == name)
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn insert(
        &mut self,
        route: &Route,
        view: Arc<RouteView>,
        listeners: &[usize],
    ) -> Result<(), String> {
        let matcher = self.matcher(PathRule::of(route).map_err(|(_, message)| message)?)?;
        self.len += 1;
        if route.hosts.is_empty() {
            self.any.insert(&matcher, &view, listeners);
        }
        for host in &route.hosts {
            let host = host.to_ascii_lowercase();
            let table = match host.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.into()).or_default(),
                None => self.exact.entry(host.into()).or_default(),
            };
            table.insert(&matcher, &view, listeners);
        }
        Ok(())
    }

    fn matcher(&mut self, rule: PathRule) -> Result<Matcher, String> {
        Ok(match rule {
            PathRule::Exact(path) => Matcher::Exact(path),
            PathRule::Prefix(prefix) => Matcher::Prefix(prefix),
            PathRule::Regex(pattern) => match self.patterns.get(&pattern) {
                Some(compiled) => Matcher::Pattern(compiled.clone()),
                None => {
                    let (compiled, _) = compile_pattern(&pattern)?;
                    self.patterns.insert(pattern, compiled.clone());
                    Matcher::Pattern(compiled)
                }
            },
        })
    }

    pub(super) fn seal(&mut self) {
        self.patterns = FxHashMap::default();
        let tables = self.exact.values_mut().chain(self.wildcard.values_mut()).chain([&mut self.any]);
        for table in tables {
            table.regex.sort_by(|(a, _), (b, _)| {
                b.as_str().len().cmp(&a.as_str().len()).then_with(|| a.as_str().cmp(b.as_str()))
            });
        }
    }
}

impl PathTable {
    fn insert(&mut self, matcher: &Matcher, route: &Arc<RouteView>, listeners: &[usize]) {
        let candidate = Candidate { route: route.clone(), listeners: listeners.into() };
        match matcher {
            Matcher::Exact(path) => self.exact.entry(path.as_str().into()).or_default().push(candidate),
            Matcher::Prefix(prefix) if prefix.is_empty() => self.root.push(candidate),
            Matcher::Prefix(prefix) => self.prefix.entry(prefix.as_str().into()).or_default().push(candidate),
            Matcher::Pattern(pattern) => self.regex.push((pattern.clone(), candidate)),
        }
    }

    fn find(&self, listener: usize, path: &str) -> Option<&Arc<RouteView>> {
        let on = |candidates: &'_ Vec<Candidate>| candidates.iter().position(|c| c.is_on(listener));
        if !self.exact.is_empty()
            && let Some(candidates) = self.exact.get(path)
            && let Some(n) = on(candidates)
        {
            return Some(&candidates[n].route);
        }
        for (regex, candidate) in &self.regex {
            if candidate.is_on(listener) && regex.is_match(path) {
                return Some(&candidate.route);
            }
        }
        self.find_prefix(listener, path)
    }

    /// Tries the path and then every shorter prefix that ends before a slash, down to the empty one.
    fn find_prefix(&self, listener: usize, path: &str) -> Option<&Arc<RouteView>> {
        let on = |candidates: &'_ Vec<Candidate>| candidates.iter().position(|c| c.is_on(listener));
        let mut rest = if self.prefix.is_empty() { "" } else { path };
        while !rest.is_empty() {
            if let Some(candidates) = self.prefix.get(rest)
                && let Some(n) = on(candidates)
            {
                return Some(&candidates[n].route);
            }
            rest = &rest[..rest.rfind('/').unwrap_or(0)];
        }
        self.root.iter().find(|candidate| candidate.is_on(listener)).map(|candidate| &candidate.route)
    }

    fn len(&self) -> usize {
        self.exact.len() + self.regex.len() + self.prefix.len() + self.root.len()
    }

    fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        let listed = self.exact.values().chain(self.prefix.values()).chain([&self.root]).flatten();
        listed.chain(self.regex.iter().map(|(_, candidate)| candidate))
    }
}

#[cfg(test)]
mod tests {
    use crate::site::read_site;
    use crate::{ConfigView, Revision};

    fn view() -> ConfigView {
        let site = read_site(
            "site.yaml",
            r#"
listeners:
  a: { address: ":8001", protocol: http }
  b: { address: ":8002", protocol: http }
routes:
  any: { path_prefix: /, upstream: u }
  only-b: { path_prefix: /b, listeners: [b], upstream: u }
  shop: { hosts: [shop.example.com], path_prefix: /, upstream: u }
  shop-api: { hosts: [shop.example.com], path_prefix: /api/, upstream: u }
  shop-exact: { hosts: [shop.example.com], path: /api/v1, upstream: u }
  shop-regex: { hosts: [shop.example.com], path_regex: "/img/.*[.]png", upstream: u }
  wild: { hosts: ["*.example.com"], path_prefix: /, upstream: u }
  wilder: { hosts: ["*.deep.example.com"], path_prefix: /, upstream: u }
  partial: { hosts: [partial.example.com], path_prefix: /only, upstream: u }
upstreams:
  u: { endpoints: ["127.0.0.1:9"] }
"#,
        )
        .unwrap();
        ConfigView::compile(Revision(1), &site).unwrap()
    }

    #[test]
    fn the_most_specific_route_wins() {
        let view = view();
        for (listener, host, path, route) in [
            (0, "other.org", "/", "any"),
            (0, "other.org", "/b/c", "any"),
            (1, "other.org", "/b/c", "only-b"),
            (1, "other.org", "/bc", "any"),
            (0, "shop.example.com", "/", "shop"),
            (0, "shop.example.com", "/api", "shop-api"),
            (0, "shop.example.com", "/api/v2/x", "shop-api"),
            (0, "shop.example.com", "/api/v1", "shop-exact"),
            (0, "shop.example.com", "/apis", "shop"),
            (0, "shop.example.com", "/img/a.png", "shop-regex"),
            (0, "shop.example.com", "/img/a.pngx", "shop"),
            (0, "www.example.com", "/", "wild"),
            (0, "a.b.example.com", "/", "wild"),
            (0, "x.deep.example.com", "/", "wilder"),
            (0, "example.com", "/", "any"),
            (0, "partial.example.com", "/only/1", "partial"),
            (0, "partial.example.com", "/other", "wild"),
        ] {
            let found = view.routes.find(listener, host, path).map(|route| &*route.name);
            assert_eq!(found, Some(route), "{host}{path} on {listener}");
        }
    }
}
