//! How many objects a site has, and may have.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::{Kind, Problem, ProblemKind, Site};

/// Objects of a site, of all kinds together: each weighs a hundred times what its text does while a site is read, compared and
/// compiled, which every node does.
pub const MAX_OBJECTS: usize = 100_000;

impl Site {
    /// How many objects there are, of all kinds together.
    pub fn object_count(&self) -> usize {
        let Self { listeners, certificates, routes, upstreams, dns_zones, .. } = self;
        listeners.len() + certificates.len() + routes.len() + upstreams.len() + dns_zones.len()
    }
}

/// How many objects the site has whose JSON `text` is, found out without making any of them. Where the text cannot be read on,
/// those before.
pub fn count_objects(text: &str) -> usize {
    let mut count = 0;
    let mut reader = serde_json::Deserializer::from_str(text);
    // What is wrong with it, its reader says.
    _ = Count { count: &mut count, is_kind: false }.deserialize(&mut reader);
    count
}

/// The problem of a site that has so many objects. One that is in force with as many is served all the same.
pub fn check_count(count: usize) -> Option<Problem> {
    (count > MAX_OBJECTS).then(|| {
        let why = format!("the site has more than {MAX_OBJECTS} objects (routes, upstreams and all others)");
        Problem::at("", why).of_kind(ProblemKind::Outdated)
    })
}

/// Counts the entries of the kinds of a site, or those of a kind.
struct Count<'a> {
    count: &'a mut usize,
    is_kind: bool,
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects by kind and name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { count, is_kind } = self;
        while let Some(key) = map.next_key::<String>()? {
            if !is_kind && Kind::ALL.into_iter().any(|kind| kind.plural() == key) {
                map.next_value_seed(Count { count, is_kind: true })?;
                continue;
            }
            *count += usize::from(is_kind);
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{Problems, parse_site, validate_next};
    use crate::{ConfigView, Revision};

    #[test]
    fn objects_are_counted_without_being_made() {
        let check = |text: &str, expected: usize| assert_eq!(count_objects(text), expected, "{text}");
        let site = "{listeners: {a: {address: ':1', protocol: http}}, routes: {r: {upstream: u}, s: {upstream: u}},\n\
                    certificates: {c: {chain_file: c, key_file: k}}, upstreams: {u: {endpoints: ['h:1']}},\n\
                    dns_zones: {example.com: {nameservers: {}}}}";
        let site = parse_site("site.yaml", site).unwrap();
        assert_eq!(site.object_count(), 6);
        check(&site.to_canonical_json(), 6);
        check("{}", 0);
        check("[]", 0);
        check(r#"{"others":{"a":1,"b":2},"routes":{"a":{"upstreams":{"b":1}}}}"#, 1);
        // As far as it can be read, and with what comes twice.
        check(r#"{"routes":{"a":{},"a":[],"b":"#, 3);
        check(r#"{"routes":{"a":{}},"upstreams":[1],"listeners":{"a":{}}}"#, 1);
    }

    #[test]
    fn a_site_has_so_many_and_no_more_unless_it_has_them_already() {
        let site = |objects: usize| {
            let upstreams = (0..objects).map(|n| format!(r#""u{n}":{{"endpoints":["h:1"]}}"#));
            format!(r#"{{"upstreams":{{{}}}}}"#, upstreams.collect::<Vec<_>>().join(","))
        };
        let [full, more, most] = [0, 1, 2].map(|n| Site::from_json(&site(MAX_OBJECTS + n)).unwrap());
        assert_eq!(validate_next(&full, &Site::default()), []);
        let problems = Problems(validate_next(&more, &full)).to_string();
        assert_eq!(problems, "the site has more than 100000 objects (routes, upstreams and all others)");
        assert_eq!(validate_next(&most, &more), []);
        ConfigView::compile(Revision(1), &more).unwrap();
    }
}
