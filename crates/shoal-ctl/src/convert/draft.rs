//! A site while it is being written: names for its objects, and what is said of what it lacks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use shoal_model::Site;
use shoal_model::site::{
    Certificate, Listener, ListenerLimits, PathRule, Protocol, Route, Upstream, step, validate,
};
use shoal_model::units::ByteSize;

use super::directive::{Directive, Mistake};
use super::remark::{Kind, Remark};
use super::{Conversion, MAX_HOSTS, MAX_ROUTES};

/// Longest name of an object, less room for a number.
const MAX_NAME: usize = 56;
/// What is wrong is taken out, and then what leaned on it: more often than objects lean on each other.
const MAX_ROUNDS: usize = 8;

/// What stands for no limit while the largest of several is looked for.
pub(super) const UNLIMITED: ByteSize = ByteSize(u64::MAX);

/// The listeners and the name of a route.
type Taken = (Vec<String>, String);

/// A site while it is being written.
#[derive(Debug, Default)]
pub(super) struct Draft {
    site: Site,
    report: Vec<Remark>,
    /// Key path of each object → the directive that it comes of.
    origins: HashMap<String, Directive>,
    /// What each upstream was called when it was asked for, and its names.
    wishes: HashMap<String, Vec<String>>,
    /// Routes by what they match: a host and a path.
    matches: HashMap<(String, PathRule), Vec<Taken>>,
    hosts: usize,
}

impl Draft {
    /// The site says nothing of `directive`.
    pub(super) fn left_out(&mut self, directive: &Directive, why: impl Into<String>) {
        self.report.push(Remark::of(directive, Kind::LeftOut, why));
    }

    /// The site says something that is not quite the same.
    pub(super) fn changed(&mut self, directive: &Directive, how: impl Into<String>) {
        self.report.push(Remark::of(directive, Kind::Changed, how));
    }

    pub(super) fn listener(&mut self, name: String, listener: Listener, origin: &Directive) {
        if self.site.listeners.contains_key(&name) {
            return self.left_out(origin, format!("there is a listener on {} already", listener.address));
        }
        self.remember("listeners", &name, origin);
        self.site.listeners.insert(name, listener);
    }

    pub(super) fn listener_mut(&mut self, name: &str) -> Option<&mut Listener> {
        self.site.listeners.get_mut(name)
    }

    pub(super) fn listeners(&self) -> &BTreeMap<String, Listener> {
        &self.site.listeners
    }

    /// The name of the certificate of these two files.
    pub(super) fn certificate(
        &mut self,
        wish: &str,
        chain: PathBuf,
        key: PathBuf,
        origin: &Directive,
    ) -> String {
        let certificate =
            Certificate { chain_file: Some(chain), key_file: Some(key), ..Certificate::default() };
        let known = self.site.certificates.iter().find(|(_, other)| **other == certificate);
        if let Some((name, _)) = known {
            return name.clone();
        }
        let name = free_name(wish, |name| self.site.certificates.contains_key(name));
        self.remember("certificates", &name, origin);
        self.site.certificates.insert(name.clone(), certificate);
        name
    }

    /// The name of such an upstream: `wish`, or what begins so where another one has that name.
    pub(super) fn upstream(&mut self, wish: &str, upstream: Upstream, origin: &Directive) -> String {
        let names = self.wishes.entry(wish.to_owned()).or_default();
        let same = names.iter().find(|name| self.site.upstreams.get(*name) == Some(&upstream));
        if let Some(name) = same {
            return name.clone();
        }
        let name = free_name(wish, |name| self.site.upstreams.contains_key(name));
        names.push(name.clone());
        self.remember("upstreams", &name, origin);
        self.site.upstreams.insert(name.clone(), upstream);
        name
    }

    /// Adds a route for those of its hosts whose requests have none yet. Errs when there are too many.
    pub(super) fn route(&mut self, wish: &str, mut route: Route, origin: &Directive) -> Result<(), Mistake> {
        self.hosts += route.hosts.len().max(1);
        if self.site.routes.len() >= MAX_ROUTES || self.hosts > MAX_HOSTS {
            let why =
                format!("more than {MAX_ROUTES} routes, or {MAX_HOSTS} hosts in them, would come of it");
            return Err(Mistake::at(&origin.place, why));
        }
        let rule = match PathRule::of(&route) {
            Ok(rule) => rule,
            Err((_, why)) => {
                self.left_out(origin, format!("Shoal cannot match such paths: {why}"));
                return Ok(());
            }
        };
        let any = [String::new()];
        let hosts: &[String] = if route.hosts.is_empty() { &any } else { &route.hosts };
        let keys: BTreeSet<String> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let twin = |host: &String| {
            let same = self.matches.get(&(host.clone(), rule.clone()))?;
            same.iter()
                .find(|(listeners, _)| overlap(listeners, &route.listeners))
                .map(|(_, name)| name.clone())
        };
        let twins: HashMap<String, String> =
            keys.iter().filter_map(|host| Some((host.clone(), twin(host)?))).collect();
        let (taken, keys): (Vec<String>, Vec<String>) =
            keys.into_iter().partition(|host| twins.contains_key(host));
        if let Some(name) = taken.first().and_then(|host| twins.get(host)) {
            let whose = if taken[0].is_empty() { "any host".to_owned() } else { taken.join(", ") };
            self.left_out(
                origin,
                format!("route {name:?} has these paths of {whose} already: it comes first"),
            );
            if keys.is_empty() {
                return Ok(());
            }
            route.hosts.retain(|host| !twins.contains_key(&host.to_ascii_lowercase()));
        }
        let name = free_name(wish, |name| self.site.routes.contains_key(name));
        for host in keys {
            let same = self.matches.entry((host, rule.clone())).or_default();
            same.push((route.listeners.clone(), name.clone()));
        }
        self.remember("routes", &name, origin);
        self.site.routes.insert(name, route);
        Ok(())
    }

    /// The site without what nobody can use, and what was said of it, in the order of the text.
    pub(super) fn finish(mut self) -> Conversion {
        for listener in self.site.listeners.values_mut() {
            tidy(listener);
        }
        self.drop_silent_listeners();
        self.drop_invalid();
        self.drop_silent_listeners();
        self.drop_unused();
        // All listeners is what a route has that names none.
        let http: BTreeSet<&String> =
            self.site.listeners.iter().filter(|(_, l)| is_http(l)).map(|(n, _)| n).collect();
        for route in self.site.routes.values_mut() {
            if route.listeners.iter().collect::<BTreeSet<_>>() == http {
                route.listeners.clear();
            }
        }
        let mut seen = HashSet::new();
        self.report.retain(|remark| seen.insert(remark.clone()));
        self.report.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        Conversion { site: self.site, report: self.report }
    }

    /// What has been said so far.
    #[cfg(test)]
    pub(super) fn report(&self) -> &[Remark] {
        &self.report
    }

    /// Takes out what the check of a site refuses, and says so.
    fn drop_invalid(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let problems = validate(&self.site);
            if problems.is_empty() {
                return;
            }
            for problem in problems {
                let Some(object) = object_of(&problem.path) else { continue };
                if self.remove(&object)
                    && let Some(origin) = self.origins.get(&object).cloned()
                {
                    self.left_out(&origin, format!("Shoal would refuse it: {problem}"));
                }
            }
        }
        self.site = Site::default();
    }

    fn remove(&mut self, object: &str) -> bool {
        let Some((kind, name)) = object.split_once('.') else { return false };
        let name = name.trim_matches('"');
        match kind {
            "listeners" => self.site.listeners.remove(name).is_some(),
            "certificates" => self.site.certificates.remove(name).is_some(),
            "routes" => self.site.routes.remove(name).is_some(),
            _ => self.site.upstreams.remove(name).is_some(),
        }
    }

    /// A listener on which every request would be a 404 is not opened.
    fn drop_silent_listeners(&mut self) {
        let routes = &self.site.routes;
        let on_all = routes.values().any(|route| route.listeners.is_empty());
        let named: HashSet<&String> = routes.values().flat_map(|route| &route.listeners).collect();
        let is_silent =
            |name: &String, listener: &Listener| is_http(listener) && !on_all && !named.contains(name);
        let silent: Vec<String> = self
            .site
            .listeners
            .iter()
            .filter(|(name, one)| is_silent(name, one))
            .map(|(name, _)| name.clone())
            .collect();
        for name in silent {
            let listener = self.site.listeners.remove(&name);
            let origin = self.origins.get(&key("listeners", &name)).cloned();
            if let (Some(listener), Some(origin)) = (listener, origin) {
                self.left_out(
                    &origin,
                    format!("nothing that was carried over answers on {}", listener.address),
                );
            }
        }
    }

    /// Certificates and upstreams of what was taken out are of no use either.
    fn drop_unused(&mut self) {
        let Site { listeners, certificates, routes, upstreams, dns_zones: _ } = &mut self.site;
        let mut used: HashSet<&String> = routes.values().map(|route| &route.upstream).collect();
        used.extend(listeners.values().flat_map(|one| one.upstream.iter().chain(one.sni.values())));
        upstreams.retain(|name, _| used.contains(name));
        let mut used: HashSet<&String> = listeners.values().flat_map(|one| &one.certificates).collect();
        let shown = upstreams.values().filter_map(|one| one.tls.as_ref()?.client_certificate.as_ref());
        used.extend(shown);
        certificates.retain(|name, _| used.contains(name));
    }

    fn remember(&mut self, kind: &str, name: &str, origin: &Directive) {
        let origin = Directive { block: None, ..origin.clone() };
        self.origins.insert(key(kind, name), origin);
    }
}

/// Takes off what says nothing.
fn tidy(listener: &mut Listener) {
    if let Some(limits) = &mut listener.limits {
        limits.max_body_bytes = limits.max_body_bytes.filter(|size| *size != UNLIMITED);
    }
    listener.limits = listener.limits.take().filter(|limits| *limits != ListenerLimits::default());
    if listener.trusted_proxies.is_empty() {
        listener.client_ip_header = None;
    }
}

/// A listener that says nothing else.
pub(super) fn listener_at(address: String, protocol: Protocol) -> Listener {
    Listener {
        address,
        protocol,
        certificates: Vec::new(),
        min_tls: None,
        ciphers: Vec::new(),
        client_auth: None,
        trusted_proxies: Vec::new(),
        client_ip_header: None,
        proxy_protocol: None,
        upstream: None,
        sni: BTreeMap::new(),
        access_log: None,
        tracing: None,
        overload: None,
        balance_connections: None,
        header_case: None,
        limits: None,
    }
}

fn key(kind: &str, name: &str) -> String {
    format!("{kind}.{}", step(name))
}

/// The first two steps of a key path.
fn object_of(path: &str) -> Option<String> {
    let (kind, rest) = path.split_once('.')?;
    let name = match rest.strip_prefix('"') {
        Some(quoted) => format!("\"{}\"", quoted.split('"').next()?),
        None => rest.split(['.', '[']).next()?.to_owned(),
    };
    Some(format!("{kind}.{name}"))
}

fn is_http(listener: &Listener) -> bool {
    matches!(listener.protocol, Protocol::Http | Protocol::Https)
}

fn overlap(a: &[String], b: &[String]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|name| b.contains(name))
}

/// `wish` as a name, with a number where it is taken.
fn free_name(wish: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = wish.chars().map(|c| if fits(c) { c } else { '-' }).take(MAX_NAME).collect();
    let name = name.trim_matches(['-', '.']);
    let name = if name.is_empty() { "site" } else { name };
    if !is_taken(name) {
        return name.to_owned();
    }
    let numbered = (2_u32..).map(|n| format!("{name}-{n}")).find(|name| !is_taken(name));
    numbered.expect("there are more numbers than objects")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_by_the_paths_of_their_problems() {
        for (path, expected) in [
            ("routes.shop.hosts[1]", Some("routes.shop")),
            ("routes.\"a.b\".upstream", Some("routes.\"a.b\"")),
            ("listeners.web", Some("listeners.web")),
            ("routes", None),
        ] {
            assert_eq!(object_of(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn names_are_free_and_fit() {
        let check = |wish: &str, taken: &[&str], expected: &str| {
            assert_eq!(free_name(wish, |name| taken.contains(&name)), expected, "{wish}");
        };
        check("shop", &[], "shop");
        check("shop", &["shop", "shop-2"], "shop-3");
        check("a b/é", &[], "a-b");
        check("", &[], "site");
        assert!(free_name(&"x".repeat(100), |_| false).len() <= 63);
    }
}
