//! A site as a set of objects, each with a kind and a name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{Site, step};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A socket.
    Listener,
    /// A certificate with its key.
    Certificate,
    /// A rule for requests.
    Route,
    /// A group of endpoints.
    Upstream,
    /// A domain that nodes answer for.
    DnsZone,
}

impl Kind {
    /// All of them, in the order of a site file.
    pub const ALL: [Self; 5] =
        [Self::Listener, Self::Certificate, Self::Route, Self::Upstream, Self::DnsZone];

    /// As one of them is called: `route`.
    pub fn singular(self) -> &'static str {
        self.plural().trim_end_matches('s')
    }

    /// As the site file calls them: `routes`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Listener => "listeners",
            Self::Certificate => "certificates",
            Self::Route => "routes",
            Self::Upstream => "upstreams",
            Self::DnsZone => "dns_zones",
        }
    }
}

/// In the singular or in the plural.
impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| [kind.singular(), kind.plural()].contains(&text));
        known.ok_or_else(|| {
            let kinds = Self::ALL.map(Self::plural).join(", ");
            format!("{text:?} is no kind of object; kinds are {kinds}")
        })
    }
}

/// Which object of a site: `route/shop`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// What it is.
    pub kind: Kind,
    /// What it is called among those.
    pub name: String,
}

impl ObjectName {
    /// Its key path: `routes.shop`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.kind.plural(), step(&self.name))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.singular(), self.name)
    }
}

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or((text, ""));
        let kind: Kind = kind.parse()?;
        match name {
            "" => Err(format!("{text:?} names no object; an object is written {}/NAME", kind.singular())),
            name => Ok(Self { kind, name: name.to_owned() }),
        }
    }
}

impl Site {
    /// The names of all objects, by kind and name.
    pub fn objects(&self) -> impl Iterator<Item = ObjectName> {
        fn of<T>(kind: Kind, objects: &BTreeMap<String, T>) -> impl Iterator<Item = ObjectName> {
            objects.keys().map(move |name| ObjectName { kind, name: name.clone() })
        }
        let listeners = of(Kind::Listener, &self.listeners);
        let certificates = of(Kind::Certificate, &self.certificates);
        let routes = of(Kind::Route, &self.routes);
        let upstreams = of(Kind::Upstream, &self.upstreams);
        let zones = of(Kind::DnsZone, &self.dns_zones);
        listeners.chain(certificates).chain(routes).chain(upstreams).chain(zones)
    }

    /// Whether there is such an object.
    pub fn has(&self, ObjectName { kind, name }: &ObjectName) -> bool {
        match kind {
            Kind::Listener => self.listeners.contains_key(name),
            Kind::Certificate => self.certificates.contains_key(name),
            Kind::Route => self.routes.contains_key(name),
            Kind::Upstream => self.upstreams.contains_key(name),
            Kind::DnsZone => self.dns_zones.contains_key(name),
        }
    }

    /// The same site without these objects.
    pub fn without<'a>(mut self, objects: impl IntoIterator<Item = &'a ObjectName>) -> Self {
        for ObjectName { kind, name } in objects {
            match kind {
                Kind::Listener => drop(self.listeners.remove(name)),
                Kind::Certificate => drop(self.certificates.remove(name)),
                Kind::Route => drop(self.routes.remove(name)),
                Kind::Upstream => drop(self.upstreams.remove(name)),
                Kind::DnsZone => drop(self.dns_zones.remove(name)),
            }
        }
        self
    }
}

/// What makes one site of another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// The objects that are new or differ, as they become.
    pub put: Site,
    /// Those that go.
    pub removed: Vec<ObjectName>,
}

impl Delta {
    /// What makes `after` of `before`.
    pub fn between(before: &Site, after: &Site) -> Self {
        let removed = before.objects().filter(|object| !after.has(object)).collect();
        let put = Site {
            listeners: differing(&before.listeners, &after.listeners),
            certificates: differing(&before.certificates, &after.certificates),
            routes: differing(&before.routes, &after.routes),
            upstreams: differing(&before.upstreams, &after.upstreams),
            dns_zones: differing(&before.dns_zones, &after.dns_zones),
        };
        Self { put, removed }
    }

    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.removed.is_empty()
    }
}

/// Nothing goes.
impl From<Site> for Delta {
    fn from(put: Site) -> Self {
        Self { put, removed: Vec::new() }
    }
}

fn differing<T: Clone + PartialEq>(
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
) -> BTreeMap<String, T> {
    let differs = |(name, object): &(&String, &T)| before.get(*name) != Some(*object);
    after.iter().filter(differs).map(|(name, object)| (name.clone(), object.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Absent, merge, parse_site};
    use super::*;

    #[test]
    fn objects_are_written_by_kind_and_name() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let parsed = text.parse::<ObjectName>();
            let seen = parsed.as_ref().map(|object| format!("{object} at {}", object.path()));
            assert_eq!(seen.as_deref().map_err(|why| why.as_str()), expected, "{text}");
        };
        check("route/shop", Ok("route/shop at routes.shop"));
        check("upstreams/a.b", Ok("upstream/a.b at upstreams.\"a.b\""));
        check("route", Err("\"route\" names no object; an object is written route/NAME"));
        check(
            "certificates/",
            Err("\"certificates/\" names no object; an object is written certificate/NAME"),
        );
        check(
            "backend/x",
            Err(
                "\"backend\" is no kind of object; kinds are listeners, certificates, routes, upstreams, dns_zones",
            ),
        );
    }

    #[test]
    fn a_delta_makes_one_site_of_another() {
        let site = |text: &str| parse_site("site.yaml", text).unwrap();
        let before = site(
            "listeners: { a: { address: ':1', protocol: http }, b: { address: ':2', protocol: http } }\n\
             routes: { r: { upstream: u } }\nupstreams: { u: { endpoints: ['h:1'] } }\n",
        );
        let after = site(
            "listeners: { b: { address: ':2', protocol: http } }\n\
             routes: { r: { upstream: v } }\nupstreams: { u: { endpoints: ['h:1'] }, v: { endpoints: [] } }\n",
        );
        let delta = Delta::between(&before, &after);
        let put: Vec<String> = delta.put.objects().map(|object| object.to_string()).collect();
        assert_eq!(put, ["route/r", "upstream/v"]);
        assert_eq!(delta.removed, ["listener/a".parse().unwrap()]);
        assert_eq!(merge(&before.without(&delta.removed), delta.put, Absent::Keep), after);
        assert!(Delta::between(&after, &after).is_empty());
    }
}
